"""/v1/releases, for operators: a candidate let in step by step beside the stable policy, watched, and ended."""

import logging
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from feedback.releases.book import Release
from feedback.releases.decisions import Count
from feedback.releases.evidence import evidence_of
from feedback.releases.orders import Order, UnknownRelease, changed, default_mode, found, give, to_replace
from feedback.releases.plan import BadPlan, Plan, load_plan
from feedback.releases.self_test import reset, self_test_of
from feedback.releases.start import begin_release
from feedback.settings import Settings
from serving.document import by_route as docs
from serving.document import oversight
from serving.document.releases import ReleaseOrder, ReleasePromotion, ReleaseWish
from serving.gateway import Before, Gateway, GatewayDep, Limit, OperatorDep, read_json
from serving.http.errors import invalid
from serving.routes.bodies import freeze_of, read, version_of
from serving.views.release_facts import facts, figure, line, self_test
from serving.views.release_usual import usual

router = APIRouter()
log = logging.getLogger("serving.releases")


@router.post("/v1/releases", status_code=201, **docs.START_RELEASE)
async def start_release(request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """Begin one, in place of the open one; of two at once one is refused."""
    wish = read(ReleaseWish, with_plan(await read_json(request)))
    return await run_in_threadpool(_start, gateway, wish, caller.name)


@router.get("/v1/releases", **docs.RELEASES)
def list_releases(gateway: GatewayDep, _: OperatorDep, limit: Limit = 20, before: Before = None) -> dict[str, Any]:
    book, redis = gateway.releases, gateway.registry.redis
    opened, newest, frozen = book.open(), book.latest(limit + 1, before), book.is_frozen()
    return {
        "object": "list",
        "data": [facts(redis, release) for release in newest[:limit]],
        "has_more": len(newest) > limit,
        "open": None if opened is None else opened.id,
        "frozen": frozen,
        "usual": usual(gateway.settings, frozen=frozen),
    }


@router.get("/v1/releases/freeze", **docs.RELEASES_FROZEN)
def get_frozen(gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    return {"object": "releases", "frozen": gateway.releases.is_frozen()}


@router.post("/v1/releases/freeze", **docs.FREEZE_RELEASES)
async def freeze_releases(request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """While frozen nothing is released or promoted by itself; what is worse is still rolled back."""
    frozen, reason = freeze_of(await read_json(request))
    await run_in_threadpool(partial(gateway.releases.freeze, frozen, actor=caller.name, reason=reason))
    return {"object": "releases", "frozen": frozen}


@router.get("/v1/releases/self-test", **docs.SELF_TEST)
def get_self_test(gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    return self_test(self_test_of(gateway.ledger))


@router.post("/v1/releases/self-test", **docs.RESET_SELF_TEST)
async def reset_self_test(request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """For who has found the fault behind an alarm: only votes from now on count."""
    if (await read_json(request)).get("reset") is not True:
        raise invalid("reset must be true", "reset")
    await run_in_threadpool(reset, gateway.ledger)
    log.warning("the self-test of votes begins anew: %s has found the fault", caller.name)
    return await run_in_threadpool(get_self_test, gateway, caller)


@router.get("/v1/releases/{id}", **docs.RELEASE)
def get_release(id: str, gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    book = gateway.releases
    release = found(book, number_of(id))
    return facts(gateway.registry.redis, release) | {"history": [line(each) for each in book.history(release.id)]}


@router.get("/v1/releases/{id}/evidence", **oversight.EVIDENCE)
def get_evidence(id: str, gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    """After each vote that counted, oldest first."""
    release = found(gateway.releases, number_of(id))
    points = [each.model_dump() | {"win_rate": figure(each.win_rate)} for each in evidence_of(gateway.ledger, release)]
    threshold = Count(release.plan.rules).log_threshold
    return {"object": "release.evidence", "release": release.id, "threshold": threshold, "data": points}


@router.post("/v1/releases/{id}/promote", **docs.PROMOTE_RELEASE)
async def promote_release(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """One that is proposed serves from now on; otherwise the step under way is passed, or with `full` all steps are."""
    return await _give("promote", id, request, gateway, caller.name)


@router.post("/v1/releases/{id}/pause", **docs.PAUSE_RELEASE)
async def pause_release(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """No step is taken until it is resumed; what is worse is still rolled back."""
    return await _give("pause", id, request, gateway, caller.name)


@router.post("/v1/releases/{id}/resume", **docs.RESUME_RELEASE)
async def resume_release(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    return await _give("resume", id, request, gateway, caller.name)


@router.post("/v1/releases/{id}/abort", **docs.ABORT_RELEASE)
async def abort_release(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """The candidate is what it was before, and may be released again."""
    return await _give("abort", id, request, gateway, caller.name)


@router.post("/v1/releases/{id}/rollback", **docs.ROLL_BACK_RELEASE)
async def roll_back_release(id: str, request: Request, gateway: GatewayDep, caller: OperatorDep) -> dict[str, Any]:
    """The candidate counts as worse from now on."""
    return await _give("rollback", id, request, gateway, caller.name)


def with_plan(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plan that stand beside the others, where they belong."""
    beside = {name: body[name] for name in body.keys() & Plan.model_fields.keys()}
    plan = body.get("plan", {})
    if not isinstance(plan, dict):
        raise invalid("plan must be an object", "plan")
    return {name: value for name, value in body.items() if name not in beside} | {"plan": plan | beside}


def number_of(id: str) -> int | None:
    """7 or "current"; None is the open one. Raises UnknownRelease."""
    if id == "current":
        return None
    if not id.isascii() or not id.isdigit() or len(id) > 9:
        raise UnknownRelease(f"there is no release {id}")
    return int(id)


def _start(gateway: Gateway, wish: ReleaseWish, actor: str) -> dict[str, Any]:
    candidate, plan = version_of(wish.candidate, "candidate"), _plan(gateway.settings, wish.asked)
    named = "replaces" in wish.model_fields_set
    seen = to_replace(gateway.releases, named=named, id=wish.replaces)
    mode = wish.mode or default_mode(gateway.settings)
    begun = begin_release(
        gateway.ledger, gateway.registry, candidate, plan, mode=mode, actor=actor, reason=wish.reason, seen=seen
    )
    return facts(gateway.registry.redis, begun)


def _plan(settings: Settings, asked: dict[str, Any]) -> Plan:
    """The installation's plan but for what was asked. Raises BadPlan if its file is broken, ApiError 400."""
    plan = load_plan(settings.home)
    try:
        return changed(plan, asked)
    except BadPlan as error:
        raise invalid(str(error), str(error).partition(":")[0]) from error


async def _give(order: Order, id: str, request: Request, gateway: Gateway, actor: str) -> dict[str, Any]:
    model = ReleasePromotion if order == "promote" else ReleaseOrder
    told = read(model, await read_json(request, optional=True))
    full = isinstance(told, ReleasePromotion) and told.full
    obey = partial(
        give, gateway.releases, order, number_of(id), actor=actor, reason=told.reason, now=time.time(),
        revision=told.revision, full=full,
    )  # fmt: skip
    release: Release = await run_in_threadpool(obey)
    return await run_in_threadpool(facts, gateway.registry.redis, release)
