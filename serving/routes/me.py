"""/v1/me: what a caller is here, and a person's own data: all of it to take away, and all of it to have erased."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import StreamingResponse

from feedback.erasure import Eraser, forget
from serving.chat import comparisons
from serving.document import by_route as docs
from serving.gateway import CallerDep, FreshCallerDep, Gateway, GatewayDep, User
from serving.http.auth import require_admin
from serving.http.errors import invalid
from serving.judging import judgements
from serving.routes import keys
from serving.routes.raters import known
from serving.routes.stored import Stored, card, chat_completion, load

CHUNK = 500

router = APIRouter()

Pseudonym = Annotated[
    str | None,
    Query(min_length=1, max_length=256, description="whom an admin means, in place of `user`: also whose key is gone"),
]


def person_of(gateway: GatewayDep, caller: FreshCallerDep, user: User = None, rater: Pseudonym = None) -> str:
    """The pseudonym of whose data is meant. A key that was revoked speaks for nobody: admins name its people so.

    Raises ApiError 403 for other roles, 400 beside `user`, 404 for nobody.
    """
    if rater is None:
        return gateway.rater(caller, user)
    require_admin(caller)
    if user is not None:
        raise invalid("name a user or a rater, not both", "rater")
    known(gateway, rater, "rater")
    return rater


PersonDep = Annotated[str, Depends(person_of)]


@router.get("/v1/me", **docs.ME)
def get_me(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """The caller's own key. `usage` is of today (UTC), null for a key without limits, which is not counted."""
    usage = gateway.quotas.usage(caller).get(caller.id)
    return keys.card(caller) | {"object": "me", "usage": usage, "rater": gateway.rater(caller, None)}


@router.get("/v1/me/export", response_class=StreamingResponse, **docs.TAKE_ALONG)
def export(gateway: GatewayDep, rater: PersonDep) -> StreamingResponse:
    """Everything of a person, one JSON object a line: conversations with completions, comparisons, judgements."""
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in belongings(gateway, rater))
    first = next(lines, "")  # until then a fault of the ledger is a plain HTTP error
    return StreamingResponse(chain([first], lines), media_type="application/x-ndjson")


@router.delete("/v1/me", **docs.FORGET_ME)
def delete_me(gateway: GatewayDep, rater: PersonDep) -> dict[str, Any]:
    """Erase a person; `learned` names what had trained on them, which stays as it is, `restarted` what was about to."""
    erased, learned = forget(Eraser(gateway.archive), gateway.registry, rater)
    return {
        "object": "me.deleted",
        "deleted": True,
        "conversations": erased.conversations,
        "completions": erased.completions,
        "feedback": len(erased.feedback),
        "learned": {"rounds": learned.rounds, "policies": learned.policies},
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
