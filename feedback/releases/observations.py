"""What befell the conversations of a release: failures, waiting, length, scores, counted by arm for its guardrails.

A unit is a conversation, which chance put on an arm; its first request within the release stands for it. Counts may
miss some: who lost power lost them on both arms alike.
"""

import hmac
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis import Redis

from feedback.e_values import Moments
from feedback.records import Arm
from feedback.releases.guardrails import Failures, Guardrail, failure_guardrail, mean_guardrail
from feedback.releases.plan import Limits

KEPT_S = 90 * 86400
#: Units of an arm before its spread under one weight is known: of two it may seem to be none, which is an alarm.
LEAST_OF_A_WEIGHT = 30
NAMES = (
    "units", "failed", "refused", "timed", "first_token", "first_token_squared", "measured", "length", "length_squared",
    "scored", "score", "score_squared",
)  # fmt: skip

# ARGV: the conversation's name, "arm weight", failed, refused, log seconds or '', log tokens or '', how long to keep.
_OBSERVE = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 0 end
local function add(name, value) redis.call('HINCRBYFLOAT', KEYS[2], ARGV[2] .. ' ' .. name, value) end
add('units', 1)
add('failed', ARGV[3])
add('refused', ARGV[4])
for name, value in pairs({first_token = ARGV[5], length = ARGV[6]}) do
  if value ~= '' then
    add(name == 'length' and 'measured' or 'timed', 1)
    add(name, value)
    add(name .. '_squared', string.format('%.17g', value * value))
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('EXPIRE', KEYS[2], ARGV[7])
return 1
"""


class Observed(NamedTuple):
    """One request of a release that came to its end; `weight` was the candidate's when it was put on `arm`.

    One without an answer, or with an empty one, failed. `first_token_s` and `tokens` are None where nothing was said.
    """

    release: int
    rater: str
    conversation: str
    arm: Arm
    weight: float
    failed: bool
    refused: bool = False
    first_token_s: float | None = None
    tokens: int | None = None


class Side(NamedTuple):
    """Units of an arm, and sums of the logarithms of seconds and tokens, and of scores."""

    units: int = 0
    failed: int = 0
    refused: int = 0
    first_token: Moments = Moments(0, 0.0, 0.0)
    length: Moments = Moments(0, 0.0, 0.0)
    score: Moments = Moments(0, 0.0, 0.0)


class Stratum(NamedTuple):
    """Both sides while the candidate had `weight`."""

    weight: float
    candidate: Side
    stable: Side


class Observations:
    """Those of all releases. Conversations are named under a secret, and differently in each release."""

    def __init__(self, redis: Redis, salt: bytes) -> None:
        self.redis: Any = redis
        self._salt = salt
        self._observe = redis.register_script(_OBSERVE)

    def add(self, observed: Iterable[Observed]) -> None:
        """Many at once; all but the first of a conversation change nothing."""
        with self.redis.pipeline(transaction=False) as pipe:
            for each in observed:
                keys = [f"release:{each.release}:units", counts_key(each.release)]
                first, length = _log(each.first_token_s), _log(each.tokens)
                counted = f"{each.arm} {each.weight!r}", int(each.failed), int(each.refused), first, length
                name = unit_name(self._salt, each.release, each.rater, each.conversation)
                self._observe(keys=keys, args=[name, *counted, KEPT_S], client=pipe)
            pipe.execute()


def unit_name(salt: bytes, release: int, rater: str, conversation: str) -> str:
    """Of whom nobody can tell without the secret."""
    return hmac.digest(salt, f"{release}|{rater}|{conversation}".encode(), "sha256").hex()[:24]


def weight_of(arm: Arm, propensity: float) -> float:
    """The candidate's, when a conversation was put on `arm` with this chance."""
    return round(propensity if arm == "candidate" else 1 - propensity, 9)


def strata_of(redis: Any, release: int) -> list[Stratum]:
    """What was counted so far, by weight."""
    fields: defaultdict[tuple[float, str], dict[str, float]] = defaultdict(dict)
    for field, value in redis.hgetall(counts_key(release)).items():
        arm, weight, name = field.split()
        fields[float(weight), arm][name] = float(value)
    weights = sorted({weight for weight, _ in fields})
    return [Stratum(w, _side(fields.get((w, "candidate"))), _side(fields.get((w, "stable")))) for w in weights]


def guardrails(strata: Sequence[Stratum], limits: Limits) -> tuple[Guardrail, ...]:
    """How the candidate does in all that its plan limits and that can be counted; in the score once there is one."""
    failed = [Failures(w, c.units, s.units, c.failed, s.failed) for w, c, s in strata]
    refused = [Failures(w, c.units, s.units, c.refused, s.refused) for w, c, s in strata]
    first = alike([(c.first_token, s.first_token) for _, c, s in strata])
    length = alike([(c.length, s.length) for _, c, s in strata])
    score = alike([(_lowness(c.score), _lowness(s.score)) for _, c, s in strata])
    counted = (
        failure_guardrail("errors", failed, ratio=limits.errors, alpha=limits.alpha),
        failure_guardrail("refusals", refused, ratio=limits.refusals, alpha=limits.alpha),
        mean_guardrail("first_token", *first, limit=math.log(limits.first_token), alpha=limits.alpha),
        mean_guardrail("length", *length, limit=math.log(limits.length), alpha=limits.alpha),
    )
    if not any(side.score.units for _, *sides in strata for side in sides):
        return counted
    return (*counted, mean_guardrail("score", *score, limit=limits.score, alpha=limits.alpha))


def alike(strata: Sequence[tuple[Moments, Moments]]) -> tuple[Moments, Moments]:
    """Candidate and stable as if both had the candidate's mix of strata.

    Weights change with the hour, and so does the load: what is merely later would look slower. Strata where an arm has
    fewer than `LEAST_OF_A_WEIGHT` units say nothing.
    """
    known = [(ours, theirs) for ours, theirs in strata if min(ours.units, theirs.units) >= LEAST_OF_A_WEIGHT]
    total = sum(ours.units for ours, _ in known)
    shares = [ours.units / total for ours, _ in known]
    return _mixed([ours for ours, _ in known], shares), _mixed([theirs for _, theirs in known], shares)


def _mixed(parts: Sequence[Moments], shares: Sequence[float]) -> Moments:
    """Moments with the mean of these in the given mix, and that mean's variance."""
    units = sum(part.units for part in parts)
    mean = math.fsum(share * part.mean for share, part in zip(shares, parts, strict=True))
    variance = math.fsum(share**2 * part.variance_of_mean for share, part in zip(shares, parts, strict=True))
    return Moments(units, mean * units, variance * units * (units - 1) + mean**2 * units)


def counts_key(release: int) -> str:
    return f"release:{release}:observed"


def _side(found: dict[str, float] | None) -> Side:
    if found is None:
        return Side()
    units, failed, refused, *sums = (found.get(name, 0.0) for name in NAMES)
    first_token, length, score = (Moments(int(sums[i]), *sums[i + 1 : i + 3]) for i in (0, 3, 6))
    return Side(int(units), int(failed), int(refused), first_token, length, score)


def _lowness(score: Moments) -> Moments:
    """Of minus the scores: more is worse, as in all that is limited."""
    return Moments(score.units, -score.total, score.squares)


def _log(value: float | None) -> str:
    """Times under a millisecond are that: zero has no logarithm."""
    return "" if value is None else repr(math.log(max(value, 1e-3)))
