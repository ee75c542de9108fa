"""How an operator ends a round that is queued or running: its worker may write nothing more, and publishes nothing.

Either the round's version is registered or the round is cancelled: each script looks at what the other leaves.
"""

import time
from typing import Any, Literal

from redis import Redis

from feedback.policies.registry import STATES
from feedback.records import Record
from feedback.rounds.book import COURSE_KEPT_S, OPEN, SOURCES, RoundBook, RoundRecord, course_key, key
from feedback.store import Ledger

AUDIT = "rounds:audit"
#: Cancelled rounds whose files are still there, by when the last lease on them ends (milliseconds of Redis's time).
UNCLEARED = "rounds:uncleared"

# A round that never looked has looked now: else the same judgements would have the next one start at once.
_CANCEL = """
local round = redis.call('HMGET', KEYS[1], 'state', 'policy_version', 'lease_until')
if round[1] ~= 'queued' and round[1] ~= 'running' then return 0 end
local version = round[2]
if version and redis.call('HEXISTS', KEYS[5], version) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'state', 'cancelled', 'finished', ARGV[2], 'reason', ARGV[3])
redis.call('HSETNX', KEYS[1], 'watermark', ARGV[4])
if version then
  redis.call('HSET', KEYS[1], 'abandoned', version)
  redis.call('HDEL', KEYS[1], 'policy_version')
end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('EXPIRE', KEYS[4], ARGV[5])
redis.call('ZADD', KEYS[7], round[3], ARGV[1])
redis.call('XADD', KEYS[6], '*', 'data', ARGV[6])
return 1
"""


class NotCancellable(RuntimeError):
    """The round is over, or has published; `current` is how it is."""

    def __init__(self, message: str, current: RoundRecord) -> None:
        super().__init__(message)
        self.current = current


class RoundLine(Record):
    """What was done to a round, for the audit."""

    round: int
    action: Literal["cancel"]
    actor: str
    reason: str
    time: float


def cancel(redis: Redis, round_id: int, *, actor: str, reason: str) -> RoundRecord:
    """The round as it is from now on; it must exist. Raises NotCancellable."""
    book, now = RoundBook(redis), time.time()
    line = RoundLine(round=round_id, action="cancel", actor=actor, reason=reason, time=now)
    told, watermark = f"cancelled by {actor}: {reason}", Ledger(redis).watermark()
    keys = [key(round_id), OPEN, SOURCES, course_key(round_id), STATES, AUDIT, UNCLEARED]
    args: list[str | int | float] = [round_id, now, told, watermark, COURSE_KEPT_S, line.model_dump_json()]
    done = redis.eval(_CANCEL, len(keys), *keys, *args)
    round = book.get(round_id)
    assert round is not None
    if not done:
        published = f"at its end: policy-v{round.policy_version} is published"
        raise NotCancellable(f"round {round_id} is {published if round.is_open else f'over: {round.state}'}", round)
    return round


def uncleared(redis: Any, *, let_go: bool = False) -> list[RoundRecord]:
    """Cancelled rounds whose files are still there; with `let_go` those at which no worker can be any more."""
    seconds, micros = redis.time()
    until = seconds * 1000 + micros // 1000 if let_go else "+inf"
    found = (RoundBook(redis).get(int(id)) for id in redis.zrangebyscore(UNCLEARED, 0, until))
    return [round for round in found if round is not None]


def note_cleared(redis: Any, round_id: int) -> None:
    redis.zrem(UNCLEARED, round_id)
