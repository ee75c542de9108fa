"""/v1/feedback: what people say of the answers they got, kept only if it is about those answers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from feedback.blinding import blind
from feedback.judgements import Comparison, Feedback, Judgement, Ranking, offer_behind
from feedback.listing import Question, policies_of, questions_of
from feedback.people.keys import ApiKey
from feedback.people.raters import Raters
from feedback.records import Offer, new_id, prompt_digest
from feedback.releases.ballots import written_of
from feedback.store import Appended, Kept
from serving.chat.comparisons import reveal
from serving.document import by_route as docs
from serving.gateway import CallerDep, Direct, Gateway, GatewayDep, User, read_json
from serving.http.errors import ApiError, invalid, unavailable
from serving.judging.said import Said, read
from serving.ledger.recorder import STOPPED, Ticket
from serving.ledger.shown import Shown

ANSWER_WITHIN_S = 2.0
UNFINISHED = ("abort", "error")
OPERATORS = ("operator", "admin")

router = APIRouter()
hot = APIRouter(route_class=Direct)


class Accepted(NamedTuple):
    """What the client is told, and whether the judgement is new."""

    answer: dict[str, Any]
    status: Literal["created", "revised", "same", "retracted", "replaced", "valid"]


@hot.post("/v1/feedback", **docs.JUDGE)
async def create_feedback(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    said = read(await read_json(request))
    try:
        accepted = await take(gateway, caller, said)
    except ApiError as error:
        return await elsewhere(gateway, request, error)
    return JSONResponse(accepted.answer, status_code=201 if accepted.status == "created" else 200)


async def elsewhere(gateway: Gateway, request: Request, error: ApiError) -> Response:
    """What is not in the ledger another process may be writing, and can stop; raises the error if none is."""
    if error.code == "completion_not_found" and (answer := await gateway.peers.pass_on(request)):
        return answer
    raise error


async def take(gateway: Gateway, caller: ApiKey, said: Said) -> Accepted:
    """`accept`, or 503 when the ledger is silent for too long. What is still being written ends here."""
    try:
        async with gateway.quotas.feedback(caller):
            if not said.dry_run:
                await stop_what_is_judged(gateway, caller, said)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await accept(gateway, caller, said)
    except TimeoutError:
        raise unavailable("no answer from the ledger in time: repeat the request", "ledger_unavailable") from None


async def stop_what_is_judged(gateway: Gateway, caller: ApiKey, said: Said) -> None:
    """Whoever judges an answer that is still being written has seen enough of it.

    Raises ApiError or Conflict, stopping nothing: a judgement that is refused ends no answer.
    """
    if not gateway.running:
        return
    raters = gateway.raters(caller, said.user)
    compared = gateway.running.find(said.comparison_id, raters) if said.comparison_id else None
    if said.comparison_id and compared is None:
        return
    judgement = said.about(compared.ticket.completion_ids if compared else ())
    relays = {id: gateway.running.find(id.partition(":")[0], raters) for id in judgement.targets}
    # What is not kept cannot be judged, so a judgement is no reason to stop it.
    unfinished = {id: relay for id, relay in relays.items() if relay and relay.ticket.keep and relay.writes(id)}
    if not unfinished:
        return
    for id, relay in unfinished.items():
        if not relay.shows(id):
            raise invalid(f"{id} has not begun", _param(judgement, id), status=422, code="completion_unfinished")
    finished = await gateway.shown.find(tuple(id for id in judgement.targets if id not in unfinished))
    check_targets(judgement, finished | {id: _begun(relay.ticket) for id, relay in unfinished.items()}, raters)
    if said.client_id:
        rater = gateway.rater(caller, said.user)
        await run_in_threadpool(gateway.ledger.check_client_id, rater, said.client_id, judgement)
    for relay in set(unfinished.values()):
        await gateway.running.stop(relay)


def _begun(ticket: Ticket) -> Shown:
    """An answer that is being written, as it will be known once it is stopped."""
    return Shown(ticket.rater, ticket.conversation_id, prompt_digest(ticket.messages), STOPPED, None)


async def accept(gateway: Gateway, caller: ApiKey, said: Said) -> Accepted:
    """Validate against what was served, append, answer. Returns only after the ledger fsynced."""
    rater, raters = gateway.rater(caller, said.user), gateway.raters(caller, said.user)
    offer = await run_in_threadpool(_offer, gateway, said.comparison_id, raters) if said.comparison_id else None
    judgement = said.about(offer.completion_ids if offer else ())
    offer = offer or await _offer_behind(gateway, judgement, raters)
    known = await gateway.shown.find(judgement.targets)
    check_targets(judgement, known, raters)
    split = gateway.keys.split(rater, gateway.settings.evaluation_share)
    feedback = Feedback(
        id=new_id("fb_"), judgement=judgement, rater=rater, split=split, lane=offer.lane if offer else None,
        release=offer.release if offer else None, circumstances=said.circumstances, created=time.time(),
    )  # fmt: skip
    if said.dry_run:
        return Accepted({"object": "feedback", "type": judgement.type, "status": "valid"}, "valid")
    appended = await gateway.appender.append(feedback, said.client_id)
    gateway.metrics.feedback.labels(judgement.type, appended.status).inc()
    answer = _answer(feedback, appended)
    if not appended.stands:
        return Accepted(answer, appended.status)
    # What comes again was part of its conversation when it came first.
    if (offer is None or offer.lane != "repeat") and (best := _best(judgement, known)):
        answer["continue_from"] = best
        await run_in_threadpool(go_on_from, gateway, best, known[best], judgement.targets)
    if offer is not None:
        answer["reveal"] = reveal(offer, known)
    return Accepted(answer, appended.status)


def _offer(gateway: Gateway, id: str, raters: set[str]) -> Offer:
    """The comparison that is voted on."""
    offer = gateway.archive.offer(id)
    if offer is None or offer.rater not in raters:
        raise ApiError(404, f"No comparison {id}.", code="comparison_not_found", param="comparison_id")
    return offer


async def _offer_behind(gateway: Gateway, judgement: Judgement, raters: set[str]) -> Offer | None:
    """The comparison whose answers, and no others, a judgement sets against each other without naming it."""
    if (id := offer_behind(judgement)) is None:
        return None
    offer = await run_in_threadpool(gateway.archive.offer, id)
    return offer if offer is not None and offer.rater in raters else None


def _best(judgement: Judgement, known: Mapping[str, Shown]) -> str | None:
    """The completion preferred to the others, but for decoys; of equally good or bad ones the one shown first."""
    if not isinstance(judgement, Comparison | Ranking):
        return None
    places = dict(zip(judgement.targets, judgement.tiers, strict=True))
    return min((id for id in places if not known[id].decoy), key=places.__getitem__, default=None)


def go_on_from(gateway: Gateway, best: str, shown: Shown, judged: tuple[str, ...]) -> None:
    """Let the conversation go on from the best answer, unless it has gone on already.

    Of several equally good it is the one shown first: the order shown was drawn at random.
    """
    conversation = gateway.archive.conversation(shown.rater, shown.conversation_id)
    if conversation is not None and conversation.head in judged and conversation.head != best:
        gateway.archive.change_conversation(shown.rater, shown.conversation_id, head=best)


def _answer(feedback: Feedback, appended: Appended) -> dict[str, Any]:
    return {
        "object": "feedback",
        "id": appended.id,
        "type": feedback.judgement.type,
        "created": int(feedback.created),
        "revision": appended.revision,
        "status": "accepted" if appended.stands else appended.status,
        "split": feedback.split,
    }


def check_targets(judgement: Judgement, known: dict[str, Shown], raters: set[str]) -> None:
    """The rule: one may judge what was served to oneself, finished, and side by side only answers to one prompt."""
    for target in judgement.targets:
        param = _param(judgement, target)
        # Somebody else's completion looks like none at all.
        if target not in known or known[target].rater not in raters:
            raise ApiError(404, f"No completion {target}.", code="completion_not_found", param=param)
        if known[target].finish_reason in UNFINISHED:
            raise invalid(f"{target} was never finished", param, status=422, code="completion_unfinished")
    if len({known[target].prompt_digest for target in judgement.targets}) > 1:
        message = "the completions answer different prompts, so they cannot be compared"
        param = _param(judgement, judgement.targets[-1])
        raise invalid(message, param, status=422, code="different_prompts")


def _param(judgement: Judgement, target: str) -> str:
    """The field that names `target`."""
    if isinstance(judgement, Comparison):
        return "left" if target == judgement.left else "right"
    return "candidates" if isinstance(judgement, Ranking) else "completion_id"


@router.get("/v1/feedback/{id}", **docs.FEEDBACK)
def get_feedback(id: str, gateway: GatewayDep, caller: CallerDep, user: User = None) -> dict[str, Any]:
    """A judgement with the revisions that led to it."""
    kept, oversees = _own(gateway, caller, id, user), caller.role in OPERATORS
    history: list[dict[str, Any]] = []
    earlier = kept
    while earlier.replaces and (before := gateway.ledger.kept([earlier.replaces])):
        earlier = before[0]
        history.append(card(earlier, oversees=oversees))
    more = {"written": written(gateway, kept.feedback)} if oversees else {}
    return {**told(gateway, [kept], caller)[0], **more, "history": history}


@router.delete("/v1/feedback/{id}", **docs.TAKE_BACK)
def take_back(id: str, gateway: GatewayDep, caller: CallerDep, user: User = None) -> dict[str, Any]:
    """Undo a judgement: it counts no more, its history stays. Undoing it again changes nothing."""
    kept = _own(gateway, caller, id, user)
    if kept.feedback.rater not in gateway.raters(caller, user):
        raise ApiError(403, "Only whoever judged may take it back.", code="not_yours")
    gateway.ledger.retract(id)
    return {"object": "feedback.deleted", "id": id, "deleted": True}


def _own(gateway: Gateway, caller: ApiKey, id: str, user: str | None) -> Kept:
    kept = gateway.ledger.kept([id])
    if not kept or not (kept[0].feedback.rater in gateway.raters(caller, user) or caller.role in OPERATORS):
        raise ApiError(404, f"No feedback {id}.", code="feedback_not_found", param="id")
    return kept[0]


def told(gateway: Gateway, items: Sequence[Kept], caller: ApiKey) -> list[dict[str, Any]]:
    """Judgements with what they are about and what became of them; operators are told as well who is aside, and whose
    answers were judged."""
    gateway.learned.refresh()
    oversees = caller.role in OPERATORS
    questions = questions_of(gateway.ledger, (kept.feedback for kept in items))
    cards = [
        card(kept, oversees=oversees) | {"about": _about(questions.get(id)), "learned": gateway.learned.by(id)}
        for kept in items
        for id in (kept.feedback.id,)
    ]
    return [a | b for a, b in zip(cards, overseen(gateway, items), strict=True)] if oversees else cards


def _about(asked: Question | None) -> dict[str, Any] | None:
    return None if asked is None else asked._asdict()


def overseen(gateway: Gateway, items: Sequence[Kept]) -> list[dict[str, Any]]:
    """Of each; who wrote what is still compared blind is told to nobody."""
    aside = Raters(gateway.ledger.redis).quarantined()
    policies = policies_of(gateway.ledger, (kept.feedback for kept in items))
    unseen = blind(gateway.ledger, [kept.feedback for kept in items])
    return [
        {"quarantined": kept.feedback.rater in aside, "policy_versions": None if id in unseen else policies[id]}
        for kept in items
        for id in (kept.feedback.id,)
    ]


def written(gateway: Gateway, said: Feedback) -> dict[str, int | None] | None:
    """Which policy wrote each answer that is judged and still there; None while that is told to nobody."""
    if blind(gateway.ledger, [said]):
        return None
    found = written_of(gateway.ledger, said.judgement.targets)
    return {id: answer.policy_version for id, answer in found.items()}


def card(kept: Kept, *, oversees: bool = False) -> dict[str, Any]:
    """A judgement as its author sees it; only operators learn what was a check."""
    feedback = kept.feedback
    status = "retracted" if kept.retracted else "accepted" if kept.stands else "replaced"
    told = feedback.model_dump(mode="json", exclude=None if oversees else {"lane"})
    facts = {"revision": kept.revision, "replaces": kept.replaces, "status": status}
    return {"object": "feedback", "type": feedback.judgement.type, **told, **facts}
