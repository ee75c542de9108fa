"""What a chat request must look like, and what the engine gets to see of it."""

from collections.abc import Mapping
from typing import Any

from feedback.keys import ApiKey
from feedback.records import Message, new_id
from serving.control_tokens import ControlTokens
from serving.engine import SERVED_NAME, Body
from serving.errors import ApiError, invalid
from serving.gate import Served
from serving.gateway import Gateway
from serving.relay import Ticket

MAX_CHOICES = 8
MAX_MESSAGES = 1024
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "max_completion_tokens", "min_tokens",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
)  # fmt: skip
# Ours, or fields that would reach past this request: the engine's scheduler, its cache, its template, its disk.
NOT_FORWARDED = frozenset({
    "model", "messages", "stream", "metadata", "user", "store", "safety_identifier", "request_id", "priority",
    "cache_salt", "chat_template", "kv_transfer_params", "echo", "use_beam_search", "prompt_logprobs",
    "return_tokens_as_token_ids", "skip_special_tokens", "include_reasoning", "vllm_xargs",
})  # fmt: skip
# What the chat template renders besides the messages.
TEMPLATED = ("tools", "functions", "documents", "chat_template_kwargs")


def check(body: Body, *, max_tokens: int) -> None:
    """Refuse, before the engine sees it, what is out of bounds; names the field."""
    if not isinstance(body.get("model"), str):
        raise invalid("model must be a string", "model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise invalid(f"messages must be a list of 1 to {MAX_MESSAGES} messages", "messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    _check_integer(body, "n", 1, MAX_CHOICES)
    for name in ("max_tokens", "max_completion_tokens"):
        _check_integer(body, name, 1, max_tokens)
    if body.get("stream") not in (None, True, False):
        raise invalid("stream must be a boolean", "stream")
    if body.get("stream_options") and not body.get("stream"):
        raise invalid("stream_options are for streams only", "stream_options")
    if not isinstance(body.get("metadata") or {}, dict):
        raise invalid("metadata must be an object", "metadata")
    if not isinstance(body.get("user"), str | None):
        raise invalid("user must be a string", "user")


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, dict):
        raise invalid(f"{place} must be an object", place)
    # The template writes the role as it comes: any other text could end the turn.
    if message.get("role") not in ROLES:
        raise invalid(f"{place}.role must be one of {', '.join(ROLES)}", f"{place}.role")
    content = message.get("content")
    if isinstance(content, list):
        texts = all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
        if not content or not texts:
            raise invalid(f"{place}.content may only hold text parts", f"{place}.content")
    elif not isinstance(content, str) and not (content is None and message["role"] == "assistant"):
        raise invalid(f"{place}.content must be text", f"{place}.content")


def _check_integer(body: Body, name: str, low: int, high: int) -> None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
        raise invalid(f"{name} must be a whole number from {low} to {high}", name)


def check_model(model: str, served: Served) -> None:
    if model not in (SERVED_NAME, f"{SERVED_NAME}@stable", served.name):
        message = f"The model `{model}` does not exist or is not served now; `{served.name}` is."
        raise ApiError(404, message, code="model_not_found", param="model")


def ticket_for(gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str], served: Served) -> Ticket:
    """The request as the engine gets it, and what the ledger needs to know of it."""
    metadata = body.get("metadata") or {}
    conversation = metadata.get("conversation_id") or headers.get("x-conversation-id") or new_id("conv_")
    if not isinstance(conversation, str) or len(conversation) > 128:
        raise invalid("conversation_id must be text of at most 128 characters", "metadata.conversation_id")
    messages = plain_messages(body["messages"], served.control_tokens)
    return Ticket(
        body=upstream_body(body, messages, served),
        messages=tuple(Message(role=message["role"], content=message["content"] or "") for message in messages),
        conversation_id=conversation,
        rater=gateway.rater(caller, body.get("user")),
        consent=str(metadata.get("consent", True)).lower() != "false",
        sampling={name: body[name] for name in SAMPLING if body.get(name) is not None},
        choices=body.get("n") or 1,
        streamed=bool(body.get("stream")),
        wants_logprobs=bool(body.get("logprobs")),
        wants_token_ids=bool(body.get("return_token_ids")),
    )


def plain_messages(messages: list[Body], control_tokens: ControlTokens) -> list[Body]:
    """Content parts joined to one text, nothing in it a control token."""
    joined = [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else {"content": None, **message}
        for message in messages
    ]
    return [control_tokens.neutralise_all(message) for message in joined]


def upstream_body(body: Body, messages: list[Body], served: Served) -> Body:
    """Always a stream: only its chunks tell which policy wrote them."""
    forwarded = {name: value for name, value in body.items() if name not in NOT_FORWARDED}
    for name in TEMPLATED:
        if name in forwarded:
            forwarded[name] = served.control_tokens.neutralise_all(forwarded[name])
    return {
        **forwarded,
        "model": served.engine_model,
        "messages": messages,
        "stream": True,
        "stream_options": body.get("stream_options") if body.get("stream") else {"include_usage": True},
        "logprobs": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": False,
        "cache_salt": served.label,
    }
