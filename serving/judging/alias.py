"""POST /feedback: judgements in the words of TensorZero, so that its clients need no others."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, StrictBool, TypeAdapter
from starlette.concurrency import run_in_threadpool

from feedback.people.keys import ApiKey
from feedback.records import Id, Record, new_id
from serving.document import by_route as docs
from serving.engine.server import Body
from serving.gateway import CallerDep, Gateway, GatewayDep, read_json
from serving.http.errors import ApiError, invalid
from serving.judging.judgements import elsewhere, take
from serving.judging.said import read, validated

WORDS = ("comment", "demonstration")
# The metric that is a rating of the whole answer: it trains.
WHOLE = "rating"
# Our fields in their words.
THEIRS = {"completion_id": "inference_id", "content": "value"}

router = APIRouter()


class Metric(Record):
    """About the answer `inference_id`, or about the one where the conversation `episode_id` goes on."""

    inference_id: Id | None = None
    episode_id: Id | None = None
    metric_name: Annotated[str, Field(min_length=1, max_length=64)]
    value: Any
    tags: dict[str, str] = {}
    dryrun: StrictBool = False


_metric = TypeAdapter(Metric)


@router.post("/feedback", **docs.ALIAS)
async def create_metric(request: Request, gateway: GatewayDep, caller: CallerDep) -> Any:
    """Comments and demonstrations are kept as such; any other metric is a rating, and only "rating" one that trains."""
    metric: Metric = validated(_metric, await read_json(request))
    judgement = judgement_of(metric)
    target = await run_in_threadpool(target_of, gateway, caller, metric)
    try:
        said = read({**judgement, "completion_id": target, "tags": metric.tags, "dry_run": metric.dryrun})
        accepted = await take(gateway, caller, said)
    except ApiError as error:
        error.param = THEIRS.get(error.param or "", error.param)
        return await elsewhere(gateway, request, error)
    return {"feedback_id": accepted.answer.get("id") or new_id("fb_")}


def judgement_of(metric: Metric) -> Body:
    """Raises ApiError 400 when the value is none for this metric."""
    value = metric.value
    if metric.metric_name in WORDS:
        if not isinstance(value, str) or not value.strip():
            raise invalid(f"value must be text for the metric {metric.metric_name}", "value")
        return {"type": metric.metric_name, "content": value}
    rating: Body = {"type": "rating", "metric": None if metric.metric_name == WHOLE else metric.metric_name}
    if isinstance(value, bool):
        return {**rating, "value": 1 if value else -1}
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise invalid("value must be true, false or a number from 0 to 1", "value")
    return {**rating, "value": value}


def target_of(gateway: Gateway, caller: ApiKey, metric: Metric) -> str:
    """The completion that is meant. Raises ApiError."""
    if (metric.inference_id is None) == (metric.episode_id is None):
        raise invalid("name either inference_id or episode_id", "inference_id")
    if metric.episode_id is None:
        return str(metric.inference_id)
    conversation = gateway.archive.conversation(gateway.rater(caller, None), metric.episode_id)
    if conversation is None or conversation.head is None:
        raise ApiError(404, f"No conversation {metric.episode_id}.", code="conversation_not_found", param="episode_id")
    return conversation.head
