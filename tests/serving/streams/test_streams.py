"""Streams as they stand on the wire, what a silence looks like, and how a stream ends that could not be finished."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from serving.engine.control_tokens import ControlTokens
from serving.engine.server import EngineRefused
from serving.engine.swap_gate import Served, SwapGate
from serving.ledger.recorder import Ticket
from serving.metrics import Pace
from serving.streams import relay
from serving.streams.arrivals import Arrivals, Source
from serving.streams.relay import Relay


def text_of(payloads: list[Any], index: int = 0) -> str:
    choices = [choice for payload in payloads for choice in payload["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_stream_is_openais_event_by_event(live: Any) -> None:
    events = [event async for event in live.sse(json=live.body(stream=True, max_tokens=3))]
    assert [(event.id, event.comment) for event in events] == [(None, None)] * 5
    *chunks, done = [event.data for event in events]
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "w0-0 "}, {"content": "w0-1 "}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert all("usage" not in chunk for chunk in chunks)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}) == 1


async def test_the_headers_of_a_stream_keep_proxies_from_holding_it(live: Any) -> None:
    async with live.http.stream("POST", "/v1/chat/completions", json=live.body(stream=True)) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-policy-version"] == "0"


async def test_usage_comes_in_a_chunk_of_its_own_for_those_who_ask(live: Any) -> None:
    *chunks, usage, done = await live.stream(max_tokens=3, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert all(chunk["choices"] for chunk in chunks)


async def test_a_silence_is_filled_with_comments_that_sdks_ignore(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.05)
    live.engine.set(hold_at=2)
    comments, chunks = 0, []
    async for event in live.sse(json=live.body(stream=True, max_tokens=4)):
        if event.comment:
            comments += 1
            assert (event.comment, event.data) == ("ping", None)
            if comments == 3:
                live.engine.set(hold_at=None)
        else:
            chunks.append(event.data)
    assert comments >= 3
    assert text_of(chunks[:-1]) == "w0-0 w0-1 w0-2 "
    assert chunks[-1] == "[DONE]"


async def test_patience_begins_anew_with_each_token() -> None:
    """And whoever comes after a silence is as patient as before it."""
    loop, patience, served = (
        asyncio.get_running_loop(),
        0.3,
        Served(0, "policy", "fp", ControlTokens([]), True, None, 0.0),
    )

    async def engine() -> AsyncIterator[list[Any]]:
        await asyncio.sleep(patience / 2)
        yield [{}]
        await asyncio.Event().wait()

    arrivals = Arrivals([Source(engine(), served, SwapGate())])
    while not await arrivals.take(patience):  # on a slow machine the token may be late
        pass
    for _ in range(2):
        since = loop.time()
        assert await arrivals.take(patience) == []
        assert loop.time() - since > 0.9 * patience
    await arrivals.close()


async def test_a_silence_before_the_first_word_is_filled_too(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the engine has a queue: the stream is open, nothing has been said."""
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.05)
    live.engine.set(hold_at=0)
    seen: list[Any] = []

    async def read() -> None:
        chunks = await live.sdk.chat.completions.create(**live.body(stream=True, max_tokens=3))
        seen.append("open")
        seen.extend([chunk.choices[0].delta.content async for chunk in chunks])

    reading = asyncio.create_task(read())
    await eventually(lambda: seen == ["open"])
    live.engine.set(hold_at=None)
    await reading
    assert seen == ["open", "", "w0-0 ", "w0-1 ", None]


async def test_an_engine_that_says_no_more_ends_the_stream_with_an_error(live: Any) -> None:
    live.gateway.engine.patience = aiohttp.ClientTimeout(sock_read=0.3)
    live.engine.set(hold_at=3)
    payloads = await live.stream(max_tokens=50)
    assert payloads[-1]["error"]["code"] == "engine_timeout"
    assert text_of(payloads[:-1]) == "w0-0 w0-1 w0-2 "
    assert live.ledger.completion_ids() == []
    live.engine.set(hold_at=None)
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_fifty_streams_of_a_killed_engine_end_with_an_error_and_nothing_to_judge(
    live: Any, eventually: Any
) -> None:
    told = [0] * 50

    async def read(place: int) -> list[Any]:
        payloads = []
        async for payload in live.events(max_tokens=100_000 // 50):
            payloads.append(payload)
            told[place] = len(payloads)
        return payloads

    reading = [asyncio.create_task(read(place)) for place in range(50)]
    await eventually(lambda: min(told) > 5, seconds=30)
    live.engine.kill()
    streams = await asyncio.gather(*reading)
    assert [payloads[-1]["error"]["code"] for payloads in streams] == ["engine_unavailable"] * 50
    assert not any("[DONE]" in payloads for payloads in streams)
    assert live.ledger.completion_ids() == []
    rating = {"type": "rating", "completion_id": streams[0][0]["id"], "value": 1}
    assert (await live.http.post("/v1/feedback", json=rating)).status_code == 404
    assert (await live.http.get("/ready")).status_code == 503
    assert (await live.http.get("/health")).status_code == 200


async def test_what_is_not_to_be_stored_is_not_and_says_so(live: Any) -> None:
    payloads = await live.stream(max_tokens=3, store=False)
    assert payloads[-2]["ratchet"]["stored"] is False
    assert (await live.chat(max_tokens=3, store=False)).json()["ratchet"]["stored"] is False
    assert live.ledger.completion_ids() == []
    rating = {"type": "rating", "completion_id": payloads[0]["id"], "value": 1}
    assert (await live.http.post("/v1/feedback", json=rating)).status_code == 404


class Kept:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    async def store(self, ticket: Ticket, drafts: Any) -> bool:
        self.texts |= {index: "".join(draft.text) for index, draft in drafts.items()}
        return True


def ticket_of(choices: int, **more: Any) -> Ticket:
    facts = {"streamed": True, "wants_usage": True, "wants_logprobs": False, "wants_token_ids": False, **more}
    return Ticket(
        messages=(), conversation_id="c", rater="r", consent=True, metadata={}, keep=True, sampling={}, plain=True,
        choices=choices, **facts,
    )  # fmt: skip


async def said(index: int, *texts: str, finish: bool = True, created: int = 1) -> AsyncIterator[list[Any]]:
    """What an engine says as one choice: a prompt of two tokens, then a token for each text."""
    for place, text in enumerate(texts):
        last = finish and place == len(texts) - 1
        choice = {
            "index": index, "delta": {"content": text}, "token_ids": [7],
            "logprobs": {"content": [{"logprob": -1.0}]}, "finish_reason": "stop" if last else None,
        }  # fmt: skip
        more = {} if place else {"prompt_token_ids": [1, 2]}
        yield [{"object": "chat.completion.chunk", "created": created, "choices": [choice], **more}]


def relay_of(ticket: Ticket, *sources: AsyncIterator[list[Any]], recorder: Any = None) -> Relay:
    gate = SwapGate()
    served = [Served(v, "policy", f"fp_{v}", ControlTokens([]), True, None, 0.0) for v in range(len(sources))]
    arrivals = Arrivals([Source(*pair, gate) for pair in zip(sources, served, strict=True)])
    return Relay(ticket, arrivals, recorder or Kept(), Pace(), taints={gate: 0})


async def test_usage_over_several_sources_counts_the_prompt_once_and_comes_once() -> None:
    one = relay_of(ticket_of(2, blind=True), said(0, "a", "b", "c"), said(1, "x", "y", created=9))
    chunks = [chunk async for batch in one.batches() for chunk in batch]
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [
        {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    ]
    assert chunks[-1]["choices"] == []
    assert (text_of(chunks), text_of(chunks, 1)) == ("abc", "xy")
    assert len({(chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}) == 1


async def test_what_clients_do_not_know_goes_no_further() -> None:
    """An engine that tells what it was asked would tell of a decoy that it is one."""

    async def talkative() -> AsyncIterator[list[Any]]:
        async for [chunk] in said(0, "a", "b"):
            [choice] = chunk["choices"]
            yield [chunk | {"prompt_text": "?", "metrics": {}, "choices": [choice | {"routed_experts": "x"}]}]

    one = relay_of(ticket_of(1), talkative())
    chunks = [chunk async for batch in one.batches() for chunk in batch]
    ours = {"id", "created", "model", "system_fingerprint", "ratchet"}
    assert {name for chunk in chunks for name in chunk} == {"object", "choices", "usage", *ours}
    told = {name for chunk in chunks for choice in chunk["choices"] for name in choice}
    assert told == {"index", "delta", "logprobs", "finish_reason"}


async def test_a_whole_answer_of_several_sources_has_its_usage_too() -> None:
    one = relay_of(ticket_of(2, streamed=False, wants_usage=False), said(0, "a"), said(1, "x", "y"))
    chunks = [chunk async for batch in one.batches() for chunk in batch]
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_a_token_without_text_is_no_silence() -> None:
    async def one_by_one() -> AsyncIterator[list[Any]]:
        async for batch in said(0, "a", "", "", "b"):
            yield batch
            while one.arrivals._waiting:
                await asyncio.sleep(0)

    one = relay_of(ticket_of(1, wants_usage=False), one_by_one())
    batches = [batch async for batch in one.batches()]
    assert [text_of(batch) for batch in batches] == ["a", "b"]


async def test_a_chunk_that_makes_no_sense_leaves_nothing_to_judge() -> None:
    async def broken() -> AsyncIterator[list[Any]]:
        async for batch in said(0, "a", "b", finish=False):
            yield batch
        yield [{"surprise": True}]

    kept = Kept()
    one = relay_of(ticket_of(1), broken(), recorder=kept)
    with pytest.raises(KeyError):
        [batch async for batch in one.batches()]
    assert one.settled.is_set()
    assert kept.texts == {}


async def test_what_comes_after_a_stop_that_was_settled_without_the_reader_is_not_shown() -> None:
    """A vote does not wait for a slow reader: what that one had not seen by then is in no judged answer."""
    go, gone, kept = asyncio.Event(), asyncio.Event(), Kept()

    async def in_two_parts() -> AsyncIterator[list[Any]]:
        async for batch in said(0, "a", "b", "c"):
            yield batch
            await go.wait()
        gone.set()

    one = relay_of(ticket_of(1, wants_usage=False), in_two_parts(), recorder=kept)
    batches = one.batches()
    assert text_of(await anext(batches)) == "a"
    go.set()
    await gone.wait()
    one.stop()
    assert await asyncio.gather(one.keep_partial(), one.keep_partial()) == [True, True]
    [last] = [chunk async for batch in batches for chunk in batch]
    assert kept.texts == {0: "a"}
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (last["ratchet"]["partial"], last["ratchet"]["stored"]) == (True, True)


async def test_a_stop_after_the_last_word_cuts_nothing() -> None:
    one = relay_of(ticket_of(1), said(0, "a", "b"))
    while one.writes(one.ticket.completion_ids[0]):
        one_batch = await anext(one.batches())
        assert one_batch
    one.stop()
    rest = [chunk async for batch in one.batches() for chunk in batch]
    assert [chunk.get("usage", {}).get("total_tokens") for chunk in rest] == [4]
    assert not any("partial" in chunk.get("ratchet", {}) for chunk in rest)


@pytest.mark.parametrize(("status", "doubted"), [(400, False), (422, False), (404, True), (500, True)])
async def test_an_engine_that_fails_within_a_stream_is_doubted_unless_the_request_is_at_fault(
    status: int, doubted: bool
) -> None:
    async def failing() -> AsyncIterator[list[Any]]:
        async for batch in said(0, "a", finish=False):
            yield batch
        yield [{"error": {"message": "no", "code": status}}]

    one = relay_of(ticket_of(1), failing())
    [gate] = one.arrivals.gates
    gate.heard()
    with pytest.raises(EngineRefused):
        [batch async for batch in one.batches()]
    assert gate.heard_within(60.0) != doubted
