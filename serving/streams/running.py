"""The answers that are being written now, so that a vote can stop them and a client can come back to them."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import anyio

from serving.streams.relay import Relay

# A client that reads slowly must not hold up a vote.
SETTLE_S = 1.0


class Running:
    """Relays by the id of their response."""

    def __init__(self) -> None:
        self._relays: dict[str, Relay] = {}

    @contextmanager
    def listed(self, relay: Relay) -> Iterator[None]:
        self._relays[relay.ticket.response_id] = relay
        try:
            yield
        finally:
            del self._relays[relay.ticket.response_id]

    def __len__(self) -> int:
        return len(self._relays)

    def find(self, response_id: str, raters: Collection[str]) -> Relay | None:
        """Somebody's own running answer."""
        relay = self._relays.get(response_id)
        return relay if relay is not None and relay.ticket.rater in raters else None

    async def stop_all(self) -> None:
        """End every answer; when this returns, what was shown of each is in the ledger."""
        await asyncio.gather(*(self.stop(relay) for relay in list(self._relays.values())))

    async def stop(self, relay: Relay) -> None:
        """End an answer; when this returns, what was shown of it is in the ledger."""
        relay.stop()
        with anyio.move_on_after(SETTLE_S):
            await relay.settled.wait()
            return
        await relay.keep_partial()
