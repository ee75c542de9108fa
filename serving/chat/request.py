"""What a chat request must look like, and what the engine gets to see of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback.people.keys import ApiKey
from feedback.records import Message, new_id
from serving.engine.control_tokens import ControlTokens
from serving.engine.plain_draw import is_plain, is_steered
from serving.engine.server import SERVED_NAME, Body
from serving.engine.swap_gate import Served
from serving.gateway import Gateway
from serving.http.errors import ApiError, invalid
from serving.http.json_body import MANY_IN_CHAT, check_text
from serving.ledger.recorder import Ticket
from serving.release.arms import CANDIDATE, Arm

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20  # OpenAI's bound, and vLLM's unless it is started with another one
MAX_TOP_K = 2**31 - 1  # beyond 64 bits vLLM fails on it, with a status that says to repeat
MAX_MESSAGES = 1024
MAX_METADATA = 16
# Ours first, then the names that existing clients send: Open WebUI and agents.
CONVERSATION = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029]{1,128}")
CONVERSATION_HEADERS = ("x-conversation-id", "x-openwebui-chat-id", "x-session-id")
# The first is OpenAI's old name for it.
USER_FIELDS = ("user", "safety_identifier")
MAX_USER = 256
# Open WebUI's name for the person in front of it, with ENABLE_FORWARD_USER_INFO_HEADERS.
USER_HEADER = "x-openwebui-user-id"
# Its name for the message that the answer becomes, by which its thumbs find that.
MESSAGE_HEADER = "x-openwebui-message-id"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "max_completion_tokens", "min_tokens",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
)  # fmt: skip
# Of OpenAI's fields and vLLM's those that say how to answer. Others reach past this request, to the engine's scheduler,
# its cache, its template, its disk, or let it tell what it was asked, which nobody may know of a decoy.
FORWARDED = frozenset({
    *SAMPLING, "n", "logprobs", "top_logprobs", "logprob_token_ids", "tools", "tool_choice", "parallel_tool_calls",
    "functions", "function_call", "response_format", "structured_outputs", "reasoning_effort", "thinking_token_budget",
    "documents", "chat_template_kwargs", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "bad_words",
    "allowed_token_ids", "repetition_detection", "spaces_between_special_tokens", "return_token_ids",
})  # fmt: skip
STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")
# What the chat template renders besides the messages.
TEMPLATED = ("tools", "functions", "documents", "chat_template_kwargs")


@dataclass(frozen=True)
class Asked:
    """A checked request for answers: what it holds, and whose it is."""

    body: Body
    headers: Mapping[str, str]
    rater: str
    conversation_id: str

    @property
    def choices(self) -> int:
        return self.body.get("n") or 1

    @classmethod
    def of(cls, gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str]) -> "Asked":
        """Raises ApiError 400."""
        return cls(body, headers, gateway.rater(caller, end_user(body, headers)), conversation_of(body, headers))


def check(body: Body, *, max_tokens: int) -> None:
    """Refuse, before the engine sees it, what is out of bounds; names the field."""
    if not isinstance(body.get("model"), str):
        raise invalid("model must be a string", "model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise invalid(f"messages must be a list of 1 to {MAX_MESSAGES} messages", "messages")
    left = MANY_IN_CHAT
    for index, message in enumerate(messages):
        left -= _check_message(message, f"messages[{index}]", left)
    _check_integer(body, "n", 1, MAX_CHOICES)
    for name in ("max_tokens", "max_completion_tokens"):
        _check_integer(body, name, 1, max_tokens)
    for name in ("stream", "store", "logprobs"):
        if not isinstance(body.get(name), bool | None):
            raise invalid(f"{name} must be a boolean", name)
    _check_integer(body, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    _check_integer(body, "top_k", -1, MAX_TOP_K)
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise invalid("top_logprobs are only there beside logprobs: true", "top_logprobs")
    options = body.get("stream_options")
    if not isinstance(options, dict | None):
        raise invalid("stream_options must be an object", "stream_options")
    if options and not body.get("stream"):
        raise invalid("stream_options are for streams only", "stream_options")
    for name in ("include_usage", "resumable"):
        if not isinstance((options or {}).get(name), bool | None):
            raise invalid(f"stream_options.{name} must be a boolean", f"stream_options.{name}")
    check_metadata(body.get("metadata"))


def check_metadata(metadata: Any) -> dict[str, str]:
    """OpenAI's bounds: 16 pairs, names of 64 characters, values of 512. A typo must not be consent."""
    pairs = {} if metadata is None else metadata
    if not isinstance(pairs, dict) or len(pairs) > MAX_METADATA:
        raise invalid(f"metadata must be an object of at most {MAX_METADATA} pairs", "metadata")
    for name, value in pairs.items():
        if not isinstance(value, str) or len(value) > 512 or not 1 <= len(name) <= 64:
            raise invalid(
                "metadata holds texts of at most 512 characters under names of at most 64", f"metadata.{name}"
            )
    if pairs.get("consent", "true").lower() not in ("true", "false"):
        raise invalid('metadata.consent must be "true" or "false"', "metadata.consent")
    return pairs


def _check_message(message: Any, place: str, left: int) -> int:
    """How many values the arguments of its tool calls hold, of so many that are left."""
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
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise invalid(f"{place}.tool_calls must be a list of objects", f"{place}.tool_calls")
    count = 0
    for index, function in enumerate(functions_of(message)):
        if isinstance(arguments := function.get("arguments"), str):
            count += check_text(arguments, f"{place}.tool_calls[{index}].function.arguments", left - count)
    for name in ("name", "tool_call_id"):
        if not isinstance(message.get(name), str | None):
            raise invalid(f"{place}.{name} must be text", f"{place}.{name}")
    return count


def _check_integer(body: Body, name: str, low: int, high: int) -> None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
        raise invalid(f"{name} must be a whole number from {low} to {high}", name)


def check_model(model: str, arm: Arm, served: Served) -> None:
    """Whether it is a name of what the arm serves; raises ApiError 404."""
    if model == CANDIDATE and arm.name != "candidate":
        raise ApiError(404, "No candidate is being released now.", code="model_not_found", param="model")
    if model not in (SERVED_NAME, f"{SERVED_NAME}@{arm.name}", served.name):
        message = f"The model `{model}` does not exist or is not served now; `{served.name}` is."
        raise ApiError(404, message, code="model_not_found", param="model")


def conversation_of(body: Body, headers: Mapping[str, str]) -> str:
    """The conversation that a request belongs to, by the name that the client has for it; else a new one."""
    metadata = body.get("metadata") or {}
    named = (headers.get(name) for name in CONVERSATION_HEADERS)
    conversation = metadata.get("conversation_id") or next(filter(None, named), None) or new_id("conv_")
    if not CONVERSATION.fullmatch(conversation) or conversation.endswith(("/tree", "/messages")):
        message = "conversation_id must be 1 to 128 characters without breaks, not ending in /tree or /messages"
        raise invalid(message, "metadata.conversation_id")
    return conversation


def ticket_for(asked: Asked, served: Sequence[Served], **more: Any) -> tuple[Ticket, list[Body]]:
    """What the ledger needs to know of a request, and its messages as all of the policies get them."""
    body, headers, metadata = asked.body, asked.headers, metadata_of(asked.body, asked.headers)
    messages, forwarded = body["messages"], _forwarded(body)
    for index, each in enumerate(served):
        if not index or each.control_tokens != served[0].control_tokens:
            messages = plain_messages(messages, each.control_tokens)
    ticket = Ticket(
        messages=tuple(message_of(message) for message in messages),
        conversation_id=asked.conversation_id,
        rater=asked.rater,
        consent=metadata.get("consent", "true").lower() == "true" and not is_side_turn(headers),
        metadata=metadata,
        keep=body.get("store") is not False,
        sampling={name: body[name] for name in SAMPLING if body.get(name) is not None},
        plain=all(is_plain(forwarded, each.shaped_by) for each in served),
        steered=is_steered(forwarded),
        choices=asked.choices,
        streamed=bool(body.get("stream")),
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        wants_logprobs=bool(body.get("logprobs")),
        wants_token_ids=bool(body.get("return_token_ids")),
        **more,
    )
    return ticket, messages


def end_user(body: Body, headers: Mapping[str, str]) -> str | None:
    """Whom the request is for, if it names somebody; whether the key may speak for them is asked elsewhere.

    Raises ApiError 400 for a name that could not be named again, in a judgement or where one's data are.
    """
    named = {name: body.get(name) for name in USER_FIELDS} | {USER_HEADER: headers.get(USER_HEADER)}
    for name, user in named.items():
        if not isinstance(user, str | None) or len(user or "") > MAX_USER:
            raise invalid(f"{name} must be text of at most {MAX_USER} characters", name)
    return next(filter(None, named.values()), None)


def metadata_of(body: Body, headers: Mapping[str, str]) -> dict[str, str]:
    """What the client wants kept, `message_id` too if only a header names the message that is answered."""
    metadata = body.get("metadata") or {}
    message = headers.get(MESSAGE_HEADER, "")
    if is_side_turn(headers) or not CONVERSATION.fullmatch(message):
        return metadata
    return {"message_id": message, **metadata}


def is_side_turn(headers: Mapping[str, str]) -> bool:
    """Whether the client asks for itself, for a title or tags: nobody reads such an answer, and it must not train."""
    return headers.get("x-turn-type", "").lower() == "side" or bool(headers.get("x-task", "").strip())


def message_of(message: Body) -> Message:
    """What the ledger keeps of a turn."""
    calls = message.get("tool_calls")
    return Message(
        role=message["role"], content=message["content"] or "", name=message.get("name"),
        tool_calls=tuple(calls) if calls else None, tool_call_id=message.get("tool_call_id"),
    )  # fmt: skip


def plain_messages(messages: list[Body], control_tokens: ControlTokens) -> list[Body]:
    """Content parts joined to one text, nothing in it a control token."""
    joined = [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else {"content": None, **message}
        for message in messages
    ]
    return [_plain_message(message, control_tokens) for message in joined]


def _plain_message(message: Body, control_tokens: ControlTokens) -> Body:
    plain: Body = control_tokens.neutralise_all(message)
    for function in functions_of(plain):
        if isinstance(arguments := function.get("arguments"), str):
            function["arguments"] = control_tokens.neutralise_json(arguments)
    return plain


def functions_of(message: Body) -> list[Body]:
    """What a message's calls call, each with arguments that the engine reads as JSON."""
    calls = message.get("tool_calls") or ()
    return [call["function"] if isinstance(call.get("function"), dict) else {} for call in calls]


def upstream_body(body: Body, messages: list[Body], served: Served, ticket: Ticket) -> Body:
    """Always a stream: only its chunks tell which policy wrote them. Log-probs cost the engine some of its tokens a
    second: beside whoever wants them they are asked for where PPO may learn by them."""
    forwarded = _forwarded(body)
    if ticket.keep and ticket.plain:
        forwarded["logprobs"] = True
    for name in TEMPLATED:
        if name in forwarded:
            forwarded[name] = served.control_tokens.neutralise_all(forwarded[name])
    return {
        **forwarded,
        "model": served.engine_model,
        "messages": messages,
        "stream": True,
        "stream_options": _stream_options(body),
        "return_token_ids": True,
        "return_tokens_as_token_ids": False,
        "cache_salt": served.label,
    }


def _forwarded(body: Body) -> Body:
    return {name: value for name, value in body.items() if name in FORWARDED}


def most_tokens(body: Body, size: int, context: int) -> int:
    """What an answer may cost at most: a prompt, which has no more tokens than its `size` in bytes, and each choice."""
    asked = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    choices = body.get("n") or 1
    return min(size + choices * max(asked, default=context), choices * context)


def wants_resuming(body: Body) -> bool:
    """Whether the stream goes on without its client for a while."""
    return bool((body.get("stream_options") or {}).get("resumable"))


def _stream_options(body: Body) -> Body | None:
    """A whole answer tells its usage. Resuming is ours."""
    if not body.get("stream"):
        return {"include_usage": True}
    asked = body.get("stream_options") or {}
    return {name: asked[name] for name in STREAM_OPTIONS if name in asked} or None
