"""Feedback: only about what was served, exactly once, and 2xx only when it is kept."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.judgements import Ranking
from serving.http.errors import ApiError
from serving.judging.said import parse
from tests.feedback.test_erasure import publish


async def post(live: Any, key: str | None = None, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await live.http.post("/v1/feedback", json=body, headers=headers)


def current(live: Any) -> list[Any]:
    return list(live.ledger.standing(live.ledger.watermark()))


async def test_each_kind_of_judgement_is_kept(live: Any) -> None:
    a, b, c, d = await live.completion_ids(n=4)
    bodies = [
        {"type": "rating", "completion_id": a, "value": -1},
        {"type": "comparison", "left": a, "right": b, "winner": "tie"},
        {"type": "ranking", "candidates": [a, b, c, d], "ranking": [[d], [c, a], [b]]},
        {"type": "demonstration", "completion_id": c, "content": "better"},
    ]
    for body in bodies:
        response = await post(live, **body)
        assert response.status_code == 201, response.text
        answer = response.json()
        assert answer["object"] == "feedback"
        assert (answer["type"], answer["revision"], answer["status"]) == (body["type"], 1, "accepted")
        kept = await live.http.get(f"/v1/feedback/{answer['id']}")
        assert kept.json()["judgement"]["type"] == body["type"]
    assert [feedback.judgement.type for feedback in current(live)] == [body["type"] for body in bodies]


async def test_a_judgement_tells_which_policies_learned_from_it(live: Any) -> None:
    [completion] = await live.completion_ids()
    [id, other] = [
        (await live.http.post("/v1/feedback", json=said)).json()["id"]
        for said in ({"type": "rating", "completion_id": completion, "value": 1},
                     {"type": "comment", "completion_id": completion, "content": "well"})
    ]  # fmt: skip
    publish(live.shelf.registry, 7, 0, feedback_ids=[id])
    listed = (await live.http.get("/v1/feedback")).json()["data"]
    assert {each["id"]: each["learned"] for each in listed} == {id: ["policy-v7"], other: []}
    assert (await live.http.get(f"/v1/feedback/{id}")).json()["learned"] == ["policy-v7"]


async def test_a_judgement_tells_what_it_is_about_for_as_long_as_that_is_there(live: Any) -> None:
    told = await live.chat("first?")
    first = told.json()["ratchet"]
    turns = [
        {"role": "user", "content": "first?"}, told.json()["choices"][0]["message"],
        {"role": "user", "content": "  And\n then " + "so " * 100},
    ]  # fmt: skip
    second = (await live.http.post("/v1/chat/completions", json=live.body(messages=turns))).json()["ratchet"]
    for facts in (first, second):
        await post(live, type="rating", completion_id=facts["completion_ids"][0], value=1)
    [one, two] = (await live.http.get("/v1/feedback")).json()["data"]
    assert one["about"] == {"conversation_id": first["conversation_id"], "question": "first?"}
    assert two["about"]["question"] == ("And then " + "so " * 100)[:120]
    assert (await live.http.get(f"/v1/feedback/{one['id']}")).json()["about"] == one["about"]
    live.ledger.redis.delete(f"completion:{first['completion_ids'][0]}")  # as of what was imported
    [one, _] = (await live.http.get("/v1/feedback")).json()["data"]
    assert one["about"] is None


async def test_the_conversation_is_not_named_where_it_is_another_persons(live: Any) -> None:
    [target] = await live.completion_ids("tea?")
    await post(live, type="rating", completion_id=target, value=1, user="ann")
    [row] = (await live.http.get("/v1/feedback?user=ann")).json()["data"]
    assert row["about"] == {"conversation_id": None, "question": "tea?"}


async def test_shorthands(live: Any) -> None:
    answer = (await live.chat(n=4, max_tokens=2)).json()
    ids = answer["ratchet"]["completion_ids"]
    assert (await post(live, type="rating", completion_id=answer["id"], choice=2, value=1)).status_code == 201
    assert (await post(live, type="rating", completion_id=answer["id"], value=0.5)).status_code == 201
    assert (await post(live, type="comparison", candidates=ids[:2], winner="right")).status_code == 201
    assert (await post(live, type="ranking", candidates=ids, ranking="D > C = A > B")).status_code == 201
    rating, whole, comparison, ranking = (feedback.judgement for feedback in current(live))
    assert (rating.completion_id, whole.completion_id) == (ids[2], ids[0])
    assert (comparison.left, comparison.right, comparison.winner) == (ids[0], ids[1], "right")
    assert ranking.ranking == ((ids[3],), (ids[2], ids[0]), (ids[1],))


async def test_a_second_vote_revises_and_the_same_vote_changes_nothing(live: Any) -> None:
    [id] = await live.completion_ids()
    first = await post(live, type="rating", completion_id=id, value=1)
    again = await post(live, type="rating", completion_id=id, value=1)
    revised = await post(live, type="rating", completion_id=id, value=-1)
    assert (first.status_code, again.status_code, revised.status_code) == (201, 200, 200)
    assert again.json()["id"] == first.json()["id"]
    assert revised.json()["revision"] == 2
    assert [feedback.judgement.value for feedback in current(live)] == [-1]


async def test_fifty_parallel_posts_with_one_client_id_count_once(live: Any) -> None:
    [id] = await live.completion_ids()
    body = {"type": "rating", "completion_id": id, "value": 1, "client_id": "retry-me"}
    answers = await asyncio.gather(*(post(live, **body) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list(live.ledger.feedback_between("0"))) == 1
    conflict = await post(live, **{**body, "value": -1})
    assert conflict.status_code == 409
    assert conflict.headers["x-should-retry"] == "false"
    assert len(list(live.ledger.feedback_between("0"))) == 1


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"value": 3}, 400, "value"),
        ({"value": "up"}, 400, "value"),
        ({"value": None}, 400, "value"),
        ({"type": "stars"}, 400, "type"),
        ({"type": None}, 400, "type"),
        ({"completion_id": 7}, 400, "completion_id"),
        ({"completion_id": "chatcmpl-nope:0"}, 404, "completion_id"),
        ({"choice": 5, "completion_id": "chatcmpl-x:1"}, 400, "choice"),
        ({"policy_version": 1}, 400, "policy_version"),
        ({"rater": "me"}, 400, "rater"),
        ({"weight": 9}, 400, "weight"),
        ({"surprise": 1}, 400, "surprise"),
        ({"client_id": 5}, 400, "client_id"),
        ({"metric": ""}, 400, "metric"),
        ({"metric": "x" * 65}, 400, "metric"),
        ({"metric": True}, 400, "metric"),
        ({"type": "flag", "value": None, "metric": "tone"}, 400, "value"),
        ({"user": ""}, 400, "user"),
    ],
)
async def test_bad_judgements_name_their_field_and_change_nothing(
    live: Any, change: Any, status: int, param: str
) -> None:
    [id] = await live.completion_ids()
    response = await post(live, **{"type": "rating", "completion_id": id, "value": 1, **change})
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param
    assert live.ledger.watermark() == "0"


async def test_completions_of_different_prompts_cannot_be_compared(live: Any) -> None:
    [a], [b] = await live.completion_ids("one"), await live.completion_ids("two")
    response = await post(live, type="ranking", candidates=[a, b], ranking=[[a], [b]])
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "different_prompts"
    [c] = await live.completion_ids("one")
    assert (await post(live, type="ranking", candidates=[a, c], ranking=[[a], [c]])).status_code == 201


async def test_a_field_that_is_missing_is_named(live: Any) -> None:
    refused = await post(live, type="rating", value=1)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "completion_id")
    assert refused.json()["error"]["message"] == "completion_id is required"


async def test_the_unknown_side_of_a_comparison_is_named(live: Any) -> None:
    [known], [other] = await live.completion_ids("one"), await live.completion_ids("two")
    for left, right, param in [(known, "no:0", "right"), ("no:0", known, "left"), (known, other, "right")]:
        response = await post(live, type="comparison", left=left, right=right, winner="left")
        assert response.json()["error"]["param"] == param


async def test_one_may_only_judge_what_one_was_given(live: Any) -> None:
    [anns], [shared] = await live.completion_ids(user="ann"), await live.completion_ids()
    [joes] = await live.completion_ids(key=live.user_key)
    rate = {"type": "rating", "value": 1}
    assert (await post(live, **rate, completion_id=anns, user="ann")).status_code == 201
    assert (await post(live, **rate, completion_id=anns, user="bob")).status_code == 404
    assert (await post(live, **rate, completion_id=shared, user="bob")).status_code == 201
    assert (await post(live, **rate, completion_id=joes)).status_code == 404
    assert (await post(live, **rate, completion_id=anns, key=live.user_key)).status_code == 404
    assert (await post(live, **rate, completion_id=joes, key=live.user_key)).status_code == 201
    mine = (await post(live, **rate, completion_id=shared)).json()["id"]
    hidden = await live.http.get(f"/v1/feedback/{mine}", headers={"authorization": f"Bearer {live.user_key}"})
    assert hidden.status_code == 404


async def test_a_users_key_is_one_rater_whatever_names_it_sends(live: Any) -> None:
    [id] = await live.completion_ids(key=live.user_key)
    for name in ("a", "b", "c"):
        await post(live, type="rating", completion_id=id, value=1, user=name, key=live.user_key)
    assert len(current(live)) == 1
    [mine] = await live.completion_ids()
    for name in ("a", "b", "c"):
        await post(live, type="rating", completion_id=mine, value=1, user=name)
    assert len({feedback.rater for feedback in current(live)}) == 4


async def test_a_frozen_redis_is_answered_in_time_and_nothing_acked_is_lost(live: Any, freeze_redis: Any) -> None:
    first, second = await live.completion_ids(n=2)
    assert (await post(live, type="rating", completion_id=first, value=1)).status_code == 201
    freeze_redis()
    started = time.monotonic()
    response = await post(live, type="rating", completion_id=second, value=1)
    assert time.monotonic() - started <= 3.0
    assert response.status_code == 503
    assert response.headers["retry-after"]


async def test_a_killed_redis_keeps_what_was_acked(live: Any, valkey: Any, eventually: Any) -> None:
    [id] = await live.completion_ids()
    acked = (await post(live, type="rating", completion_id=id, value=1)).json()["id"]
    valkey.kill()
    assert (await post(live, type="rating", completion_id=id, value=0.5)).status_code == 503
    valkey.start()
    assert live.ledger.kept([acked])[0].feedback.judgement.value == 1
    assert (await post(live, type="rating", completion_id=id, value=0.5)).json()["revision"] == 2


@given(data=st.data(), size=st.integers(2, 8))
def test_any_ordered_partition_is_a_ranking(data: st.DataObject, size: int) -> None:
    candidates = [f"c{index}" for index in range(size)]
    tiers = data.draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size))
    groups = [[c for c, tier in zip(candidates, tiers, strict=True) if tier == level] for level in sorted(set(tiers))]
    by_id = parse({"type": "ranking", "candidates": candidates, "ranking": groups})
    letters = " > ".join(" = ".join("ABCDEFGH"[candidates.index(c)] for c in group) for group in groups)
    by_letter = parse({"type": "ranking", "candidates": candidates, "ranking": letters})
    assert isinstance(by_id, Ranking)
    assert by_id == by_letter
    order = {tier: place for place, tier in enumerate(sorted(set(tiers)))}
    assert list(by_id.tiers) == [order[tier] for tier in tiers]


@given(
    groups=st.lists(st.lists(st.sampled_from(["a", "b", "c", "x"]), max_size=4), max_size=4).filter(
        lambda groups: sorted(c for group in groups for c in group) != ["a", "b", "c"] or not all(groups)
    )
)
def test_anything_else_is_refused_naming_the_ranking(groups: list[list[str]]) -> None:
    with pytest.raises(ApiError) as refused:
        parse({"type": "ranking", "candidates": ["a", "b", "c"], "ranking": groups})
    assert refused.value.status == 400
    assert refused.value.param == "ranking"


@given(body=st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_no_body_makes_the_parser_fail_otherwise(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        parse({**body, "type": body.get("type", "ranking")})
