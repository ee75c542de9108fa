"""POST /v1/chat/completions and GET /v1/models: OpenAI's API in front of the policy that serves."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from serving import api_docs as docs
from serving.answers import Plan, Question, answer
from serving.chat_request import check, check_model, ticket_for, upstream_body, wants_resuming
from serving.engine import SERVED_NAME
from serving.errors import ApiError, invalid, unavailable
from serving.event_stream import EventStream
from serving.gateway import CallerDep, Direct, GatewayDep, User, read_json
from serving.swap_gate import Served

Seen = Annotated[str, Header(description="the number of the last event that arrived; 0 for the first")]

router = APIRouter()
hot = APIRouter(route_class=Direct)


@hot.post("/v1/chat/completions", **docs.CHAT)
async def create_chat_completion(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    body = await read_json(request)
    check(body, max_tokens=gateway.settings.max_model_len)

    def plan(served: Served) -> Plan:
        check_model(body["model"], served)
        ticket, messages = ticket_for(gateway, caller, body, request.headers, served)
        question = Question(upstream_body(body, messages, served), served, tuple(range(ticket.choices)))
        return Plan(ticket, (question,), wants_resuming(body))

    return await answer(request, gateway, caller, body, plan)


@router.get("/v1/chat/completions/{id}/stream", response_class=StreamingResponse, **docs.RESUME)
async def resume_stream(
    id: str, request: Request, gateway: GatewayDep, caller: CallerDep, last_event_id: Seen = "0", user: User = None
) -> Response:
    """A stream asked for with `stream_options.resumable`, after the event named in Last-Event-ID."""
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 9):
        raise invalid("Last-Event-ID must be the number of an event", "Last-Event-ID")
    if await run_in_threadpool(gateway.archive.is_erased, id):
        raise ApiError(404, f"No stream {id} to go on with: it was erased.", code="stream_not_found", param="id")
    replay = gateway.replays.find(id, gateway.raters(caller, user))
    if replay is None and (elsewhere := await gateway.peers.pass_on(request)):
        return elsewhere
    if replay is None:
        message = f"No stream {id} to go on with: it was not resumable or ended too long ago."
        raise ApiError(404, message, code="stream_not_found", param="id")
    return EventStream(replay.follow(int(last_event_id)), replay.left, {})


@router.post("/v1/chat/completions/{id}/cancel", **docs.CANCEL)
async def cancel(id: str, request: Request, gateway: GatewayDep, caller: CallerDep, user: User = None) -> Any:
    """Stop an answer that is being written; what was shown of it is kept as partial."""
    relay = gateway.running.find(id, gateway.raters(caller, user))
    if relay is None and (elsewhere := await gateway.peers.pass_on(request)):
        return elsewhere
    if relay is None:
        raise ApiError(404, f"No answer {id} is being written.", code="completion_not_found", param="id")
    await gateway.running.stop(relay)
    return {"object": "chat.completion.cancelled", "id": id, "completion_ids": relay.ticket.completion_ids}


@router.get("/v1/models", **docs.MODELS)
async def list_models(gateway: GatewayDep, _: CallerDep) -> dict[str, Any]:
    served = gateway.gate.served
    names = [SERVED_NAME, f"{SERVED_NAME}@stable", served.name] if served else []
    return {"object": "list", "data": [model_card(name, served) for name in names if served]}


@router.get("/v1/models/{id}", **docs.MODEL)
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
