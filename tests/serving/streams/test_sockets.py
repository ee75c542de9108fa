"""A gateway that may have few files open: it says so before they run out, and never that the engine is down."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest

from feedback.people.keys import KeyRing
from serving.engine.server import EngineUnreachable, NoSocketLeft, down
from serving.http import limits, sockets
from tests.conftest import free_port
from tests.serving.fleet import running

FILES = 256  # 64 answers at once; 503 for all who come while fewer than 64 are left, 32 and they are hung up on
PLACES = 64


@contextmanager
def soft_limit(files: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def refusing(code: int) -> aiohttp.ClientConnectorError:
    key: Any = SimpleNamespace(host="127.0.0.1", port=1, ssl=True, is_ssl=False)
    return aiohttp.ClientConnectorError(key, OSError(code, os.strerror(code)))


def test_places_are_what_the_files_allow() -> None:
    for files, wanted, places in ((1024, 1024, 384), (1024, 100, 100), (256, 1024, 64), (8, 5, 2), (2, 5, 1)):
        with soft_limit(files):
            assert sockets.answers_at_once(wanted) == places, files


def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with soft_limit(512):
        assert sockets.limit() == 512
        assert sockets.raise_limit() == sockets.limit() == hard


def test_files_become_scarce_and_then_there_are_none(tmp_path: Path) -> None:
    with soft_limit(512), ExitStack() as stack:

        def fill(left: int) -> None:
            while sockets._left() > left:
                stack.enter_context((tmp_path / "file").open("w"))

        fill(128)  # of the reserve of 256
        assert (sockets.scarce(), sockets.nearly_gone()) == (False, False)
        fill(127)
        assert (sockets.scarce(), sockets.nearly_gone()) == (True, False)
        fill(63)
        assert (sockets.scarce(), sockets.nearly_gone()) == (True, True)
        fill(0)
        assert sockets._left() == 0
    assert not sockets.scarce()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
async def test_the_want_of_a_socket_says_nothing_of_the_engine(
    live: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    assert isinstance(down(refusing(code)), NoSocketLeft)
    assert isinstance(down(refusing(errno.ECONNREFUSED)), EngineUnreachable)

    async def connect(*_: Any, **__: Any) -> Any:
        raise refusing(code)

    gate, asked = live.gateway.gate, []
    monkeypatch.setattr(live.gateway.engine._session._connector, "connect", connect)
    for _ in range(3):
        refused = await live.chat(max_tokens=2)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        asked.append(await live.gateway.watcher._engine_lives())
    assert (asked, gate.served is not None, gate.doubted_at < gate.heard_at) == ([False] * 3, True, True)
    monkeypatch.undo()
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_scarcity_ends_connections_with_a_503_and_probes_get_through(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOK_AGAIN_S", 0)
    monkeypatch.setattr(sockets, "scarce", lambda: True)
    refused = await live.http.get("/v1/models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert (refused.headers["connection"], refused.headers["retry-after"]) == ("close", "1")
    assert refused.headers["x-request-id"].startswith("req_")
    for path in ("/health", "/ready", "/metrics"):
        assert (await live.http.get(path)).status_code == 200
    monkeypatch.setattr(sockets, "nearly_gone", lambda: True)
    async with httpx.AsyncClient(base_url=live.url) as stranger:
        with pytest.raises(httpx.TransportError):
            await stranger.get("/health")


@asynccontextmanager
async def narrow(settings: Any, shelf: Any, eventually: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway process that may have FILES files."""
    chosen = settings.model_copy(update={"port": free_port()})
    key = KeyRing(shelf.registry.redis, chosen.secrets().pepper).create(name="root", role="admin")
    async with running(chosen, files=FILES) as process, AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{chosen.port}",
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
                limits=httpx.Limits(max_connections=None),
                trust_env=False,
            )  # fmt: skip
        )

        async def ready() -> bool:
            try:
                return (await client.get("/ready")).is_success
            except httpx.TransportError:
                return False

        await eventually(ready, 60)
        [line] = [each for each in Path(f"/proc/{process.pid}/limits").read_text().splitlines() if "open files" in each]
        assert line.split()[3:5] == [str(FILES)] * 2
        yield client


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, **more}


async def answered(client: httpx.AsyncClient, status: int) -> bool:
    try:
        answer = await client.post("/v1/chat/completions", json=chat())
    except httpx.TransportError:
        return False
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == status


async def refused(client: httpx.AsyncClient) -> bool:
    """In whatever way."""
    return not await answered(client, 200)


async def test_more_answers_than_files_are_refused_and_nobody_calls_the_engine_dead(
    settings: Any, shelf: Any, fake_engine: Any, eventually: Any
) -> None:
    async with narrow(settings, shelf, eventually) as client:
        fake_engine.set(hold_at=1)
        asked = [asyncio.create_task(client.post("/v1/chat/completions", json=chat())) for _ in range(300)]
        await eventually(lambda: sum(one.done() for one in asked) >= 300 - PLACES, 60)
        fake_engine.set(hold_at=None)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        answers = [one for one in ended if isinstance(one, httpx.Response)]
        assert {one.status_code for one in answers} == {200, 503}
        for one in answers:
            if one.status_code == 503:
                assert (one.json()["error"]["code"], one.headers["retry-after"]) == ("queue_full", "1")
        assert sum(one.status_code == 200 for one in answers) <= PLACES
        assert {type(one) for one in ended} - {httpx.Response} <= {httpx.ReadError, httpx.RemoteProtocolError}
        assert (await client.get("/ready")).status_code == 200
        await eventually(lambda: answered(client, 200), 30)


async def test_silent_connections_do_not_take_the_last_files(
    settings: Any, shelf: Any, fake_engine: Any, eventually: Any
) -> None:
    async with narrow(settings, shelf, eventually) as client:
        silent = [socket.create_connection((client.base_url.host, client.base_url.port)) for _ in range(FILES + 50)]
        await eventually(lambda: refused(client), 30)  # once it has taken them all from the kernel's queue
        for each in silent:
            each.close()
        await eventually(lambda: answered(client, 200), 30)
