"""What is known of raters: who is put aside, by whom and why, and what the last round made of everybody else."""

import time
from collections.abc import Iterable
from typing import Any, Literal

from redis import Redis

from feedback.records import Record

QUARANTINED = "raters:quarantined"
AUDIT = "raters:audit"
WEIGHTS = "raters:weights"

Action = Literal["quarantine", "release"]

# The change and its line in the audit together; what changes nothing is not written down.
_MOVE = """
local changed
if ARGV[1] == 'quarantine' then changed = redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3])
else changed = redis.call('HDEL', KEYS[1], ARGV[2]) end
if changed == 1 then redis.call('XADD', KEYS[2], '*', 'data', ARGV[3]) end
return changed
"""


class RaterLine(Record):
    """One transition of a rater, as the audit keeps it."""

    rater: str
    action: Action
    actor: str
    reason: str
    time: float


class RaterWeight(Record):
    """What a round made of a rater.

    `agreement` is with others who judged the same, over `compared` judgements; `reliability` is the weight in [0, 1]
    that follows from it; `share` is what the rater has of all that trains the reward model.
    """

    rater: str
    source: str
    judgements: int
    compared: int
    agreement: float | None
    reliability: float
    share: float
    capped: bool


class Raters:
    """The raters of one installation, by pseudonym."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self._move = redis.register_script(_MOVE)

    def knows(self, rater: str) -> bool:
        """Whether anybody is called so: who asked or judged, or is aside."""
        spoke = self.redis.exists(f"feedback:by:{rater}", f"responses:{rater}")
        return bool(spoke or self.redis.hexists(QUARANTINED, rater))

    def quarantine(self, rater: str, *, actor: str, reason: str) -> bool:
        """From the next round on nothing of theirs trains or proves anything. False when they are aside already."""
        return self._moved("quarantine", rater, actor, reason)

    def release(self, rater: str, *, actor: str, reason: str) -> bool:
        """Let them train again from the next round on. False when they were not aside."""
        return self._moved("release", rater, actor, reason)

    def quarantined(self) -> dict[str, RaterLine]:
        """Who is aside now, and why."""
        held = self.redis.hgetall(QUARANTINED)
        return {rater: RaterLine.model_validate_json(text) for rater, text in sorted(held.items())}

    def audit(self) -> list[RaterLine]:
        """Every transition, oldest first."""
        return [RaterLine.model_validate_json(fields["data"]) for _, fields in self.redis.xrange(AUDIT)]

    def keep_weights(self, weights: Iterable[RaterWeight]) -> None:
        """Replace what an earlier round made of the raters."""
        with self.redis.pipeline() as pipe:
            pipe.delete(WEIGHTS)
            for each in weights:
                pipe.hset(WEIGHTS, each.rater, each.model_dump_json())
            pipe.execute()

    def weights(self) -> dict[str, RaterWeight]:
        """What the last round made of each rater who trained in it."""
        kept = self.redis.hgetall(WEIGHTS)
        return {rater: RaterWeight.model_validate_json(text) for rater, text in sorted(kept.items())}

    def _moved(self, action: Action, rater: str, actor: str, reason: str) -> bool:
        line = RaterLine(rater=rater, action=action, actor=actor, reason=reason, time=time.time())
        return bool(self._move(keys=[QUARANTINED, AUDIT], args=[action, rater, line.model_dump_json()]))
