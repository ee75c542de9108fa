"""/v1/comparisons: several answers to one prompt side by side, blind, in an order drawn at random and remembered."""

import math
import random
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from feedback.judgements import Feedback, compares
from feedback.keys import ApiKey
from feedback.records import Completion, Offer, Slot, new_id
from serving import api_docs as docs
from serving.answers import Plan, Question, answer
from serving.chat_request import check, check_model, end_user, ticket_for, upstream_body, wants_resuming
from serving.checks import is_gold, repeated, wants_repeat, with_decoy
from serving.engine import SERVED_NAME, Body
from serving.errors import ApiError, invalid
from serving.gateway import CallerDep, Gateway, GatewayDep, User, read_json
from serving.shown import Shown
from serving.swap_gate import Served

MIN_SLOTS, MAX_SLOTS = 2, 8

router = APIRouter()
_draw = random.SystemRandom()


@router.post("/v1/comparisons", **docs.COMPARE)
async def compare(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Chat, but with `k` answers: choice i is slot i, whoever wrote it. The vote goes to /v1/feedback."""
    body = await read_json(request)
    if wants_repeat(body):
        rater = gateway.rater(caller, end_user(body, request.headers))
        return JSONResponse(await run_in_threadpool(lambda: card(gateway, repeated(gateway, rater))))
    gold = is_gold(body, gateway.settings.gold_share)
    arms = arms_of(body)
    chat = {name: value for name, value in body.items() if name not in ("k", "repeat")} | {
        "model": SERVED_NAME,
        "n": len(arms),
    }
    check(chat, max_tokens=gateway.settings.max_model_len)
    if chat.get("store") is False:
        raise invalid("a comparison that is not stored cannot be voted on", "store")

    def plan(served: Served) -> Plan:
        made = blind_plan(gateway, caller, chat, request.headers, arms, served)
        return with_decoy(made) if gold else made

    return await answer(request, gateway, caller, chat, plan)


def arms_of(body: Body) -> list[str]:
    """The policy that writes each answer, as asked: one for all, or several in turn."""
    k, model = body.get("k", MIN_SLOTS), body.get("model")
    if not isinstance(k, int) or isinstance(k, bool) or not MIN_SLOTS <= k <= MAX_SLOTS:
        raise invalid(f"k must be a whole number from {MIN_SLOTS} to {MAX_SLOTS}", "k")
    if "n" in body:
        raise invalid("a comparison takes k in place of n", "n")
    models: list[Any] = model if isinstance(model, list) else [f"{SERVED_NAME}@stable" if model == "auto" else model]
    if not 1 <= len(models) <= k or not all(isinstance(name, str) for name in models):
        raise invalid('model must be a policy, a list of at most k policies, or "auto"', "model")
    return [models[index % len(models)] for index in range(k)]


def blind_plan(
    gateway: Gateway, caller: ApiKey, body: Body, headers: Mapping[str, str], arms: list[str], served: Served
) -> Plan:
    """One question to the engine for each policy; their answers land in slots drawn at random."""
    for arm in arms:
        check_model(arm, served)
    order = list(range(len(arms)))
    _draw.shuffle(order)
    ticket, messages = ticket_for(gateway, caller, body, headers, served, blind=True, response_id=new_id("cmp_"))
    questions = []
    for arm in dict.fromkeys(arms):
        places = tuple(order[index] for index, name in enumerate(arms) if name == arm)
        upstream = upstream_body({**body, "n": len(places)}, messages, served)
        questions.append(Question({**upstream, "stream_options": None}, served, places))
    by_slot = sorted(zip(order, arms, strict=True))
    offer = Offer(
        id=ticket.response_id, rater=ticket.rater, conversation_id=ticket.conversation_id,
        slots=tuple(Slot(completion_id=ticket.completion_ids[slot], arm=arm) for slot, arm in by_slot),
        propensity=1 / math.factorial(len(arms)), created=ticket.created,
    )  # fmt: skip
    return Plan(ticket, tuple(questions), wants_resuming(body), offer)


@router.get("/v1/comparisons/{id}", **docs.COMPARISON)
def get_comparison(id: str, gateway: GatewayDep, caller: CallerDep, user: User = None) -> dict[str, Any]:
    """What was laid side by side; who wrote it only after the vote."""
    offer, raters = gateway.archive.offer(id), gateway.raters(caller, user)
    if offer is None or offer.rater not in raters:
        raise ApiError(404, f"No comparison {id}.", code="comparison_not_found", param="id")
    return card(gateway, offer)


def card(gateway: Gateway, offer: Offer) -> dict[str, Any]:
    """A comparison as the API shows it."""
    known = gateway.ledger.completions(offer.completion_ids)
    votes = votes_on(gateway, offer)
    answers = [known[id] for id in offer.completion_ids if id in known]
    return {
        "object": "comparison",
        "id": offer.id,
        "created": int(offer.created),
        "conversation_id": offer.conversation_id,
        "completion_ids": list(offer.completion_ids),
        "messages": [message.plain for message in answers[0].messages] if answers else [],
        "answers": [_shown(each) for each in answers],
        "votes": votes,
        "reveal": reveal(offer, known) if votes else None,
    }


def votes_on(gateway: Gateway, offer: Offer) -> list[str]:
    """The judgements that stand and set its answers against each other: one of a single answer reveals nothing."""
    said = {kept.feedback.id: kept for id in offer.completion_ids for kept in gateway.ledger.about(id)}
    return sorted(id for id, kept in said.items() if kept.stands and _is_vote(kept.feedback, offer))


def _is_vote(feedback: Feedback, offer: Offer) -> bool:
    """What was said of a pair when it first came is none on the pair that came again, nor the other way round."""
    judgement = feedback.judgement
    if not compares(judgement, offer.completion_ids):
        return False
    return "repeat" not in (feedback.lane, offer.lane) or judgement.comparison_id == offer.id


def _shown(completion: Completion) -> Body:
    return {"completion_id": completion.id, "message": completion.answer.plain, "partial": completion.partial}


def reveal(offer: Offer, known: Mapping[str, Completion] | Mapping[str, Shown]) -> dict[str, str]:
    """Who wrote what: left and right of two, else by the letters of the order shown."""
    names = ("left", "right") if len(offer.slots) == 2 else "ABCDEFGH"
    shown = zip(names, offer.completion_ids, strict=False)
    return {name: f"policy-v{known[id].policy_version}" for name, id in shown if id in known}
