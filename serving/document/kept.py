"""What is kept of people, as the API shows it: their chats, conversations and keys; for the document."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from feedback.people.keys import ApiKey, KeyChange, NewKey
from serving.document.schema import REF, ChatCompletion, Schema, example


class Page(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


_EMPTY: Schema = {"object": "list", "data": [], "has_more": False}


class CompletionList(Page):
    data: list[ChatCompletion]

    model_config = example(_EMPTY)


class StoredMessage(BaseModel):
    id: str
    role: str
    content: str | None
    name: str | None
    content_parts: None

    model_config = example({"id": "chatcmpl-0199c2-0", "role": "user", "content": "Why is the sky blue?"})


class MessageList(Page):
    data: list[StoredMessage]

    model_config = example(_EMPTY)


class NewMetadata(BaseModel):
    """A `feedback` in it ("up", "down", or a rating's value) is a vote, `feedback_choice` says on which choice."""

    metadata: dict[str, str] | None = Field(
        max_length=16, description='in place of all there was; values up to 512; `consent: "false"` takes consent back'
    )


class Deleted(BaseModel):
    object: Literal["feedback.deleted", "invite.deleted", "key.deleted"]
    id: str
    deleted: Literal[True]

    model_config = example({"object": "feedback.deleted", "id": "fb_0199c2", "deleted": True})


class DeletedAnswers(BaseModel):
    object: Literal["chat.completion.deleted", "conversation.deleted"]
    id: str
    deleted: Literal[True]
    restarted: list[int] = Field(description="open rounds that had collected some of it, and collect again without")
    learning: list[int] = Field(description="those that had done so twice, and go on with it")

    model_config = example({
        "object": "conversation.deleted", "id": "conv_0199c2", "deleted": True, "restarted": [5], "learning": [],
    })  # fmt: skip


class ConversationCard(BaseModel):
    object: Literal["conversation"]
    id: str
    title: str
    allow_training: bool
    created: int
    updated: int
    head: str | None = Field(description="the completion that the conversation goes on from")

    model_config = example({
        "object": "conversation", "id": "conv_0199c2", "title": "Why is the sky blue?", "allow_training": True,
        "created": 1767225600, "updated": 1767225660, "head": "chatcmpl-0199c2:0",
    })  # fmt: skip


class ConversationList(Page):
    data: list[ConversationCard]
    last_id: str | None = Field(
        description="for `after`: where the page ends, also once the conversation there is used again or gone"
    )

    model_config = example(_EMPTY)


class ConversationChange(BaseModel):
    """What is left out stays."""

    title: str | None = Field(default=None, min_length=1, max_length=256)
    allow_training: bool | None = Field(default=None, description="false keeps all of it out of the rounds to come")
    head: str | None = Field(default=None, description="a completion of the conversation to go on from")


class Node(BaseModel):
    completion_id: str
    response_id: str
    choice: int
    parent_id: str | None
    new_messages: list[dict[str, Any]] = Field(description="what was asked since the parent's answer")
    content: str
    tool_calls: list[dict[str, Any]]
    policy_version: int | None
    created: int
    finish_reason: str
    partial: bool
    siblings: list[str] = Field(description="other answers to the same messages")


class Tree(BaseModel):
    object: Literal["conversation.tree"]
    id: str
    head: str | None
    nodes: list[Node]

    model_config = example({
        "object": "conversation.tree", "id": "conv_0199c2", "head": "chatcmpl-0199c2:0",
        "nodes": [{
            "completion_id": "chatcmpl-0199c2:0", "response_id": "chatcmpl-0199c2", "choice": 0,
            "new_messages": [{"role": "user", "content": "Why is the sky blue?"}], "content": "Because.",
            "tool_calls": [], "policy_version": 3, "created": 1767225600, "finish_reason": "stop", "partial": False,
            "siblings": [],
        }],
    })  # fmt: skip


class Branch(BaseModel):
    object: Literal["list"]
    head: str
    data: list[dict[str, Any]]
    has_more: Literal[False]

    model_config = example({
        "object": "list", "head": "chatcmpl-0199c2:0", "has_more": False,
        "data": [{"role": "user", "content": "Why is the sky blue?"}, {"role": "assistant", "content": "Because."}],
    })  # fmt: skip


class KeyUsage(BaseModel):
    """Of the day `day` (UTC); `streams` are being written now."""

    day: str
    requests: int
    tokens: int
    feedback: int
    streams: int


_KEY: Schema = {
    "object": "key", "id": "key_0199c2", "name": "ann's notebook", "role": "user", "created": 1767225600.5,
    "expires": 4102444800.0, "limits": {"requests_per_minute": 60, "tokens_per_day": 100_000},
}  # fmt: skip


class Key(ApiKey):
    object: Literal["key"]

    model_config = example(_KEY)


class ShownKey(Key):
    key: str = Field(description="shown here and never again")

    model_config = example(_KEY | {"key": "rk-…"})


class CountedKey(Key):
    usage: KeyUsage | None = Field(description="null for a key without limits, which is not counted")

    model_config = example(
        _KEY | {"usage": {"day": "2026-01-01", "requests": 3, "tokens": 240, "feedback": 1, "streams": 0}}
    )


class KeyList(Page):
    data: list[CountedKey]

    model_config = example(_EMPTY)


class Me(CountedKey):
    object: Literal["me"]  # type: ignore[assignment]
    rater: str = Field(description="the pseudonym that the caller's judgements carry")

    model_config = example(_KEY | {"object": "me", "rater": "rater_5e884898"})


class Learned(BaseModel):
    rounds: list[int]
    policies: list[str]


class DeletedMe(BaseModel):
    object: Literal["me.deleted"]
    deleted: Literal[True]
    conversations: int
    completions: int
    feedback: int
    learned: Learned = Field(description="what had trained on it, or goes on to, and stays as it is")
    restarted: list[int] = Field(description="open rounds that had collected some of it, and collect again without")

    model_config = example({
        "object": "me.deleted", "deleted": True, "conversations": 2, "completions": 5, "feedback": 3,
        "learned": {"rounds": [4], "policies": ["policy-v3"]}, "restarted": [5],
    })  # fmt: skip


def key_schema(model: type[NewKey] | type[KeyChange]) -> Schema:
    """What a key is made with or changed by, with a word on each field."""
    schema = model.model_json_schema(ref_template=REF)
    facts = {
        "name": "for people; nothing invisible in it",
        "role": "user and rater keys are one person each; the others speak for the `user` they name",
        "expires": "Unix seconds, in the future; null = never",
        "limits": "null lifts a limit; days are UTC's",
    }
    for name, description in facts.items():
        schema["properties"][name]["description"] = description
    return schema
