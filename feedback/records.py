"""Frozen records that cross package borders: what was served, and to whom."""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
#: The sides of a release.
Arm = Literal["stable", "candidate"]
#: Why answers are laid side by side: to decide a release, to see whether one policy beats itself, whether a rater reads
#: (one answer is none to the question), and whether a rater says the same twice.
Lane = Literal["release", "aa", "gold", "repeat"]
#: What is said there is about the rater: it teaches and ranks nothing.
CHECKS: tuple[Lane, ...] = ("gold", "repeat")


def new_id(prefix: str) -> str:
    """A time-ordered unique id (UUIDv7 layout: 48 bits of milliseconds, then 80 random bits)."""
    return f"{prefix}{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


class Record(BaseModel):
    """Immutable; unknown fields are refused, so a typo cannot be dropped silently. Errors do not quote the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


#: JSON has no word for NaN and infinity: what holds one could be written and never read again.
READABLE = ConfigDict(allow_inf_nan=False)
#: More than anybody asks for: whoever reads a response names all of its choices.
MOST_CHOICES = 1024


class Message(Record):
    """One turn. An assistant's may call tools; a tool's names the call that it answers."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The message without the fields that it does not use."""
        return self.model_dump(mode="json", exclude_none=True)


class Completion(Record):
    """One answer as it was served; `logprobs` are the sampled tokens' under the behaviour policy, of every plain one.

    Under a release, `arm` is the side that the conversation was put on, with the chance `propensity`.
    `partial` says that somebody stopped it before it was finished; `plain` that nothing tempered, cut off or forced its
    tokens, so that the `logprobs`, which are the policy's own, are those of the draw. What was imported was served by
    no policy of ours, unless it is a backup: it has no version, and tokens only if they came along. A `decoy` answers,
    by its prompt's tokens, another question than its messages: whoever prefers it has not read. It never trains, and no
    conversation goes on from it.
    """

    model_config = READABLE

    schema_version: Literal[1] = 1
    id: Id
    response_id: Id
    choice: Annotated[int, Field(ge=0, lt=MOST_CHOICES)]
    conversation_id: str
    rater: str
    messages: tuple[Message, ...]
    text: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling: dict[str, Any]
    plain: bool = False
    finish_reason: str
    policy_version: int | None
    version_changed_at: int | None = None
    release: int | None = None
    arm: Arm | None = None
    propensity: float | None = None
    partial: bool = False
    decoy: bool = False
    consent: bool = True
    created: float

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if (self.logprobs or self.plain) and len(self.logprobs) != len(self.completion_token_ids):
            raise ValueError("logprobs and completion_token_ids differ in length")
        return self

    @property
    def prompt_digest(self) -> str:
        """Equal for two completions exactly when they answer the same messages."""
        return prompt_digest(self.messages)

    @property
    def answer(self) -> Message:
        """The turn that this completion added."""
        return Message(role="assistant", content=self.text, tool_calls=self.tool_calls or None)

    def frame(
        self, *, model: str, system_fingerprint: str = "", choices: int = 1, metadata: dict[str, str] | None = None
    ) -> "Response":
        """The response that this completion is a choice of."""
        return Response(
            id=self.response_id, rater=self.rater, conversation_id=self.conversation_id, model=model,
            system_fingerprint=system_fingerprint, choices=choices, created=self.created, metadata=metadata or {},
        )  # fmt: skip


class Response(Record):
    """What one request was answered with: the frame around its completions, `{id}:0` to `{id}:{choices - 1}`.

    `parent_id` is the completion that the request went on from, in the same conversation.
    """

    id: Id
    rater: str
    conversation_id: str
    model: str
    system_fingerprint: str
    choices: int
    created: float
    metadata: dict[str, str] = {}
    parent_id: str | None = None

    @property
    def completion_ids(self) -> list[str]:
        return [f"{self.id}:{index}" for index in range(self.choices)]


class Conversation(Record):
    """A tree of completions; `head` is the one whose branch goes on."""

    id: str
    rater: str
    title: str
    allow_training: bool = True
    head: str | None = None
    created: float
    updated: float


class Slot(Record):
    """One answer of an offer, in the place where it was shown; `arm` is the policy as it was asked for."""

    completion_id: Id
    arm: str


class Offer(Record):
    """Answers to one prompt laid side by side for a comparison, in the order in which they were shown.

    Which is whose is told only after the vote. `propensity` is the probability of this order. `release` is the one
    under way, if its two policies were asked.
    """

    id: Id
    rater: str
    conversation_id: str
    slots: Annotated[tuple[Slot, ...], Field(min_length=2, max_length=8)]
    propensity: float
    lane: Lane | None = None
    release: int | None = None
    created: float

    @property
    def completion_ids(self) -> tuple[str, ...]:
        return tuple(slot.completion_id for slot in self.slots)


def prompt_digest(messages: Iterable[Message]) -> str:
    """Names what an answer is to, word for word."""
    return digest([message.plain for message in messages])


def path_digest(messages: Iterable[Message]) -> str:
    """Names a place in a conversation. System messages do not count: clients put the date into them."""
    turns = [m for m in messages if m.role not in ("system", "developer")]
    return digest([[m.role, m.content.strip(), [call.get("function") for call in m.tool_calls or ()]] for m in turns])


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
