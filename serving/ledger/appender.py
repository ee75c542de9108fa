"""Judgements on their way into the ledger: those that come together share one round trip and one fsync."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from starlette.concurrency import run_in_threadpool

from feedback.durability import Command
from feedback.judgements import Feedback
from feedback.store import Appended, Conflict, Ledger, Said

MAX_BATCH = 256
# While one waits for the disk the other sends.
LINES = 2
REPLIES_WITHIN_S = 2.0

Waiting = tuple[Feedback, str | None, "asyncio.Future[Appended]"]


class Appender:
    """Writers on the event loop: a thread would have to be woken for each batch, and to wait for the interpreter."""

    def __init__(self, ledger: Ledger, url: str) -> None:
        self._ledger = ledger
        self._waiting: list[Waiting] = []
        self._idle = [Line(url) for _ in range(LINES)]
        self._gathering = False
        self._writing: set[asyncio.Task[None]] = set()

    async def append(self, feedback: Feedback, client_id: str | None) -> Appended:
        """As `Ledger.append_feedback`, fsynced when it returns. One that is cancelled in the queue is not written."""
        outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((feedback, client_id, outcome))
        self._soon()
        return await outcome

    async def close(self) -> None:
        """Once what waits is written."""
        while self._waiting or self._writing:
            await asyncio.sleep(0)
            await asyncio.gather(*self._writing)
        for line in self._idle:
            await line.close()

    def _soon(self) -> None:
        if self._waiting and self._idle and not self._gathering:
            self._gathering = True
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        """Whoever has come in the same turn of the event loop goes along."""
        self._gathering = False
        batch = [one for one in self._waiting[:MAX_BATCH] if not one[2].done()]
        del self._waiting[:MAX_BATCH]
        if batch:
            writing = asyncio.create_task(self._write(self._idle.pop(), batch))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
        self._soon()

    async def _write(self, line: "Line", batch: list[Waiting]) -> None:
        outcomes: Sequence[Appended | Exception]
        try:
            outcomes = await self._outcomes(line, [(feedback, client_id) for feedback, client_id, _ in batch])
        except Exception as error:  # it is for those who wait to say what it means
            outcomes = [error] * len(batch)
        self._idle.append(line)
        for (_, _, waiting), outcome in zip(batch, outcomes, strict=True):
            if waiting.done():  # its client has given up
                continue
            waiting.set_exception(outcome) if isinstance(outcome, Exception) else waiting.set_result(outcome)
        self._soon()

    async def _outcomes(self, line: "Line", judgements: list[Said]) -> Sequence[Appended | Conflict]:
        replies = await line.ask(self._ledger.appends(judgements))
        try:
            return self._ledger.appended(replies)
        except NoScriptError:
            return await run_in_threadpool(self._ledger.append_all, judgements)


class Line:
    """A connection of its own, which no command of others delays; made when it is first needed, and after trouble."""

    def __init__(self, url: str) -> None:
        # A lost connection is made anew once, not tried again while somebody waits.
        never = Retry(NoBackoff(), 0)
        pool: Any = Redis.from_url(url, decode_responses=True, socket_timeout=None, retry=never).connection_pool
        self._connection: AbstractConnection = pool.make_connection()

    async def ask(self, commands: Sequence[Command]) -> list[object]:
        """A reply to each, or the server's error in its place. Raises RedisError, or TimeoutError after
        REPLIES_WITHIN_S."""
        connection = self._connection
        try:
            async with asyncio.timeout(REPLIES_WITHIN_S):
                if connection.is_connected and await connection.can_read():  # the server has closed it
                    await connection.disconnect(nowait=True)
                await connection.send_packed_command(map(pack_command, commands), check_health=False)
                return [await self._reply() for _ in commands]
        except BaseException:  # what is still to come must not be taken for replies to the next
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        await self._connection.disconnect()

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error
