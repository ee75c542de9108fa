"""POST /feedback: TensorZero's words for our judgements."""

from typing import Any

import pytest


async def post(live: Any, key: str | None = None, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await live.http.post("/feedback", json=body, headers=headers)


def said(live: Any) -> list[Any]:
    return list(live.ledger.standing(live.ledger.watermark()))


@pytest.mark.parametrize(
    ("metric", "value", "kept"),
    [
        ("rating", True, {"type": "rating", "value": 1.0, "metric": None}),
        ("liked", True, {"type": "rating", "value": 1.0, "metric": "liked"}),
        ("liked", False, {"type": "rating", "value": -1.0, "metric": "liked"}),
        ("quality", 0.25, {"type": "rating", "value": 0.25, "metric": "quality"}),
        ("quality", 0, {"type": "rating", "value": 0.0}),
        ("quality", 1, {"type": "rating", "value": 1.0}),
        ("comment", "too short", {"type": "comment", "content": "too short"}),
        ("demonstration", "so it goes", {"type": "demonstration", "content": "so it goes"}),
    ],
)
async def test_each_metric_becomes_a_judgement(live: Any, metric: str, value: Any, kept: dict[str, Any]) -> None:
    [id] = await live.completion_ids()
    answer = await post(live, inference_id=id, metric_name=metric, value=value, tags={"screen": "phone"})
    assert answer.status_code == 200, answer.text
    [feedback] = said(live)
    assert answer.json() == {"feedback_id": feedback.id}
    assert feedback.judgement.model_dump().items() >= {**kept, "completion_id": id}.items()
    assert feedback.circumstances.tags == {"screen": "phone"}


async def test_one_metric_is_no_revision_of_another(live: Any) -> None:
    [id] = await live.completion_ids()
    for metric, value in [("rating", True), ("liked", False), ("liked", True), ("quality", 0.5), ("quality", 0.25)]:
        await post(live, inference_id=id, metric_name=metric, value=value)
    assert [(each.judgement.metric, each.judgement.value) for each in said(live)] == [
        (None, 1), ("liked", 1), ("quality", 0.25),
    ]  # fmt: skip


async def test_an_inference_may_be_a_response_and_an_episode_is_a_conversation(live: Any) -> None:
    body = live.body(max_tokens=2, metadata={"conversation_id": "c-1"})
    first, second = [(await live.http.post("/v1/chat/completions", json=body)).json()["id"] for _ in range(2)]
    await post(live, inference_id=first, metric_name="liked", value=True)
    await post(live, episode_id="c-1", metric_name="liked", value=False)
    assert [(each.judgement.completion_id, each.judgement.value) for each in said(live)] == [
        (f"{first}:0", 1), (f"{second}:0", -1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"value": "good"}, 400, "value"),
        ({"value": 1.5}, 400, "value"),
        ({"value": -1}, 400, "value"),
        ({"value": None}, 400, "value"),
        ({"value": [1]}, 400, "value"),
        ({"metric_name": "comment", "value": True}, 400, "value"),
        ({"metric_name": "comment", "value": "  "}, 400, "value"),
        ({"metric_name": "demonstration", "value": "x" * 32_769}, 400, "value"),
        ({"metric_name": ""}, 400, "metric_name"),
        ({"metric_name": 5}, 400, "metric_name"),
        ({"metric_name": "x" * 65}, 400, "metric_name"),
        ({"tags": {"a": 1}}, 400, "tags.a"),
        ({"tags": {str(number): "" for number in range(17)}}, 400, "tags"),
        ({"dryrun": "yes"}, 400, "dryrun"),
        ({"surprise": 1}, 400, "surprise"),
        ({"rater": "me"}, 400, "rater"),
        ({"inference_id": None}, 400, "inference_id"),
        ({"inference_id": 5}, 400, "inference_id"),
        ({"episode_id": "c-1"}, 400, "inference_id"),
        ({"inference_id": "chatcmpl-none"}, 404, "inference_id"),
        ({"inference_id": None, "episode_id": "none"}, 404, "episode_id"),
    ],
)
async def test_what_makes_no_sense_names_its_field_and_changes_nothing(
    live: Any, change: dict[str, Any], status: int, param: str
) -> None:
    [id] = await live.completion_ids()
    refused = await post(live, **{"inference_id": id, "metric_name": "liked", "value": True, **change})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    assert live.ledger.watermark() == "0"


async def test_a_dryrun_changes_nothing_and_looks_the_same(live: Any) -> None:
    [id] = await live.completion_ids()
    tried = await post(live, inference_id=id, metric_name="liked", value=True, dryrun=True)
    assert (tried.status_code, list(tried.json())) == (200, ["feedback_id"])
    assert live.ledger.watermark() == "0"
    assert (await post(live, inference_id="no:0", metric_name="liked", value=True, dryrun=True)).status_code == 404


async def test_the_same_again_is_the_same_and_somebody_elses_is_none(live: Any) -> None:
    [id] = await live.completion_ids()
    body = {"inference_id": id, "metric_name": "liked", "value": True}
    assert (await post(live, **body)).json() == (await post(live, **body)).json()
    assert (await post(live, key=live.user_key, **body)).status_code == 404
    await live.http.post("/v1/chat/completions", json=live.body(max_tokens=2, metadata={"conversation_id": "c-1"}))
    stranger = await post(live, key=live.user_key, episode_id="c-1", metric_name="liked", value=True)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "conversation_not_found")
    assert (await live.http.post("/feedback", json=body, headers={"authorization": "Bearer x"})).status_code == 401
    assert len(said(live)) == 1
