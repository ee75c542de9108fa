"""Which version an engine is to hold, and what becomes of one that it cannot be shown to hold."""

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PolicyRegistry
from feedback.records import Arm
from feedback.releases.book import ReleaseBook
from feedback.releases.pool import NO_ENGINE, EnginePool, Wish
from serving.engine.hotswap import SwapFailed
from serving.engine.swap_gate import SwapGate

# What the candidate's engine still writes when its release has ended may take so long.
LINGER_S = 60.0
# And for so long another release may begin, for which it need not be started anew.
WARM_S = 60.0
NO_RELEASE = "no release is under way"


class Target(Protocol):
    """What a watcher aims at. `absence` is why there is nothing, where there is nothing.

    `keeps_former`: until the version is proven the one before goes on, and comes back if it cannot be.
    """

    arm: Arm
    keeps_former: bool

    @property
    def absence(self) -> str: ...

    async def look(self) -> int | None:
        """The version to hold; raises RedisError."""

    async def refuse(self, version: int, failure: BrokenPolicy | SwapFailed, *, proven: bool) -> int | None:
        """The engine could not be shown to hold it, though once it was if `proven`. What to hold now: the same again,
        later, if nothing else. Raises RedisError, PointerMoved."""


@dataclass
class StableTarget:
    """The registry's pointer. What fails here is rejected there: the version before serves again."""

    registry: PolicyRegistry
    arm: Arm = "stable"
    keeps_former: bool = True
    absence: str = "no policy has been published yet"
    _last: int | None = field(default=None, init=False)

    async def look(self) -> int | None:
        """A pointer once seen is never taken for gone: what serves goes on."""
        found = await asyncio.to_thread(self.registry.stable)
        self._last = self._last if found is None else found
        return self._last

    async def refuse(self, version: int, failure: BrokenPolicy | SwapFailed, *, proven: bool) -> int | None:
        """Reject a version that never was proven; a proven one is only left alone for a while. A broken one is lost.

        Otherwise a faulty engine would reject, one after another, all the policies there are.
        """
        lost = isinstance(failure, BrokenPolicy)
        if proven and not lost:
            return version
        reject = partial(self.registry.reject, version, actor="engine", reason=str(failure), lost=lost)
        return await asyncio.to_thread(reject)


@dataclass
class CandidateTarget:
    """The open release's candidate, and the wish for an engine to hold it. What fails here ends in the pool: whoever
    drives the release finds it there, and until another release begins there is nothing to aim at."""

    book: ReleaseBook
    pool: EnginePool
    gate: SwapGate
    arm: Arm = "candidate"
    keeps_former: bool = False
    absence: str = field(default=NO_RELEASE, init=False)
    _aim: Wish | None = field(default=None, init=False)
    _wished: Wish | Literal["unknown"] | None = field(default="unknown", init=False)
    _refused: Wish | None = field(default=None, init=False)
    _ended: float = field(default=0.0, init=False)

    async def look(self) -> int | None:
        release = await asyncio.to_thread(self.book.open)
        aim = None if release is None else Wish(release.candidate, release.id)
        if self._aim is not None and aim is None:
            self._ended = time.monotonic()
        if aim is None:
            self.absence = NO_RELEASE
        elif self.pool.hosting == "none":
            self.absence = NO_ENGINE
        self._aim = aim
        await self._wish()
        return None if aim is None or aim == self._refused or self.pool.hosting == "none" else aim.version

    async def refuse(self, version: int, failure: BrokenPolicy | SwapFailed, *, proven: bool) -> int | None:
        if self._aim is None:
            return None
        broken = isinstance(failure, BrokenPolicy)
        await asyncio.to_thread(self.pool.report, self._aim, str(failure), broken=broken, proven=proven)
        self._refused, self.absence = self._aim, f"policy-v{version} failed its proof: {failure}"
        if isinstance(failure, SwapFailed) and failure.spoilt:
            await asyncio.to_thread(self.pool.dismiss)
        return None

    async def _wish(self) -> None:
        """Of an engine that is not wanted any more, what runs may end first: but not before no request can come in."""
        if self._aim is None and (self.gate.served is not None or self._lingers or self._warm):
            return
        if self._wished != self._aim:
            await asyncio.to_thread(self.pool.want, self._aim)
            self._wished = self._aim

    @property
    def _warm(self) -> bool:
        return isinstance(self._wished, Wish) and time.monotonic() - self._ended < WARM_S

    @property
    def _lingers(self) -> bool:
        return any(self.gate.in_flight.values()) and time.monotonic() - self._ended < LINGER_S
