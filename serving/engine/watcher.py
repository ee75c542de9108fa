"""Keeps an engine at the policy that it is to hold, and says so only when it is proven."""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PointerMoved, PolicyRegistry
from serving.engine.hotswap import Loaded, PolicyLoader, SwapFailed
from serving.engine.server import Engine, EngineDown, EngineRefused, NoSocketLeft
from serving.engine.swap_gate import NEVER, Lose, Open, SwapGate
from serving.engine.swap_reports import SwapReports
from serving.engine.targets import Target
from serving.engine.verified import Policy, read_policy
from serving.metrics import Metrics

log = logging.getLogger("serving.hotswap")

PROVEN = "engine:proven"

HEALTH_S = 5.0
# An engine that holds what it is to hold is asked about it this often, since its core could write tokens meanwhile. So
# long may weights go unnoticed that somebody else has loaded, and its end while nobody chats.
ASK_EVERY_S = 1.0
# An idle engine is asked for a token this often; one that streams proves itself.
PROBE_EVERY_S = 10.0
RETRY_S = 2.0
# A version that failed without being rejected is left alone this long, so as not to pause the engine all the time.
AVOID_S = 60.0
MAX_CRASHES = 3


class Unreadable(RuntimeError):
    """The disk cannot be read now: nobody can tell whether the version is whole."""


@dataclass
class PolicyWatcher:
    """Polls its target and the engine. One per engine, or adapter in it: two would pull it in two directions."""

    engine: Engine
    registry: PolicyRegistry
    target: Target
    gate: SwapGate
    loader: PolicyLoader
    metrics: Metrics
    poll_s: float = 0.2
    ask_s: float = ASK_EVERY_S
    retry_s: float = RETRY_S
    reports: SwapReports = field(init=False)
    _aim: int | None = field(default=None, init=False)
    _answered: bool = field(default=False, init=False)  # the engine, since there is something for it to hold
    _sure_at: float = field(default=NEVER, init=False)  # when the engine last said that all is as it should be
    _last_served: int | None = field(default=None, init=False)
    _proven: set[int] = field(default_factory=set, init=False)
    _shared: set[int] = field(default_factory=set, init=False)  # of those, what Redis has been told
    _crashes: Counter[int] = field(default_factory=Counter, init=False)
    _not_before: dict[int, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.reports = SwapReports(self.target.arm, self.gate, self.registry.redis, self.metrics)

    async def run(self) -> None:
        """Never returns: after a fault that nobody foresaw nothing is served until a later look goes well."""
        while True:
            try:
                await self.tick()
            except Exception as error:
                log.exception("the policy watcher stumbled")
                await self.gate.command(Lose(f"the policy watcher stumbled; see the log: {error!r}"))
                await asyncio.sleep(self.retry_s)
            await asyncio.sleep(self.poll_s)

    async def tick(self) -> None:
        """Look once; swap if needed."""
        await self._look()
        if self._aim is None:
            await self._rest()
        elif self._is_sure or await self._engine_lives():
            await self._approach(self._aim)

    async def _look(self) -> None:
        """Without Redis the last known answers stand."""
        try:
            before, self._aim = self._aim, await self.target.look()
            if self._aim != before or self._proven != self._shared:
                await asyncio.to_thread(self._share_proven)
        except RedisError as error:
            self._shared = set()  # it may come back without what it knew
            log.debug("Redis unreachable: %s", error)

    def _share_proven(self) -> None:
        """Also what could not be told when it was proven; and what another arm has proven."""
        known = {int(version) for version in self.registry.redis.smembers(PROVEN)}
        if untold := self._proven - known:
            self.registry.redis.sadd(PROVEN, *untold)
        self._proven |= known
        self._shared = set(self._proven)

    async def _rest(self) -> None:
        """There is nothing to hold."""
        self._answered = False
        if self.gate.served is not None or self.gate.reason != self.target.absence:
            await self._lose(self.target.absence, expected=self.target.arm == "candidate")
        await self._settle()

    async def _approach(self, aim: int) -> None:
        served = self.gate.served
        if served is not None and served.version == aim:
            await self._settle()
            return
        if served is not None and not self.target.keeps_former:
            await self._lose(f"policy-v{aim} is being loaded", expected=True)
        if time.monotonic() >= self._not_before.get(aim, 0.0):
            await self._swap(aim)

    @property
    def _is_sure(self) -> bool:
        """A moment ago the engine held what it is to hold, and no request broke off since."""
        served, since = self.gate.served, time.monotonic() - self._sure_at
        return (
            served is not None
            and served.version == self._aim
            and self.gate.doubted_at < self._sure_at
            and since < self.ask_s
        )

    async def _engine_lives(self) -> bool:
        """False also while nobody can tell."""
        try:
            return await self._engine_answers()
        except NoSocketLeft as error:
            log.warning("the engine cannot be asked how it is: %s", error)
            return False

    @property
    def _starts(self) -> bool:
        """A candidate's engine that has not answered since it was wanted, as one does while it loads."""
        return self.target.arm == "candidate" and not self._answered

    async def _engine_answers(self) -> bool:
        """Raises NoSocketLeft."""
        asked_at = time.monotonic()
        try:
            await self.engine.health(HEALTH_S)
            self._answered = True
            served = self.gate.served
            holds = served is None or await self.loader.holds(served, HEALTH_S)
        except NoSocketLeft:
            raise
        except (EngineDown, EngineRefused) as error:
            if not self.gate.heard_within(2.0):
                await self._lose(f"the engine is {'not up yet' if self._starts else 'down'}: {error}")
            return False
        if self.gate.served is None:
            return True
        if not holds:
            await self._lose("the engine was restarted, or somebody else loaded weights into it")
            return True
        self._sure_at = asked_at
        if self.gate.heard_within(PROBE_EVERY_S):
            return True
        if await self.engine.generates(PROBE_EVERY_S) or self.gate.heard_within(PROBE_EVERY_S):
            self.gate.heard()
            return True
        await self._lose("the engine does not generate")
        return False

    async def _swap(self, version: int, *, restoring: bool = False) -> None:
        """Bring `version` into the engine; on failure return to the one before, once."""
        try:
            loaded = await self.loader.load(await self._read(version))
        except (BrokenPolicy, SwapFailed) as failure:
            await self.reports.failed(version, failure, before=self._last_served)
            await self._give_up(version, failure, restoring=restoring)
        except (EngineDown, EngineRefused) as error:
            await self._engine_failed(version, error)
        except Unreadable as error:
            await self._put_off(version, error)
        else:
            await self._succeed(loaded, restoring=restoring)

    async def _succeed(self, loaded: Loaded, *, restoring: bool) -> None:
        version = loaded.served.version
        before, self._last_served = self._last_served, version
        await self.gate.command(Open(loaded.served))
        self._crashes.pop(version, None)
        self._not_before.pop(version, None)
        self._proven.add(version)
        await self.reports.succeeded(loaded, before=before, restoring=restoring)
        try:
            await asyncio.to_thread(self._share_proven)
        except RedisError as error:
            log.warning("that policy-v%d is proven is told later: %s", version, error)

    async def _give_up(self, version: int, failure: BrokenPolicy | SwapFailed, *, restoring: bool) -> None:
        """Return to what the target says, or to the version before."""
        self._not_before[version] = time.monotonic() + AVOID_S
        await self._refuse(version, failure)
        if not self.gate.swapping and self.gate.served is not None:
            return  # the old policy never stopped serving
        fallback = self._aim
        if fallback == version and self.target.keeps_former:
            fallback = self._last_served
        if fallback is None or fallback == version or restoring:
            self._not_before[version] = time.monotonic() + self.retry_s
            await self._lose(f"policy-v{version} failed its proof: {failure}")
        else:
            await self._swap(fallback, restoring=True)

    async def _refuse(self, version: int, failure: BrokenPolicy | SwapFailed) -> None:
        """Without Redis this waits for the next attempt."""
        try:
            await asyncio.to_thread(self._share_proven)
            self._aim = await self.target.refuse(version, failure, proven=version in self._proven)
        except (RedisError, PointerMoved) as error:
            log.warning("policy-v%d could not be given up yet: %s", version, error)

    async def _engine_failed(self, version: int, error: Exception) -> None:
        """The engine broke off during a load: its fault, unless the same new version does it again and again."""
        await self._lose(f"the engine failed while loading policy-v{version}: {error}")
        self._not_before[version] = time.monotonic() + self.retry_s
        self._crashes[version] += not isinstance(error, NoSocketLeft)
        if self._crashes[version] >= MAX_CRASHES:
            del self._crashes[version]
            failure = SwapFailed(f"took the engine down {MAX_CRASHES} times; last: {error}")
            await self.reports.failed(version, failure, before=self._last_served)
            await self._refuse(version, failure)

    async def _read(self, version: int) -> Policy:
        """Raises BrokenPolicy or Unreadable."""
        try:
            return await asyncio.to_thread(read_policy, self.registry, version)
        except OSError as error:
            raise Unreadable(f"policy-v{version} cannot be read: {error}") from error

    async def _put_off(self, version: int, error: Unreadable) -> None:
        """What serves goes on; the version is tried again."""
        log.warning("%s", error)
        self._not_before[version] = time.monotonic() + self.retry_s
        if self.gate.served is None:
            await self._lose(str(error))

    async def _settle(self) -> None:
        try:
            await self.loader.settle()
        except (EngineDown, EngineRefused, RedisError) as error:
            log.warning("an old policy could not be unloaded: %s", error)

    async def _lose(self, reason: str, *, expected: bool = False) -> None:
        """An engine that has held no candidate yet is `expected` to be starting."""
        expected = expected or (self.target.arm == "candidate" and self.gate.served is None)
        if reason != self.gate.reason:
            log.log(logging.INFO if expected else logging.WARNING, "%s arm: %s", self.target.arm, reason)
        await self.gate.command(Lose(reason))
