"""POST /v1/chat/completions and GET /v1/models: OpenAI's API in front of the policy that serves."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import anyio
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from feedback.keys import ApiKey
from serving.chat_request import check, check_model, ticket_for
from serving.engine import (
    SERVED_NAME,
    Body,
    EngineDown,
    EngineRefused,
    EngineSlow,
    EngineUnreachable,
    error_message,
)
from serving.errors import RETRY_SOON, ApiError, invalid, unavailable
from serving.gate import Served
from serving.gateway import CallerDep, Gateway, GatewayDep, read_json
from serving.relay import Arrivals, Relay, UnprovenWeights
from serving.whole import whole

router = APIRouter()
log = logging.getLogger("serving.chat")
T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    body = await read_json(request)
    check(body, max_tokens=gateway.settings.max_model_len)
    answer = _stream if body.get("stream") else _complete
    try:
        return await unless_gone(request, answer(gateway, caller, body, request.headers))
    except ClientGone:
        return Response(status_code=499)
    except (EngineDown, EngineRefused, UnprovenWeights) as error:
        raise failure(gateway, error) from error


@router.get("/v1/models")
async def list_models(gateway: GatewayDep, _: CallerDep) -> dict[str, Any]:
    served = gateway.gate.served
    names = [SERVED_NAME, f"{SERVED_NAME}@stable", served.name] if served else []
    return {"object": "list", "data": [model_card(name, served) for name in names if served]}


@router.get("/v1/models/{id}")
async def get_model(id: str, gateway: GatewayDep, _: CallerDep) -> dict[str, Any]:
    served = gateway.gate.served
    if served is None:
        raise unavailable(f"not ready: {gateway.gate.reason}", "engine_unavailable")
    check_model(id, served)
    return model_card(id, served)


def model_card(id: str, served: Served) -> dict[str, Any]:
    parent = None if served.parent is None else f"policy-v{served.parent}"
    return {
        "id": id, "object": "model", "created": int(served.created), "owned_by": "ratchet", "root": served.name,
        "parent": parent,
    }  # fmt: skip


async def _complete(gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str]) -> Response:
    async with AsyncExitStack() as stack:
        relay = await _relay(stack, gateway, caller, body, headers)
        answer = await whole(relay)
    return JSONResponse(answer, headers=headers_of(relay))


async def _stream(gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str]) -> Response:
    """Open the engine's stream and wait for its first chunk: until then errors are plain HTTP errors."""
    stack = AsyncExitStack()
    try:
        relay = await _relay(stack, gateway, caller, body, headers)
        first = await relay.first()
    except BaseException:
        await stack.aclose()
        raise
    return EventStream(_events(gateway, relay, first), stack, headers_of(relay))


async def _relay(
    stack: AsyncExitStack, gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str]
) -> Relay:
    """The engine at work on a request, for as long as the stack is open."""
    admitted = await stack.enter_async_context(gateway.gate.admission())
    check_model(body["model"], admitted)
    ticket = ticket_for(gateway, caller, body, headers, admitted)
    taints = gateway.gate.taints
    chunks = await stack.enter_async_context(gateway.engine.stream(ticket.body))
    arrivals = Arrivals(chunks, gateway.gate, admitted)
    stack.push_async_callback(arrivals.close)
    return Relay(ticket, arrivals, gateway.gate, gateway.recorder, taints=taints)


async def _events(gateway: Gateway, relay: Relay, first: list[Body]) -> AsyncIterator[bytes]:
    """Server-sent events; an error ends them without [DONE]."""
    try:
        for chunk in first:
            yield event(chunk)
        async for chunk in relay.chunks():
            yield event(chunk)
        yield b"data: [DONE]\n\n"
    except Exception as error:  # the status is sent: the client learns of a fault here or nowhere
        gateway.broken_streams += 1
        yield event(failure(gateway, error).body)


class EventStream(StreamingResponse):
    """Closes the engine's stream as soon as the client is gone, so that its slot is free at once."""

    def __init__(self, events: AsyncIterator[bytes], stack: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={**headers, "cache-control": "no-cache"})
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()


def event(payload: Body) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def headers_of(relay: Relay) -> dict[str, str]:
    return {"x-policy-version": str(relay.served.version)} if relay.served else {}


def failure(gateway: Gateway, error: Exception) -> ApiError:
    """What ended an answer, as its client is told. Only an engine that is not there ends the others' as well."""
    match error:
        case EngineUnreachable():
            gateway.gate.lose(f"the engine is down: {error}")
            return unavailable("the engine is restarting", "engine_unavailable")
        case EngineSlow():
            gateway.gate.doubt()
            return ApiError(504, "the engine is too slow, repeat", code="engine_timeout", headers=RETRY_SOON)
        case EngineDown():
            gateway.gate.doubt()
            return unavailable("the engine went away in the middle of the answer", "engine_unavailable")
        case EngineRefused():
            return refusal(error)
        case UnprovenWeights():
            return unavailable(str(error), "policy_unproven")
    log.error("an answer broke off", exc_info=error)
    return ApiError(500, "internal error", code="internal_error")


def refusal(error: EngineRefused) -> ApiError:
    """The engine's verdict on a request, as ours; its own troubles are not the client's fault."""
    if error.status not in (400, 413, 422):
        log.error("%s", error)
        return unavailable("the engine could not answer", "engine_refused")
    inner = error.body.get("error") if isinstance(error.body, dict) else None
    param = inner.get("param") if isinstance(inner, dict) else None
    return invalid(error_message(error.body), param)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it is cancelled and ClientGone raised when the client hangs up first."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
