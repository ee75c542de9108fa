"""A gateway that dies after any step of a swap that others can see: the next one brings all to where it belongs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.plan import plan_of
from feedback.releases.pool import EnginePool
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.engine.server import Engine, EngineDown
from serving.engine.watcher import PROVEN
from serving.metrics import Metrics
from serving.release.arm_watchers import arm_watchers
from serving.release.arms import Arm, Arms
from serving.release.controller import Controller
from tests.serving.live import ENGINE_KEY, FakeEngine, Shelf

LOOKS = 30
GOOD: dict[str, Any] = {}
WRONG: dict[str, Any] = {"weights": {}, "engine_scores": [[-3.0, -3.0, -3.0], [-3.0, -3.0]]}
DAMAGED: dict[str, Any] = {"damaged": True}


class Killed(BaseException):
    """Not even the watcher's last resort catches it."""


@dataclass
class Life:
    """Ends after the step `at`, counted from 1; with `goes_on` it is only that nobody hears of what the step did."""

    at: int = 0
    goes_on: bool = False
    steps: list[str] = field(default_factory=list)
    dead: bool = False

    def check(self) -> None:
        if self.dead:
            raise Killed

    def taken(self, step: str, loss: Callable[[str], Exception]) -> None:
        self.steps.append(step)
        if len(self.steps) == self.at:
            self.dead = not self.goes_on
            raise loss(f"nothing came back of {step}") if self.goes_on else Killed(step)


class MortalRedis(Redis):
    """Each write is a step."""

    WRITES: ClassVar = {"EVALSHA", "SET", "SADD", "HSET", "DEL", "INCR"}
    life: Life

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.life.check()
        reply = super().execute_command(*args, **options)
        if args[0] in self.WRITES:
            self.life.taken(args[0], RedisConnectionError)
        return reply

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe = super().pipeline(*args, **options)
        execute = pipe.execute

        def step(*args: Any, **options: Any) -> Any:
            self.life.check()
            reply = execute(*args, **options)
            self.life.taken("EXEC", RedisConnectionError)
            return reply

        pipe.execute = step  # type: ignore[method-assign]
        return pipe


class MortalEngine(Engine):
    """Each call that is not a look is a step."""

    life: Life

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        self.life.check()
        reply = await super()._request(method, path, **options)
        if method == "POST":
            self.life.taken(path, EngineDown)
        return reply


@dataclass
class Process:
    """What leads a gateway: both watchers and the controller, with all that they remember."""

    settings: Settings
    life: Life

    def __post_init__(self) -> None:
        redis = MortalRedis.from_url(str(self.settings.redis_url), decode_responses=True, socket_timeout=10)
        redis.life = self.life
        registry = PolicyRegistry(redis, self.settings.policies_dir)
        first, second = (
            self._engine(url) for url in (self.settings.resolved_engine_url(), self.settings.resolved_candidate_url())
        )
        candidate = first if self.settings.engine_mode == "adapter" else second
        self.engines, self.arms = (first, second), Arms(Arm("stable", first), Arm("candidate", candidate))
        self.watchers = arm_watchers(self.settings, self.arms, registry, Metrics())
        for watcher in self.watchers:
            watcher.retry_s = 0.0
        self.controller = Controller.of(self.settings, Ledger(redis), registry, self.arms.candidate.gate, Metrics())
        self.controller.judge_every_s = 0.0

    def _engine(self, url: str) -> MortalEngine:
        engine = MortalEngine(url, ENGINE_KEY)
        engine.life = self.life
        return engine

    def serves(self, arm: Arm) -> int | None:
        served = arm.gate.served
        return served.version if served is not None and not arm.gate.swapping else None

    async def look(self) -> None:
        for watcher in self.watchers:
            await watcher.tick()
        with suppress(RedisConnectionError):  # as Controller.run does
            await asyncio.to_thread(self.controller.tick)


@dataclass
class Installation:
    """Policies on disk, a Redis and two engines that outlive every process."""

    settings: Settings
    engines: tuple[FakeEngine, FakeEngine]
    registry: PolicyRegistry
    versions: int

    @property
    def book(self) -> ReleaseBook:
        return ReleaseBook(self.registry)

    @property
    def pool(self) -> EnginePool:
        return EnginePool(self.registry.redis, "elsewhere")

    def begin_anew(self) -> None:
        """Policy-v0 serves; the others are candidates."""
        self.registry.redis.flushall()
        for engine in self.engines:
            engine.set(reset=True, reload_s=0.0, started_with=str(self.registry.directory(0) / "model"))
        for version in range(self.versions):
            self.registry.publish(version, actor="test", reason="made")
        self.registry.point_stable(0, expected=None, actor="test", reason="first")

    @asynccontextmanager
    async def process(self, life: Life) -> AsyncIterator[Process]:
        process = Process(self.settings, life)
        try:
            yield process
        finally:
            for engine in process.engines:
                await engine.close()

    def at_rest(self, process: Process) -> bool:
        """Nothing is left to be done."""
        stable = process.serves(process.arms.stable) == self.registry.stable()
        over = self.book.open() is None and self.pool.wish() is None
        return stable and over and process.serves(process.arms.candidate) is None

    async def settle(self, process: Process) -> None:
        for _ in range(LOOKS):
            await process.look()
            if self.at_rest(process):
                break
        else:
            pytest.fail(f"it does not come to rest: {process.arms.stable.gate.reason}, {self.registry.states()}")
        await process.look()  # what is left to be cleared away
        assert self.at_rest(process)

    def is_in_order(self, process: Process) -> None:
        """One stable version; its engine holds it under the gate's label, and nobody's engine stands still."""
        stable, states = self.registry.stable(), self.registry.states()
        assert [version for version, state in states.items() if state in ("stable", "canary")] == [stable]
        served, (engine, second) = process.arms.stable.gate.served, [each.state() for each in self.engines]
        assert served is not None and served.label == engine["label"]
        assert not engine["paused"] and not second["paused"]
        assert str(stable) in self.registry.redis.smembers(PROVEN)
        if self.settings.engine_mode == "adapter":
            assert engine["adapters"] == ([f"policy-v{stable}"] if stable else [])
        else:
            assert engine["weights"]["word"] == f"w{stable}-"


Install = Callable[..., Installation]


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not needed is not kept."""
    monkeypatch.setattr("serving.engine.targets.WARM_S", 0.0)


@pytest.fixture
def install(valkey_url: str, tmp_path: Path, fake_engine: FakeEngine, second_engine: FakeEngine) -> Install:
    def make(mode: str, *faults: dict[str, Any]) -> Installation:
        """One policy after v0 for each fault; {} is none."""
        settings = Settings(
            home=tmp_path, redis_url=valkey_url, engine_url=fake_engine.url, engine_key=ENGINE_KEY, engine_mode=mode,
            candidate_url=second_engine.url if mode == "merged" else None,
        )  # type: ignore[arg-type]  # fmt: skip
        shelf = Shelf(PolicyRegistry(connect(valkey_url), settings.policies_dir))
        for version, fault in enumerate(({}, *faults)):
            damaged = fault.get("damaged")
            shelf.publish(version, move=0.4 * version, **{k: v for k, v in fault.items() if k != "damaged"})
            if damaged:
                (shelf.registry.directory(version) / "model" / "weights.json").write_text("{}")
        return Installation(settings, (fake_engine, second_engine), shelf.registry, 1 + len(faults))

    return make


def swap(installation: Installation) -> None:
    installation.registry.point_stable(1, expected=0, actor="ann", reason="try")


def back(installation: Installation) -> None:
    """To one that was made and never served."""
    installation.registry.rollback(to=1, actor="ann", reason="it was kept")


def release(installation: Installation) -> None:
    """One step, and promoted by itself."""
    plan = plan_of({"steps": [{"set_weight": 10}]})
    installation.book.start(1, plan, mode="automatic", whose="all", since="0", actor="ann", reason="try", seen=None)


@pytest.mark.parametrize(
    ("begin", "fault", "ends", "audit"),
    [
        pytest.param(swap, GOOD, ("retired", "stable"), ["promote"], id="swap"),
        pytest.param(swap, WRONG, ("stable", "rejected"), ["promote", "reject"], id="swap to a wrong one"),
        pytest.param(swap, DAMAGED, ("stable", "broken"), ["promote", "lose"], id="swap to a damaged one"),
        pytest.param(back, WRONG, ("stable", "rejected"), ["rollback", "reject"], id="rollback to a wrong one"),
        pytest.param(release, GOOD, ("retired", "stable"), ["canary", "promote"], id="release"),
        pytest.param(release, WRONG, ("stable", "rejected"), ["canary", "rolled_back"], id="release of a wrong one"),
        pytest.param(release, DAMAGED, ("stable", "broken"), ["canary", "rolled_back"], id="release of a damaged one"),
    ],
)
@pytest.mark.parametrize(
    ("mode", "goes_on"),
    [
        pytest.param("merged", False, id="killed"),
        pytest.param("adapter", False, id="killed beside adapters"),
        pytest.param("merged", True, id="cut off"),
    ],
)
async def test_whatever_step_was_the_last_it_ends_the_same(
    install: Install, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Installation], None], fault: dict[str, Any],
    ends: tuple[str, str], audit: list[str], mode: str, goes_on: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("serving.engine.watcher.AVOID_S", 0.0)
    installation = install(mode, fault)
    reached, at = True, 0
    while reached:
        at += 1
        installation.begin_anew()
        life = Life()
        async with installation.process(life) as process, installation.process(Life()) as heir:
            await installation.settle(process)
            begin(installation)
            life.steps, life.at, life.goes_on = [], at, goes_on
            try:
                await installation.settle(process)
            except Killed:
                await installation.settle(heir)
                process = heir
            installation.is_in_order(process)
        reached = len(life.steps) >= at
        assert tuple(installation.registry.states().values()) == ends, life.steps
        told = [line.action for line in installation.registry.audit() if line.actor != "test"]
        assert told == audit, life.steps
    assert at > 2, "no step was reached"
