"""Votes on answers laid side by side: also while they are written; the conversation goes on from the best."""

from typing import Any

import openai
import pytest

PATH = "/v1/comparisons"


async def compared(live: Any, **more: Any) -> str:
    """The id of a comparison that is ready to be voted on."""
    answer = await live.http.post(PATH, json=live.body(**{"model": "auto", "max_tokens": 3, **more}))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def vote(live: Any, id: str, **more: Any) -> Any:
    body = {"type": "comparison", "comparison_id": id, **more}
    return await live.http.post("/v1/feedback", json=body)


def last_word(live: Any) -> Any:
    return live.ledger.standing(live.ledger.watermark())[-1].judgement


@pytest.mark.parametrize("winner", ["left", "right", "tie", "both_bad"])
async def test_two_are_voted_on_by_side(live: Any, winner: str) -> None:
    id = await compared(live)
    answer = await vote(live, id, winner=winner)
    assert answer.status_code == 201, answer.text
    said = last_word(live)
    assert (said.type, said.left, said.right, said.winner) == ("comparison", f"{id}:0", f"{id}:1", winner)
    assert said.comparison_id == id
    assert answer.json()["continue_from"] == f"{id}:{1 if winner == 'right' else 0}"


@pytest.mark.parametrize(
    ("said", "groups", "partial", "none"),
    [
        ({"winner": "B"}, [[1]], True, False),
        ({"winner": "tie"}, [[0, 1, 2]], False, False),
        ({"winner": "none"}, [[0, 1, 2]], False, True),
        ({"type": "ranking", "ranking": "B > A = C"}, [[1], [0, 2]], False, False),
        ({"type": "ranking", "ranking": "C > A", "partial": True}, [[2], [0]], True, False),
    ],
)
async def test_several_are_voted_on_by_letter(
    live: Any, said: dict[str, Any], groups: list[list[int]], partial: bool, none: bool
) -> None:
    id = await compared(live, k=3)
    answer = await vote(live, id, **said)
    assert answer.status_code == 201, answer.text
    kept = last_word(live)
    assert kept.type == "ranking"
    assert kept.candidates == tuple(f"{id}:{slot}" for slot in range(3))
    assert kept.ranking == tuple(tuple(f"{id}:{slot}" for slot in group) for group in groups)
    assert (kept.partial, kept.none_acceptable, kept.comparison_id) == (partial, none, id)
    assert answer.json()["reveal"] == {"A": "policy-v0", "B": "policy-v0", "C": "policy-v0"}
    assert answer.json()["continue_from"] == f"{id}:{groups[0][0]}"


@pytest.mark.parametrize(
    ("k", "said", "param"),
    [
        (2, {"winner": "A"}, "winner"),
        (2, {"winner": "none"}, "winner"),
        (2, {}, "winner"),
        (3, {"winner": "left"}, "winner"),
        (3, {"winner": "D"}, "winner"),
        (3, {"winner": ["A"]}, "winner"),
        (3, {"winner": "A", "surprise": 1}, "surprise"),
        (3, {"winner": "A", "ranking": "A > B > C"}, "ranking"),
        (2, {"winner": "left", "left": "x"}, "left"),
        (3, {"type": "ranking", "ranking": "A > B"}, "ranking"),
        (3, {"type": "ranking", "ranking": "A > D"}, "ranking"),
        (3, {"type": "ranking", "ranking": "A", "candidates": []}, "candidates"),
        (2, {"type": "rating", "value": 1}, "type"),
    ],
)
async def test_a_vote_that_makes_no_sense_names_its_field(live: Any, k: int, said: dict[str, Any], param: str) -> None:
    refused = await vote(live, await compared(live, k=k), **said)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text
    assert live.ledger.watermark() == "0"


async def test_a_vote_can_be_changed_and_is_told_with_the_comparison(live: Any) -> None:
    id = await compared(live)
    first, second = await vote(live, id, winner="left"), await vote(live, id, winner="right")
    assert [(first.status_code, first.json()["revision"]), (second.status_code, second.json()["revision"])] == [
        (201, 1), (200, 2),
    ]  # fmt: skip
    assert (await live.http.get(f"{PATH}/{id}")).json()["votes"] == [second.json()["id"]]
    assert len(live.ledger.standing(live.ledger.watermark())) == 1


async def test_the_conversation_goes_on_from_the_winner(live: Any) -> None:
    metadata = {"conversation_id": "c-1"}
    id = await compared(live, metadata=metadata, k=3)
    rater = live.gateway.archive.offer(id).rater
    for winner, slot in (("B", 1), ("C", 2), ("tie", 0)):
        await vote(live, id, winner=winner)
        assert live.gateway.archive.conversation(rater, "c-1").head == f"{id}:{slot}"
    # It has gone on since: an old vote does not turn it back.
    later = (await live.chat("next", metadata=metadata, max_tokens=2)).json()
    await vote(live, id, winner="B")
    assert live.gateway.archive.conversation(rater, "c-1").head == f"{later['id']}:0"


async def begun(live: Any, count: int, then: Any, **more: Any) -> list[Any]:
    """A streamed comparison; after so many events `then` is called with its id."""
    live.engine.set(hold_at=3)
    events, body = [], live.body(**{"model": "auto", "stream": True, "max_tokens": 9, **more})
    async for event in live.sse(PATH, json=body):
        events.append(event.data)
        if len(events) == count:
            await then(events[0]["id"])
    return events


async def test_a_vote_while_it_is_written_ends_it_there(live: Any, eventually: Any) -> None:
    async def judge(id: str) -> None:
        assert (await vote(live, id, winner="left")).status_code == 201

    events = await begun(live, 8, judge, k=2)
    *_, last, done = events
    assert [(choice["index"], choice["finish_reason"]) for choice in last["choices"]] == [(0, "stop"), (1, "stop")]
    assert (last["ratchet"]["partial"], done) == (True, "[DONE]")
    await eventually(live.engine_is_free)
    told = (await live.http.get(f"{PATH}/{events[0]['id']}")).json()
    assert [(each["partial"], each["message"]["content"]) for each in told["answers"]] == [
        (True, "w0-0 w0-1 w0-2 ")
    ] * 2


async def test_a_vote_that_is_refused_or_only_tried_ends_nothing(live: Any) -> None:
    async def judge(id: str) -> None:
        assert (await vote(live, id, winner="C")).status_code == 400
        assert (await vote(live, id, winner="left", surprise=1)).status_code == 400
        await vote(live, id, winner="left", dry_run=True)
        stranger = {"authorization": f"Bearer {live.user_key}"}
        body = {"type": "comparison", "comparison_id": id, "winner": "left"}
        assert (await live.http.post("/v1/feedback", json=body, headers=stranger)).status_code == 404
        assert live.engine.state()["active"] == 2
        live.engine.set(hold_at=None)

    events = await begun(live, 8, judge)
    assert not any("partial" in event.get("ratchet", {}) for event in events[:-1])
    assert live.ledger.watermark() == "0"


async def test_metadata_that_is_a_vote_ends_an_answer_too(live: Any) -> None:
    """The way of clients that know of no other: they need not wait for the end."""
    live.engine.set(hold_at=3)
    update, chunks = live.sdk.chat.completions.update, []
    asked = live.body(stream=True, max_tokens=9, n=2)
    async for chunk in await live.sdk.chat.completions.create(**asked):
        chunks.append(chunk)
        if len(chunks) == 6:
            with pytest.raises(openai.BadRequestError):
                await update(chunk.id, metadata={"feedback": "sideways"})
            told = await update(chunk.id, metadata={"feedback": "down", "feedback_choice": "1"})
    assert told.metadata == {"feedback": "down", "feedback_choice": "1"}
    assert chunks[-1].model_extra["ratchet"]["partial"]
    assert (last_word(live).completion_id, last_word(live).value) == (f"{told.id}:1", -1)


async def test_what_has_not_begun_cannot_be_voted_on(live: Any) -> None:
    async def judge(id: str) -> None:
        refused = await vote(live, id, winner="left")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "completion_unfinished")
        [one] = live.gateway.running._relays.values()
        live.gateway.running.find(id, {one.ticket.rater}).stop()

    live.gateway.engine.stream = only_first(live.gateway.engine.stream)
    await begun(live, 3, judge, model=["policy", "policy@stable"])


def only_first(stream: Any) -> Any:
    """The second question to the engine waits in its queue."""
    asked: list[Any] = []

    def queued(body: Any) -> Any:
        asked.append(body)
        return stream(body if len(asked) == 1 else {**body, "messages": [{"role": "user", "content": "silence"}]})

    return queued


async def test_a_comparison_can_be_resumed_and_cancelled(live: Any) -> None:
    async def leave(id: str) -> None:
        assert (await live.http.post(f"/v1/chat/completions/{id}/cancel")).status_code == 200

    events = await begun(live, 4, leave, stream_options={"resumable": True})
    id = events[0]["id"]
    headers = {"last-event-id": "2"}
    rest = [event.data async for event in live.sse(f"/v1/chat/completions/{id}/stream", headers=headers)]
    assert rest == events[2:]


async def chatted(live: Any, then: Any, **more: Any) -> list[Any]:
    """A streamed chat; after its first word `then` is called with the id of its only choice."""
    live.engine.set(hold_at=3)
    events = []
    async for event in live.events(max_tokens=9, **more):
        events.append(event)
        if len(events) == 2:
            await then(f"{events[0]['id']}:0")
    return events


async def test_a_judgement_that_is_refused_for_another_answer_ends_none(live: Any) -> None:
    [other], [joes] = await live.completion_ids("other"), await live.completion_ids(key=live.user_key)
    used = {"type": "rating", "completion_id": other, "value": 1, "client_id": "used"}
    assert (await live.http.post("/v1/feedback", json=used)).status_code == 201

    async def judge(id: str) -> None:
        for body, status in [
            ({"type": "comparison", "left": id, "right": "no:0", "winner": "left"}, 404),
            ({"type": "comparison", "left": joes, "right": id, "winner": "left"}, 404),
            ({"type": "ranking", "candidates": [id, other], "ranking": "A > B"}, 422),
            ({**used, "completion_id": id}, 409),
        ]:
            refused = await live.http.post("/v1/feedback", json=body)
            assert refused.status_code == status, refused.text
        live.engine.set(hold_at=None)

    *_, last, done = await chatted(live, judge)
    assert ("partial" in last["ratchet"], done) == (False, "[DONE]")
    assert len(live.ledger.standing(live.ledger.watermark())) == 1


async def test_a_judgement_of_an_answer_that_is_not_kept_does_not_end_it(live: Any) -> None:
    async def judge(id: str) -> None:
        refused = await live.http.post("/v1/feedback", json={"type": "rating", "completion_id": id, "value": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "completion_not_found")
        live.engine.set(hold_at=None)

    *_, last, done = await chatted(live, judge, store=False)
    assert ("partial" in last["ratchet"], done) == (False, "[DONE]")


async def test_an_answer_under_way_is_compared_with_a_finished_one_and_ends(live: Any) -> None:
    [before] = await live.completion_ids()

    async def judge(id: str) -> None:
        body = {"type": "comparison", "left": id, "right": before, "winner": "right"}
        assert (await live.http.post("/v1/feedback", json=body)).status_code == 201

    *_, last, done = await chatted(live, judge)
    assert (last["ratchet"]["partial"], done) == (True, "[DONE]")
    assert last_word(live).targets == (f"{last['id']}:0", before)
