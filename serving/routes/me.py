"""/v1/me: what a caller is here, and a person's own data: all of it to take away, and all of it to have erased."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from feedback.erasure import Eraser, traces
from serving.chat import comparisons
from serving.document import by_route as docs
from serving.gateway import CallerDep, Gateway, GatewayDep
from serving.judging import judgements
from serving.routes import keys
from serving.routes.stored import RaterDep, Stored, card, chat_completion, load

CHUNK = 500

router = APIRouter()


@router.get("/v1/me", **docs.ME)
def get_me(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """The caller's own key. `usage` is of today (UTC), null for a key without limits, which is not counted."""
    usage = gateway.quotas.usage(caller).get(caller.id)
    return keys.card(caller) | {"object": "me", "usage": usage, "rater": gateway.rater(caller, None)}


@router.get("/v1/me/export", response_class=StreamingResponse, **docs.TAKE_ALONG)
def export(gateway: GatewayDep, rater: RaterDep) -> StreamingResponse:
    """Everything of the caller, one JSON object a line: conversations with completions, comparisons, judgements."""
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in belongings(gateway, rater))
    first = next(lines, "")  # until then a fault of the ledger is a plain HTTP error
    return StreamingResponse(chain([first], lines), media_type="application/x-ndjson")


@router.delete("/v1/me", **docs.FORGET_ME)
def delete_me(gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    """Erase the caller; `learned` names what had trained on them, which stays as it is, `restarted` what was about to.

    Looked for afterwards: a round that publishes meanwhile either restarts or is found.
    """
    eraser = Eraser(gateway.archive)
    judged = eraser.judgements(rater)
    erased = eraser.person(rater)
    learned = traces(gateway.registry, rater, judged | set(erased.feedback))
    rounds = sorted({*learned.rounds, *erased.learning})
    return {
        "object": "me.deleted",
        "deleted": True,
        "conversations": erased.conversations,
        "completions": erased.completions,
        "feedback": len(erased.feedback),
        "learned": {"rounds": rounds, "policies": learned.policies},
        "restarted": list(erased.restarted),
    }


def belongings(gateway: Gateway, rater: str) -> Iterator[dict[str, Any]]:
    archive = gateway.archive
    for id in archive.conversation_ids(rater):
        conversation = archive.conversation(rater, id)
        if conversation is not None:
            yield card(conversation)
            yield from map(with_messages, load(gateway, archive.branches(rater, id)))
    for id in archive.offer_ids(rater):
        if (offer := archive.offer(id)) is not None:
            yield comparisons.card(gateway, offer)
    said = archive.judgement_ids(rater)
    for start in range(0, len(said), CHUNK):
        yield from map(judgements.card, gateway.ledger.kept(said[start : start + CHUNK]))


def with_messages(stored: Stored) -> dict[str, Any]:
    messages = [message.plain for message in stored.completions[0].messages]
    return {**chat_completion(stored), "messages": messages}
