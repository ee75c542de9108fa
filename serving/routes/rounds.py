"""/v1/rounds, for operators: what learns, what has, and how it is begun, cancelled and frozen."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from feedback.rounds.book import RoundRecord, last_on_disk
from feedback.rounds.cancelling import cancel
from serving.document import by_route as docs
from serving.document import learning, oversight
from serving.gateway import Before, Gateway, GatewayDep, Limit, OperatorDep, read_json
from serving.http.errors import ApiError
from serving.routes.bodies import freeze_of, reason_of

router = APIRouter()


@router.post("/v1/rounds", **docs.OPEN_ROUND)
def open_round(gateway: GatewayDep, caller: OperatorDep) -> JSONResponse:
    beyond = last_on_disk(gateway.settings.rounds_dir)
    id, opened = gateway.rounds.request(trigger="operator", actor=caller.name, beyond=beyond)
    return JSONResponse(round_card(gateway.rounds.get(id), id), status_code=201 if opened else 200)


@router.get("/v1/rounds", **docs.ROUNDS)
def list_rounds(gateway: GatewayDep, _: OperatorDep, limit: Limit = 20, before: Before = None) -> dict[str, Any]:
    rounds = gateway.rounds.list(limit + 1, before)
    return {
        "object": "list",
        "data": [round_card(round, round.id) for round in rounds[:limit]],
        "has_more": len(rounds) > limit,
        "frozen": gateway.rounds.is_frozen(),
    }


@router.post("/v1/rounds/freeze", **docs.FREEZE)
async def freeze(request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    frozen, reason = freeze_of(await read_json(request))
    await run_in_threadpool(partial(gateway.rounds.freeze, frozen, actor=caller.name, reason=reason))
    return {"object": "learning", "frozen": frozen}


@router.get("/v1/rounds/{id}", **docs.ROUND)
def get_round(id: int, gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    return round_card(gateway.rounds.get(id), id)


@router.post("/v1/rounds/{id}/cancel", **oversight.CANCEL_ROUND)
async def cancel_round(id: int, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    reason = reason_of(await read_json(request, optional=True))
    return await run_in_threadpool(_cancelled, gateway, id, caller.name, reason)


def _cancelled(gateway: Gateway, id: int, actor: str, reason: str) -> dict[str, Any]:
    round_card(gateway.rounds.get(id), id)
    return round_card(cancel(gateway.rounds.redis, id, actor=actor, reason=reason), id)


@router.get("/v1/rounds/{id}/course", **learning.COURSE)
def get_course(id: int, gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    round_card(gateway.rounds.get(id), id)
    points = [point.model_dump(mode="json") for point in gateway.rounds.course(id)]
    return {"object": "round.course", "round": id, "data": points}


def round_card(round: RoundRecord | None, id: int) -> dict[str, Any]:
    if round is None:
        raise ApiError(404, f"No round {id}.", code="round_not_found", param="id")
    return {"object": "round", **round.model_dump(mode="json")}
