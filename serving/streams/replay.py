"""Streams that outlive their connection: a client that comes back goes on after the last event it saw."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import anyio

from serving.ledger.recorder import Ticket

# Nobody listens: after this long the answer is stopped. It has ended: after this long it is forgotten, or when those
# that ended later take up all the room there is.
ORPHAN_S = 60.0
FORGET_S = 300.0
MAX_BYTES = 64 * 2**20


class Replay:
    """One stream, pumped into memory as fast as it is written; `stop` ends it early, `closed` its engine's work."""

    def __init__(
        self, batches: AsyncIterator[list[bytes]], stop: Callable[[], None], closed: Callable[[], Awaitable[None]]
    ) -> None:
        self._log: list[bytes] = []
        self._news = asyncio.Event()
        self._stop, self._closed = stop, closed
        self._listeners = 0
        self.size = 0
        self.ended = False
        self._orphaned: asyncio.TimerHandle | None = None
        self.pump = asyncio.create_task(self._run(batches))

    def follow(self, seen: int) -> AsyncIterator[list[bytes]]:
        """Events after number `seen`, each with its number as id; ends with the stream.

        Whoever calls this is a listener, and must say when they have `left`.
        """
        self._listeners += 1
        if self._orphaned is not None:
            self._orphaned.cancel()
        return self._after(seen)

    async def left(self) -> None:
        """A listener is gone. The last one starts the clock."""
        self._listeners -= 1
        if not self._listeners and not self.ended:
            self._orphaned = asyncio.get_running_loop().call_later(ORPHAN_S, self._stop)

    async def close(self) -> None:
        self.pump.cancel()
        with suppress(asyncio.CancelledError):
            await self.pump

    async def _after(self, seen: int) -> AsyncIterator[list[bytes]]:
        while True:
            news, ended = self._news, self.ended
            if fresh := self._log[seen:]:
                yield fresh
                seen += len(fresh)
            elif ended:
                return
            else:
                await news.wait()
                if seen >= len(self._log) and not self.ended:
                    yield []  # a sign of life

    async def _run(self, batches: AsyncIterator[list[bytes]]) -> None:
        try:
            async for batch in batches:
                first = len(self._log) + 1
                self._log += [b"id: %d\n%b" % (first + index, event) for index, event in enumerate(batch)]
                self.size += sum(map(len, self._log[first - 1 :]))
                self._tell()
        finally:
            self.ended = True
            self._tell()
            with anyio.CancelScope(shield=True):
                await self._closed()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Replays:
    """Streams by the id of their response, for as long as somebody may come back."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Ticket, Replay]] = {}

    def add(self, ticket: Ticket, replay: Replay) -> Replay:
        self._kept[ticket.response_id] = (ticket, replay)
        replay.pump.add_done_callback(lambda _: self._ended(ticket.response_id))
        return replay

    def _ended(self, response_id: str) -> None:
        asyncio.get_running_loop().call_later(FORGET_S, self._kept.pop, response_id, None)
        ended = {id: replay.size for id, (_, replay) in self._kept.items() if replay.ended}
        kept = sum(ended.values())
        for id, size in ended.items():  # the oldest first
            if kept <= MAX_BYTES:
                return
            del self._kept[id]
            kept -= size

    def find(self, response_id: str, raters: set[str]) -> Replay | None:
        """Somebody's own stream."""
        ticket, replay = self._kept.get(response_id, (None, None))
        return replay if ticket is not None and ticket.rater in raters else None

    async def close(self) -> None:
        for _, replay in [*self._kept.values()]:
            await replay.close()
