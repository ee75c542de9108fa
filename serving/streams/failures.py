"""What ended an answer, as its client is told."""

import logging
import re

from serving.engine.server import (
    EngineDown,
    EngineRefused,
    EngineSlow,
    EngineUnreachable,
    NoSocketLeft,
    error_message,
    is_clients,
)
from serving.http.errors import RETRY_SOON, ApiError, invalid, unavailable
from serving.streams.relay import UnprovenWeights

PARAMETER = re.compile(r"\(parameter=(\w+)")
# What vLLM says when the prompt leaves no room: less than one is never asked for.
NO_ROOM = "max_tokens must be at least 1, got 0"

log = logging.getLogger("serving.chat")


def failure(error: Exception) -> ApiError:
    """The client's error."""
    match error:
        case ApiError():
            return error
        case EngineUnreachable():
            return unavailable("the engine is restarting", "engine_unavailable")
        case NoSocketLeft():
            return unavailable("no connection to the engine can be opened at the moment; repeat soon", "queue_full")
        case EngineSlow():
            return ApiError(504, "the engine is too slow, repeat", code="engine_timeout", headers=RETRY_SOON)
        case EngineDown():
            return unavailable("the engine went away in the middle of the answer", "engine_unavailable")
        case EngineRefused():
            return _refusal(error)
        case UnprovenWeights():
            return unavailable(str(error), "policy_unproven")
    log.error("an answer broke off", exc_info=error)
    return ApiError(500, "internal error", code="internal_error")


def _refusal(error: EngineRefused) -> ApiError:
    """The engine's verdict on a request, as ours; its own troubles are not the client's fault."""
    if not is_clients(error):
        log.error("the engine answered %d", error.status)  # its message may quote the prompt
        return unavailable("the engine could not answer", "engine_refused")
    inner = error.body.get("error") if isinstance(error.body, dict) else None
    param = inner.get("param") if isinstance(inner, dict) else None
    message = error_message(error.body)
    if message.startswith(NO_ROOM):
        message = "the prompt fills the model's maximum context length: no token is left for the answer"
    if "maximum context length" in message:
        return invalid(message, "messages", code="context_length_exceeded")
    named = PARAMETER.search(message)
    return invalid(message, (param or (named[1] if named else "")).removeprefix("body.") or None)
