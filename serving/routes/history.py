"""Stored chat completions by OpenAI's routes: list, retrieve, their messages, metadata that may be a vote, delete."""

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from feedback.erasure import Eraser
from feedback.people.keys import ApiKey
from feedback.records import Message
from serving.chat.request import check_metadata
from serving.document import by_route as docs
from serving.engine.server import SERVED_NAME
from serving.gateway import CallerDep, Gateway, GatewayDep, Limit, User, read_json
from serving.http.errors import ApiError, invalid
from serving.judging.judgements import elsewhere, take
from serving.judging.said import read
from serving.routes.stored import (
    Order,
    RaterDep,
    chat_completion,
    completion_not_found,
    load,
    own_response,
    page,
    visible,
)

THUMBS = {"up": 1.0, "down": -1.0}
NUMBER = re.compile(r"-1|\d(\.\d*)?|\.\d+")
# A judgement's fields, by the metadata that they come from.
FIELDS = {"value": "feedback", "reasons": "feedback_reason", "comment": "feedback_comment"}

router = APIRouter()


@router.get("/v1/chat/completions", **docs.CHATS)
def list_chat_completions(
    request: Request, gateway: GatewayDep, rater: RaterDep, model: str | None = None, after: str | None = None,
    limit: Limit = 20, order: Order = "asc",
) -> dict[str, Any]:  # fmt: skip
    """One's own by age; `metadata[name]=value` may be asked for several times, and all must fit."""
    if after is not None and not after.startswith("chatcmpl-"):
        raise invalid("after must be the id of a chat completion", "after")
    asked = re.compile(r"metadata\[(.+)\]")
    metadata = {fit[1]: value for name, value in request.query_params.items() if (fit := asked.fullmatch(name))}
    found, has_more = gateway.archive.responses(
        rater, metadata=metadata, model=None if model == SERVED_NAME else model, after=after, limit=limit,
        newest_first=order == "desc",
    )  # fmt: skip
    return page([chat_completion(stored) for stored in load(gateway, found)], has_more=has_more)


@router.get("/v1/chat/completions/{id}", **docs.CHATTED)
def get_chat_completion(id: str, gateway: GatewayDep, caller: CallerDep, rater: RaterDep) -> dict[str, Any]:
    return chat_completion(visible(gateway, caller, rater, id))


@router.get("/v1/chat/completions/{id}/messages", **docs.MESSAGES)
def list_messages(
    id: str, gateway: GatewayDep, caller: CallerDep, rater: RaterDep, after: str | None = None, limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:  # fmt: skip
    """What the completion answers."""
    messages = visible(gateway, caller, rater, id).completions[0].messages
    items = [_item(f"{id}-{index}", message) for index, message in enumerate(messages)]
    items = items[::-1] if order == "desc" else items
    ids = [None, *(item["id"] for item in items)]
    if after not in ids:
        raise invalid("after must be the id of one of the messages", "after")
    rest = items[ids.index(after) :]
    return page(rest[:limit], has_more=len(rest) > limit)


def _item(id: str, message: Message) -> dict[str, Any]:
    return {**message.plain, "id": id, "name": message.name, "content_parts": None}


@router.post("/v1/chat/completions/{id}", **docs.ANNOTATE)
async def update_chat_completion(
    id: str, request: Request, gateway: GatewayDep, caller: CallerDep, rater: RaterDep, user: User = None
) -> Any:
    """New metadata in place of the old. With a `feedback` in it ("up", "down", or as a rating's value) it is a vote,
    which ends the answer where that is still being written."""
    body = await read_json(request)
    for name in body:
        if name != "metadata":
            raise invalid(f"{name} cannot be changed, only metadata can", name)
    if "metadata" not in body:
        raise invalid("metadata is missing", "metadata")
    metadata = check_metadata(body["metadata"])
    try:
        choices = await _choices(gateway, rater, id)
        if "feedback" in metadata:  # first: metadata that says so must not stand without the vote
            await _vote(gateway, caller, {**_rating(metadata, id, choices), **({"user": user} if user else {})})
        if not await run_in_threadpool(gateway.archive.annotate, id, metadata):
            raise completion_not_found(id)
    except ApiError as error:
        return await elsewhere(gateway, request, error)
    return chat_completion(await run_in_threadpool(visible, gateway, caller, rater, id))


async def _choices(gateway: Gateway, rater: str, id: str) -> int:
    """How many a person's own answer has, which may still be written. Raises ApiError 404."""
    if relay := gateway.running.find(id, {rater}):
        return relay.ticket.choices
    return (await run_in_threadpool(own_response, gateway, rater, id)).choices


def _rating(metadata: dict[str, str], id: str, choices: int) -> dict[str, Any]:
    """The rating that metadata spells; raises ApiError 400 naming what is wrong in it."""
    said, choice = metadata["feedback"], metadata.get("feedback_choice", "0")
    if said not in THUMBS and not NUMBER.fullmatch(said):
        raise invalid('feedback must be "up", "down", 1, -1 or a number between 0 and 1', "metadata.feedback")
    if choice not in map(str, range(choices)):
        raise invalid(f"feedback_choice must be 0 to {choices - 1}", "metadata.feedback_choice")
    reason, comment = metadata.get("feedback_reason"), metadata.get("feedback_comment")
    return {
        "type": "rating",
        "completion_id": f"{id}:{choice}",
        "value": THUMBS[said] if said in THUMBS else float(said),
        **({"reasons": [reason]} if reason else {}),
        **({"comment": comment} if comment else {}),
    }


async def _vote(gateway: Gateway, caller: ApiKey, rating: dict[str, Any]) -> None:
    """As POST /v1/feedback; its complaints name the metadata."""
    try:
        await take(gateway, caller, read(rating))
    except ApiError as error:
        field = FIELDS.get((error.param or "").split(".")[0])
        raise error if field is None else invalid(error.message, f"metadata.{field}") from error


@router.delete("/v1/chat/completions/{id}", **docs.DELETE_CHAT)
def delete_chat_completion(id: str, gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    """With all that was said of it; what went on from it stays, and goes on from the one before."""
    erased = Eraser(gateway.archive).response(own_response(gateway, rater, id))
    return {"object": "chat.completion.deleted", "id": id, "deleted": True, **erased.rounds}
