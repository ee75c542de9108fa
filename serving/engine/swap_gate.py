"""Who may pass while policies are swapped: requests towards the engine, and its chunks back."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msgspec import Struct

from serving.engine.control_tokens import ControlTokens
from serving.engine.server import EngineDown, EngineRefused, EngineUnreachable, NoSocketLeft, is_clients
from serving.http.errors import unavailable

# New requests wait this long for a swap before they are told to come back.
ADMISSION_S = 30.0
NEVER = -1e9  # by the monotonic clock, which all processes of a host share


@dataclass(frozen=True)
class Served:
    """The policy that answers; `pinned` requests stay with it even when another one is swapped in.

    `shaped_by` names the sampling fields that the engine does not leave neutral where a request says nothing of them.
    """

    version: int
    engine_model: str
    fingerprint: str
    control_tokens: ControlTokens
    pinned: bool
    parent: int | None
    created: float
    shaped_by: tuple[str, ...] = ()
    # Differs for every load: it marks the engine, and salts its cache so that prefixes computed by other weights
    # are never reused.
    label: str = field(default_factory=lambda: f"load-{time.time_ns():x}")

    @property
    def name(self) -> str:
        return f"policy-v{self.version}"


class Close(Struct, frozen=True, tag=True):
    """A swap begins: hold everything."""


class Load(Struct, frozen=True, tag=True):
    """From now on these weights write, proven or not."""

    served: Served


class Open(Struct, frozen=True, tag=True):
    """`served` is proven: let everything through."""

    served: Served


class Lose(Struct, frozen=True, tag=True):
    """The engine's weights are unknown: refuse requests until a load is proven."""

    reason: str


class Taint(Struct, frozen=True, tag=True):
    """Weights that failed their proof ran: what streams hold back must never be shown."""


Order = Close | Load | Open | Lose | Taint


class SwapGate:
    """Between requests and the engine: holds both directions while the weights are not proven.

    Open with a policy: requests pass. Closed: a swap is under way, requests and chunks wait. Lost (open, without
    a policy): requests are refused at once; chunks of running streams pass.
    """

    def __init__(self) -> None:
        self.served: Served | None = None
        self.loaded: Served | None = None
        self.reason = "no policy has been loaded yet"
        self.taints = 0
        self.in_flight: Counter[int] = Counter()
        self._open = asyncio.Event()
        self._open.set()
        self.heard_at = self.doubted_at = NEVER
        self._closed_at = time.monotonic()
        self._held_s = 0.0

    @property
    def swapping(self) -> bool:
        return not self._open.is_set()

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[Served]:
        """The policy to send a request to; counted as in flight until the context ends. Raises ApiError 503."""
        try:
            # Not wait_for: before Python 3.12 it forgets a hang-up that comes as the swap ends.
            async with asyncio.timeout(ADMISSION_S):
                await self._open.wait()
        except TimeoutError:
            raise unavailable("a policy swap takes too long", "swap_in_progress") from None
        if self.served is None:
            raise unavailable(f"not ready: {self.reason}", "engine_unavailable")
        served = self.served
        self.in_flight[served.version] += 1
        try:
            yield served
        finally:
            self.in_flight[served.version] -= 1

    async def passage(self) -> None:
        """Wait until what the engine wrote may be shown."""
        await self._open.wait()

    def writer(self, admitted: Served) -> Served:
        """Whose weights write, at this moment, the tokens of a request admitted under `admitted`."""
        return admitted if admitted.pinned or self.loaded is None else self.loaded

    @property
    def held_s(self) -> float:
        """How long requests have been held by the swap under way, else by the last one."""
        return time.monotonic() - self._closed_at if self.swapping else self._held_s

    async def command(self, order: Order) -> None:
        """Returns when no gate on this engine is behind the order."""
        self.obey(order)

    def obey(self, order: Order) -> None:
        match order:
            case Close():
                self._closed_at = self._closed_at if self.swapping else time.monotonic()
                self._open.clear()
            case Load(served):
                self.loaded = served
            case Open(served):
                self.served = self.loaded = served
                self.heard()
                self._release()
            case Lose(reason):
                self.taints += self.swapping
                self.served, self.reason = None, reason
                self._release()
            case Taint():
                self.taints += 1

    def heard(self) -> None:
        """The engine produced a token."""
        self.heard_at = time.monotonic()

    def doubt(self) -> None:
        """A request broke off: what was heard before proves nothing any more."""
        self.doubted_at = time.monotonic()

    def blame(self, error: Exception) -> None:
        """A request broke off: only an engine that is not there ends the others' answers as well."""
        match error:
            case EngineUnreachable():
                self.obey(Lose(f"the engine is down: {error}"))
            case EngineDown() if not isinstance(error, NoSocketLeft):
                self.doubt()
            case EngineRefused() if not is_clients(error):
                self.doubt()

    def heard_within(self, seconds: float) -> bool:
        return self.heard_at > self.doubted_at and time.monotonic() - self.heard_at < seconds

    def _release(self) -> None:
        self._held_s = self.held_s
        self._open.set()
