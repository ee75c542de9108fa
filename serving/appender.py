"""Judgements on their way into the ledger: those that come together share one round trip and one fsync."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from feedback.judgements import Feedback
from feedback.store import Appended, Ledger

MAX_BATCH = 256

Waiting = tuple[Feedback, str | None, "asyncio.Future[Appended]"]


class Appender:
    """One writer at a time; while it waits for the disk the next batch gathers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def append(self, feedback: Feedback, client_id: str | None) -> Appended:
        """As `Ledger.append_feedback`, fsynced when it returns. One that is cancelled in the queue is not written."""
        outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((feedback, client_id, outcome))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await outcome

    async def _write(self) -> None:
        while self._waiting:
            batch = [one for one in self._waiting[:MAX_BATCH] if not one[2].done()]
            del self._waiting[:MAX_BATCH]
            if batch:
                await self._write_batch(batch)

    async def _write_batch(self, batch: list[Waiting]) -> None:
        replies: Sequence[Appended | Exception]
        try:
            replies = await run_in_threadpool(self._ledger.append_all, [(one, client) for one, client, _ in batch])
        except Exception as error:  # it is for those who wait to say what it means
            replies = [error] * len(batch)
        for (_, _, outcome), reply in zip(batch, replies, strict=True):
            with suppress(asyncio.InvalidStateError):  # its client has given up
                outcome.set_exception(reply) if isinstance(reply, Exception) else outcome.set_result(reply)
