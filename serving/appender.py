"""Judgements on their way into the ledger: those that come together share one round trip and one fsync."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from feedback.judgements import Feedback
from feedback.store import Appended, Ledger

MAX_BATCH = 256

Waiting = tuple[Feedback, str | None, "asyncio.Future[Appended]"]


class Appender:
    """One writer, a thread of its own; while it waits for the disk the next batch gathers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: SimpleQueue[Waiting | None] = SimpleQueue()
        self._writer: threading.Thread | None = None

    async def append(self, feedback: Feedback, client_id: str | None) -> Appended:
        """As `Ledger.append_feedback`, fsynced when it returns. One that is cancelled in the queue is not written."""
        outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.put((feedback, client_id, outcome))
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="appender", daemon=True)
            self._writer.start()
        return await outcome

    def close(self) -> None:
        """The writer ends once it has written all that waits."""
        self._waiting.put(None)

    def _write(self) -> None:
        while batch := self._gather():
            living = [one for one in batch if not one[2].done()]
            if living:
                outcomes, loop = self._append(living), living[0][2].get_loop()
                with suppress(RuntimeError):  # it was closed: nobody waits any more
                    loop.call_soon_threadsafe(_tell, living, outcomes)

    def _gather(self) -> list[Waiting]:
        """Who waits, at least one; nobody once it was closed."""
        batch: list[Waiting] = []
        one = self._waiting.get()
        with suppress(Empty):
            while one is not None:
                batch.append(one)
                if len(batch) == MAX_BATCH:
                    return batch
                one = self._waiting.get_nowait()
            if batch:
                self._waiting.put(None)  # for the next time
        return batch

    def _append(self, batch: list[Waiting]) -> Sequence[Appended | Exception]:
        try:
            return self._ledger.append_all([(feedback, client) for feedback, client, _ in batch])
        except Exception as error:  # it is for those who wait to say what it means
            return [error] * len(batch)


def _tell(batch: list[Waiting], outcomes: Sequence[Appended | Exception]) -> None:
    for (_, _, waiting), outcome in zip(batch, outcomes, strict=True):
        if waiting.done():  # its client has given up
            continue
        waiting.set_exception(outcome) if isinstance(outcome, Exception) else waiting.set_result(outcome)
