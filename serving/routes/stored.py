"""What was served, as the API shows it again, and to whom."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Depends

from feedback.people.keys import ApiKey
from feedback.records import Completion, Conversation, Response
from serving.gateway import CallerDep, Gateway, GatewayDep, User
from serving.http.errors import ApiError

Order = Literal["asc", "desc"]


async def rater_of(gateway: GatewayDep, caller: CallerDep, user: User = None) -> str:
    """The pseudonym of the person whose things are asked for."""
    return gateway.rater(caller, user)


RaterDep = Annotated[str, Depends(rater_of)]


class Stored(NamedTuple):
    """A response with its completions; `blind` while it must not be told which policy wrote them."""

    response: Response
    completions: list[Completion]
    blind: bool

    @property
    def partial(self) -> bool:
        return any(completion.partial for completion in self.completions)

    def policy_version(self, completion: Completion) -> int | None:
        return None if self.blind else completion.policy_version

    @property
    def side(self) -> dict[str, Any]:
        """Where chance put it, if a release did; several arms have no name together."""
        release, arms = self.completions[0].release, {completion.arm for completion in self.completions}
        if self.blind or release is None:
            return {}
        return {"release": release, "arm": arms.pop() if len(arms) == 1 else None}


def load(gateway: Gateway, responses: Sequence[Response]) -> list[Stored]:
    """The responses with their completions, those that are still there."""
    known = gateway.ledger.completions(tuple(id for response in responses for id in response.completion_ids))
    blind = gateway.archive.blind(responses)
    found = [[known[id] for id in response.completion_ids if id in known] for response in responses]
    return [
        Stored(response, completions, response.id in blind)
        for response, completions in zip(responses, found, strict=True)
        if completions
    ]


def own_response(gateway: Gateway, rater: str, id: str) -> Response:
    """A response that a person was given; raises ApiError 404 for somebody else's as for none at all."""
    response = gateway.archive.response(id)
    if response is None or response.rater != rater:
        raise completion_not_found(id)
    return response


def visible(gateway: Gateway, caller: ApiKey, rater: str, id: str) -> Stored:
    """A response that a key may look at: operators and admins see all. Raises ApiError 404."""
    response = gateway.archive.response(id)
    oversees = caller.role in ("operator", "admin")
    if response is None or not (oversees or response.rater == rater):
        raise completion_not_found(id)
    for stored in load(gateway, [response]):
        return stored
    raise completion_not_found(id)


def completion_not_found(id: str, param: str = "id") -> ApiError:
    return ApiError(404, f"No completion {id}.", code="completion_not_found", param=param)


def page(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A list as OpenAI's clients walk it."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}


def chat_completion(stored: Stored) -> dict[str, Any]:
    """The chat.completion as it was answered, with what it was sampled with."""
    response, first = stored.response, stored.completions[0]
    prompt = max((len(each.prompt_token_ids) for each in stored.completions if not each.decoy), default=0)
    answer = sum(len(each.completion_token_ids) for each in stored.completions)
    versions = {stored.policy_version(each) for each in stored.completions}
    return {
        **first.sampling,
        "id": response.id,
        "object": "chat.completion",
        "created": int(response.created),
        "model": response.model,
        "system_fingerprint": response.system_fingerprint,
        "choices": [_choice(each) for each in stored.completions],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
        "metadata": response.metadata,
        "ratchet": {
            "policy_version": versions.pop() if len(versions) == 1 else None,
            **stored.side,
            "conversation_id": response.conversation_id,
            "completion_ids": [each.id for each in stored.completions],
            "parent_id": response.parent_id,
            "stored": True,
            "partial": stored.partial,
        },
    }


def _choice(completion: Completion) -> dict[str, Any]:
    return {
        "index": completion.choice,
        "message": {**answer_of(completion), "refusal": None},
        "logprobs": None,
        # As its stream said: clients of OpenAI's know no word for an answer that somebody stopped.
        "finish_reason": "stop" if completion.partial else completion.finish_reason,
    }


def answer_of(completion: Completion) -> dict[str, Any]:
    """The assistant's turn as it was sent; who calls tools and says nothing has no content."""
    calls = {"tool_calls": list(completion.tool_calls)} if completion.tool_calls else {}
    return {"role": "assistant", "content": completion.text or (None if calls else ""), **calls}


def card(conversation: Conversation) -> dict[str, Any]:
    """A conversation as the API shows it."""
    return {
        "object": "conversation",
        "id": conversation.id,
        "title": conversation.title,
        "allow_training": conversation.allow_training,
        "created": int(conversation.created),
        "updated": int(conversation.updated),
        "head": conversation.head,
    }
