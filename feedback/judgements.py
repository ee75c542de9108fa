"""What people say of answers: six kinds of judgement, and how the ledger keeps one."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import Field, StrictBool, StrictFloat, StringConstraints, model_validator

from feedback.records import CHECKS, READABLE, Id, Lane, Record, digest

MAX_CANDIDATES = 16
#: The ids of what was laid side by side begin so.
COMPARED = "cmp_"
MAX_TEXT = 32_768
# Of a ranking by letters, with room for blanks.
MAX_LETTERS = 256

Reasons = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...], Field(max_length=16)]
Group = Annotated[tuple[Id, ...], Field(max_length=MAX_CANDIDATES)]
# Not stripped: a demonstration may begin with an indent.
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]


class Rating(Record):
    """A thumb: 1 or -1; or a mark between 0 and 1. Of the whole answer, or of one `metric`, which trains nothing."""

    type: Literal["rating"] = "rating"
    completion_id: Id
    value: StrictFloat
    metric: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    reasons: Reasons = ()
    comment: Text | None = None

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not (self.value == -1 or 0 <= self.value <= 1):
            raise ValueError("value must be 1, -1 or a number between 0 and 1")
        return self

    @property
    def label(self) -> float:
        """The share of approval, 0 to 1."""
        return max(self.value, 0.0)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.completion_id,)


class Comparison(Record):
    """Two answers to one prompt, as they stood left and right."""

    type: Literal["comparison"] = "comparison"
    left: Id
    right: Id
    winner: Literal["left", "right", "tie", "both_bad"]
    comparison_id: Id | None = None

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.left == self.right:
            raise ValueError("left and right must be different completions")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.left, self.right)

    @property
    def tiers(self) -> tuple[int, ...]:
        """Rank of each target, 0 = best; equal = tie."""
        return {"left": (0, 1), "right": (1, 0)}.get(self.winner, (0, 0))


class Ranking(Record):
    """An ordered partition of the candidates, best group first; a group of several is a tie.

    `ranking` may come as groups of ids, or as text like "D > C = A > B" where A is the first candidate. A `partial` one
    leaves candidates out: each of those is worse than all that are placed, and they are not compared with each other.
    """

    type: Literal["ranking"] = "ranking"
    candidates: Annotated[tuple[Id, ...], Field(min_length=2, max_length=MAX_CANDIDATES)]
    ranking: Annotated[tuple[Group, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    partial: StrictBool = False
    none_acceptable: StrictBool = False
    comparison_id: Id | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("ranking"), str):
            candidates = data.get("candidates")
            if isinstance(candidates, list | tuple):
                return {**data, "ranking": parse_ranking(data["ranking"], [str(c) for c in candidates])}
        return data

    @model_validator(mode="after")
    def _partition(self) -> Self:
        placed = [candidate for group in self.ranking for candidate in group]
        if len(set(self.candidates)) != len(self.candidates):
            raise ValueError("candidates must not repeat")
        if not all(self.ranking):
            raise ValueError("ranking must not hold an empty group")
        if len(set(placed)) != len(placed) or not set(placed) <= set(self.candidates):
            raise ValueError("ranking must place candidates only, each at most once")
        if not self.partial and len(placed) != len(self.candidates):
            raise ValueError("ranking must place every candidate exactly once, unless it is partial")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        return self.candidates

    @property
    def tiers(self) -> tuple[int, ...]:
        """Rank of each target in the order of `candidates`, 0 = best; equal = tie, except in the tier `unplaced`."""
        place = {candidate: tier for tier, group in enumerate(self.ranking) for candidate in group}
        return tuple(place.get(candidate, self.unplaced) for candidate in self.candidates)

    @property
    def unplaced(self) -> int:
        """The tier of candidates that a partial ranking left out."""
        return len(self.ranking)


class Demonstration(Record):
    """The answer a person would have given instead; `based_on_edit` when it is the shown one, corrected."""

    type: Literal["demonstration"] = "demonstration"
    completion_id: Id
    content: Text
    based_on_edit: StrictBool = False

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.completion_id,)


class Comment(Record):
    """Words about an answer, for people to read."""

    type: Literal["comment"] = "comment"
    completion_id: Id
    content: Text

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.completion_id,)


class Flag(Record):
    """A report that an answer should not have been given."""

    type: Literal["flag"] = "flag"
    completion_id: Id
    reasons: Reasons = ()
    comment: Text | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.completion_id,)


Judgement = Annotated[Rating | Comparison | Ranking | Demonstration | Comment | Flag, Field(discriminator="type")]


def rates(judgement: Judgement) -> TypeGuard[Rating]:
    """Whether it rates the answer as a whole."""
    return isinstance(judgement, Rating) and judgement.metric is None


def teaches(judgement: Judgement) -> bool:
    """Whether a round could learn from it: people alone read comments, flags, and ratings of single metrics."""
    return isinstance(judgement, Comparison | Ranking | Demonstration) or rates(judgement)


def compares(judgement: Judgement, ids: Collection[str]) -> TypeGuard[Comparison | Ranking]:
    """Whether a judgement sets some of these answers, and no others, against each other."""
    return isinstance(judgement, Comparison | Ranking) and {*judgement.targets} <= {*ids}


def offer_behind(judgement: Judgement) -> str | None:
    """What was laid side by side of which a judgement sets answers, and no others, against each other."""
    behind = {target.partition(":")[0] for target in judgement.targets}
    if not isinstance(judgement, Comparison | Ranking) or len(behind) > 1:
        return None
    return next((id for id in behind if id.startswith(COMPARED)), None)


class Circumstances(Record):
    """How a judgement was made, as the client tells: times in seconds since 1970, the order shown, tags of its own."""

    model_config = READABLE

    shown_at: StrictFloat | None = None
    answered_at: StrictFloat | None = None
    presented_order: Annotated[tuple[Id, ...], Field(max_length=MAX_CANDIDATES)] = ()
    tags: Annotated[dict[str, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)] = {}


class Feedback(Record):
    """A judgement as the ledger keeps it. `rater` is pseudonymous; `split` says whether it may train.

    `lane` and `release` are those of the offer that it judges, if it judges one.
    """

    model_config = READABLE

    schema_version: Literal[1] = 1
    id: Id
    judgement: Judgement
    rater: str
    split: Literal["train", "eval"]
    lane: Lane | None = None
    release: int | None = None
    circumstances: Circumstances = Circumstances()
    created: float

    @property
    def is_check(self) -> bool:
        """Whether it tells of its rater, not of the answers."""
        return self.lane in CHECKS

    @property
    def slot(self) -> str:
        """A second judgement in the same slot is a revision of the first.

        Each metric has its own, and so has a pair that comes again.
        """
        judgement = self.judgement
        more = [judgement.metric] if isinstance(judgement, Rating) and judgement.metric else []
        if self.lane == "repeat" and isinstance(judgement, Comparison | Ranking) and judgement.comparison_id:
            more = [judgement.comparison_id]
        return digest([self.rater, judgement.type, sorted(judgement.targets), *more])


#: How ids begin of judgements from files that tell none. All others tell by their time when they were made.
IMPORTED_ID = "fb_import_"


def parse_ranking(text: str, candidates: list[str]) -> list[list[str]]:
    """`"D > C = A > B"` into groups of candidates; letters follow the candidates' order.

    Raises ValueError on anything that is not letters joined by `>` and `=`.
    """
    if len(text) > MAX_LETTERS or not re.fullmatch(r"\s*[A-Za-z]\s*([>=]\s*[A-Za-z]\s*)*", text):
        raise ValueError('ranking must look like "D > C = A > B"')
    letters = [[letter.strip().upper() for letter in group.split("=")] for group in text.split(">")]
    by_letter = {chr(ord("A") + index): candidate for index, candidate in enumerate(candidates)}
    unknown = [letter for group in letters for letter in group if letter not in by_letter]
    if unknown:
        raise ValueError(f"ranking names {unknown[0]}, but there are {len(candidates)} candidates")
    return [[by_letter[letter] for letter in group] for group in letters]
