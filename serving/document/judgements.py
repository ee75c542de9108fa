"""What judgements look like as they are sent and shown, with an example of each way to say one; for the document."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from feedback.judgements import MAX_LETTERS, Circumstances, Feedback, Judgement
from serving.document.schema import REF, Schema, example

RESPONSE = "chatcmpl-0199c2"
FIRST, SECOND, THIRD = (f"{RESPONSE}:{index}" for index in range(3))
TWO_BLIND, FOUR_BLIND = "cmp_0199c2", "cmp_0199c4"

EXAMPLES: dict[str, Schema] = {
    "thumb up": {"type": "rating", "completion_id": FIRST, "value": 1},
    "thumb down with reasons": {
        "type": "rating", "completion_id": FIRST, "value": -1, "reasons": ["wrong"], "comment": "It is Rayleigh's."
    },
    "mark from 0 to 1": {"type": "rating", "completion_id": FIRST, "value": 0.7},
    "mark for one metric": {"type": "rating", "completion_id": FIRST, "value": 0.7, "metric": "tone"},
    "choice of a response": {"type": "rating", "completion_id": RESPONSE, "choice": 1, "value": 1},
    "comparison": {"type": "comparison", "left": FIRST, "right": SECOND, "winner": "left"},
    "comparison of candidates": {"type": "comparison", "candidates": [FIRST, SECOND], "winner": "tie"},
    "neither is good": {"type": "comparison", "left": FIRST, "right": SECOND, "winner": "both_bad"},
    "vote on two blind answers": {"type": "comparison", "comparison_id": TWO_BLIND, "winner": "right"},
    "vote on several by letter": {"type": "comparison", "comparison_id": FOUR_BLIND, "winner": "C"},
    "none of several": {"type": "comparison", "comparison_id": FOUR_BLIND, "winner": "none"},
    "ranking of blind answers": {"type": "ranking", "comparison_id": FOUR_BLIND, "ranking": "C > A = D > B"},
    "ranking as text": {"type": "ranking", "candidates": [FIRST, SECOND, THIRD], "ranking": "B > A = C"},
    "ranking as groups": {
        "type": "ranking", "candidates": [FIRST, SECOND, THIRD], "ranking": [[SECOND], [FIRST, THIRD]]
    },
    "partial ranking": {
        "type": "ranking", "candidates": [FIRST, SECOND, THIRD], "ranking": "B", "partial": True
    },
    "none acceptable": {
        "type": "ranking", "candidates": [FIRST, SECOND], "ranking": "A > B", "none_acceptable": True
    },
    "demonstration": {"type": "demonstration", "completion_id": FIRST, "content": "Air scatters blue light most."},
    "edited answer": {
        "type": "demonstration", "completion_id": FIRST, "content": "Because air scatters it.", "based_on_edit": True
    },
    "comment": {"type": "comment", "completion_id": FIRST, "content": "Right, but too short."},
    "flag": {"type": "flag", "completion_id": FIRST, "reasons": ["unsafe"], "comment": "It names a person."},
    "dry run": {"type": "rating", "completion_id": FIRST, "value": 1, "dry_run": True},
    "safe to repeat": {"type": "rating", "completion_id": SECOND, "value": 1, "client_id": "vote-17"},
    "for a user of the application": {"type": "rating", "completion_id": FIRST, "value": 1, "user": "ann"},
    "with its circumstances": {
        "type": "comparison", "left": SECOND, "right": FIRST, "winner": "left", "shown_at": 1767225600.5,
        "answered_at": 1767225609.2, "presented_order": [SECOND, FIRST], "tags": {"app": "notes"},
    },
}  # fmt: skip

_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}
_ABOUT = {
    "client_id": {**_TEXT, "description": "the same one again changes nothing, and says what became of the first"},
    "user": {**_TEXT, "description": "whom an operator's or admin's key speaks for"},
    "dry_run": {"type": "boolean", "description": "only check it"},
}
_ABOUT_CIRCUMSTANCES = {
    "shown_at": "when the answers were shown, in seconds since 1970",
    "answered_at": "when the person decided, in seconds since 1970",
    "presented_order": "the completions in the order in which they were shown",
    "tags": "the application's own notes, under names of at most 64 characters",
}


def judgement_schema() -> Schema:
    """A judgement as it is sent: with all shorthands, and with what may stand beside it."""
    schema = TypeAdapter(Judgement).json_schema(ref_template=REF)
    beside = Circumstances.model_json_schema()["properties"]
    for name, description in _ABOUT_CIRCUMSTANCES.items():
        beside[name]["description"] = description
    for kind in schema["$defs"].values():
        kind["properties"] |= _ABOUT | beside
        kind["required"] = ["type", *kind["required"]]
        if "completion_id" in kind["properties"]:
            _tell_of_choices(kind)
    schema["$defs"]["Rating"]["properties"]["metric"]["description"] = (
        "what was rated, where it is not the whole answer: kept beside ratings by other metrics, and trains nothing"
    )
    _tell_of_sides(schema["$defs"]["Comparison"])
    _tell_of_text(schema["$defs"]["Ranking"])
    return schema


def _tell_of_choices(kind: Schema) -> None:
    kind["properties"]["completion_id"]["description"] = "`ID:0` and on; a response's id alone means its first choice"
    kind["properties"]["choice"] = {
        "type": "integer", "minimum": 0, "description": "which choice, where `completion_id` is a response's id",
    }  # fmt: skip


def _tell_of_sides(comparison: Schema) -> None:
    candidate = comparison["properties"]["left"]
    comparison["properties"] |= {
        "candidates": {
            "type": "array", "items": candidate, "minItems": 2, "maxItems": 2,
            "description": "in place of `left` and `right`",
        },
        "winner": {
            "enum": ["left", "right", "tie", "both_bad", "none", *"ABCDEFGH"],
            "description": "of more than two blind answers: a letter in the order shown, `tie` or `none`",
        },
    }  # fmt: skip
    _tell_of_offers(comparison, ["left", "right"], ["candidates"])


def _tell_of_text(ranking: Schema) -> None:
    letters = {
        "type": "string",
        "maxLength": MAX_LETTERS,
        "description": "letters name the candidates in their order: B > A = D > C",
    }
    ranking["properties"]["ranking"] = {"anyOf": [ranking["properties"]["ranking"], letters]}
    _tell_of_offers(ranking, ["candidates"])


def _tell_of_offers(kind: Schema, *instead: list[str]) -> None:
    """What names the answers: a comparison's id, or any of `instead`."""
    kind["properties"]["comparison_id"]["description"] = (
        "what was asked for at /v1/comparisons, in place of its answers"
    )
    names = {name for choice in instead for name in choice}
    kind["required"] = [name for name in kind["required"] if name not in names]
    kind["anyOf"] = [{"required": choice} for choice in (*instead, ["comparison_id"])]


class Accepted(BaseModel):
    object: Literal["feedback"]
    type: str
    status: Literal["accepted", "retracted", "replaced", "valid"] = Field(
        description="`retracted` or `replaced`: known by its client_id, and so since; `valid`: the end of a dry run"
    )
    id: str | None = None
    created: int | None = None
    revision: int | None = Field(default=None, description="2 and on: it replaced what the same person said before")
    split: Literal["train", "eval"] | None = None
    continue_from: str | None = Field(default=None, description="the completion that was preferred")
    reveal: dict[str, str] | None = Field(default=None, description="who wrote what was compared blindly")

    model_config = example({
        "object": "feedback", "id": "fb_0199c2", "type": "comparison", "created": 1767225600, "revision": 1,
        "status": "accepted", "split": "train", "continue_from": SECOND,
        "reveal": {"left": "policy-v2", "right": "policy-v3"},
    })  # fmt: skip


_KEPT = {
    "object": "feedback", "type": "rating", "schema_version": 1, "id": "fb_0199c2",
    "judgement": {"type": "rating", "completion_id": FIRST, "value": 1.0, "reasons": []}, "rater": "rater_5e884898",
    "split": "train", "circumstances": {"presented_order": [], "tags": {}}, "created": 1767225600.5, "revision": 1,
    "status": "accepted",
}  # fmt: skip
_ABOUT_WHAT = {"conversation_id": "conv_0199c2", "question": "Why is the sky blue?"}
_TOLD = _KEPT | {
    "about": _ABOUT_WHAT, "learned": ["policy-v8"], "quarantined": False, "policy_versions": [7]
}  # fmt: skip


class KeptFeedback(Feedback):
    object: Literal["feedback"]
    type: str
    revision: int
    replaces: str | None
    status: Literal["accepted", "replaced", "retracted"]

    model_config = example(_KEPT)


class Question(BaseModel):
    conversation_id: str | None = Field(description="null where it is another person's")
    question: str = Field(description="the beginning of what was asked")


class ToldFeedback(KeptFeedback):
    about: Question | None = Field(description="null where the answer that it judges is not here")
    learned: list[str] = Field(description="the policies that were trained on it, oldest first")
    quarantined: bool | None = Field(default=None, description="for operators: its rater is aside")
    policy_versions: list[int] | None = Field(
        default=None, description="for operators: who wrote what it judges, where that is not compared blind any more"
    )

    model_config = example(_TOLD)


class FeedbackWithHistory(ToldFeedback):
    history: list[KeptFeedback] = Field(description="what it replaced, latest first")
    written: dict[str, int | None] | None = Field(
        default=None, description="for operators: by completion who wrote it, where that is not compared blind any more"
    )

    model_config = example(_TOLD | {"history": [], "written": {FIRST: 7}})


class FeedbackList(BaseModel):
    object: Literal["list"]
    data: list[ToldFeedback]
    first_id: str | None
    last_id: str | None = Field(description="for `after`; also where a page ends that found few of what was asked for")
    has_more: bool = Field(description="go on after `last_id`: there may be more, also after an empty page")

    model_config = example({
        "object": "list", "data": [_TOLD], "first_id": "fb_0199c2", "last_id": "fb_0199c2", "has_more": False,
    })  # fmt: skip


class Metric(BaseModel):
    inference_id: str | None = Field(default=None, description="a completion or a response")
    episode_id: str | None = Field(default=None, description="a conversation: its newest answer is meant")
    metric_name: str = Field(
        min_length=1,
        max_length=64,
        description="`comment`, `demonstration`, `rating` (it trains), or a name of your own",
    )
    value: str | bool | float = Field(description="text; or true, false, or a number from 0 to 1")
    tags: dict[str, str] = {}
    dryrun: bool = False

    model_config = ConfigDict(extra="forbid")


class MetricKept(BaseModel):
    feedback_id: str

    model_config = example({"feedback_id": "fb_0199c2"})
