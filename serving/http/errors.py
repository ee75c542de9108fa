"""Every failure as the OpenAI error object, so that any OpenAI client can tell the user what went wrong."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from feedback.durability import LedgerNotDurable
from feedback.people.keys import LastAdmin, UnknownKey
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import LostPolicy, PointerMoved, RejectedPolicy, UnknownPolicy
from feedback.releases.book import NotReleasable, ReleaseMoved
from feedback.releases.orders import UnknownRelease
from feedback.releases.plan import BadPlan
from feedback.rounds.cancelling import NotCancellable
from feedback.store import Conflict, Superseded
from serving.logs import request_id
from serving.views.release_facts import card

# Clients of the OpenAI SDK repeat a 409 by default; ours cannot succeed by repetition.
NO_RETRY = {"x-should-retry": "false"}
RETRY_SOON = {"retry-after": "1"}
MOST_SAID = 2000

# What OpenAI's clients may ask for besides chat.
UNSUPPORTED = re.compile(
    "/v1/(assistants|audio|batches|completions|embeddings|evals|files|fine_tuning|images|moderations|realtime|responses"
    "|threads|uploads|vector_stores|videos)(/|$)"
)
CHAT_ONLY = (
    "Ratchet answers chat completions only: feedback and training need the messages. Use POST /v1/chat/completions."
)

_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    429: "rate_limit_error",
}  # fmt: skip
_KNOWN = (
    RedisError, LedgerNotDurable, UnknownPolicy, PointerMoved, BrokenPolicy, Conflict, Superseded, UnknownKey,
    LastAdmin, UnknownRelease, ReleaseMoved, NotCancellable, NotReleasable, BadPlan,
)  # fmt: skip


class ApiError(Exception):
    """A failure that the caller is told about; `current` is what is there in place of what they expected."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        current: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers, self.current = dict(headers or {}), current

    @property
    def body(self) -> dict[str, Any]:
        body = error_body(self.status, self.message, code=self.code, param=self.param)
        return body if self.current is None else {"error": {**body["error"], "current": self.current}}


def invalid(message: str, param: str | None, *, status: int = 400, code: str | None = None) -> ApiError:
    """The request is at fault, in the field `param`."""
    return ApiError(status, message, code=code, param=param)


def unavailable(message: str, code: str) -> ApiError:
    """Nothing is wrong with the request: it may be repeated soon."""
    return ApiError(503, message, code=code, headers=RETRY_SOON)


def error_body(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": _short(message), "type": kind, "param": param and _short(param), "code": code}}


def _short(text: str) -> str:
    """Messages quote what was sent, which may be megabytes."""
    return text if len(text) <= MOST_SAID else text[:MOST_SAID] + "…"


def response_to(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def install(app: FastAPI) -> None:
    """Answer every exception that leaves a route with the error object."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(ClientDisconnect, _on_leaving)
    app.add_exception_handler(Exception, _on_bug)
    for kind in _KNOWN:
        app.add_exception_handler(kind, _on_ledger)


def translate(error: Exception) -> ApiError:
    """What a failure of the ledger or the registry means to the caller."""
    match error:
        case RedisError() | LedgerNotDurable():
            return unavailable(
                "the ledger cannot be reached; nothing was changed for certain, repeat", "ledger_unavailable"
            )
        case UnknownPolicy():
            return ApiError(404, str(error.args[0]), code="policy_not_found")
        case UnknownKey():
            return ApiError(404, str(error), code="key_not_found", param="id")
        case LastAdmin():
            return ApiError(409, str(error), code="last_admin", headers=NO_RETRY)
        case RejectedPolicy():
            return ApiError(409, str(error), code="policy_rejected", headers=NO_RETRY)
        case LostPolicy() | BrokenPolicy():
            return ApiError(409, str(error), code="broken_policy", headers=NO_RETRY)
        case UnknownRelease():
            return ApiError(404, str(error), code="release_not_found")
        case ReleaseMoved(current=now):
            shown = None if now is None else card(now)
            return ApiError(409, str(error), code="conflict", headers=NO_RETRY, current=shown)
        case NotCancellable(current=round):
            shown = {"object": "round", **round.model_dump(mode="json")}
            return ApiError(409, str(error), code="conflict", headers=NO_RETRY, current=shown)
        case NotReleasable():
            return ApiError(409, str(error), code="not_releasable", headers=NO_RETRY)
        case BadPlan():
            return ApiError(409, str(error), code="bad_plan", headers=NO_RETRY)
        case PointerMoved() | Conflict() | Superseded():
            return ApiError(409, str(error), code="conflict", headers=NO_RETRY)
    raise error


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return response_to(error)


async def _on_leaving(_: Request, error: Exception) -> Response:
    """Who left before its request was read is no fault of ours: for the count and the log alone."""
    return Response(status_code=499)


async def _on_ledger(_: Request, error: Exception) -> JSONResponse:
    return response_to(translate(error))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message, code = str(error.detail), None
    if error.status_code == 404:
        message, code = f"Unknown request URL: {request.method} {request.url.path}", "unknown_url"
        if UNSUPPORTED.match(request.url.path):
            message, code = CHAT_ONLY, "unsupported_endpoint"
    headers = error.headers
    if error.status_code == 405:  # the route that refused knows only of its own methods
        headers = {"allow": ", ".join(methods_at(request))}
        message, code = f"{request.method} is not allowed here, only {headers['allow']}", "method_not_allowed"
    body = error_body(error.status_code, message, code=code)
    return JSONResponse(body, status_code=error.status_code, headers=headers)


def methods_at(request: Request) -> list[str]:
    """What a path may be asked with, by all routes that know it."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute)]
    found = {method for route in routes if route.matches(request.scope)[0] != Match.NONE for method in route.methods}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _on_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    return response_to(invalid(str(first["msg"]), ".".join(place) or None))


async def _on_bug(_: Request, error: Exception) -> JSONResponse:
    # Starlette raises it again after the answer, so the log has the traceback and the client does not. The answer is
    # made outside of the middleware that would give it the id.
    headers = {"x-request-id": request_id() or ""}
    return JSONResponse(error_body(500, "internal error", code="internal_error"), status_code=500, headers=headers)
