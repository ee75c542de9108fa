"""Several gateway processes: swaps move all of them, and any of them may die."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feedback.releases.book import ReleaseBook
from feedback.releases.plan import Plan
from feedback.settings import Settings
from tests.conftest import free_port
from tests.serving.fleet import WORKERS, all_listen, children, running, text_of

WRONG = {"weights": {}, "engine_scores": [[-3.0, -3.0, -3.0], [-3.0, -3.0]]}


async def test_one_process_alone_leads_nobody(settings: Settings, shelf: Any, eventually: Any) -> None:
    settings = settings.model_copy(update={"port": free_port()})

    async def ready() -> bool:
        try:
            return (await client.get("/ready")).is_success
        except httpx.TransportError:
            return False

    async with running(settings) as process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}") as client:
        await eventually(ready, 30)
        assert children(process.pid) == []


async def test_every_process_answers_and_tells_of_all(launch: Any) -> None:
    fleet = await launch()
    for client in fleet.clients.values():
        body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert (await client.post("/v1/chat/completions", json=body)).json()["model"] == "policy-v0"
    for client in fleet.clients.values():
        families = text_string_to_metric_families((await client.get("/metrics")).text)
        samples = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
        assert samples["ratchet_requests_total", "POST", "/v1/chat/completions", "200"] == WORKERS
        assert samples["ratchet_swaps_total", "ok"] == 1
        assert samples["ratchet_swap_held_seconds",] > 0
        assert (samples["ratchet_policy_version",], samples["ratchet_ready",]) == (0, 1)
    fleet.process.terminate()
    assert await asyncio.to_thread(fleet.process.wait, 10) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(fleet.url, trust_env=False)


async def test_every_process_tells_how_busy_all_of_them_are(launch: Any, eventually: Any) -> None:
    fleet = await launch()

    async def told() -> list[dict[str, Any]]:
        return [(await client.get("/v1/status")).json()["traffic"] for client in fleet.clients.values()]

    async def busy(streams: int) -> bool:
        return all(each["in_flight"] == each["streams_open"] == streams for each in await told())

    fleet.engine.set(tick=0.1)  # they outlast the test
    streams = fleet.streams(8, max_tokens=2000)
    await eventually(lambda: busy(8), 30)
    rests = [(each["waiting"], each["refused"], each["first_token_s"], each["places"]) for each in await told()]
    assert rests == [(0, 0, None, -(-1024 // WORKERS) * WORKERS)] * WORKERS
    for stream in streams:
        stream.cancel()
    await eventually(lambda: busy(0), 30)
    body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    for client in fleet.clients.values():  # the streams may have gone before their first token
        assert (await client.post("/v1/chat/completions", json=body)).is_success
    medians = {each["first_token_s"] for each in await told()}
    assert len(medians) == 1 and None not in medians


async def test_a_swap_under_thirty_streams_of_all_processes(launch: Any, eventually: Any) -> None:
    fleet = await launch()
    streams = fleet.streams(30, max_tokens=200, return_token_ids=True)
    await eventually(lambda: fleet.engine.state()["active"] == 30, 30)
    fleet.shelf.publish(1, move=0.4)
    await eventually(lambda: fleet.serve(1), 30)
    for payloads in await asyncio.gather(*streams):
        assert payloads[-1] == "[DONE]", payloads[-1]
        tokens = [t for p in payloads[:-1] for t in p["choices"][0].get("token_ids", [])]
        assert tokens == [*range(100, 299), 2], "a token was lost, doubled or reordered"
        [stored] = fleet.ledger.completions((f"{payloads[0]['id']}:0",)).values()
        words = stored.text.split()
        changed = next(index for index, word in enumerate(words) if word.startswith("w1-"))
        assert (stored.policy_version, stored.version_changed_at) == (0, changed)
        assert all(word.startswith("w0-") for word in words[:changed])
        assert all(word.startswith("w1-") for word in words[changed:])


async def test_a_policy_that_fails_its_proof_is_seen_in_no_process(launch: Any, eventually: Any) -> None:
    fleet = await launch()
    streams = fleet.streams(12, max_tokens=300)
    await eventually(lambda: fleet.engine.state()["active"] == 12, 30)
    fleet.shelf.publish(1, move=0.1, **WRONG)
    for payloads in await asyncio.gather(*streams):
        assert payloads[-1]["error"]["code"] == "policy_unproven"
        assert "w1-" not in json.dumps(payloads)
    assert fleet.shelf.registry.states()[1] == "rejected"
    await eventually(lambda: fleet.serve(0), 30)
    assert fleet.ledger.completion_ids() == []


@pytest.mark.parametrize(
    ("fault", "call"),
    [
        pytest.param({"reload_s": 60.0}, "reload", id="while paused"),
        pytest.param({"hang": True}, "score policy", id="while unproven weights write"),
    ],
)
async def test_a_leader_killed_in_a_swap_leaves_nothing_half_done(
    launch: Any, eventually: Any, fault: dict[str, Any], call: str
) -> None:
    fleet = await launch()
    streams = fleet.streams(6, max_tokens=2000)
    await eventually(lambda: fleet.engine.state()["active"] == 6, 30)
    workers = fleet.workers()
    fleet.engine.set(**fault)
    fleet.shelf.publish(1, move=0.4)
    await eventually(lambda: fleet.engine.state()["calls"].count(call) == 2)
    fleet.process.kill()
    for payloads in await asyncio.gather(*streams):
        assert isinstance(payloads[-1], httpx.TransportError)
        assert "w1-" not in text_of(payloads)
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    fleet.engine.set(reload_s=0.05, hang=False)
    await launch(serves=1)


async def test_a_killed_worker_is_replaced_and_the_others_do_not_notice(launch: Any, eventually: Any) -> None:
    fleet = await launch()
    streams = fleet.streams(12, max_tokens=300)
    await eventually(lambda: fleet.engine.state()["active"] == 12, 30)
    fleet.engine.set(hang=True)  # the swap stays where unproven weights write
    fleet.shelf.publish(1, move=0.4)
    await eventually(lambda: fleet.engine.state()["calls"].count("score policy") == 2)
    victim = fleet.workers()[0]
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: len(fleet.workers()) == WORKERS and victim not in fleet.workers(), 30)
    await eventually(lambda: all_listen(fleet), 30)
    fleet.engine.set(hang=False)
    await fleet.connect()
    await eventually(lambda: fleet.serve(1), 30)
    ends = [payloads[-1] for payloads in await asyncio.gather(*streams)]
    broken = [end for end in ends if end != "[DONE]"]
    assert len(broken) < len(ends) and all(isinstance(end, httpx.TransportError) for end in broken)


async def test_a_worker_that_stands_still_cannot_show_what_it_missed(launch: Any, eventually: Any) -> None:
    """Its answer has more tokens to come than all of this takes, on whatever machine."""
    fleet = await launch()
    fleet.engine.set(tick=0.1)
    [victim, *_] = fleet.clients
    shown: list[Any] = []

    async def listen() -> None:
        async for payload in fleet.events(fleet.clients[victim], max_tokens=2000):
            shown.append(payload)

    listening = asyncio.create_task(listen())
    await eventually(lambda: len(shown) > 2, 60)
    os.kill(victim, signal.SIGSTOP)
    fleet.shelf.publish(1, move=0.1, **WRONG)
    await eventually(listening.done, 120)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # broken off, not merely silent
        await listening
    await eventually(lambda: victim not in fleet.workers(), 60)
    assert text_of(shown).startswith("w0-0 ") and "w1-" not in text_of(shown)
    await eventually(lambda: fleet.shelf.registry.states()[1] == "rejected", 120)


async def test_an_adapter_stays_while_any_process_streams_from_it(
    launch: Any, fake_engine: Any, shelf: Any, eventually: Any
) -> None:
    fake_engine.set(started_with=str(shelf.registry.directory(0) / "model"))
    fleet = await launch(engine_mode="adapter")
    fleet.shelf.publish(1, move=0.4)
    await eventually(lambda: fleet.serve(1), 30)
    streams = [asyncio.create_task(fleet.stream(c, max_tokens=800)) for c in fleet.clients.values()]
    await eventually(lambda: fleet.engine.state()["active"] == WORKERS)
    for version, move in ((2, -0.4), (3, 0.2)):  # it is not the one before what serves, either, which would stay
        fleet.shelf.publish(version, move=move)
        await eventually(lambda version=version: f"load policy-v{version}" in fleet.engine.state()["calls"], 30)
    assert fleet.engine.state()["active"] == WORKERS
    for payloads in await asyncio.gather(*streams):
        assert payloads[-1] == "[DONE]"
        assert {word.split("-")[0] for word in text_of(payloads).split()} == {"w1"}
    await eventually(lambda: fleet.engine.state()["adapters"] == ["policy-v2", "policy-v3"], 30)


async def answers_of(fleet: Any, model: str) -> set[str | None]:
    """What the processes say when they are asked one by one; None where one refuses."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    answers = [await client.post("/v1/chat/completions", json=body) for client in fleet.clients.values()]
    return {a.json()["choices"][0]["message"]["content"] if a.is_success else None for a in answers}


async def test_a_candidate_is_let_in_and_lost_in_every_process(
    launch: Any, second_engine: Any, shelf: Any, eventually: Any
) -> None:
    fleet = await launch(candidate_url=second_engine.url)
    workers = fleet.workers()
    shelf.publish(1, move=0.4, stable=False)
    book = ReleaseBook(shelf.registry)
    release = book.start(1, Plan(), mode="manual", whose="all", since="0", actor="t", reason="t", seen=None)

    async def let_in() -> bool:
        return await answers_of(fleet, "policy@candidate") == {"w1-0 "}

    await eventually(let_in, 30)
    assert await answers_of(fleet, "policy@stable") == {"w0-0 "}
    victim, *_ = fleet.workers()
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: len(fleet.workers()) == WORKERS and victim not in fleet.workers(), 30)
    await eventually(lambda: all_listen(fleet), 30)
    await fleet.connect()
    await eventually(let_in, 30)
    [stream] = fleet.streams(1, model="policy@candidate", max_tokens=300)
    await eventually(lambda: second_engine.state()["active"] == 1)
    now = book.open()  # the controller has moved it on since
    assert now is not None and now.id == release.id
    book.end(now, "aborted", actor="t", reason="t")

    async def lost() -> bool:
        return await answers_of(fleet, "policy@candidate") == {None}

    await eventually(lost, 30)
    assert shelf.registry.redis.hget("engine:candidate", "wanted") == "1", "a process streams from it"
    payloads = await stream
    assert payloads[-1] == "[DONE]" and set(w.split("-")[0] for w in text_of(payloads).split()) == {"w1"}
    await eventually(lambda: not shelf.registry.redis.exists("engine:candidate"), 120)  # kept warm a while
    assert await fleet.versions() == {0}
    assert await answers_of(fleet, "policy") == {"w0-0 "}
    assert len(set(workers) & set(fleet.workers())) == WORKERS - 1, "a process ended for the candidate's sake"


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/chat/completions/{}"])
async def test_a_vote_stops_an_answer_that_another_process_writes(launch: Any, path: str) -> None:
    fleet = await launch()
    writing, voting, _ = fleet.clients.values()
    events = fleet.events(writing, max_tokens=1000)
    [first, *_] = [await anext(events) for _ in range(5)]
    id = first["id"]
    ways: dict[str, dict[str, Any]] = {
        "/v1/feedback": {"type": "rating", "completion_id": f"{id}:0", "value": -1},
        f"/v1/chat/completions/{id}": {"metadata": {"feedback": "down"}},
    }
    voted = await voting.post(path.format(id), json=ways[path.format(id)])
    assert voted.is_success, voted.text
    rest = [payload async for payload in events]
    assert rest[-1] == "[DONE]" and rest[-2]["ratchet"]["partial"] is True
    [stored] = fleet.ledger.completions((f"{id}:0",)).values()
    assert stored.partial and 0 < len(stored.completion_token_ids) < 1000


async def first_id(lines: Any) -> str:
    while not (line := await anext(lines)).startswith("id: "):
        pass
    return str(line)


async def test_a_stream_is_resumed_and_stopped_from_another_process(launch: Any) -> None:
    fleet = await launch()
    writing, *others = fleet.clients.values()
    events = fleet.events(writing, max_tokens=1000, stream_options={"resumable": True})
    first = await anext(events)
    path = f"/v1/chat/completions/{first['id']}"
    async with others[0].stream("GET", f"{path}/stream", headers={"last-event-id": "3"}) as resumed:
        assert resumed.headers["content-type"].startswith("text/event-stream")
        lines = resumed.aiter_lines()
        assert await first_id(lines) == "id: 4"
        stopped = await others[1].post(f"{path}/cancel")
        assert stopped.json() == {
            "object": "chat.completion.cancelled", "id": first["id"], "completion_ids": [f"{first['id']}:0"],
        }  # fmt: skip
        there = [line async for line in lines if line.startswith("data: ")]
    here = [payload async for payload in events]
    assert there[-1] == "data: [DONE]" and here[-1] == "[DONE]"
    assert json.loads(there[-2].removeprefix("data: ")) == here[-2]
    assert (await others[0].get("/v1/chat/completions/chatcmpl-none/stream")).status_code == 404
    assert (await others[0].post("/v1/chat/completions/chatcmpl-none/cancel")).status_code == 404


async def rest_of(events: AsyncIterator[Any]) -> list[Any]:
    return [payload async for payload in events]


async def test_answers_under_way_end_properly_when_the_service_does(launch: Any, eventually: Any) -> None:
    """Ctrl-C: readers get an end at once that says it is a part, and what they saw is in the ledger."""
    fleet = await launch()
    clients = [await fleet.stack.enter_async_context(fleet.client()) for _ in range(6)]
    streams = [fleet.events(client, max_tokens=2000) for client in clients]
    begun = [[await anext(stream) for _ in range(3)] for stream in streams]
    fleet.process.send_signal(signal.SIGINT)
    ends = [await asyncio.wait_for(rest_of(stream), 5) for stream in streams]
    for payloads in map(list.__add__, begun, ends):
        assert payloads[-1] == "[DONE]"
        assert (payloads[-2]["ratchet"]["partial"], payloads[-2]["ratchet"]["stored"]) == (True, True)
        [kept] = fleet.ledger.completions((payloads[-2]["ratchet"]["completion_ids"][0],)).values()
        assert kept.text == "".join(text_of(payloads))
    await eventually(lambda: fleet.process.poll() is not None, 10)
