"""Conversations as trees: to regenerate adds a sibling, to edit and send again another branch; one head goes on."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import StrictBool, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool

from feedback.erasure import Eraser
from feedback.records import Completion, Conversation, Record
from serving.document import by_route as docs
from serving.gateway import Gateway, GatewayDep, Limit, read_json
from serving.http.errors import ApiError, invalid
from serving.routes.stored import RaterDep, Stored, answer_of, card, completion_not_found, load, page

# `path`, for people name their conversations as they like; the longer routes come first.
PLACE = "/v1/conversations/{id:path}"

Words = Annotated[
    str,
    Query(
        max_length=256,
        description="only those with all of these words in their titles; 2,000 are looked at for a page, which may be "
        "short, or empty, where few have them: while has_more is true go on after last_id",
    ),
]

After = Annotated[
    str | None, Query(description="the `last_id` of the page before, or the id of a conversation that is there")
]

router = APIRouter()


class Changes(Record):
    """What may be changed in a conversation; what is left out stays."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)] | None = None
    allow_training: StrictBool | None = None
    head: str | None = None


@router.get("/v1/conversations", **docs.CONVERSATIONS)
def list_conversations(
    gateway: GatewayDep, rater: RaterDep, after: After = None, limit: Limit = 20, q: Words = ""
) -> dict[str, Any]:
    """One's own, the one last used first."""
    try:
        found = gateway.archive.conversations(rater, after=after, limit=limit, words=q.split())
    except KeyError:
        raise conversation_not_found(str(after), "after") from None
    cards = [card(conversation) for conversation in found.items]
    return page(cards, has_more=found.has_more) | {"last_id": found.last}


@router.get(PLACE + "/tree", **docs.TREE)
def get_tree(id: str, gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    """Every completion of a conversation, oldest first, each with the one that it went on from."""
    conversation = own_conversation(gateway, rater, id)
    return {
        "object": "conversation.tree",
        "id": id,
        "head": conversation.head,
        "nodes": nodes(load(gateway, gateway.archive.branches(rater, id))),
    }


@router.get(PLACE + "/messages", **docs.BRANCH)
def get_messages(id: str, gateway: GatewayDep, rater: RaterDep, head: str | None = None) -> dict[str, Any]:
    """The branch that ends in `head`, ready to be sent as `messages` with the next turn."""
    end = head or own_conversation(gateway, rater, id).head or ""
    completion = completion_in(gateway, rater, id, end)
    data = [message.plain for message in completion.messages]
    return {"object": "list", "head": end, "data": [*data, answer_of(completion)], "has_more": False}


@router.get(PLACE, **docs.CONVERSATION)
def get_conversation(id: str, gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    return card(own_conversation(gateway, rater, id))


@router.put(PLACE, **docs.CHANGE_CONVERSATION)
@router.post(PLACE, **docs.CHANGE_CONVERSATION)
async def change_conversation(id: str, request: Request, gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    """Set title, allow_training (false keeps all of it out of training from the next round on) or head."""
    changes = changes_in(await read_json(request))
    return await run_in_threadpool(_change, gateway, rater, id, changes)


def _change(gateway: Gateway, rater: str, id: str, changes: dict[str, Any]) -> dict[str, Any]:
    own_conversation(gateway, rater, id)
    if "head" in changes:
        completion_in(gateway, rater, id, changes["head"])
    if changes and not gateway.archive.change_conversation(rater, id, **changes):
        raise conversation_not_found(id)
    return card(own_conversation(gateway, rater, id))


@router.delete(PLACE, **docs.DELETE_CONVERSATION)
def delete_conversation(id: str, gateway: GatewayDep, rater: RaterDep) -> dict[str, Any]:
    """With all branches, and all that was said of them."""
    own_conversation(gateway, rater, id)
    erased = Eraser(gateway.archive).conversation(rater, id)
    return {"object": "conversation.deleted", "id": id, "deleted": True, **erased.rounds}


def changes_in(body: dict[str, Any]) -> dict[str, Any]:
    """The fields to set; raises ApiError 400 naming the one at fault."""
    try:
        return Changes.model_validate(body).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(first["msg"], str(first["loc"][0])) from error


def own_conversation(gateway: Gateway, rater: str, id: str) -> Conversation:
    """Raises ApiError 404; others' conversations cannot even be named."""
    conversation = gateway.archive.conversation(rater, id)
    if conversation is None:
        raise conversation_not_found(id)
    return conversation


def completion_in(gateway: Gateway, rater: str, id: str, head: str) -> Completion:
    """A completion of a conversation; raises ApiError 404 for any other."""
    completion = gateway.ledger.completions((head,)).get(head)
    if completion is None or (completion.rater, completion.conversation_id) != (rater, id):
        raise completion_not_found(head, "head")
    return completion


def conversation_not_found(id: str, param: str = "id") -> ApiError:
    return ApiError(404, f"No conversation {id}.", code="conversation_not_found", param=param)


def nodes(branches: list[Stored]) -> list[dict[str, Any]]:
    """The tree of a conversation's responses."""
    completions = {each.id: each for stored in branches for each in stored.completions}
    answers: dict[str, list[str]] = {}
    for each in completions.values():
        answers.setdefault(each.prompt_digest, []).append(each.id)
    return [
        node(stored, each, completions.get(stored.response.parent_id or ""), answers[each.prompt_digest])
        for stored in branches
        for each in stored.completions
    ]


def node(stored: Stored, completion: Completion, parent: Completion | None, answers: list[str]) -> dict[str, Any]:
    """A completion in the tree; `answers` are all those to its messages, itself among them."""
    return {
        "completion_id": completion.id,
        "response_id": completion.response_id,
        "choice": completion.choice,
        "parent_id": parent.id if parent else None,
        "new_messages": new_messages(completion, parent),
        "content": completion.text,
        "tool_calls": list(completion.tool_calls),
        "policy_version": stored.policy_version(completion),
        "created": int(completion.created),
        "finish_reason": completion.finish_reason,
        "partial": completion.partial,
        "siblings": [id for id in answers if id != completion.id],
    }


def new_messages(completion: Completion, parent: Completion | None) -> list[dict[str, Any]]:
    """What was asked since the parent's answer, which is found by counting the assistant's turns."""
    turns = [index for index, message in enumerate(completion.messages) if message.role == "assistant"]
    earlier = sum(message.role == "assistant" for message in parent.messages) if parent else -1
    return [message.plain for message in completion.messages[turns[earlier] + 1 if parent else 0 :]]
