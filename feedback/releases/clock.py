"""A release's own time, which stands still while no engine holds the candidate, releases are frozen or it is paused."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redis import Redis

from feedback.releases.book import Release

UNHELD = "unheld"
# Whoever drives no release for so long counts anew.
COUNTED_S = 30 * 86400


class Passed(NamedTuple):
    """Seconds: of its own, in the step under way and in all; and those in a row that no engine held the candidate."""

    in_step: float = 0.0
    in_all: float = 0.0
    unheld: float = 0.0


class Timekeeper:
    """Counts from look to look, for who drives a release; the count is in Redis, so others go on with it.

    What passed between two looks that did not find the same is left out, and so is time in which nobody looks, since
    nothing runs: that says nothing of the candidate.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self.redis: Any = redis
        self.clock = clock
        self._found: tuple[str, str | None] | None = None
        self._at = 0.0

    def look(self, release: Release, *, held: bool, frozen: bool) -> Passed:
        """As of now. Raises RedisError."""
        key, what = time_key(release.id), _what(release, held, frozen)
        more = self._since((key, what))
        with self.redis.pipeline() as pipe:
            if held:
                pipe.hdel(key, UNHELD)
            if what is not None:
                pipe.hincrbyfloat(key, what, more)
            pipe.expire(key, COUNTED_S)
            pipe.hgetall(key)
            return _passed(release, pipe.execute()[-1])

    def goes_on(self, release: Release) -> None:
        """Its driver has just moved it: what passes from now on is of the step that is under way now."""
        self._since((time_key(release.id), _what(release, held=True, frozen=False)))

    def missed(self) -> None:
        """A look failed: nobody knows what passes until the next one."""
        self._found = None

    def _since(self, found: tuple[str, str | None]) -> float:
        before, at = self._found, self._at
        self._found, self._at = found, self.clock()
        return self._at - at if before == found else 0.0


def passed(redis: Redis, release: Release) -> Passed:
    """As whoever drives it has counted it up to now."""
    counted: Any = redis.hgetall(time_key(release.id))
    return _passed(release, counted)


def _passed(release: Release, counted: Mapping[str, str]) -> Passed:
    seconds = {name: float(each) for name, each in counted.items()}
    unheld = seconds.pop(UNHELD, 0.0)
    return Passed(seconds.get(str(release.step), 0.0), sum(seconds.values()), unheld)


def _what(release: Release, held: bool, frozen: bool) -> str | None:
    """What passes: time without an engine, the step's, or none."""
    if not held:
        return UNHELD
    stands_still = frozen or release.paused or release.state != "canary"
    return None if stands_still else str(release.step)


def time_key(release: int) -> str:
    return f"release:{release}:time"
