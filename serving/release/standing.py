"""What a gateway process knows of the release under way."""

import asyncio
import logging
from dataclasses import dataclass

from redis.exceptions import RedisError

from feedback.releases.book import ReleaseBook
from serving.release.arms import Arms

log = logging.getLogger("serving.standing")

POLL_S = 0.5


@dataclass
class Standing:
    """Keeps `arms.release` at the open release. Without Redis the last known one stands."""

    arms: Arms
    book: ReleaseBook
    poll_s: float = POLL_S

    async def run(self) -> None:
        """Never returns: a release that cannot be read changes nobody's side."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("the open release cannot be read")
            await asyncio.sleep(self.poll_s)

    async def look(self) -> None:
        try:
            self.arms.release = await asyncio.to_thread(self.book.open)
        except RedisError as error:
            log.debug("the open release is not known: %s", error)
