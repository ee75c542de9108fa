"""The engine's chunks as they come, each with the policy that wrote it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from itertools import takewhile
from typing import NamedTuple

from serving.engine.server import Body, EngineRefused
from serving.engine.swap_gate import Served, SwapGate


class Source(NamedTuple):
    """One request under way in an engine, the policy that it was admitted under, and the gate that let it in."""

    batches: AsyncIterator[list[Body]]
    admitted: Served
    gate: SwapGate


class Chunk(NamedTuple):
    body: Body
    writer: Served


class End(Enum):
    """How arrivals end, unless an exception ended them."""

    FINISHED = "all sources are at their end"
    STOPPED = "somebody asked to stop"


Arrival = Chunk | Exception | End


class Arrivals:
    """Reads all sources at once into one list, which is taken as a whole.

    They are read even while the gate holds them back: only so does a chunk written just before a swap carry the old
    version. What waits here is bounded by the tokens that the request may have.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._waiting: list[Arrival] = []
        self._taker: asyncio.Future[None] | None = None
        self._patient_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self.gates = tuple(dict.fromkeys(source.gate for source in sources))
        self._unfinished = len(sources)
        self._readers = [asyncio.create_task(self._read(source)) for source in sources]

    async def take(self, seconds: float) -> list[Arrival]:
        """All that came since the last call; waits for the first, but not longer than so many seconds, the same in all
        calls."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            self._taker = loop.create_future()
            self._patient_until = loop.time() + seconds
            self._alarm = self._alarm or loop.call_at(self._patient_until, self._ring)
            await self._taker
        taken, self._waiting = self._waiting, []
        return taken

    def stop(self) -> None:
        """End here, after what has come already."""
        self._add([End.STOPPED])

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, source: Source) -> None:
        gate = source.gate
        try:
            async for batch in source.batches:
                gate.heard()
                writer = gate.writer(source.admitted)
                sound = [*takewhile(lambda body: "error" not in body, batch)]
                self._add([Chunk(body, writer) for body in sound])
                if len(sound) < len(batch):
                    failed = batch[len(sound)]
                    raise EngineRefused(status_in(failed), failed)
        except Exception as error:  # whatever it is: somebody waits for the next arrival
            gate.blame(error)
            self._add([error])
            return
        self._unfinished -= 1
        if not self._unfinished:
            self._add([End.FINISHED])

    def _add(self, arrivals: Sequence[Arrival]) -> None:
        self._waiting += arrivals
        self._wake()

    def _ring(self) -> None:
        """One alarm for all tokens, set again for what is left of the patience: a timer for each costs more than it."""
        loop, self._alarm = asyncio.get_running_loop(), None
        if self._taker is None or self._taker.done():
            return
        if loop.time() < self._patient_until:
            self._alarm = loop.call_at(self._patient_until, self._ring)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)


def status_in(chunk: Body) -> int:
    """The HTTP status that an error in the middle of a stream would have had at its beginning."""
    code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500
