"""The export over HTTP: who gets it, in which shape, and what it leaves out."""

import json
from typing import Any

import pytest

from feedback.judgements import Demonstration, Feedback, Ranking, Rating
from feedback.records import Completion
from serving.judging import export

FORMATS = "arena, hh, kto, oasst, openai_dpo, ratchet, sft, trl"


async def speak(live: Any, texts: int = 1) -> None:
    for n in range(texts):
        a, b, c = await live.completion_ids(f"question {n}", n=3)
        body = {"type": "ranking", "candidates": [a, b, c], "ranking": [[c], [a, b]]}
        assert (await live.http.post("/v1/feedback", json=body)).status_code == 201
        body = {"type": "rating", "completion_id": a, "value": 1}
        assert (await live.http.post("/v1/feedback", json=body)).status_code == 201


async def get(live: Any, key: str | None = None, **params: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await live.http.get("/v1/feedback/export", params=params, headers=headers)


def lines_of(response: Any) -> list[Any]:
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


async def test_export_is_a_file_of_json_lines(live: Any) -> None:
    await speak(live)
    response = await get(live, format="ratchet")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    disposition = response.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="feedback-ratchet-')
    assert disposition.endswith('.jsonl"')
    ranking, rating = lines_of(response)
    assert (ranking["feedback"]["judgement"]["type"], rating["feedback"]["judgement"]["type"]) == ("ranking", "rating")
    [kept, _] = live.ledger.standing(live.ledger.watermark())
    assert kept.rater not in response.text
    assert response.text.endswith("\n")


def record(live: Any) -> None:
    """Three answers: a ranking with a tie, a rating, a demonstration."""
    for id, text in zip("abc", ("one", "two", "three"), strict=True):
        answer = {
            "id": id, "response_id": id, "choice": 0, "conversation_id": "c", "rater": "ann", "text": text,
            "messages": [{"role": "user", "content": "hi"}], "prompt_token_ids": [1], "completion_token_ids": [2],
            "logprobs": [-0.5], "sampling": {}, "finish_reason": "stop", "policy_version": 0, "created": 1.0,
        }  # fmt: skip
        completion = Completion.model_validate(answer)
        live.ledger.append_answer(completion.frame(model="m"), [completion])
    judgements = (
        Ranking(candidates=tuple("abc"), ranking="C > A = B"),
        Rating(completion_id="a", value=1),
        Demonstration(completion_id="b", content="four"),
    )
    for n, judgement in enumerate(judgements):
        live.ledger.append_feedback(Feedback(id=f"f{n}", judgement=judgement, rater="ann", split="train", created=1.0))


@pytest.mark.parametrize(
    ("format", "lines"),
    [("arena", 3), ("hh", 2), ("kto", 1), ("oasst", 1), ("openai_dpo", 2), ("ratchet", 3), ("sft", 1), ("trl", 2)],
)
async def test_every_format_answers(live: Any, format: str, lines: int) -> None:
    record(live)
    response = await get(live, format=format)
    assert response.status_code == 200
    assert len(lines_of(response)) == lines


async def test_long_export_comes_in_pieces_and_whole(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record(live)
    whole = (await get(live, format="ratchet")).content
    monkeypatch.setattr(export, "PIECE", 100)
    assert (await get(live, format="ratchet")).content == whole


async def test_an_unknown_format_is_told_the_known_ones(live: Any) -> None:
    for params in ({"format": "csv"}, {}):
        response = await get(live, **params)
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["message"] == f"format must be one of {FORMATS}"
        assert (error["param"], error["type"]) == ("format", "invalid_request_error")


@pytest.mark.parametrize(
    ("params", "param"),
    [({"limit": 0}, "limit"), ({"split": "test"}, "split"), ({"since": "yesterday"}, "since")],
)
async def test_parameters_that_mean_nothing_are_refused(live: Any, params: dict[str, Any], param: str) -> None:
    response = await get(live, format="trl", **params)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_only_operators_export_and_only_admins_what_is_private(live: Any) -> None:
    assert (await get(live, live.user_key, format="kto")).status_code == 403
    assert (await get(live, "rk-nobody", format="kto")).status_code == 401
    operator = live.gateway.keys.create(name="op", role="operator")
    assert (await get(live, operator, format="kto")).status_code == 200
    refused = await get(live, operator, format="kto", include_private=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "include_private")
    assert (await get(live, format="kto", include_private=True)).status_code == 200


async def test_what_people_keep_out_of_training_stays_here(live: Any) -> None:
    await speak(live)
    for format in ("kto", "ratchet"):
        assert lines_of(await get(live, format=format)) != []
    [conversation] = (await live.http.get("/v1/conversations")).json()["data"]
    await live.http.put(f"/v1/conversations/{conversation['id']}", json={"allow_training": False})
    for format in ("kto", "ratchet"):
        assert lines_of(await get(live, format=format)) == []
    backup = lines_of(await get(live, format="ratchet", include_private=True))
    assert [answer["consent"] for line in backup for answer in line["completions"]] == [False] * 4
    await live.http.put(f"/v1/conversations/{conversation['id']}", json={"allow_training": True})
    assert lines_of(await get(live, format="kto")) != []


async def test_times_and_limit_bound_the_export(live: Any) -> None:
    await speak(live, 2)
    assert len(lines_of(await get(live, format="kto"))) == 2
    assert len(lines_of(await get(live, format="kto", limit=1))) == 1
    assert lines_of(await get(live, format="kto", since="2100-01-01T00:00:00Z")) == []
    assert lines_of(await get(live, format="kto", until="2001-01-01T00:00:00")) == []
    assert len(lines_of(await get(live, format="kto", since="1000000000", until="2100-01-01"))) == 2
    assert lines_of(await get(live, format="kto", split="eval")) == []


async def test_a_feedback_is_still_found_by_its_id(live: Any) -> None:
    await speak(live)
    [first, _] = live.ledger.standing(live.ledger.watermark())
    assert (await live.http.get(f"/v1/feedback/{first.id}")).status_code == 200


async def test_a_frozen_ledger_is_an_error_of_its_own(live: Any, freeze_redis: Any) -> None:
    await speak(live)
    freeze_redis()
    response = await get(live, format="kto")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "ledger_unavailable"
