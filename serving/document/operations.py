"""What operators send about policies and rounds, and what they get, for the API's document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from feedback.leaderboard.standings import Leaderboard
from feedback.rounds.book import RoundRecord
from serving.document.schema import Schema, example


class Policy(BaseModel):
    id: str
    object: Literal["policy"]
    version: int
    state: str
    served: bool
    pinned: bool
    broken: str | None = None

    model_config = example({
        "id": "policy-v3", "object": "policy", "version": 3, "state": "stable", "served": True, "pinned": False,
        "parent": 2, "kind": "trained",
    })  # fmt: skip


class PolicyList(BaseModel):
    object: Literal["list"]
    data: list[Policy]
    stable: int | None
    previous: int | None = Field(description="what a rollback without `to` returns to")
    served: int | None
    candidate_served: int | None = Field(description="beside it, while a release is under way")
    last_swap: dict[str, Any] | None

    model_config = example({
        "object": "list", "data": [], "stable": 3, "previous": 2, "served": 3, "candidate_served": None,
        "last_swap": {"from_version": 2, "to_version": 3},
    })  # fmt: skip


Expected = Annotated[
    int | str | None, Field(description="what the caller has seen serving, such as `policy-v3`; else 409 and no change")
]
Reason = Annotated[str | None, Field(max_length=1024, description="for the audit")]


_FIGURE: Schema = {"value": 0.31, "low": 0.12, "high": 0.5}


class Leaders(Leaderboard):
    """Strengths are log-odds above the anchor; Elo is the same scale around 1000. An interval may be unknown."""

    object: Literal["leaderboard"]

    model_config = example({
        "object": "leaderboard", "anchor": 0, "stable": 1, "confidence": 0.95, "votes": 420, "ties": 60, "raters": 38,
        "standings": [{
            "version": 1, "status": "ranked", "strength": _FIGURE,
            "elo": {"value": 1053.9, "low": 1020.8, "high": 1086.9},
            "against_stable": {"value": 0.5, "low": 0.5, "high": 0.5},
            "votes": 420, "wins": 208, "ties": 60, "losses": 152, "raters": 38,
        }],
        "left_wins": {"value": 0.52, "low": 0.49, "high": 0.55}, "longer_wins": None,
        "fragility": {"leader": 1, "rival": 0, "dropped": 57},
    })  # fmt: skip


class Rollback(BaseModel):
    to: int | str | None = Field(default=None, description="such as `policy-v2`; without it, the one before")
    expected: Expected = None
    reason: Reason = None


class Promotion(BaseModel):
    expected: Expected = None
    reason: Reason = None


class PointedPolicy(BaseModel):
    object: Literal["policy"]
    id: str
    version: int

    model_config = example({"object": "policy", "id": "policy-v2", "version": 2})


class Round(RoundRecord):
    object: Literal["round"]

    model_config = example({
        "object": "round", "id": 4, "state": "running", "stage": "reward", "token": 1, "lease_until": 1767225660000,
        "attempts": 1, "trigger": "operator", "actor": "root", "created": 1767225600.5,
        "progress": {"stage": "reward", "step": 3, "total": 10},
    })  # fmt: skip


class RoundList(BaseModel):
    object: Literal["list"]
    data: list[Round]
    frozen: bool
    has_more: bool = Field(description="there are older ones: go on with the last one's id as `before`")

    model_config = example({"object": "list", "data": [], "has_more": False, "frozen": False})


class Freeze(BaseModel):
    frozen: bool
    reason: Reason = None


class Frozen(BaseModel):
    frozen: bool
    object: Literal["learning"]

    model_config = example({"object": "learning", "frozen": True})
