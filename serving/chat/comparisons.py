"""/v1/comparisons: several answers to one prompt side by side, blind, in an order drawn at random and remembered."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from feedback.judgements import COMPARED, Feedback, compares
from feedback.records import Completion, Lane, Offer, Slot, new_id
from feedback.releases.ballots import SECOND
from feedback.releases.book import Release
from serving.chat.answers import Admitted, Plan, Question, Way, answer
from serving.chat.checks import gold_way, is_gold, repeated, wants_repeat
from serving.chat.request import (
    Asked,
    check,
    check_model,
    end_user,
    is_side_turn,
    ticket_for,
    upstream_body,
    wants_resuming,
)
from serving.document import by_route as docs
from serving.engine.server import SERVED_NAME, Body
from serving.engine.swap_gate import Served
from serving.gateway import CallerDep, Gateway, GatewayDep, User, read_json
from serving.http.errors import ApiError, invalid
from serving.http.json_body import MANY_IN_CHAT
from serving.ledger.recorder import Ticket
from serving.ledger.shown import Shown
from serving.release.arms import CANDIDATE, STABLE, Arm, Arms

MIN_SLOTS, MAX_SLOTS = 2, 8
# Of the comparisons during a release, also within chats: a rater, or a client, that is not blind shows in them.
AA_SHARE = 0.01

router = APIRouter()
_draw = random.SystemRandom()


@router.post("/v1/comparisons", **docs.COMPARE)
async def compare(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Chat, but with `k` answers: choice i is slot i, whoever wrote it. The vote goes to /v1/feedback."""
    body = await read_json(request, most=MANY_IN_CHAT)
    if wants_repeat(body):
        rater = gateway.rater(caller, end_user(body, request.headers))
        return JSONResponse(await run_in_threadpool(lambda: card(gateway, repeated(gateway, rater))))
    models, k = models_of(body)
    chat = {name: value for name, value in body.items() if name not in ("k", "repeat")} | {"model": SERVED_NAME, "n": k}
    check(chat, max_tokens=gateway.settings.max_model_len)
    if chat.get("store") is False:
        raise invalid("a comparison that is not stored cannot be voted on", "store")
    asked = Asked.of(gateway, caller, chat, request.headers)
    if models is None and is_gold(chat, gateway.settings.gold_share):
        gold = gold_way(blind_way(gateway.arms, asked, Match((STABLE, STABLE))))
        return await answer(request, gateway, caller, chat, lambda: (gold,))
    return await answer(request, gateway, caller, chat, lambda: ways(gateway.arms, asked, models))


def models_of(body: Body) -> tuple[list[str] | None, int]:
    """The policies that write in turn, as asked, None for "auto"; and how many answers there are to be."""
    k, model = body.get("k", MIN_SLOTS), body.get("model")
    if not isinstance(k, int) or isinstance(k, bool) or not MIN_SLOTS <= k <= MAX_SLOTS:
        raise invalid(f"k must be a whole number from {MIN_SLOTS} to {MAX_SLOTS}", "k")
    if "n" in body:
        raise invalid("a comparison takes k in place of n", "n")
    if model == "auto":
        return None, k
    models: list[Any] = model if isinstance(model, list) else [model]
    if not 1 <= len(models) <= k or not all(isinstance(name, str) for name in models):
        raise invalid('model must be a policy, a list of at most k policies, or "auto"', "model")
    return models, k


@dataclass(frozen=True)
class Match:
    """Whose answers are laid side by side, by the name that each was asked for under, and to what end."""

    names: tuple[str, ...]
    lane: Lane | None = None
    release: Release | None = None


def between(release: Release, k: int) -> Match:
    """The two policies of a release, set against each other."""
    return Match(_in_turn(STABLE, CANDIDATE, k), "release", release)


def against_itself(k: int) -> Match:
    """The stable policy twice: whoever finds one of them better shows how blind the comparisons are."""
    return Match(_in_turn(STABLE, SECOND, k), "aa")


def _in_turn(one: str, other: str, k: int) -> tuple[str, ...]:
    """Of an odd number it is drawn who gets the last."""
    names = [one, other]
    _draw.shuffle(names)
    return tuple(names[index % 2] for index in range(k))


def drawn(release: Release | None, k: int) -> Match:
    """What is compared where nobody says what."""
    return against_itself(k) if release is None or _draw.random() < AA_SHARE else between(release, k)


def interleaved(arms: Arms, asked: Asked) -> Match | None:
    """What the answers of a chat are to be compared as, under a release; whether they are is drawn."""
    release, body = arms.contest, asked.body
    several = body["model"] == SERVED_NAME and asked.choices >= MIN_SLOTS
    if release is None or not several or body.get("store") is False or is_side_turn(asked.headers):
        return None
    return drawn(release, asked.choices) if _draw.random() < release.plan.interleave else None


def ways(arms: Arms, asked: Asked, models: list[str] | None) -> tuple[Way, ...]:
    """A release's two policies, if it is they who are asked for, and what stands in when one of them is lost."""
    release, k = arms.contest, asked.choices
    if models is None:
        match = drawn(release, k)
    elif release is not None and sorted(models) == [CANDIDATE, STABLE]:
        match = between(release, k)
    else:
        match = Match(tuple(models[index % len(models)] for index in range(k)))
    first = blind_way(arms, asked, match)
    return (first,) if match.release is None else (first, blind_way(arms, asked, against_itself(k), moved=True))


def blind_way(arms: Arms, asked: Asked, match: Match, *, moved: bool = False) -> Way:
    """One question to the engine for each name; their answers land in slots drawn at random."""
    whose = {name: arms.named(name) for name in match.names}

    def plan(admitted: Admitted) -> Plan:
        if match.lane is None:
            for name, arm in whose.items():
                check_model(name, arm, admitted[arm.name])
        return blind_plan(asked, match, whose, admitted)

    return Way(tuple(arm for arm in (arms.candidate, arms.stable) if arm in whose.values()), plan, moved)


def blind_plan(asked: Asked, match: Match, whose: Mapping[str, Arm], admitted: Admitted) -> Plan:
    names, release = match.names, match.release
    if release is not None and (admitted["stable"].version, admitted["candidate"].version) != (
        release.stable, release.candidate,
    ):  # fmt: skip
        match = Match(names)  # a swap came in between: it is no longer these two
    order = list(range(len(names)))
    _draw.shuffle(order)
    by_slot = [name for _, name in sorted(zip(order, names, strict=True))]
    more: dict[str, Any] = {"blind": True, "response_id": new_id(COMPARED)}
    if match.release is not None:
        more |= {"release": match.release.id, "arms": tuple(whose[name].name for name in by_slot)}
    ticket, messages = ticket_for(asked, tuple(admitted.values()), **more)
    questions, first = [], 0
    for name, arm in whose.items():
        places = tuple(order[index] for index, asked_for in enumerate(names) if asked_for == name)
        questions.append(question_of(asked.body, messages, arm, admitted[arm.name], ticket, places, first))
        first += len(places)
    offer = Offer(
        id=ticket.response_id, rater=ticket.rater, conversation_id=ticket.conversation_id,
        slots=tuple(
            Slot(completion_id=id, arm=name) for id, name in zip(ticket.completion_ids, by_slot, strict=True)
        ),
        propensity=1 / math.factorial(len(names)), lane=match.lane, release=ticket.release, created=ticket.created,
    )  # fmt: skip
    return Plan(ticket, tuple(questions), wants_resuming(asked.body), offer)


def question_of(
    body: Body, messages: list[Body], arm: Arm, served: Served, ticket: Ticket, places: tuple[int, ...], first: int
) -> Question:
    """The part of a blind answer that one policy writes; `first` of its choices were asked for before.

    An engine derives the seeds of several choices from the one given: without that two questions of one seed to the
    same policy would be answered alike.
    """
    upstream = upstream_body({**body, "n": len(places)}, messages, served, ticket) | {"stream_options": None}
    if isinstance(seed := upstream.get("seed"), int):
        upstream["seed"] = seed + first
    return Question(upstream, arm, served, places)


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
