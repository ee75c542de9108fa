"""For operators: policies, rollback, rounds."""

import json
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from feedback.policies.manifest import BrokenPolicy, read_manifest, version_number
from feedback.rounds.book import RoundRecord
from feedback.rounds.cancelling import cancel
from serving.document import described as docs
from serving.document import learning, oversight
from serving.engine.swap_reports import LAST_SWAP
from serving.gateway import Before, Gateway, GatewayDep, OperatorDep, read_json
from serving.http.errors import ApiError, invalid
from serving.views.policy import in_full, side_by_side

router = APIRouter()


@router.get("/v1/policies", **docs.POLICIES)
def list_policies(gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    served, pinned = gateway.gate.served, gateway.registry.pinned()
    candidate = gateway.arms.candidate.gate.served
    raw = gateway.registry.redis.get(LAST_SWAP)
    return {
        "object": "list",
        "data": [
            {**policy_card(gateway, version, state), "pinned": version in pinned}
            for version, state in gateway.registry.states().items()
        ],
        "stable": gateway.registry.stable(),
        "previous": gateway.registry.previous(),
        "served": served.version if served else None,
        "candidate_served": candidate.version if candidate else None,
        "last_swap": json.loads(raw) if raw else None,
    }


def policy_card(gateway: Gateway, version: int, state: str) -> dict[str, Any]:
    """A version's state and what its manifest says; a broken directory is said so, not hidden."""
    served = gateway.gate.served
    card = {"id": f"policy-v{version}", "object": "policy", "version": version, "state": state}
    card["served"] = served is not None and served.version == version
    try:
        manifest = read_manifest(gateway.registry.directory(version))
    except (BrokenPolicy, OSError) as error:
        return {**card, "broken": str(error)}
    names = ("parent", "kind", "base_model", "created", "metrics", "lineage")
    return {**card, **{name: getattr(manifest, name) for name in names}}


@router.get("/v1/policies/{id}", **learning.POLICY)
def get_policy(id: str, gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    version, registry = version_of(id, "id"), gateway.registry
    told = in_full(registry, version)
    card = policy_card(gateway, version, registry.states()[version])
    return {**card, "pinned": version in registry.pinned(), **told}


@router.get("/v1/policies/{id}/diff", **learning.DIFF)
def diff_policies(id: str, gateway: GatewayDep, _: OperatorDep, other: learning.With) -> dict[str, Any]:
    left, right = version_of(id, "id"), version_of(other, "with")
    return {"object": "policy.diff", **side_by_side(gateway.registry, left, right)}


@router.post("/v1/rollback", **docs.ROLLBACK)
async def roll_back(request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    body = await read_json(request, optional=True)
    to = None if body.get("to") is None else version_of(body["to"], "to")
    reason, expected = str(body.get("reason") or "asked for over the API"), expected_of(body)
    roll_back = partial(gateway.registry.rollback, to=to, actor=caller.name, reason=reason, expected=expected)
    version = await run_in_threadpool(roll_back)
    return {"object": "policy", "id": f"policy-v{version}", "version": version}


@router.post("/v1/policies/{id}/promote", **docs.PROMOTE)
async def promote(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    version = version_of(id, "id")
    body = await read_json(request, optional=True)
    reason = str(body.get("reason") or "asked for over the API")
    await run_in_threadpool(_promote, gateway, version, caller.name, reason, expected_of(body))
    return {"object": "policy", "id": f"policy-v{version}", "version": version}


def _promote(gateway: Gateway, version: int, actor: str, reason: str, expected: int | None) -> None:
    current = gateway.registry.stable()
    if current != version or expected not in (None, current):
        seen = current if expected is None else expected
        gateway.registry.point_stable(version, expected=seen, actor=actor, reason=reason)


def expected_of(body: dict[str, Any]) -> int | None:
    """The version that the caller believes to serve; None when they do not say."""
    return None if body.get("expected") is None else version_of(body["expected"], "expected")


def version_of(value: Any, param: str) -> int:
    """The version that a field names. Raises ApiError 400."""
    try:
        return version_number(value)
    except ValueError:
        raise invalid(f"{param} must be a policy such as policy-v7", param) from None


@router.post("/v1/rounds", **docs.OPEN_ROUND)
def open_round(gateway: GatewayDep, caller: OperatorDep) -> JSONResponse:
    id, opened = gateway.rounds.request(trigger="operator", actor=caller.name)
    return JSONResponse(round_card(gateway.rounds.get(id), id), status_code=201 if opened else 200)


@router.get("/v1/rounds", **docs.ROUNDS)
def list_rounds(gateway: GatewayDep, _: OperatorDep, limit: int = 20, before: Before = None) -> dict[str, Any]:
    limit = min(max(limit, 1), 100)
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


def freeze_of(body: dict[str, Any]) -> tuple[bool, str]:
    """Whether to freeze or to go on, and why. Raises ApiError 400."""
    frozen = body.get("frozen")
    if not isinstance(frozen, bool):
        raise invalid("frozen must be true or false", "frozen")
    return frozen, reason_of(body)


def reason_of(body: dict[str, Any]) -> str:
    """Why, for the audit. Raises ApiError 400."""
    reason = body.get("reason") or "asked for over the API"
    if not isinstance(reason, str) or len(reason) > 1024:
        raise invalid("reason must be text of at most 1024 characters", "reason")
    return reason


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
