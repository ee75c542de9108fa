"""Answers side by side: blind until the vote, in an order drawn at random and remembered."""

import asyncio
import math
import threading
from collections import Counter
from typing import Any

import pytest
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk

from serving.chat import comparisons
from tests.serving.streams.test_stream_faults import read_some

PATH = "/v1/comparisons"


async def compare(live: Any, **more: Any) -> Any:
    body = live.body(**{"model": "auto", "max_tokens": 3, **more})
    return await live.http.post(PATH, json=body, headers=more.pop("headers", None))


async def compared(live: Any, **more: Any) -> str:
    """The id of a comparison that is ready to be voted on."""
    answer = await compare(live, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def vote(live: Any, id: str, **more: Any) -> Any:
    body = {"type": "comparison", "comparison_id": id, **more}
    return await live.http.post("/v1/feedback", json=body)


class Backwards:
    def shuffle(self, order: list[int]) -> None:
        order.reverse()


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "_draw", Backwards())


@pytest.mark.parametrize("k", range(2, 9))
async def test_k_answers_come_as_k_choices(live: Any, k: int) -> None:
    answer = (await compare(live, k=k)).json()
    ids = [f"{answer['id']}:{slot}" for slot in range(k)]
    assert [choice["index"] for choice in answer["choices"]] == list(range(k))
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"w0-0 w0-1 "}
    assert answer["ratchet"]["comparison_id"] == answer["id"]
    assert answer["ratchet"]["completion_ids"] == ids
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3 * k, "total_tokens": 2 + 3 * k}
    assert len(live.ledger.completions(tuple(ids))) == k
    assert live.gateway.archive.offer(answer["id"]).propensity == pytest.approx(1 / math.factorial(k))


async def test_the_openai_sdk_streams_it_like_n_choices(live: Any) -> None:
    body = live.body(model="auto", k=3, max_tokens=3, stream=True, stream_options={"include_usage": True})
    stream = AsyncStream[ChatCompletionChunk]
    chunks = await live.sdk.post("/comparisons", cast_to=ChatCompletionChunk, body=body, stream=True, stream_cls=stream)
    seen = [chunk async for chunk in chunks]
    texts: Counter[int] = Counter()
    for chunk in seen:
        for choice in chunk.choices:
            texts[choice.index] += len(choice.delta.content or "")
    assert texts == {0: 10, 1: 10, 2: 10}
    assert [chunk.usage.total_tokens for chunk in seen if chunk.usage] == [11]
    assert seen[-1].choices == []


@pytest.mark.parametrize("streamed", [True, False])
async def test_nothing_tells_who_wrote_it_before_the_vote(live: Any, streamed: bool) -> None:
    answer = await compare(live, stream=streamed, stream_options={"include_usage": True} if streamed else None)
    id = answer.text.partition("cmp_")[2].partition('"')[0]
    told = await live.http.get(f"{PATH}/cmp_{id}")
    assert told.json()["reveal"] is None
    assert [each["message"]["content"] for each in told.json()["answers"]] == ["w0-0 w0-1 "] * 2
    for slot in (0, 1):  # words on one of them are no vote
        comment = {"type": "comment", "completion_id": f"cmp_{id}:{slot}", "content": "hm"}
        assert (await live.http.post("/v1/feedback", json=comment)).status_code == 201
    again = await live.http.get(f"{PATH}/cmp_{id}")
    assert (again.json()["reveal"], again.json()["votes"]) == (None, [])
    elsewhere = [
        await live.http.get(path)
        for path in (f"/v1/chat/completions/cmp_{id}", f"/v1/conversations/{told.json()['conversation_id']}")
    ]
    assert [response.status_code for response in elsewhere] == [200, 200]
    for response in (answer, told, again, *elsewhere):
        for trace in ("policy-v", '"policy_version":0', "fp_", "load-"):
            assert trace not in response.text
        assert "x-policy-version" not in response.headers
    assert (await vote(live, f"cmp_{id}", winner="tie")).json()["reveal"] == {"left": "policy-v0", "right": "policy-v0"}
    assert "policy-v0" in (await live.http.get(f"{PATH}/cmp_{id}")).text


async def test_the_order_is_drawn_and_remembered(live: Any, backwards: None) -> None:
    """The engine's choice 0 ends early: it must be in the last slot, and be called so ever after."""
    live.engine.set(ends={"0": 1})
    answer = (await compare(live, k=3, model=["policy"])).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == ["w0-0 w0-1 ", "w0-0 w0-1 ", "w0-0 "]
    stored = live.ledger.completions(tuple(answer["ratchet"]["completion_ids"]))
    assert [stored[id].text for id in answer["ratchet"]["completion_ids"]] == texts


async def test_two_policies_are_asked_apart_and_kept_by_slot(live: Any, backwards: None) -> None:
    answer = (await compare(live, k=3, model=["policy@stable", "policy"])).json()
    offer = live.gateway.archive.offer(answer["id"])
    # Asked for: stable, policy, stable; the last one asked for is shown first.
    assert [slot.arm for slot in offer.slots] == ["policy@stable", "policy", "policy@stable"]
    sent = live.engine.state()["bodies"][-2:]
    assert sorted(body["n"] for body in sent) == [1, 2]
    assert all(body["stream"] and "k" not in body for body in sent)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["w0-0 w0-1 "] * 3
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11}


async def test_orders_differ(live: Any) -> None:
    """All ten the same by chance: once in 70**9 runs."""
    live.engine.set(tick=0)
    arms = ["policy", "policy@stable"]
    orders = set()
    for _ in range(10):
        offer = live.gateway.archive.offer(await compared(live, k=8, model=arms))
        orders.add(tuple(slot.arm for slot in offer.slots))
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"k": 1}, 400, "k"),
        ({"k": 9}, 400, "k"),
        ({"k": "2"}, 400, "k"),
        ({"k": True}, 400, "k"),
        ({"k": None}, 400, "k"),
        ({"n": 2}, 400, "n"),
        ({"model": []}, 400, "model"),
        ({"model": None}, 400, "model"),
        ({"model": [1]}, 400, "model"),
        ({"model": ["policy"] * 3}, 400, "model"),
        ({"model": "gpt-4"}, 404, "model"),
        ({"model": ["policy", "policy-v7"]}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"store": False}, 400, "store"),
        ({"metadata": {"consent": "nope"}}, 400, "metadata.consent"),
    ],
)
async def test_bad_comparisons_name_their_field_and_keep_nothing(
    live: Any, change: dict[str, Any], status: int, param: str
) -> None:
    refused = await live.http.post(PATH, json=live.body(**{"model": "auto", **change}))
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    if status == 404:
        assert refused.json()["error"]["code"] == "model_not_found"
    assert live.engine.state()["bodies"] == []
    assert live.gateway.places.count == 0


def offers(live: Any) -> list[str]:
    """The ids of all that was laid side by side."""
    redis = live.ledger.redis
    listed = {id for key in redis.scan_iter("responses:*", _type="ZSET") for id in redis.zrange(key, 0, -1)}
    assert {f"comparison:{id}" for id in listed if id.startswith("cmp_")} == set(redis.keys("comparison:*"))
    return sorted(listed)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_comparison_that_nobody_was_shown_is_none(live: Any, eventually: Any, streamed: bool) -> None:
    """Refused by the engine, at once or late, broken, or left before the first word."""
    for text, more in (("hi", {"temperature": 5}), ("late refusal", {}), ("broken connection", {}), ("no finish", {})):
        refused = await compare(live, messages=[{"role": "user", "content": text}], stream=streamed, **more)
        assert refused.status_code >= 400, text
        assert offers(live) == [], text
    live.engine.set(hold_at=0 if streamed else 2)
    asking = asyncio.create_task(compare(live, stream=streamed))
    await eventually(lambda: live.engine.state()["active"] == 2)
    assert len(offers(live)) == 1
    asking.cancel()
    await eventually(live.engine_is_free)
    assert offers(live) == []
    live.engine.set(hold_at=None)
    assert (await compare(live, stream=streamed)).status_code == 200
    assert len(offers(live)) == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_who_leaves_while_an_offer_is_kept_leaves_none(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    archive, keeping, go = live.gateway.archive, threading.Event(), threading.Event()
    add = archive.add_offer

    def slowly(offer: Any) -> None:
        keeping.set()
        assert go.wait(10)
        add(offer)

    monkeypatch.setattr(archive, "add_offer", slowly)
    asking = asyncio.create_task(compare(live, stream=streamed))
    await eventually(keeping.is_set)
    asking.cancel()
    await asyncio.sleep(0.1)
    go.set()
    await eventually(live.engine_is_free)
    assert offers(live) == []


async def test_what_was_shown_in_part_stays_on_offer(live: Any, eventually: Any) -> None:
    live.engine.set(hold_at=2)
    chunks = await read_some(live.http, live.body(model="auto", stream=True, max_tokens=9), 5, PATH)
    await eventually(live.engine_is_free)
    assert offers(live) == [chunks[0]["id"]]
    assert (await vote(live, chunks[0]["id"], winner="left")).status_code == 201


async def test_somebody_elses_comparison_looks_like_none(live: Any) -> None:
    id, headers = await compared(live), {"authorization": f"Bearer {live.user_key}"}
    body = {"type": "comparison", "comparison_id": id, "winner": "left"}
    for response in (
        await live.http.get(f"{PATH}/{id}", headers=headers),
        await live.http.post("/v1/feedback", json=body, headers=headers),
        await live.http.get(f"{PATH}/cmp_none"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "comparison_not_found")


async def test_a_judgement_beside_some_other_answer_reveals_nothing(live: Any) -> None:
    id, [other] = await compared(live), await live.completion_ids()
    aside = {"type": "comparison", "left": f"{id}:0", "right": other, "winner": "left"}
    among = {"type": "ranking", "candidates": [f"{id}:0", other, f"{id}:1"], "ranking": "A > B > C"}
    for judgement in (aside, among):
        assert (await live.http.post("/v1/feedback", json=judgement)).status_code == 201
    told = (await live.http.get(f"{PATH}/{id}")).json()
    assert (told["votes"], told["reveal"]) == ([], None)
    shown = (await live.http.get(f"/v1/chat/completions/{id}")).json()
    assert shown["ratchet"]["policy_version"] is None
