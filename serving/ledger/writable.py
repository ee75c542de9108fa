"""Whether the ledger takes what it is given and keeps it: tried by a write, once for all who ask within seconds."""

import asyncio
import time

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from feedback.durability import LedgerNotDurable
from feedback.store import Ledger

# /ready is open to anyone: however often it is asked, it costs one write in this time.
FRESH_S = 2.0


class Writable:
    """What was found last, and when."""

    def __init__(self, *ledgers: Ledger) -> None:
        """Each has connections of its own, and finds out by itself what proves its writes."""
        self._ledgers = ledgers
        self._tried = float("-inf")
        self._trouble: str | None = None
        self._one = asyncio.Lock()

    async def trouble(self) -> str | None:
        """What is wrong with the ledger; None when it was written to a moment ago."""
        async with self._one:
            if time.monotonic() - self._tried >= FRESH_S:
                self._trouble = await self._try()
                self._tried = time.monotonic()
            return self._trouble

    async def _try(self) -> str | None:
        try:
            for ledger in self._ledgers:
                await run_in_threadpool(ledger.check)
        except LedgerNotDurable as error:
            return f"the ledger does not keep what it takes: {error}"
        except RedisError as error:
            return f"the ledger takes no writes: {error}"
        return None
