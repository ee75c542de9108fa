"""/v1/policies, for operators: which versions there are, which one serves, and to have another one serve."""

import json
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from feedback.policies.manifest import BrokenPolicy, read_manifest
from serving.document import by_route as docs
from serving.document import learning
from serving.engine.swap_reports import LAST_SWAP
from serving.gateway import Gateway, GatewayDep, OperatorDep, read_json
from serving.routes.bodies import expected_of, reason_of, version_of
from serving.views.policy_facts import in_full, side_by_side

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
    reason, expected = reason_of(body), expected_of(body)
    roll_back = partial(gateway.registry.rollback, to=to, actor=caller.name, reason=reason, expected=expected)
    version = await run_in_threadpool(roll_back)
    return {"object": "policy", "id": f"policy-v{version}", "version": version}


@router.post("/v1/policies/{id}/promote", **docs.PROMOTE)
async def promote(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    version = version_of(id, "id")
    body = await read_json(request, optional=True)
    await run_in_threadpool(_promote, gateway, version, caller.name, reason_of(body), expected_of(body))
    return {"object": "policy", "id": f"policy-v{version}", "version": version}


def _promote(gateway: Gateway, version: int, actor: str, reason: str, expected: int | None) -> None:
    current = gateway.registry.stable()
    if current != version or expected not in (None, current):
        seen = current if expected is None else expected
        gateway.registry.point_stable(version, expected=seen, actor=actor, reason=reason)
