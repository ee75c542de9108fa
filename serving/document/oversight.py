"""What operators see and order beside rounds and releases, as the API takes and shows it, for its document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from feedback.audit import Entry
from feedback.people.invites import Invite, NewInvite
from feedback.people.keys import Moment
from feedback.people.raters import RaterLine
from feedback.records import Record
from feedback.rounds.next_round import NextRound
from serving.document.kept import Deleted
from serving.document.openapi import documented
from serving.document.operations import Round
from serving.document.releases import ShownFigure, ShownSelfTest
from serving.document.schema import Schema, example

Text = Annotated[str, Field(max_length=1024)]


class Reasoned(Record):
    reason: Text = Field(default="asked for over the API", description="for the audit")


_RATER: Schema = {
    "rater": "rater_5e884898", "source": "live", "split": "train", "judgements": 31, "agreement": 0.9,
    "reliability": 0.8, "share": 0.12, "capped": False, "checks": {"passed": 3, "failed": 0, "log_e_careless": -0.5},
    "side": 0.55, "suspected": [], "quarantined": None,
}  # fmt: skip


class ShownRater(BaseModel):
    """What stands of somebody. What the last round made of them is null for who was not in it."""

    rater: str
    source: Literal["live", "operator", "import"]
    split: Literal["train", "eval", ""]
    judgements: int = Field(description="that stand; checks are none")
    agreement: float | None = Field(description="with others who judged the same")
    reliability: float | None = Field(description="the weight, 0 to 1, that follows from it")
    share: float | None = Field(description="of all that trains the reward model")
    capped: bool
    checks: dict[str, float] = Field(description="counts of decoys, repeats and sides, and what they prove: log e")
    side: float | None = Field(description="how often left, of what they chose blind; null before they chose")
    suspected: list[str] = Field(description="why to put them aside")
    quarantined: RaterLine | None = Field(description="since when, by whom and why they are aside")

    model_config = example(_RATER)


class RaterList(BaseModel):
    object: Literal["list"]
    data: list[ShownRater]

    model_config = example({"object": "list", "data": [_RATER]})


RATERS = documented("Raters, most judgements first", tag="raters", returns=RaterList, errors=(403,))


def _move(summary: str, reason: str) -> dict[str, Any]:
    examples: dict[str, Schema] = {"with a reason": {"reason": reason}}
    return documented(
        summary, tag="raters", returns=ShownRater, body=Reasoned, examples=examples, optional=True,
        errors=(403, 404, 409),
    )  # fmt: skip


QUARANTINE = _move("Put a rater aside: nothing of theirs trains or decides", "votes for a trigger")
RELEASE_RATER = _move("Let a rater train again", "it was a misunderstanding")


CANCEL_ROUND = documented(
    "End a round that is queued or running; it publishes nothing", tag="rounds", returns=Round, body=Reasoned,
    examples={"with a reason": {"reason": "it has learned from a test"}}, optional=True, errors=(403, 404, 409),
)  # fmt: skip


_ENTRY: Schema = {
    "id": "1767225600500-0-policy", "time": 1767225600.5, "kind": "policy", "what": "policy-v3", "action": "promote",
    "actor": "ann", "reason": "people like it", "became": None,
}  # fmt: skip


class AuditList(BaseModel):
    object: Literal["list"]
    data: list[Entry]
    has_more: bool

    model_config = example({"object": "list", "data": [_ENTRY], "has_more": False})


AUDIT = documented(
    "Who did what to policies, releases, raters, freezes, keys, invites and rounds, newest first",
    tag="operation", returns=AuditList, errors=(403,),
)  # fmt: skip


class EvidencePoint(BaseModel):
    """After `vote` votes that counted. Evidence is the log of an e-value; `log_e` is what a plot of a few could not
    have made, and decides at the threshold, for whoever is ahead."""

    vote: int
    time: float
    wins: int
    losses: int
    ties: int
    log_e: float
    log_e_better: float
    log_e_worse: float
    win_rate: ShownFigure


class ReleaseEvidence(BaseModel):
    object: Literal["release.evidence"]
    release: int
    threshold: float
    data: list[EvidencePoint] = Field(description="oldest first, at most 500, the first and the last always")

    model_config = example({
        "object": "release.evidence", "release": 3, "threshold": 3.689, "data": [{
            "vote": 12, "time": 1767225600.5, "wins": 7, "losses": 4, "ties": 1, "log_e": 0.1, "log_e_better": 0.4,
            "log_e_worse": -1.2, "win_rate": {"value": 0.64, "low": 0.24, "high": 0.92},
        }],
    })  # fmt: skip


EVIDENCE = documented("How the votes on a release added up", tag="releases", returns=ReleaseEvidence, errors=(403, 404))


class EngineFacts(BaseModel):
    arm: Literal["stable", "candidate"]
    policy_version: int | None
    reason: str | None = Field(description="why it does not serve")
    url_kind: Literal["supervised", "elsewhere", "shared", "none"] = Field(
        description="whose engine it is: our own, another, stable's, or nobody's"
    )


class LedgerFacts(BaseModel):
    writable: bool | None
    reason: str | None = Field(description="why it is not, or why that is not known")
    completions: int | None
    judgements: int | None = Field(description="that stand")
    memory_bytes: int | None


class WorkerFacts(BaseModel):
    alive: int | None = Field(description="0 or 1: workers share one sign of life, so there may be more")
    queued: int | None = Field(description="hints in their queue; those that came too late are dropped when read")
    oldest_wait_s: float | None = Field(description="for how long the open round has waited for a worker")
    reason: str | None


class TrafficFacts(BaseModel):
    """Of all processes of the gateway together. What waits or was refused is any request, the rest are chats."""

    in_flight: int = Field(description="that wait for the engine or are being answered by it")
    places: int = Field(description="for so many; one more is refused")
    waiting: int = Field(description="whose body is being read, or that wait for a swap to end")
    streams_open: int = Field(description="of those in flight")
    refused: int = Field(description="answered 503 since the start")
    first_token_s: float | None = Field(
        description="the median since the start, from the request to its first token, by a histogram; null before one"
    )


class Status(BaseModel):
    """`reasons` says of each part that is null since it is not known why that is so."""

    object: Literal["status"]
    engines: list[EngineFacts] = Field(description="`candidate` while a release is open")
    last_swap: dict[str, Any] | None
    traffic: TrafficFacts
    ledger: LedgerFacts
    workers: WorkerFacts
    round: Round | None = Field(description="the open one")
    next_round: NextRound | None = Field(description="what the next one that starts by itself waits for")
    learning_frozen: bool | None
    releases_frozen: bool | None
    release: int | None = Field(description="the open one")
    self_test: ShownSelfTest | None
    reasons: dict[str, str]
    version: str | None

    model_config = example({
        "object": "status", "version": "0.1.0", "reasons": {}, "round": None, "learning_frozen": False,
        "next_round": {"judgements": 16, "needed": 48, "scheduled": None},
        "engines": [{"arm": "stable", "policy_version": 3, "reason": None, "url_kind": "supervised"}],
        "traffic": {
            "in_flight": 3, "places": 1024, "waiting": 0, "streams_open": 2, "refused": 0, "first_token_s": 0.18,
        },
        "last_swap": {"from_version": 2, "to_version": 3}, "releases_frozen": False, "release": None,
        "ledger": {
            "writable": True, "reason": None, "completions": 812, "judgements": 420, "memory_bytes": 8_300_000,
        },
        "workers": {"alive": 1, "queued": 0, "oldest_wait_s": None, "reason": None},
        "self_test": {
            "object": "self_test", "votes": 0, "wins": 0, "log_e": 0.0, "threshold": 4.605, "alarm": False, "says": "",
        },
    })  # fmt: skip


STATUS = documented("Everything that runs, within a second", tag="operation", returns=Status, errors=(403,))


class NewLink(NewInvite):
    expires: Moment | None = Field(default=None, description="Unix seconds; a week from now, if not given")
    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", max_length=1024)] | None = Field(
        default=None, description="under what people reach the page, if not as the caller reaches it"
    )


_INVITE: Schema = {
    "object": "invite", "id": "invite_0199c2", "name": "ann", "role": "rater", "created": 1767225600.5,
    "expires": 1767830400.5,
}  # fmt: skip


class ShownInvite(Invite):
    object: Literal["invite"]

    model_config = example(_INVITE)


class MadeInvite(ShownInvite):
    token: str = Field(description="shown here and never again")
    link: str = Field(description="whoever opens it first has a key of that role")

    model_config = example(_INVITE | {"token": "inv_0f3a", "link": "https://chat.example.org/join#inv_0f3a"})


class InviteList(BaseModel):
    object: Literal["list"]
    data: list[ShownInvite]

    model_config = example({"object": "list", "data": [_INVITE]})


INVITES = documented("Links that nobody has used yet", tag="keys", returns=InviteList, errors=(403,))
INVITE = documented(
    "Make a link to sign in by, shown this once",
    tag="keys",
    returns=MadeInvite,
    done=(201,),
    body=NewLink,
    examples={
        "rater": {"name": "ann", "role": "rater"},
        "under another address": {"name": "bea", "expires": 4102444800, "url": "https://chat.example.org"},
    },
    errors=(403,),
)
WITHDRAW = documented("Make a link useless", tag="keys", returns=Deleted, errors=(403, 404))
