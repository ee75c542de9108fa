"""/v1/raters, for operators: who judges, how their checks went, and who is put aside."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool

from feedback.people.raters import Action, Raters
from serving.document import oversight as docs
from serving.gateway import Gateway, GatewayDep, OperatorDep, read_json
from serving.http.errors import NO_RETRY, ApiError
from serving.routes.bodies import read

router = APIRouter()

Rater = Annotated[str, Path(description="a pseudonym, as the list shows it")]


@router.get("/v1/raters", **docs.RATERS)
def list_raters(gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    """All of them, most judgements first."""
    return {"object": "list", "data": gateway.rater_facts.rows()}


@router.post("/v1/raters/{id}/quarantine", **docs.QUARANTINE)
async def quarantine(id: Rater, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """From the next round on nothing of theirs trains or proves anything."""
    return await _move("quarantine", id, request, gateway, caller.name)


@router.post("/v1/raters/{id}/release", **docs.RELEASE_RATER)
async def release(id: Rater, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """They train again, from the next round on."""
    return await _move("release", id, request, gateway, caller.name)


async def _move(action: Action, rater: str, request: Request, gateway: Gateway, actor: str) -> dict[str, Any]:
    order = read(docs.Reasoned, await read_json(request, optional=True))
    return await run_in_threadpool(moved, gateway, action, rater, actor, order.reason)


def moved(gateway: Gateway, action: Action, rater: str, actor: str, reason: str) -> dict[str, Any]:
    """The rater as they are from now on. Raises ApiError 404 for nobody, 409 where that is so already."""
    raters = known(gateway, rater)
    move = raters.quarantine if action == "quarantine" else raters.release
    if not move(rater, actor=actor, reason=reason):
        is_so = "in quarantine already" if action == "quarantine" else "not in quarantine"
        raise ApiError(409, f"{rater} is {is_so}.", code="conflict", headers=NO_RETRY)
    return gateway.rater_facts.row(rater)


def known(gateway: Gateway, rater: str, param: str = "id") -> Raters:
    """Raises ApiError 404 where nobody is called so."""
    raters = Raters(gateway.ledger.redis)
    if not raters.knows(rater):
        raise ApiError(404, f"No rater {rater}.", code="rater_not_found", param=param)
    return raters
