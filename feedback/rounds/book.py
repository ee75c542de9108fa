"""Training rounds: the truth about each one, moved by compare-and-set under a lease and a fencing token.

A Celery message is only a hint to look here: lost and repeated messages change nothing.
"""

import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from redis import Redis

from feedback.freezes import is_frozen, set_frozen
from feedback.records import Record

State = Literal["queued", "running", "published", "refused", "failed", "cancelled"]
STAGES = ("collect", "sft", "reward", "ppo", "gate", "publish")
FINAL = ("published", "refused", "failed", "cancelled")
MAX_ATTEMPTS = 8

OPEN = "round:open"
LAST = "round:last"
SOURCES = "round:sources"
#: As often may what is erased start a round again.
MOST_RESTARTS = 2
#: For so long after its end a round keeps the course of its figures; what came of it stays.
COURSE_KEPT_S = 90 * 24 * 3600

# Times are Redis's own, so that skewed worker clocks cannot lengthen or shorten a lease.
_OPEN = """
local open = redis.call('GET', KEYS[1])
if open then return {tonumber(open), 0} end
local id = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[4])) + 1
redis.call('SET', KEYS[2], id)
redis.call('SET', KEYS[1], id)
redis.call('HSET', 'round:' .. id, 'state', 'queued', 'stage', 'collect', 'token', 0, 'lease_until', 0, 'attempts', 0,
  'trigger', ARGV[1], 'actor', ARGV[2], 'created', ARGV[3])
return {id, 1}
"""

_CLAIM = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
local round = redis.call('HMGET', KEYS[1], 'state', 'lease_until', 'token')
if round[1] ~= 'queued' and round[1] ~= 'running' then return -1 end
if tonumber(round[2]) > now then return 0 end
redis.call('HSET', KEYS[1], 'state', 'running', 'lease_until', now + ARGV[2], 'owner', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
return redis.call('HINCRBY', KEYS[1], 'token', 1)
"""

# Every write by a worker goes through here: it holds only while the token is the newest and the round is open.
_WRITE = """
local round = redis.call('HMGET', KEYS[1], 'state', 'token')
if round[1] ~= 'running' or round[2] ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) >= 0 then
  local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('HSET', KEYS[1], 'lease_until', now + ARGV[2])
end
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[3]) > 0 then redis.call('DEL', KEYS[2], KEYS[3]) redis.call('EXPIRE', KEYS[4], ARGV[3]) end
return 1
"""

# What comes after `ARGV[2]` in a stage was made by an attempt before this one, and is made again.
_COURSE = """
local round = redis.call('HMGET', KEYS[1], 'state', 'token')
if round[1] ~= 'running' or round[2] ~= ARGV[1] then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '(' .. ARGV[3])
for i = 4, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""
# Places in a course are numbers that both Redis and Lua hold exactly.
_STAGE = 2**32


class LeaseLost(RuntimeError):
    """Another worker owns the round now, or it was ended, or starts again."""


class RoundRecord(Record):
    """One turn of SFT → reward model → PPO → gate → publish.

    It has made `restarts` because some of its data was erased; `abandoned` is the policy that the last one gave up.
    """

    id: int
    state: State
    stage: str
    token: int
    lease_until: int
    attempts: int
    trigger: str
    actor: str
    created: float
    finished: float | None = None
    owner: str | None = None
    watermark: str | None = None
    policy_version: int | None = None
    restarts: int = 0
    abandoned: int | None = None
    reason: str | None = None
    progress: dict[str, Any] = {}
    metrics: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        return self.state not in FINAL


class CoursePoint(Record):
    """The figures of one step of a stage, and when they came (Unix seconds)."""

    stage: str
    step: int
    total: int
    time: float
    metrics: dict[str, Any]


class RoundBook:
    """All rounds of one installation; at most one is open."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self._open = redis.register_script(_OPEN)
        self._claim = redis.register_script(_CLAIM)
        self._write = redis.register_script(_WRITE)
        self._course = redis.register_script(_COURSE)

    def request(self, *, trigger: str, actor: str, beyond: int = 0) -> tuple[int, bool]:
        """(id of the open round, whether this call opened it).

        A new one's id is greater than all before it and than `beyond`, the last that is on the disk: where Redis was
        lost or restored it would take what another round left there for its own.
        """
        args: list[str | int | float] = [trigger, actor, time.time(), beyond]
        id, opened = self._open(keys=[OPEN, LAST], args=args)
        return int(id), bool(opened)

    def claim(self, id: int, *, owner: str, lease_s: float) -> int | None:
        """The fencing token if the round is free to work on, else None."""
        token = int(self._claim(keys=[key(id)], args=[owner, int(lease_s * 1000)]))
        return token if token > 0 else None

    def write(self, id: int, token: int, *, lease_s: float | None = None, **fields: Any) -> None:
        """Renew the lease and set fields; raises LeaseLost when the token is no longer the newest."""
        self._guarded(id, token, lease_s, fields)

    def go_on(self, id: int, token: int, stage: str, *, after: int, points: Sequence[CoursePoint]) -> None:
        """Let a stage go on with these after a step, whatever stood there; raises LeaseLost as `write` does."""
        own = STAGES.index(stage) * _STAGE
        flat = [item for point in points for item in (own + point.step, point.model_dump_json())]
        keys = [key(id), course_key(id)]
        if not self._course(keys=keys, args=[token, f"{own + after}", f"{own + _STAGE}", *flat]):
            raise _lost(id, token)

    def course(self, id: int) -> list[CoursePoint]:
        """The figures of a round's steps, oldest first; those of a stage that was begun anew as they came last."""
        return [CoursePoint.model_validate_json(point) for point in self.redis.zrange(course_key(id), 0, -1)]

    def finish(self, id: int, token: int, state: State, **fields: Any) -> None:
        """End the round; raises LeaseLost when the token is no longer the newest."""
        assert state in FINAL
        self._guarded(id, token, None, {"state": state, "finished": time.time(), **fields}, keep_s=COURSE_KEPT_S)

    def release(self, id: int, token: int) -> None:
        """Give the lease up at once, so that the next worker need not wait for it to expire."""
        self._guarded(id, token, 0.0, {})

    def get(self, id: int) -> RoundRecord | None:
        fields = self.redis.hgetall(key(id))
        if not fields:
            return None
        for name in ("progress", "metrics"):
            if name in fields:
                fields[name] = json.loads(fields[name])
        return RoundRecord.model_validate({"id": id, **fields})

    def open_round(self) -> RoundRecord | None:
        id = self.redis.get(OPEN)
        return self.get(int(id)) if id else None

    def list(self, limit: int = 20, before: int | None = None) -> list[RoundRecord]:
        """Newest first, of those before one if it is named."""
        return list(islice(self.newest_first(before), limit))

    def newest_first(self, before: int | None = None) -> Iterator[RoundRecord]:
        """All, or those before one, each read when it is asked for."""
        last = int(self.redis.get(LAST) or 0)
        rounds = (self.get(id) for id in range(last if before is None else min(last, before - 1), 0, -1))
        return (round for round in rounds if round is not None)

    def is_expired(self, round: RoundRecord) -> bool:
        """No worker holds the round now."""
        seconds, micros = self.redis.time()
        return round.is_open and round.lease_until <= seconds * 1000 + micros // 1000

    def freeze(self, frozen: bool, *, actor: str, reason: str) -> bool:
        """While frozen no round is opened by count or schedule. False when that is so already."""
        return set_frozen(self.redis, "learning", frozen, actor=actor, reason=reason)

    def is_frozen(self) -> bool:
        return is_frozen(self.redis, "learning")

    def _guarded(self, id: int, token: int, lease_s: float | None, fields: dict[str, Any], *, keep_s: int = 0) -> None:
        """With `keep_s` the round ends, and its course stays for so long."""
        flat = [item for name, value in fields.items() for item in (name, _encode(value))]
        lease = -1 if lease_s is None else int(lease_s * 1000)
        keys = [key(id), OPEN, SOURCES, course_key(id)]
        if not self._write(keys=keys, args=[token, lease, keep_s, *flat]):
            raise _lost(id, token)


def key(id: int) -> str:
    """The Redis key of a round."""
    return f"round:{id}"


def course_key(id: int) -> str:
    """The Redis key of a round's course: a sorted set, by stage and step."""
    return f"{key(id)}:course"


def last_on_disk(rounds_dir: Path) -> int:
    """The highest id of those that have a directory, be it one like `000003.1`; 0 when there is none."""
    if not rounds_dir.is_dir():
        return 0
    numbers = (path.name.partition(".")[0] for path in rounds_dir.iterdir())
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _lost(id: int, token: int) -> LeaseLost:
    return LeaseLost(f"round {id}: token {token} is no longer the newest")


def _encode(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
