"""The gateway under uvicorn, between a fake engine in its own process and a real, durable Valkey."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.people.keys import KeyRing
from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from feedback.store import Ledger, connect
from tests.conftest import free_port
from tests.serving.fleet import WORKERS, Fleet, all_listen, running
from tests.serving.live import ENGINE_KEY, FakeEngine, Live, Shelf, running_gateway

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition (plain or async) holds; fail at the deadline."""

    async def wait(condition: Callable[[], Any], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if await value if asyncio.iscoroutine(value) else value:
                return
            assert time.monotonic() < deadline, "the condition never held"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def engine_process() -> Iterator[FakeEngine]:
    process = FakeEngine()
    yield process
    if process.alive():
        process.kill()


@pytest.fixture(scope="session")
def second_process() -> Iterator[FakeEngine]:
    process = FakeEngine()
    yield process
    if process.alive():
        process.kill()


def fresh(process: FakeEngine) -> FakeEngine:
    try:
        process.set(reset=True)
    except httpx.TransportError:  # the last test killed it, or never started it
        if process.process is not None:
            process.kill()
        process.start()
        process.set(reset=True)
    return process


@pytest.fixture
def fake_engine(engine_process: FakeEngine) -> FakeEngine:
    return fresh(engine_process)


@pytest.fixture
def second_engine(second_process: FakeEngine) -> FakeEngine:
    """For the candidate of a release."""
    return fresh(second_process)


@pytest.fixture
def settings(valkey_url: str, fake_engine: FakeEngine, tmp_path: Path) -> Settings:
    """Without decoys, which come by chance."""
    there = {"redis_url": valkey_url, "engine_url": fake_engine.url, "engine_key": ENGINE_KEY}
    return Settings(home=tmp_path, gold_share=0.0, **there)  # type: ignore[arg-type]


@pytest.fixture
def shelf(settings: Settings) -> Shelf:
    shelf = Shelf(PolicyRegistry(connect(settings.resolved_redis_url()), settings.policies_dir))
    shelf.publish(0)
    return shelf


@pytest.fixture
async def start(
    settings: Settings, fake_engine: FakeEngine, shelf: Shelf, eventually: Eventually
) -> AsyncIterator[Callable[..., Awaitable[Live]]]:
    """Start the gateway before the fake engine; by default wait until it serves."""
    async with AsyncExitStack() as stack:

        async def begin(*, wait: bool = True, **changes: Any) -> Live:
            live = await stack.enter_async_context(running_gateway(settings.model_copy(update=changes)))
            live.engine = fake_engine
            if wait:
                await eventually(lambda: live.served is not None)
            return live

        yield begin


@pytest.fixture
async def live(start: Callable[..., Awaitable[Live]]) -> Live:
    return await start()


@pytest.fixture
def freeze_redis(valkey: Any) -> Iterator[Callable[[], None]]:
    """Stops Valkey without killing it: connections stay open, nothing answers."""
    frozen: list[int] = []

    def freeze() -> None:
        valkey.process.send_signal(signal.SIGSTOP)
        frozen.append(valkey.process.pid)

    yield freeze
    if frozen:
        valkey.process.send_signal(signal.SIGCONT)


@pytest.fixture
async def launch(
    settings: Settings, shelf: Any, fake_engine: Any, eventually: Any
) -> AsyncIterator[Callable[..., Awaitable[Fleet]]]:
    async with AsyncExitStack() as stack:

        async def begin(*, serves: int = 0, **changes: Any) -> Fleet:
            chosen = settings.model_copy(update={"port": free_port(), "workers": WORKERS, **changes})
            process = await stack.enter_async_context(running(chosen))
            redis = shelf.registry.redis
            key = KeyRing(redis, chosen.secrets().pepper).create(name="root", role="admin")
            fleet = Fleet(process, chosen, shelf, fake_engine, Ledger(redis), key, stack)
            await eventually(lambda: all_listen(fleet), 60)
            await fleet.connect()
            await eventually(lambda: fleet.serve(serves), 30)
            return fleet

        yield begin
