"""The score guardrail of a release: what is to be scored of both arms' answers, and what came of it, kept as numbers.

A unit is a conversation, as in `observations`; its first answer within the release stands for it. That one is scored if
it is whole, holds text, and is not withheld from training; otherwise the conversation has no score. Of the answers
nothing is kept: an erasure finds sums, and names that nobody can read.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from feedback.archive import Archive
from feedback.policies.registry import WITHOUT_WEIGHTS, PolicyRegistry
from feedback.records import Completion
from feedback.releases.book import Release
from feedback.releases.observations import KEPT_S, counts_key, unit_name, weight_of
from feedback.store import COMPLETIONS, Ledger

#: Conversations a run looks at. On two busy cores SmolLM2 scores so many answers of 180 tokens in two minutes.
MOST = 256
SCAN = 500
#: By how much the clocks of those who write answers and of Redis may differ.
SLACK_S = 60.0
REWARD = "reward"

# ARGV: how far the ledger was read, how long to keep, then of each conversation its name, "arm weight", and its score
# or ''. A conversation that is there already changes nothing.
_ADD = """
for i = 3, #ARGV, 3 do
  if redis.call('SADD', KEYS[1], ARGV[i]) == 1 and ARGV[i + 2] ~= '' then
    local score = ARGV[i + 2]
    redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i + 1] .. ' scored', 1)
    redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i + 1] .. ' score', score)
    redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i + 1] .. ' score_squared', string.format('%.17g', score * score))
  end
end
redis.call('HSET', KEYS[3], 'cursor', ARGV[1])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
"""


class Fresh(NamedTuple):
    """First answers, by the names of their conversations, up to a place in the ledger; and those to be scored."""

    first: Mapping[str, Completion]
    scorable: Sequence[Completion]
    cursor: str


class ReleaseScores:
    """Those of one release. Any number of workers may score it, at once and again: each conversation counts once."""

    def __init__(self, ledger: Ledger, release: Release, salt: bytes) -> None:
        self.ledger, self.release, self._salt = ledger, release, salt
        self._names, self._state = f"release:{release.id}:scored", _state_key(release)
        self._add = ledger.redis.register_script(_ADD)

    def version(self, registry: PolicyRegistry) -> int | None:
        """Whose reward model scores; None while there is none. The same to the end: two of them do not compare."""
        known = scored_by(self.ledger.redis, self.release)
        if known is None and (chosen := scoring_version(registry, self.release)) is not None:
            self.ledger.redis.hsetnx(self._state, "version", chosen)
            known = scored_by(self.ledger.redis, self.release)
        return known

    def fresh(self, most: int = MOST) -> Fresh:
        """The next conversations, oldest first."""
        cursor, first = self._cursor(), dict[str, Completion]()
        for place, answer in self._answers(cursor):
            cursor = place
            if answer is None or not is_unit(answer, self.release.id):
                continue
            name = unit_name(self._salt, self.release.id, answer.rater, answer.conversation_id)
            if name not in first and not self.ledger.redis.sismember(self._names, name):
                first[name] = answer
            if len(first) == most:
                break
        return Fresh(first, self._scorable(first.values()), cursor)

    def add(self, fresh: Fresh, scores: Mapping[str, float]) -> None:
        """Count what was found, `scores` by completion. Raises ValueError for one that is not finite."""
        if not all(map(math.isfinite, scores.values())):
            raise ValueError(f"release {self.release.id}: the reward model's scores are not finite")
        args: list[str | int] = [fresh.cursor, KEPT_S]
        for name, answer in fresh.first.items():
            assert answer.arm is not None and answer.propensity is not None
            score = repr(scores[answer.id]) if answer.id in scores else ""
            args += [name, f"{answer.arm} {weight_of(answer.arm, answer.propensity)!r}", score]
        self._add(keys=[self._names, counts_key(self.release.id), self._state], args=args)

    def _cursor(self) -> str:
        began = max(int((self.release.created - SLACK_S) * 1000), 0)
        return str(self.ledger.redis.hget(self._state, "cursor") or f"{began}-0")

    def _answers(self, after: str) -> Iterator[tuple[str, Completion | None]]:
        """(place, answer) in the order of the ledger; None of what was erased."""
        while batch := self.ledger.redis.xrange(COMPLETIONS, min=f"({after}", count=SCAN):
            known = self.ledger.completions(tuple(fields["id"] for _, fields in batch))
            yield from ((place, known.get(fields["id"])) for place, fields in batch)
            after = batch[-1][0]

    def _scorable(self, answers: Collection[Completion]) -> list[Completion]:
        whole = [each for each in answers if is_whole(each)]
        withheld = Archive(self.ledger).withheld(whole)
        return [each for each in whole if each.id not in withheld]


def is_unit(answer: Completion, release: int) -> bool:
    """Whether chance put the answer's conversation on an arm; blind comparisons have no such chance."""
    put = answer.release == release and answer.arm is not None and answer.propensity is not None
    return put and answer.choice == 0 and not answer.decoy


def is_whole(answer: Completion) -> bool:
    """Whether it says something, and to the end."""
    tokens = answer.prompt_token_ids and answer.completion_token_ids
    return bool(tokens and answer.text.strip()) and not answer.tool_calls and not answer.partial


def scoring_version(registry: PolicyRegistry, release: Release) -> int | None:
    """The stable policy if it has a reward model, else the newest version that has.

    Never the candidate, which was taught to please its own.
    """
    states = registry.states()
    others = [version for version in sorted(states, reverse=True) if version != release.candidate]
    having = (v for v in (release.stable, *others) if states.get(v) not in (None, *WITHOUT_WEIGHTS))
    return next((version for version in having if (registry.directory(version) / REWARD).is_dir()), None)


def scored_by(redis: Any, release: Release) -> int | None:
    """Whose reward model scores a release, once that is settled."""
    known = redis.hget(_state_key(release), "version")
    return None if known is None else int(known)


def _state_key(release: Release) -> str:
    return f"release:{release.id}:scoring"
