"""What the API's bodies look like, for its document only: requests are checked, and answers made, elsewhere."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Schema = dict[str, Any]

REF = "#/components/schemas/{model}Body"


def example(value: dict[str, Any]) -> ConfigDict:
    """The configuration of a documented model: an example of it, and fields that it does not list are allowed."""
    return ConfigDict(json_schema_extra={"example": value}, extra="allow")


class ErrorFacts(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | int | None
    current: dict[str, Any] | None = Field(default=None, description="of a conflict over releases: the one as it is")


class Error(BaseModel):
    error: ErrorFacts

    model_config = example({
        "error": {
            "message": "Incorrect or missing API key.", "type": "authentication_error", "param": None,
            "code": "invalid_api_key",
        }
    })  # fmt: skip


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]

    model_config = ConfigDict(extra="allow")


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = Field(description="null beside `tool_calls`")

    model_config = ConfigDict(extra="allow")


class StreamOptions(BaseModel):
    include_usage: bool | None = None
    resumable: bool | None = Field(default=None, description="events get numbers, to go on from at .../stream")

    model_config = ConfigDict(extra="allow")


class ChatRequest(BaseModel):
    """What OpenAI's chat completions take and vLLM knows, `tools` and `response_format` for example, and fields of
    vLLM's own that say how to answer, such as `top_k`. Others are ignored."""

    model: str = Field(
        pattern=r"^policy(@stable|@candidate|-v[0-9]+)?$",
        description="the version that serves may be named, as `policy-v3`; `policy` is either side of a release",
    )
    messages: list[ChatMessage | AssistantMessage] = Field(min_length=1, max_length=1024)
    stream: bool = False
    stream_options: StreamOptions | None = Field(default=None, description="only beside `stream: true`")
    store: bool | None = Field(default=None, description="false: it is not kept, so it cannot be judged")
    n: int = Field(default=1, ge=1, le=8)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="only beside `logprobs: true`")
    metadata: dict[str, str] | None = Field(
        default=None,
        description=(
            "`conversation_id` joins turns to a chat, which under a release stays on its side: without it each turn is "
            'a chat of its own; `consent: "false"` keeps this one out of training'
        ),
    )
    user: str | None = Field(
        default=None,
        max_length=256,
        description="whom an operator's or admin's key speaks for; without it `safety_identifier` does, or the header "
        "X-OpenWebUI-User-Id",
    )
    safety_identifier: str | None = Field(default=None, max_length=256, description="OpenAI's newer name for `user`")

    model_config = ConfigDict(extra="allow")


class Ratchet(BaseModel):
    policy_version: int | None = Field(default=None, description="hidden while answers are compared blindly")
    release: int | None = Field(default=None, description="under which chance chose the `arm`, likewise hidden")
    arm: Literal["stable", "candidate"] | None = None
    conversation_id: str
    completion_ids: list[str] = Field(description="what to call the choices in feedback")
    stored: bool | None = Field(default=None, description="the ledger has it, so it can be judged")


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    ratchet: Ratchet

    model_config = example({
        "id": "chatcmpl-0199c2", "object": "chat.completion", "created": 1767225600, "model": "policy-v3",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Because."}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17},
        "ratchet": {
            "policy_version": 3, "conversation_id": "conv_0199c2", "completion_ids": ["chatcmpl-0199c2:0"],
            "stored": True,
        },
    })  # fmt: skip


class Cancelled(BaseModel):
    object: Literal["chat.completion.cancelled"]
    id: str
    completion_ids: list[str]

    model_config = example({
        "object": "chat.completion.cancelled", "id": "chatcmpl-0199c2", "completion_ids": ["chatcmpl-0199c2:0"],
    })  # fmt: skip


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None

    model_config = example({
        "id": "policy", "object": "model", "created": 1767225600, "owned_by": "ratchet", "root": "policy-v3",
        "parent": "policy-v2",
    })  # fmt: skip


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]

    model_config = example({"object": "list", "data": []})


Arm = Annotated[str, Field(pattern=r"^(auto|policy(@stable|@candidate|-v[0-9]+)?)$")]


class ComparisonRequest(ChatRequest):
    """A chat request with `k` in place of `n`; `model` may name several policies."""

    model: Arm | list[Arm]  # type: ignore[assignment]
    k: int = Field(default=2, ge=2, le=8)


class RepeatRequest(BaseModel):
    """For a pair that one chose in a while ago, sides swapped; it is judged as if it came for the first time."""

    repeat: Literal[True]
    user: str | None = Field(default=None, description="whom an operator's or admin's key speaks for")

    model_config = ConfigDict(extra="forbid")


class ToCompare(RootModel[ComparisonRequest | RepeatRequest]):
    """New answers side by side, or ones that were there before."""


_COMPARISON: Schema = {
    "object": "comparison", "id": "cmp_0199c2", "created": 1767225600, "conversation_id": "conv_0199c2",
    "completion_ids": ["cmp_0199c2:0", "cmp_0199c2:1"], "messages": [], "answers": [], "votes": [], "reveal": None,
}  # fmt: skip


class ShownComparison(BaseModel):
    object: Literal["comparison"]
    id: str
    completion_ids: list[str]
    messages: list[dict[str, Any]]

    model_config = example(_COMPARISON)


class Compared(RootModel[ChatCompletion | ShownComparison]):
    """Answers as they were written, or a comparison that is repeated."""

    model_config = ConfigDict(json_schema_extra={"example": _COMPARISON})


class Health(BaseModel):
    status: Literal["ok"]

    model_config = example({"status": "ok"})


class ArmFacts(BaseModel):
    policy_version: int | None
    reason: str | None = Field(description="why it does not serve")


class Readiness(BaseModel):
    ready: bool
    policy_version: int | None
    reasons: list[str]
    arms: dict[Literal["stable", "candidate"], ArmFacts] = Field(description="`candidate` while a release is open")

    model_config = example({
        "ready": True, "policy_version": 3, "reasons": [], "arms": {"stable": {"policy_version": 3, "reason": None}},
    })  # fmt: skip
