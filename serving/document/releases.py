"""Releases as the API takes and shows them: orders are checked by these models, what is shown is for the document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SkipValidation, StrictBool

from feedback.records import Record
from feedback.releases.book import Mode, State
from feedback.releases.plan import Plan, Step
from feedback.settings import ReleaseMode
from serving.document.schema import Schema, example

Text = Annotated[str, Field(max_length=1024)]
Number = Annotated[int, Field(ge=0, le=10**9, strict=True)]


class Strategy(Record):
    steps: Annotated[list[Step], SkipValidation]  # the plan's own complaints are plainer


class VotesAsked(Record):
    alpha: float | None = None
    max_votes: int | None = None


class ReleaseWish(Record):
    """Fields of the plan may also stand in `plan`; those that are left out are `release.json`'s, or the defaults."""

    candidate: int | str = Field(description="such as `policy-v7`")
    mode: Mode | None = Field(
        default=None, description="automatic promotes by itself; the others propose. Default: `RATCHET_RELEASE_MODE`"
    )
    reason: Text = "asked for over the API"
    replaces: Number | None = Field(
        default=None, description="the release that must be open, null for none; without it, whichever is open"
    )
    strategy: Strategy | None = None
    analysis: VotesAsked | None = None
    plan: dict[str, Any] = Field(default={}, description="any fields of a release's `plan`")

    @property
    def asked(self) -> dict[str, Any]:
        """The fields of a plan that it names."""
        named = {} if self.strategy is None else {"steps": self.strategy.steps}
        return self.plan | named | ({} if self.analysis is None else self.analysis.model_dump(exclude_none=True))


class ReleaseOrder(Record):
    reason: Text = "asked for over the API"
    revision: Number | None = Field(default=None, description="do nothing, with 409, if it is no longer this one")


class ReleasePromotion(ReleaseOrder):
    full: StrictBool = Field(default=False, description="leave out all steps to come; it serves at once")


class FrozenReleases(BaseModel):
    frozen: bool
    object: Literal["releases"]

    model_config = example({"object": "releases", "frozen": True})


class ResetSelfTest(BaseModel):
    reset: Literal[True]


class ShownSelfTest(BaseModel):
    """Decisive votes on stable against itself, and how many the second of the two won. At the threshold an alarm is
    raised: votes measure something else, so none decides and nothing is promoted by itself until somebody resets it."""

    object: Literal["self_test"]
    votes: int
    wins: int
    log_e: float = Field(description="the highest evidence there ever was, as the log of an e-value")
    threshold: float
    alarm: bool
    says: str

    model_config = example({
        "object": "self_test", "votes": 12, "wins": 5, "log_e": 0.0, "threshold": 4.605, "alarm": False,
        "says": "of 12 decisive votes on stable against itself the second won 5, as chance may have it",
    })  # fmt: skip


class Passed(BaseModel):
    """Seconds of the release's own time, in the step under way and in all; and those in a row without an engine."""

    in_step: float
    in_all: float
    unheld: float


class ShownStep(BaseModel):
    says: str
    state: Literal["taken", "under way", "to come", "not taken"]


class Votes(BaseModel):
    """Of candidate against stable; `not_counted` are those beyond what one rater may say."""

    won: int
    lost: int
    tied: int
    not_counted: int


class Voters(BaseModel):
    """How many people, never who."""

    voted: int | None = Field(description="whose votes were counted, or were beyond what one may say")
    may_vote: int | None = Field(
        description="as known when it began: who had compared answers in the month before or, where nobody had, had "
        "chatted, as far as theirs decide; later ones may too"
    )


class ShownFigure(BaseModel):
    value: float
    low: float
    high: float


class Evidence(BaseModel):
    """Decides at the threshold: what a plot of a few could not have made of the votes, as the log of an e-value."""

    log_e: float
    threshold: float
    model_config = {"extra": "allow"}


class ShownGuardrail(BaseModel):
    name: str
    verdict: Literal["ok", "breached", "unknown"]
    value: float | None
    limit: float
    interval: ShownFigure | None
    units: dict[str, int]


_FIGURE: Schema = {"value": 0.62, "low": 0.41, "high": 0.79}
_RELEASE: Schema = {
    "object": "release", "id": 3, "revision": 2, "candidate": 7, "stable": 5, "mode": "assisted", "whose": "all",
    "actor": "root", "reason": "fewer words", "created": 1767225600.5, "state": "canary", "open": True, "step": 1,
    "is": "canary, step 2 of 2, policy-v7 at 10%", "weight": 0.1, "paused": False,
    "paused_by": "", "paused_why": "", "proposed": False, "by_votes": False, "why": "",
    "plan": {"steps": [{"set_weight": 10.0}, {"analysis": True}], "alpha": 0.05},
    "steps": [
        {"says": "10% of conversations", "state": "taken"}, {"says": "wait for the votes", "state": "under way"},
    ],
    "engine": {"version": 7, "state": "ready", "cause": None}, "self_test": None,
    "passed": {"in_step": 4210.5, "in_all": 6010.0, "unheld": 0.0}, "outcome": "undecided",
    "votes": {"won": 31, "lost": 19, "tied": 4, "not_counted": 2}, "voters": {"voted": 11, "may_vote": 40},
    "win_rate": _FIGURE,
    "evidence": {"for": "candidate", "log_e": 0.4, "threshold": 3.7}, "still_needed": 120,
    "forecast": "about 120 more votes to a decision", "thumbs": None, "left_wins": _FIGURE, "guardrails": [],
    "says": "The candidate won 31 of 50 decisive votes, which decides nothing: about 120 more are needed.",
}  # fmt: skip


class ShownRelease(BaseModel):
    """`revision` counts its changes. What is measured is null until the votes are first counted."""

    object: Literal["release"]
    id: int
    revision: int
    candidate: int
    stable: int
    mode: Mode
    state: State
    plan: Plan
    step: int = Field(description="the index of the step under way")
    steps: list[ShownStep]
    weight: float = Field(description="the candidate's share of conversations")
    paused: bool
    paused_by: str = Field(description="whose order it is; empty while a step of the plan waits for an operator")
    paused_why: str
    proposed: bool = Field(description="all steps are taken, and an operator is waited for")
    by_votes: bool = Field(description="votes took a step, so it is promoted by itself only while they still say so")
    engine: dict[str, Any] | None = Field(description="of the candidate, while one is wanted: version, state, cause")
    self_test: ShownSelfTest | None = Field(description="while it is open, and once it has votes")
    passed: Passed | None = Field(description="while it is open: against a step's `pause`, the `deadline`, `patience`")
    outcome: Literal["promote", "roll back", "inconclusive", "undecided"] | None
    votes: Votes | None
    voters: Voters
    win_rate: ShownFigure | None
    evidence: Evidence | None
    still_needed: int | None
    thumbs: ShownFigure | None = Field(description="difference of the shares of thumbs up")
    guardrails: list[ShownGuardrail]

    model_config = example(_RELEASE)


class ReleaseLine(BaseModel):
    time: float
    actor: str
    reason: str
    state: State
    revision: int

    model_config = {"extra": "allow"}


class ReleaseWithHistory(ShownRelease):
    history: list[ReleaseLine]

    model_config = example({
        **_RELEASE,
        "history": [{
            "time": 1767225600.5, "actor": "root", "reason": "fewer words", "is": "pending, step 1 of 2",
            "state": "pending", "revision": 0, "step": 0, "weight": 0.0,
        }],
    })  # fmt: skip


class UsualRelease(BaseModel):
    """What becomes of a version that passes its gate, in words, and a release as it would begin now without wishes."""

    setting: ReleaseMode = Field(description="`RATCHET_RELEASE_MODE`; `mode` is another one only where this is direct")
    says: str
    mode: Mode
    plan: Plan | None = Field(description="null where it cannot be read")
    steps: list[ShownStep]
    broken: str | None = Field(description="why the plan cannot be read, so that no release can begin by it")


_USUAL: Schema = {
    "setting": "assisted", "mode": "assisted", "plan": {"steps": [{"set_weight": 10.0}, {"analysis": True}]},
    "says": "A version that passes its gate is released by itself, and once its steps are taken an operator promotes "
    "it. An open release makes way for it.",
    "steps": [
        {"says": "10% of conversations", "state": "to come"}, {"says": "wait for the votes", "state": "to come"},
    ],
    "broken": None,
}  # fmt: skip


class ReleaseList(BaseModel):
    object: Literal["list"]
    data: list[ShownRelease]
    open: int | None
    frozen: bool
    has_more: bool = Field(description="there are older ones: go on with the last one's id as `before`")
    usual: UsualRelease

    model_config = example({
        "object": "list", "data": [], "has_more": False, "open": None, "frozen": False, "usual": _USUAL,
    })  # fmt: skip
