"""A streamed answer put together again, for those who asked for it in one piece."""

from typing import Any

from serving.engine.server import Body
from serving.ledger.recorder import whole_calls
from serving.streams.relay import Relay


async def whole(relay: Relay) -> Body:
    """The relay's chunks as one chat.completion. Raises what the relay raises."""
    return joined([chunk async for batch in relay.batches() for chunk in batch])


def joined(chunks: list[Body]) -> Body:
    """What vLLM would have answered to the same request without `stream`."""
    answer: Body = {"object": "chat.completion", "choices": [], "service_tier": None, "usage": None}
    parts: dict[int, list[Body]] = {}
    for chunk in chunks:
        # The last one counts: "stored" comes last, and usage after all choices.
        answer |= {name: value for name, value in chunk.items() if name not in ("object", "choices")}
        for choice in chunk["choices"]:
            parts.setdefault(choice["index"], []).append(choice)
    return {**answer, "choices": [_choice(index, parts[index]) for index in sorted(parts)]}


def _choice(index: int, parts: list[Body]) -> Body:
    last, deltas = parts[-1], [part["delta"] for part in parts]
    content = [part["logprobs"]["content"] for part in parts if part.get("logprobs")]
    choice = {
        "index": index,
        "message": _message(deltas),
        "logprobs": {"content": [entry for entries in content for entry in entries or []]} if content else None,
        "finish_reason": last["finish_reason"],
        "stop_reason": last.get("stop_reason"),
    }
    ids = [part["token_ids"] for part in parts if part.get("token_ids")]
    return choice | ({"token_ids": [token for piece in ids for token in piece]} if ids else {})


def _message(deltas: list[Body]) -> Body:
    tool_calls = whole_calls([call for delta in deltas for call in delta.get("tool_calls") or []])
    message = {
        "role": next((delta["role"] for delta in deltas if delta.get("role")), "assistant"),
        "content": _text(deltas, "content") or (None if tool_calls else ""),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": _text(deltas, "reasoning") or None,
    }
    return message | ({"tool_calls": tool_calls} if tool_calls else {})


def _text(pieces: list[dict[str, Any]], name: str) -> str:
    return "".join(piece.get(name) or "" for piece in pieces)
