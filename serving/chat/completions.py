"""POST /v1/chat/completions and GET /v1/models: OpenAI's API in front of the policy that serves."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from serving.chat.answers import Admitted, Plan, Question, Way, answer
from serving.chat.comparisons import blind_way, interleaved
from serving.chat.request import Asked, check, check_model, ticket_for, upstream_body, wants_resuming
from serving.document import by_route as docs
from serving.engine.server import SERVED_NAME
from serving.engine.swap_gate import Served
from serving.gateway import CallerDep, Direct, GatewayDep, User, read_json
from serving.http.errors import ApiError, invalid, unavailable
from serving.http.json_body import MANY_IN_CHAT
from serving.release.arms import CANDIDATE, STABLE, Arms, Side
from serving.streams.event_stream import EventStream

Seen = Annotated[str, Header(description="the number of the last event that arrived; 0 for the first")]

router = APIRouter()
hot = APIRouter(route_class=Direct)


@hot.post("/v1/chat/completions", **docs.CHAT)
async def create_chat_completion(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    body = await read_json(request, most=MANY_IN_CHAT)
    check(body, max_tokens=gateway.settings.max_model_len)
    asked = Asked.of(gateway, caller, body, request.headers)
    return await answer(request, gateway, caller, body, lambda: ways(gateway.arms, asked))


def ways(arms: Arms, asked: Asked) -> tuple[Way, ...]:
    """By the side that the conversation is on; of several answers some, by chance, are a blind comparison."""
    if match := interleaved(arms, asked):
        first = blind_way(arms, asked, match)
        return (first,) if match.release is None else (first, _by(arms, asked, Side(arms.stable, moved=True)))
    sides = arms.sides(asked.body["model"], asked.rater, asked.conversation_id)
    return tuple(_by(arms, asked, side) for side in sides)


def _by(arms: Arms, asked: Asked, side: Side) -> Way:
    """All answers by one arm. Whoever waited there until another policy served is no part of the release any more."""
    arm, body, release = side.arm, asked.body, arms.release

    def plan(admitted: Admitted) -> Plan:
        served, put = admitted[arm.name], {}
        check_model(body["model"], arm, served)
        if release is not None and served.version == release.version(arm.name):
            put = {"release": side.release, "arms": (arm.name,) * asked.choices, "propensity": side.propensity}
        ticket, messages = ticket_for(asked, (served,), **put)
        question = Question(upstream_body(body, messages, served, ticket), arm, served, tuple(range(ticket.choices)))
        return Plan(ticket, (question,), wants_resuming(body))

    return Way((arm,), plan, side.moved)


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
    stable, candidate = gateway.arms.stable.gate.served, gateway.arms.candidate.gate.served
    named = {name: stable for name in (SERVED_NAME, STABLE, stable.name)} if stable else {}
    if candidate:
        named |= {CANDIDATE: candidate} | ({} if candidate.name in named else {candidate.name: candidate})
    return {"object": "list", "data": [model_card(name, served) for name, served in named.items()]}


@router.get("/v1/models/{id}", **docs.MODEL)
async def get_model(id: str, gateway: GatewayDep, _: CallerDep) -> dict[str, Any]:
    arm = gateway.arms.named(id)
    if arm.gate.served is None:
        raise unavailable(f"not ready: {arm.gate.reason}", "engine_unavailable")
    check_model(id, arm, arm.gate.served)
    return model_card(id, arm.gate.served)


def model_card(id: str, served: Served) -> dict[str, Any]:
    parent = None if served.parent is None else f"policy-v{served.parent}"
    return {
        "id": id, "object": "model", "created": int(served.created), "owned_by": "ratchet", "root": served.name,
        "parent": parent,
    }  # fmt: skip
