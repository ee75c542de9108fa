"""What rounds and policy versions show in full, for the API's document."""

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, Field

from feedback.policies.ppo_curves import Curves
from feedback.policies.reward_fit import Fit
from feedback.rounds.book import CoursePoint
from serving.document.openapi import documented
from serving.document.operations import Policy
from serving.document.schema import example


class Course(BaseModel):
    object: Literal["round.course"]
    round: int
    data: list[CoursePoint] = Field(description="oldest first; of a long stage 400 steps, evenly spread")

    model_config = example({
        "object": "round.course", "round": 4,
        "data": [{
            "stage": "ppo", "step": 3, "total": 40, "time": 1767225600.5,
            "metrics": {"objective/score": 0.1, "objective/kl": 0.8},
        }],
    })  # fmt: skip


class AskedCheck(BaseModel):
    """Whether `value` stands to `threshold` as `sign` says; null is no number at all."""

    name: str
    value: float | None
    sign: str
    threshold: float | None
    passed: bool


class PolicyInFull(Policy):
    """The card of the list and more, which is empty where the version is `broken`."""

    config: dict[str, Any] = Field(description="how it was trained")
    ancestors: list[int] = Field(description="nearest first")
    descendants: list[int]
    round: int | None = Field(description="that made it; null of the base and of imported ones")
    judgements: dict[str, int] = Field(description="that trained it, in all and by kind")
    gate: list[AskedCheck]
    reward_fit: Fit | None = Field(description="of its reward model on held-out rankings")
    curves: Curves | None = Field(description="how PPO went")

    model_config = example({
        "id": "policy-v3", "object": "policy", "version": 3, "state": "stable", "served": True, "pinned": False,
        "parent": 2, "kind": "trained", "config": {"seed": 4}, "ancestors": [2, 0], "descendants": [], "round": 4,
        "judgements": {"all": 60, "rankings": 48, "ratings": 10, "demonstrations": 2, "raters": 7, "live": 0},
        "gate": [{"name": "KL to the reference", "value": 2.5, "sign": "<=", "threshold": 20.0, "passed": True}],
        "reward_fit": None, "curves": None,
    })  # fmt: skip


class AnsweredPrompt(BaseModel):
    prompt: str
    left: str
    right: str
    left_cut: bool | None = Field(default=None, description="whether it was cut at the limit of length, where known")
    right_cut: bool | None = None


class PolicyDiff(BaseModel):
    """All pairs are (left, right): the version in the path, and the one it is held against."""

    object: Literal["policy.diff"]
    versions: tuple[int, int]
    common_ancestor: int | None
    lineage: dict[str, tuple[Any, Any]] = Field(description="what differs; likewise `config` and `metrics`")
    judgements: dict[str, int] = Field(description="that trained: `left` only, `both`, `right` only")
    config: dict[str, tuple[Any, Any]]
    metrics: dict[str, tuple[Any, Any]]
    gate: dict[str, tuple[Any, Any]] = Field(description="all that it asked of either")
    answers: list[AnsweredPrompt] = Field(description="to the same few prompts, always the likeliest token")
    answers_missing: list[int] = Field(description="versions that have none: older ones, and deleted ones")

    model_config = example({
        "object": "policy.diff", "versions": (3, 2), "common_ancestor": 2, "lineage": {"round": (4, 3)},
        "judgements": {"left": 12, "both": 48, "right": 0}, "config": {"ppo.kl_coef": (0.05, 0.1)}, "metrics": {},
        "gate": {}, "answers_missing": [],
        "answers": [
            {"prompt": "Why?", "left": "Because.", "right": "Why not, as", "left_cut": False, "right_cut": True}
        ],
    })  # fmt: skip


With = Annotated[str, Query(alias="with", description="the version to hold it against, such as `policy-v2`")]

POLICY = documented("One policy version in full", tag="policies", returns=PolicyInFull, errors=(403, 404))
DIFF = documented(
    "Two policy versions side by side: what differs, and what they answer",
    tag="policies",
    returns=PolicyDiff,
    errors=(403, 404, 409),
)
COURSE = documented("The figures of a round's steps as they came", tag="rounds", returns=Course, errors=(403, 404))
