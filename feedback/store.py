"""The ledger in Redis: completions as served, feedback as an append-only stream with revisions."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from feedback.records import Completion, Feedback, digest

COMPLETIONS = "completions"
FEEDBACK = "feedback"
CURRENT = "feedback:current"
CLIENT_IDS = "feedback:client_ids"
REPEATS = "ledger:repeats"

#: Below the socket's timeout, so that the error says what was waited for.
FSYNC_TIMEOUT_MS = 1500

# A repeat counts itself: WAITAOF waits for its own connection's writes, so what somebody else has just written is
# known to be on the disk only if a write follows it.
_SERVE = """
local written = 0
for i = 1, #ARGV, 3 do
  if redis.call('SET', 'completion:' .. ARGV[i], ARGV[i + 2], 'NX') then
    redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'version', ARGV[i + 1])
    written = written + 1
  end
end
if written == 0 then redis.call('INCR', KEYS[2]) end
return written
"""

# One atomic step: dedupe by client id, then by slot, then append. Validation happened before; writes come last.
_APPEND = """
local known = redis.call('HGET', KEYS[3], ARGV[3])
if ARGV[3] ~= '' and known then
  local id, body = string.match(known, '^(%S+) (%S+)$')
  if body ~= ARGV[4] then return {'conflict', id, 0} end
  redis.call('INCR', KEYS[4])
  return {'same', id, tonumber(redis.call('HGET', 'feedback:item:' .. id, 'revision'))}
end
local replaces = redis.call('HGET', KEYS[2], ARGV[2]) or ''
local revision = 1
local status = 'created'
if replaces ~= '' then
  local item = redis.call('HMGET', 'feedback:item:' .. replaces, 'revision', 'body')
  if item[2] == ARGV[4] then
    if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[3], replaces .. ' ' .. ARGV[4]) end
    redis.call('INCR', KEYS[4])
    return {'same', replaces, tonumber(item[1])}
  end
  revision = tonumber(item[1]) + 1
  status = 'revised'
end
redis.call('XADD', KEYS[1], '*', 'data', ARGV[5], 'revision', revision, 'replaces', replaces)
redis.call('HSET', 'feedback:item:' .. ARGV[1], 'data', ARGV[5], 'revision', revision, 'replaces', replaces,
  'body', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[3], ARGV[1] .. ' ' .. ARGV[4]) end
return {status, ARGV[1], revision}
"""


class LedgerNotDurable(RuntimeError):
    """The Redis server would not keep what it acknowledges."""


class Conflict(RuntimeError):
    """The same client id came with a different judgement."""


class Appended(NamedTuple):
    id: str
    revision: int
    status: Literal["created", "revised", "same"]


def connect(url: str, *, timeout_s: float = 2.0) -> Redis:
    """A Redis client that answers or fails within `timeout_s`; it never hangs on a frozen server."""
    # The client's own default is to retry with backoff, which turns one timeout into half a minute.
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=64,
        retry=Retry(NoBackoff(), 0),
    )


class Ledger:
    """Append and read. Every append returns only after the server fsynced it."""

    def __init__(self, redis: Redis) -> None:
        """Raises LedgerNotDurable unless the server runs AOF without eviction."""
        self.redis: Any = redis
        self._wait_for_fsync = not _fsyncs_always(redis)
        self._serve = redis.register_script(_SERVE)
        self._append = redis.register_script(_APPEND)

    def append_completions(self, completions: list[Completion]) -> None:
        """Store answers as served. Appending the same completion twice changes nothing."""
        fields = [(each.id, each.policy_version, each.model_dump_json()) for each in completions]
        self._durably(self._serve, [COMPLETIONS, REPEATS], [field for row in fields for field in row])

    def completions(self, ids: tuple[str, ...]) -> dict[str, Completion]:
        """The known ones among `ids`."""
        if not ids:
            return {}
        raw = self.redis.mget([f"completion:{id}" for id in ids])
        return {id: Completion.model_validate_json(text) for id, text in zip(ids, raw, strict=True) if text is not None}

    def completion_ids(self) -> list[str]:
        """All completions served, oldest first."""
        return [fields["id"] for _, fields in self.redis.xrange(COMPLETIONS)]

    def append_feedback(self, feedback: Feedback, *, client_id: str | None = None) -> Appended:
        """Store a judgement; raises Conflict when `client_id` was used for another one.

        The same judgement again returns the first one's id; a different one in its slot is a revision.
        """
        dedupe = f"{feedback.rater}:{client_id}" if client_id else ""
        body = digest(feedback.judgement.model_dump(mode="json"))
        status, id, revision = self._durably(
            self._append,
            [FEEDBACK, CURRENT, CLIENT_IDS, REPEATS],
            [feedback.id, feedback.slot, dedupe, body, feedback.model_dump_json()],
        )
        if status == "conflict":
            raise Conflict(f"client_id was already used for {id} with another judgement")
        return Appended(id, int(revision), status)

    def feedback(self, id: str) -> Feedback | None:
        """One judgement by id, also when it was revised since."""
        data = self.redis.hget(f"feedback:item:{id}", "data")
        return Feedback.model_validate_json(data) if data else None

    def feedback_between(self, after: str, until: str = "+") -> Iterator[tuple[str, Feedback]]:
        """(cursor, judgement) in order of arrival, after one cursor ("0" = all) up to and including another."""
        low = "-" if after == "0" else f"({after}"
        while batch := self.redis.xrange(FEEDBACK, min=low, max=until, count=500):
            for cursor, fields in batch:
                yield cursor, Feedback.model_validate_json(fields["data"])
            low = f"({batch[-1][0]}"

    def watermark(self) -> str:
        """The cursor of the newest judgement; "0" when there is none."""
        newest = self.redis.xrevrange(FEEDBACK, count=1)
        return str(newest[0][0]) if newest else "0"

    def standing(self, until: str) -> list[Feedback]:
        """What people say as of a cursor: the last judgement of each slot. Repeatable for a given cursor."""
        last: dict[str, Feedback] = {}
        if until != "0":
            for _, feedback in self.feedback_between("0", until):
                last[feedback.slot] = feedback
        return list(last.values())

    def _durably(self, script: Any, keys: list[str], args: list[Any]) -> Any:
        """A script's reply, once the server has fsynced all that was written up to it."""
        if not self._wait_for_fsync:
            return script(keys=keys, args=args)
        with self.redis.pipeline(transaction=False) as pipe:  # one connection, which is the one WAITAOF looks at
            script(keys=keys, args=args, client=pipe)
            pipe.execute_command("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)
            reply, (local, _) = pipe.execute()
        if local < 1:
            raise LedgerNotDurable(f"the server did not fsync within {FSYNC_TIMEOUT_MS / 1000} s")
        return reply


def _fsyncs_always(redis: Any) -> bool:
    """True if a reply implies an fsync; False if WAITAOF must be asked; raises LedgerNotDurable otherwise."""
    info = redis.info("all")
    if not info.get("aof_enabled"):
        raise LedgerNotDurable("Redis runs without AOF: start it with --appendonly yes --appendfsync always")
    if info.get("maxmemory_policy") != "noeviction":
        raise LedgerNotDurable("Redis may evict feedback: start it with --maxmemory-policy noeviction")
    if redis.config_get("appendfsync").get("appendfsync") == "always":
        return True
    try:
        redis.execute_command("WAITAOF", 0, 0, 1)
    except ResponseError as error:
        raise LedgerNotDurable(
            "Redis neither fsyncs always nor knows WAITAOF: start it with --appendfsync always"
        ) from error
    return False
