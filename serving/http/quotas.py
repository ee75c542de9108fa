"""What a key may do in a minute, in a day and at once: counted in Redis, so for all gateway processes together."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import anyio
from redis import Redis
from redis.exceptions import RedisError

from feedback.people.keys import ApiKey, Limits
from feedback.records import Record
from serving.http.errors import NO_RETRY, ApiError

NONE = Limits()
HURRY_S = 1.0
DAY_S = 86_400
# A gateway that was killed gives back the streams and tokens it held after this long.
LEASE_S = 30.0
# Threads of our own: when the common ones are all busy, limits must not seem to be unreachable.
THREADS = 16

log = logging.getLogger("serving.quotas")
T = TypeVar("T")

# All checks, then all counts, in one step: what is refused counts nowhere. Requests a minute follow GCRA, the token
# bucket that needs one number: the moment at which the bucket will be full again. Times are microseconds. An answer
# under way is a lease, named by its id and the tokens that it holds, which it may still spend of the day's.
_ENTER = """
local now, a_minute, a_day, at_once = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gap, full, held = 0, now, 0
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[1])
if a_day > 0 then
  local left = a_day - tonumber(redis.call('HGET', KEYS[1], 'tokens') or 0)
  if left <= 0 then return {'tokens_per_day', 0, 0, 0, ''} end
  for _, lease in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    left = left - tonumber(string.match(lease, '%d+$'))
  end
  if left <= 0 then return {'held', 0, 0, 0, ''} end
  held = math.min(left, tonumber(ARGV[8]))
end
if a_minute > 0 then
  gap = math.max(1, math.floor(6e7 / a_minute))
  full = math.max(now, tonumber(redis.call('GET', KEYS[2]) or 0)) + gap
  if full - now > gap * a_minute then
    return {'requests_per_minute', full - now - gap * a_minute, 0, full - gap - now, ''}
  end
end
if at_once > 0 and redis.call('ZCARD', KEYS[3]) >= at_once then return {'streams', 0, 0, 0, ''} end
local lease = ''
if at_once > 0 or a_day > 0 then
  lease = string.format('%s:%.0f', ARGV[5], held)
  redis.call('ZADD', KEYS[3], ARGV[6], lease)
  redis.call('EXPIRE', KEYS[3], ARGV[7])
end
if a_minute > 0 then
  redis.call('SET', KEYS[2], full, 'PX', math.ceil((full - now) / 1000))
end
redis.call('HINCRBY', KEYS[1], 'requests', 1)
redis.call('EXPIRE', KEYS[1], ARGV[7])
return {'', 0, gap > 0 and math.floor(a_minute - (full - now) / gap) or 0, full - now, lease}
"""


class Verdict(NamedTuple):
    """What Redis says of one more request: the limit that it would exceed, "" for none; the time to wait, and until
    the bucket is full, in microseconds; the requests left of this minute; the lease."""

    exceeded: str
    wait: int
    remaining: int
    reset: int
    lease: str


@dataclass
class Entry:
    """A request that asks to be let in: the id of its lease, drawn before anybody answers, and whether it is over."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    over: bool = False


class Usage(Record):
    """What a key has used of the day `day` (UTC), and how many answers are written for it now."""

    day: str
    requests: int
    tokens: int
    feedback: int
    streams: int


@dataclass
class Allowance:
    """One admitted request: `headers` go to the client, the tokens spent are counted when the request ends."""

    headers: dict[str, str] = field(default_factory=dict)
    tokens: int = 0

    def spend(self, tokens: int) -> None:
        self.tokens += tokens


class Quotas:
    """Keeps keys within their limits. A key without any is not counted, and costs no access to Redis."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self.redis: Any = redis
        self.clock = clock
        self._enter_script = redis.register_script(_ENTER)
        self._threads = anyio.CapacityLimiter(THREADS)

    @asynccontextmanager
    async def request(self, caller: ApiKey, most: int = 1) -> AsyncIterator[Allowance]:
        """One request to the policy, a stream for as long as the context is open. Raises ApiError 429.

        It will spend at most `most` tokens, which are held until they are known. Only what is left can be held: the
        last request that a day's tokens let in may exceed them, those beside it may not.
        """
        if caller.limits == NONE:
            yield Allowance()
            return
        entry, allowance, lease, renewing = Entry(), Allowance(), None, None
        try:
            if verdict := await self._ask(self._admit, caller, most, entry):
                lease = verdict.lease
                allowance.headers = self._headers(caller, verdict)
                renewing = asyncio.create_task(self._renew(caller, lease)) if lease else None
            yield allowance
        finally:
            entry.over = True
            if renewing:
                renewing.cancel()
            if lease != "" or allowance.tokens:
                with anyio.CancelScope(shield=True):
                    await self._ask(self._leave, caller, entry, lease, allowance.tokens)

    def feedback(self, caller: ApiKey) -> AbstractAsyncContextManager[None]:
        """One judgement, which counts unless the context ends with an error. Raises ApiError 429."""
        return nullcontext() if caller.limits == NONE else self._counted(caller)

    @asynccontextmanager
    async def _counted(self, caller: ApiKey) -> AsyncIterator[None]:
        limit, counted = caller.limits.feedback_per_day, await self._ask(self._count_feedback, caller, 1)
        try:
            if limit is not None and counted is not None and counted > limit:
                raise refusal("feedback_per_day", limit, self._until_tomorrow())
            yield
        except BaseException:
            if counted is not None:
                with anyio.CancelScope(shield=True):
                    await self._ask(self._count_feedback, caller, -1)
            raise

    def usage(self, *keys: ApiKey) -> dict[str, Usage]:
        """By key id, of those among `keys` that are counted."""
        counted, day = [key for key in keys if key.limits != NONE], self._today()
        pipe = self.redis.pipeline(transaction=False)
        for key in counted:
            pipe.hmget(self._day(key), "requests", "tokens", "feedback")
            pipe.zcount(_streams(key), self._microseconds(), "+inf")
        replies = iter(pipe.execute())
        names = ("day", "requests", "tokens", "feedback", "streams")
        rows = [(day, *(int(count or 0) for count in next(replies)), next(replies)) for _ in counted]
        return {key.id: Usage(**dict(zip(names, row, strict=True))) for key, row in zip(counted, rows, strict=True)}

    def _headers(self, caller: ApiKey, verdict: Verdict) -> dict[str, str]:
        """Headers for the answer. Raises ApiError 429."""
        exceeded, a_minute = verdict.exceeded, caller.limits.requests_per_minute
        headers = {}
        if a_minute is not None and exceeded in ("", "requests_per_minute"):
            headers = {
                "x-ratelimit-limit-requests": str(a_minute),
                "x-ratelimit-remaining-requests": str(verdict.remaining),
                "x-ratelimit-reset-requests": f"{verdict.reset / 1e6:.3f}s",
            }
        if not exceeded:
            return headers
        if exceeded == "held":
            raise all_held(caller.limits.tokens_per_day)
        seconds = self._until_tomorrow() if exceeded == "tokens_per_day" else verdict.wait / 1e6
        raise refusal(exceeded, getattr(caller.limits, exceeded), seconds, headers)

    def _admit(self, caller: ApiKey, most: int, entry: Entry) -> Verdict:
        limits, now = caller.limits, self._microseconds()
        bounds = [limits.requests_per_minute or 0, limits.tokens_per_day or 0, limits.streams or 0]
        keys = [self._day(caller), f"quota:{caller.id}:full", _streams(caller)]
        args: list[int | str] = [now, *bounds, entry.id, now + int(LEASE_S * 1e6), 2 * DAY_S, most]
        exceeded, wait, remaining, reset, lease = self._enter_script(keys=keys, args=args)
        if entry.over:  # Redis was so late that whoever asked has come and gone
            self._leave(caller, entry, lease, 0)
        return Verdict(exceeded, int(wait), int(remaining), int(reset), lease)

    def _leave(self, caller: ApiKey, entry: Entry, lease: str | None, tokens: int) -> None:
        """Count what was spent and give the lease back; None where nobody has heard whether there is one."""
        known = [lease] if lease else []
        if lease is None:
            known = [each for each in self.redis.zrange(_streams(caller), 0, -1) if each.startswith(f"{entry.id}:")]
        pipe = self.redis.pipeline()  # at once, or another request would come between what was held and what was spent
        if tokens:
            pipe.hincrby(self._day(caller), "tokens", tokens)
            pipe.expire(self._day(caller), 2 * DAY_S)
        if known:
            pipe.zrem(_streams(caller), *known)
        pipe.execute()

    async def _renew(self, caller: ApiKey, lease: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._ask(self._extend, caller, lease)

    def _extend(self, caller: ApiKey, lease: str) -> None:
        # xx: a lease that was given back in this moment must stay so.
        self.redis.zadd(_streams(caller), {lease: self._microseconds() + int(LEASE_S * 1e6)}, xx=True)

    def _count_feedback(self, caller: ApiKey, change: int) -> int:
        pipe = self.redis.pipeline(transaction=False)
        pipe.hincrby(self._day(caller), "feedback", change)
        pipe.expire(self._day(caller), 2 * DAY_S)
        return int(pipe.execute()[0])

    async def _ask(self, call: Callable[..., T], *args: Any) -> T | None:
        """What Redis says; None when it does not answer.

        Limits fail open: they keep one caller from crowding out the others, and chat that stops for everybody
        because nobody can count would do just that.
        """
        try:
            with anyio.fail_after(HURRY_S):
                return await anyio.to_thread.run_sync(call, *args, abandon_on_cancel=True, limiter=self._threads)
        except (RedisError, TimeoutError) as error:
            log.warning("limits are not kept while Redis does not answer: %s", type(error).__name__)
            return None

    def _day(self, key: ApiKey) -> str:
        return f"quota:{key.id}:{self._today()}"

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self.clock()))

    def _until_tomorrow(self) -> float:
        return DAY_S - self.clock() % DAY_S

    def _microseconds(self) -> int:
        return int(self.clock() * 1e6)


def refusal(limit: str, value: int, wait_s: float, headers: dict[str, str] | None = None) -> ApiError:
    """429 that names the limit. Clients repeat it by themselves only where that helps within a minute."""
    daily, seconds = limit.endswith("_per_day"), max(1, math.ceil(wait_s))
    message = f"This key's limit of {value} for {limit} is reached; try again in {seconds} s."
    more = {"retry-after": str(seconds), **(headers or {}), **(NO_RETRY if daily else {})}
    return ApiError(429, message, code="quota_exceeded" if daily else "rate_limit_exceeded", headers=more)


def all_held(value: int | None) -> ApiError:
    """429 while answers under way may spend what is left of the day: they may also leave some."""
    message = f"Answers under way may need all that is left of this key's {value} for tokens_per_day; try again soon."
    return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": "1"})


def _streams(key: ApiKey) -> str:
    return f"quota:{key.id}:streams"
