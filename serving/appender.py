"""Judgements on their way into the ledger: those that come together share one round trip and one fsync."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue

from feedback.judgements import Feedback
from feedback.store import Appended, Ledger

MAX_BATCH = 256
# Of the event loop: they bring here who has arrived there, and whom the last batch has just answered. More bring nobody
# more, and an idle loop takes no time for them.
TURNS = 4

Waiting = tuple[Feedback, str | None, "asyncio.Future[Appended]"]


class Appender:
    """One writer, a thread of its own; while it waits for the disk the next batch gathers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[Waiting] = []
        self._writing = False
        self._batches: SimpleQueue[list[Waiting] | None] = SimpleQueue()
        self._writer: threading.Thread | None = None

    async def append(self, feedback: Feedback, client_id: str | None) -> Appended:
        """As `Ledger.append_feedback`, fsynced when it returns. One that is cancelled in the queue is not written."""
        if self._writer is None:
            writer = threading.Thread(target=self._write, name="appender", daemon=True)
            writer.start()
            self._writer = writer
        outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((feedback, client_id, outcome))
        if not self._writing:
            self._writing = True
            self._gather(TURNS)
        return await outcome

    def close(self) -> None:
        """The writer ends once it has written what it was given."""
        self._batches.put(None)

    def _gather(self, turns: int) -> None:
        """Let those come along whose requests are here already; a batch costs as much as several judgements in it."""
        if turns:
            asyncio.get_running_loop().call_soon(self._gather, turns - 1)
            return
        batch = [one for one in self._waiting[:MAX_BATCH] if not one[2].done()]
        del self._waiting[:MAX_BATCH]
        self._writing = bool(batch or self._waiting)
        if batch:
            self._batches.put(batch)
        elif self._waiting:
            self._gather(TURNS)

    def _write(self) -> None:
        while batch := self._batches.get():
            outcomes: Sequence[Appended | Exception]
            try:
                outcomes = self._ledger.append_all([(feedback, client) for feedback, client, _ in batch])
            except Exception as error:  # it is for those who wait to say what it means
                outcomes = [error] * len(batch)
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                batch[0][2].get_loop().call_soon_threadsafe(self._tell, batch, outcomes)

    def _tell(self, batch: list[Waiting], outcomes: Sequence[Appended | Exception]) -> None:
        for (_, _, waiting), outcome in zip(batch, outcomes, strict=True):
            if waiting.done():  # its client has given up
                continue
            waiting.set_exception(outcome) if isinstance(outcome, Exception) else waiting.set_result(outcome)
        self._gather(TURNS)
