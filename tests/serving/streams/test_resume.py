"""Streams that outlive their connection, and answers that are stopped before their end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.streams import replay
from serving.streams.replay import Replay

RESUMABLE = {"stream_options": {"resumable": True}}


def resumption(id: str, seen: int, **more: Any) -> dict[str, Any]:
    return {"path": f"/v1/chat/completions/{id}/stream", "headers": {"last-event-id": str(seen)}, **more}


async def rest_of(live: Any, id: str, seen: int) -> list[Any]:
    return [event async for event in live.sse(**resumption(id, seen)) if event.comment is None]


async def begun(live: Any, count: int, **more: Any) -> list[Any]:
    """The first events of a resumable stream, whose client is then gone."""
    events: list[Any] = []
    async for event in live.sse(json=live.body(stream=True, **{**RESUMABLE, **more})):
        events.append(event)
        if len(events) == count:
            break
    return events


async def test_a_client_that_comes_back_gets_exactly_the_rest(live: Any, eventually: Any) -> None:
    live.engine.set(hold_at=6)
    first = await begun(live, 5, max_tokens=8)
    assert [event.id for event in first] == ["1", "2", "3", "4", "5"]
    id = first[0].data["id"]
    second = []
    async for event in live.sse(**resumption(id, 5)):  # and is dropped once more
        second.append(event)
        if len(second) == 2:
            break
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.engine.set(hold_at=None)
    third = await rest_of(live, id, 7)
    events = [*first, *second, *third]
    assert [event.id for event in events] == [str(number) for number in range(1, 11)]
    text = "".join(event.data["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert text == "".join(f"w0-{step} " for step in range(7))
    assert events[-1].data == "[DONE]"
    [stored] = live.ledger.completions((f"{id}:0",)).values()
    assert (stored.text, stored.partial) == (text, False)
    assert "resumable" not in str(live.engine.state()["bodies"][-1])


async def test_every_place_of_a_finished_stream_can_be_gone_on_from(live: Any) -> None:
    events = [event async for event in live.sse(json=live.body(stream=True, max_tokens=4, **RESUMABLE))]
    id = events[0].data["id"]
    for seen in range(len(events) + 1):
        assert await rest_of(live, id, seen) == events[seen:]


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(st.binary(max_size=3), max_size=3), max_size=6),
    cuts=st.lists(st.integers(0, 4), max_size=5),
)
def test_listeners_who_come_and_go_miss_nothing_and_hear_nothing_twice(
    batches: list[list[bytes]], cuts: list[int]
) -> None:
    """Each listener takes so many batches, and the next goes on after the last event it got."""

    async def source() -> AsyncIterator[list[bytes]]:
        for batch in batches:
            yield batch
            await asyncio.sleep(0)

    async def closed() -> None: ...

    async def listen() -> list[bytes]:
        one, heard = Replay(source(), lambda: None, closed), []
        for cut in [*cuts, 1000]:
            taken = 0
            async for batch in one.follow(len(heard)):
                heard += batch
                if (taken := taken + 1) > cut:
                    break
            await one.left()
        await one.close()
        return heard

    events = [event for batch in batches for event in batch]
    assert asyncio.run(listen()) == [b"id: %d\n%b" % (number, event) for number, event in enumerate(events, 1)]


async def test_a_stream_that_nobody_comes_back_to_is_stopped_and_kept(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "ORPHAN_S", 0.1)
    live.engine.set(hold_at=3)
    first = await begun(live, 4, max_tokens=8)
    await eventually(live.engine_is_free)
    id = first[0].data["id"]
    [stored] = live.ledger.completions((f"{id}:0",)).values()
    assert (stored.text, stored.partial, stored.finish_reason) == ("w0-0 w0-1 w0-2 ", True, "stopped")
    # Too late to hear more, but not to hear how it ended.
    last, done = await rest_of(live, id, 4)
    assert (last.id, last.data["choices"][0]["finish_reason"]) == ("5", "stop")
    assert (last.data["ratchet"]["partial"], done.data) == (True, "[DONE]")


async def test_somebody_who_listens_keeps_it_alive(live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ORPHAN_S", 0.2)
    live.engine.set(hold_at=3)
    id = (await begun(live, 4, max_tokens=5))[0].data["id"]
    returned = asyncio.create_task(rest_of(live, id, 4))
    [(_, one)] = live.gateway.replays._kept.values()
    await eventually(lambda: one._orphaned is not None and one._orphaned.cancelled())
    live.engine.set(hold_at=None)
    assert (await returned)[-1].data == "[DONE]"


async def test_a_resumable_stream_has_its_signs_of_life(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.streams.relay.KEEP_ALIVE_S", 0.05)
    live.engine.set(hold_at=1)
    async for event in live.sse(json=live.body(stream=True, **RESUMABLE)):
        if event.comment == "ping":
            live.engine.set(hold_at=None)
            return
    pytest.fail("no comment came")


async def test_a_client_that_left_before_it_listened_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may break before its first event was asked for."""
    monkeypatch.setattr(replay, "ORPHAN_S", 0.0)
    stopped, go = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[list[bytes]]:
        await go.wait()
        yield [b"x"]

    async def closed() -> None: ...

    one = Replay(source(), stopped.set, closed)
    one.follow(0)
    await one.left()
    await asyncio.wait_for(stopped.wait(), 2)
    await one.close()


@pytest.mark.parametrize("path", ["stream", "cancel"])
async def test_somebody_elses_stream_looks_like_none(live: Any, path: str) -> None:
    live.engine.set(hold_at=3)
    id = (await begun(live, 2, max_tokens=5))[0].data["id"]
    method, code = ("GET", "stream_not_found") if path == "stream" else ("POST", "completion_not_found")
    headers = {"authorization": f"Bearer {live.user_key}"}
    for name, more in ((id, {"headers": headers}), ("chatcmpl-none", {})):
        refused = await live.http.request(method, f"/v1/chat/completions/{name}/{path}", **more)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, code)
    assert live.engine.state()["active"] == 1


async def test_a_stream_that_was_not_made_resumable_is_not(live: Any) -> None:
    payloads = await live.stream(max_tokens=2)
    refused = await live.http.get(f"/v1/chat/completions/{payloads[0]['id']}/stream")
    assert refused.status_code == 404


@pytest.mark.parametrize("seen", ["x", "-1", "1.5", "٣", "9" * 40])
async def test_a_last_event_that_is_no_number_is_refused(live: Any, seen: str) -> None:
    headers = {"last-event-id": seen.encode()}
    refused = await live.http.get("/v1/chat/completions/chatcmpl-x/stream", headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("more", [{}, RESUMABLE])
async def test_a_cancelled_stream_ends_properly_and_is_kept_as_a_part(
    live: Any, eventually: Any, more: dict[str, Any]
) -> None:
    live.engine.set(hold_at=3)
    payloads = []
    options = {"include_usage": True, **more.get("stream_options", {})}
    async for payload in live.sse(json=live.body(stream=True, max_tokens=9, stream_options=options)):
        payloads.append(payload.data)
        if len(payloads) == 4:
            answer = await live.http.post(f"/v1/chat/completions/{payloads[0]['id']}/cancel")
    id = payloads[0]["id"]
    assert (answer.status_code, answer.json()["completion_ids"]) == (200, [f"{id}:0"])
    *_, last, usage, done = payloads
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert (last["ratchet"]["partial"], last["ratchet"]["stored"]) == (True, True)
    assert usage["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert done == "[DONE]"
    [stored] = live.ledger.completions((f"{id}:0",)).values()
    assert (stored.text, stored.partial) == ("w0-0 w0-1 w0-2 ", True)
    shown = await live.sdk.chat.completions.retrieve(id)
    assert (shown.choices[0].finish_reason, shown.model_extra["ratchet"]["partial"]) == ("stop", True)
    await eventually(live.engine_is_free)
    again = await live.http.post(f"/v1/chat/completions/{id}/cancel")
    assert again.status_code == 404
    rating = {"type": "rating", "completion_id": id, "value": -1}
    assert (await live.http.post("/v1/feedback", json=rating)).status_code == 201


async def test_only_what_is_unfinished_is_cut(live: Any) -> None:
    """Of two choices one has ended: it stays whole, and a judgement of it stops nothing."""
    live.engine.set(hold_at=4, ends={"1": 2})
    payloads = []
    async for event in live.sse(json=live.body(stream=True, n=2, max_tokens=9)):
        payloads.append(event.data)
        if len(payloads) == 8:
            ids = payloads[0]["ratchet"]["completion_ids"]
            rating = {"type": "rating", "completion_id": ids[1], "value": 1}
            assert (await live.http.post("/v1/feedback", json=rating)).status_code == 201
            assert live.engine.state()["active"] == 1
            await live.http.post(f"/v1/chat/completions/{payloads[0]['id']}/cancel")
    assert [choice["index"] for choice in payloads[-2]["choices"]] == [0]
    stored = live.ledger.completions(tuple(ids))
    assert [stored[id].partial for id in ids] == [True, False]


async def test_a_cancelled_answer_in_one_piece_is_what_there_was(live: Any, eventually: Any) -> None:
    live.engine.set(hold_at=3)
    asking = asyncio.create_task(live.chat(max_tokens=9))
    await eventually(lambda: live.engine.state()["active"] == 1 and len(live.gateway.running) == 1)
    [one] = live.gateway.running._relays.values()
    await eventually(lambda: len(one.drafts[0].token_ids) == 3)
    await live.http.post(f"/v1/chat/completions/{one.ticket.response_id}/cancel")
    answer = (await asking).json()
    assert (answer["choices"][0]["message"]["content"], answer["ratchet"]["partial"]) == ("w0-0 w0-1 w0-2 ", True)
    assert answer["usage"]["completion_tokens"] == 3


async def finished(live: Any) -> str:
    events = [event async for event in live.sse(json=live.body(stream=True, max_tokens=2, **RESUMABLE))]
    return str(events[0].data["id"])


async def is_kept(live: Any, id: str) -> bool:
    return bool((await live.http.get(f"/v1/chat/completions/{id}/stream")).status_code == 200)


async def test_an_ended_stream_is_forgotten_though_no_other_comes(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "FORGET_S", 0.2)
    id = await finished(live)

    async def is_forgotten() -> bool:
        return not await is_kept(live, id)

    await eventually(is_forgotten)


async def test_ended_streams_share_a_bounded_room(live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await finished(live)
    monkeypatch.setattr(replay, "MAX_BYTES", live.gateway.replays._kept[first][1].size * 2 + 99)
    second, third = await finished(live), await finished(live)
    await eventually(lambda: live.gateway.replays._kept[third][1].pump.done())
    assert [await is_kept(live, id) for id in (first, second, third)] == [False, True, True]
