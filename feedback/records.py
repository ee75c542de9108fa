"""Frozen records that cross package borders: what was served, and what people said of it."""

import hashlib
import json
import re
import secrets
import time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_CANDIDATES = 16
Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def new_id(prefix: str) -> str:
    """A time-ordered unique id (UUIDv7 layout: 48 bits of milliseconds, then 80 random bits)."""
    return f"{prefix}{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


class Record(BaseModel):
    """Immutable; unknown fields are refused, so a typo cannot be dropped silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    role: str
    content: str


class Completion(Record):
    """One finished answer as it was served; `logprobs` are the sampled tokens' under the behaviour policy."""

    schema_version: Literal[1] = 1
    id: Id
    response_id: Id
    choice: int
    conversation_id: str
    rater: str
    messages: tuple[Message, ...]
    text: str
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling: dict[str, Any]
    finish_reason: str
    policy_version: int
    version_changed_at: int | None = None
    consent: bool = True
    created: float

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if len(self.logprobs) != len(self.completion_token_ids):
            raise ValueError("logprobs and completion_token_ids differ in length")
        return self

    @property
    def prompt_digest(self) -> str:
        """Equal for two completions exactly when they answer the same messages."""
        return digest([message.model_dump() for message in self.messages])


class Rating(Record):
    """A thumb: 1 or -1; or a mark between 0 and 1."""

    type: Literal["rating"] = "rating"
    completion_id: Id
    value: float

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

    `ranking` may come as groups of ids, or as text like "D > C = A > B" where A is the first candidate.
    """

    type: Literal["ranking"] = "ranking"
    candidates: Annotated[tuple[Id, ...], Field(min_length=2, max_length=MAX_CANDIDATES)]
    ranking: tuple[tuple[Id, ...], ...]

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
        if sorted(placed) != sorted(self.candidates):
            raise ValueError("ranking must place every candidate exactly once")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        return self.candidates

    @property
    def tiers(self) -> tuple[int, ...]:
        """Rank of each target in the order of `candidates`, 0 = best; equal = tie."""
        place = {candidate: tier for tier, group in enumerate(self.ranking) for candidate in group}
        return tuple(place[candidate] for candidate in self.candidates)


class Demonstration(Record):
    """The answer a person would have given instead."""

    type: Literal["demonstration"] = "demonstration"
    completion_id: Id
    content: Annotated[str, StringConstraints(min_length=1, max_length=32_768, strip_whitespace=True)]

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.completion_id,)


Judgement = Annotated[Rating | Comparison | Ranking | Demonstration, Field(discriminator="type")]


class Feedback(Record):
    """A judgement as the ledger keeps it. `rater` is pseudonymous; `split` says whether it may train."""

    schema_version: Literal[1] = 1
    id: Id
    judgement: Judgement
    rater: str
    split: Literal["train", "eval"]
    created: float

    @property
    def slot(self) -> str:
        """A second judgement in the same slot is a revision of the first."""
        return digest([self.rater, self.judgement.type, sorted(self.judgement.targets)])


def parse_ranking(text: str, candidates: list[str]) -> list[list[str]]:
    """`"D > C = A > B"` into groups of candidates; letters follow the candidates' order.

    Raises ValueError on anything that is not letters joined by `>` and `=`.
    """
    if not re.fullmatch(r"\s*[A-Za-z]\s*([>=]\s*[A-Za-z]\s*)*", text):
        raise ValueError('ranking must look like "D > C = A > B"')
    letters = [[letter.strip().upper() for letter in group.split("=")] for group in text.split(">")]
    by_letter = {chr(ord("A") + index): candidate for index, candidate in enumerate(candidates)}
    unknown = [letter for group in letters for letter in group if letter not in by_letter]
    if unknown:
        raise ValueError(f"ranking names {unknown[0]}, but there are {len(candidates)} candidates")
    return [[by_letter[letter] for letter in group] for group in letters]


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
