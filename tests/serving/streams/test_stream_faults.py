"""Clients that leave, do not listen or are one too many: nobody else notices, and nothing is left behind."""

import asyncio
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.engine.server import KEEP_ALIVE_S
from serving.http import patience


def connections(live: Any) -> int:
    """TCP connections of this process, which is the gateway's too, without the ledger's pool."""
    ledger = int(live.gateway.settings.redis_url.rpartition(":")[2].partition("/")[0])
    mine = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed since
            mine.add(os.readlink(f"/proc/self/fd/{name}"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{row[9]}]" in mine and int(row[2].rpartition(":")[2], 16) != ledger for row in rows)


def let_idle_connections_go(live: Any) -> None:
    """A watcher as hasty as that of the tests asks over each connection to the engine in turn, and keeps all alive."""
    live.gateway.watcher.poll_s = KEEP_ALIVE_S / 2


async def read_some(
    client: httpx.AsyncClient, body: dict[str, Any], count: int, path: str = "/v1/chat/completions"
) -> list[Any]:
    """So many chunks of a stream, then hang up."""
    chunks: list[Any] = []
    async with client.stream("POST", path, json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line[6:]))
                if len(chunks) == count:
                    return chunks
    return chunks


async def test_a_silent_stream_that_is_hung_up_on_is_free_within_a_second(live: Any, eventually: Any) -> None:
    live.engine.set(hold_at=3)
    chunks = await read_some(live.http, live.body(stream=True, max_tokens=9), 4)
    await eventually(live.engine_is_free, seconds=1)
    [stored] = live.ledger.completions((f"{chunks[0]['id']}:0",)).values()
    assert (stored.text, stored.partial) == ("w0-0 w0-1 w0-2 ", True), "not what the client saw"
    assert len(stored.completion_token_ids) == 3
    rating = {"type": "rating", "completion_id": stored.id, "value": -1}
    assert (await live.http.post("/v1/feedback", json=rating)).status_code == 201


@pytest.mark.parametrize("streamed", [True, False])
async def test_who_leaves_before_the_first_word_is_free_within_a_second(
    live: Any, eventually: Any, streamed: bool
) -> None:
    live.engine.set(hold_at=0)
    asking = asyncio.create_task(live.chat(stream=streamed))
    await eventually(lambda: live.engine.state()["active"] == 1)
    asking.cancel()
    await eventually(live.engine_is_free, seconds=1)
    assert live.ledger.completion_ids() == []


async def test_who_leaves_and_votes_at_once_votes_on_what_was_shown(live: Any) -> None:
    """The vote may be here before the gateway noticed that the stream was left."""
    live.engine.set(hold_at=3)
    for _ in range(5):
        chunks = await read_some(live.http, live.body(stream=True, max_tokens=9), 4)
        rating = {"type": "rating", "completion_id": chunks[0]["id"], "value": 0.5}
        answer = await live.http.post("/v1/feedback", json=rating)
        assert answer.status_code == 201, answer.text


def deaf_client(live: Any, body: dict[str, Any]) -> socket.socket:
    """Asks for a stream, and reads none of it."""
    content = json.dumps(body).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(live.url.rpartition(":")[2])))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {live.admin_key}\r\n"
    client.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return client


async def test_clients_that_do_not_read_are_dropped_and_the_others_served(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "READER_S", 0.5)
    let_idle_connections_go(live)
    before = connections(live)
    # More than what the kernel takes off our hands.
    live.engine.set(pads={"shout": 100_000})
    deaf = [deaf_client(live, live.body("shout", stream=True, max_tokens=100)) for _ in range(5)]
    await eventually(lambda: len(live.gateway.running) == 5)
    assert (await live.stream(max_tokens=20))[-1] == "[DONE]"
    await eventually(live.engine_is_free, seconds=20)
    await eventually(lambda: connections(live) <= before + 2)
    kept = live.ledger.completions(tuple(live.ledger.completion_ids())).values()
    # A part each, or the whole of what came faster than anybody could have read it.
    assert sum(len(completion.text) > 100_000 for completion in kept) == 5
    for client in deaf:
        with pytest.raises(ConnectionResetError):
            while client.recv(1_000_000):
                pass
        client.close()


async def test_requests_that_are_never_finished_are_dropped(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WRITER_S", 0.3)
    host, port = live.url.removeprefix("http://").split(":")
    for words in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(words)
        with pytest.raises(OSError):  # reset: read() would return at a polite end
            await asyncio.wait_for(reader.read(), 5)
            raise ConnectionResetError
        writer.close()
    # Whoever is only slow to be answered is not meant.
    live.engine.set(tick=0.2)
    assert (await live.chat(max_tokens=4)).status_code == 200


async def test_one_too_many_is_refused_at_once(start: Any, eventually: Any) -> None:
    live = await start(max_requests=3)
    live.engine.set(hold_at=2)
    reading = [asyncio.create_task(live.stream(max_tokens=4)) for _ in range(3)]
    await eventually(lambda: live.engine.state()["active"] == 3)
    for path, body in (
        ("chat/completions", live.body(stream=True)), ("chat/completions", live.body()), ("comparisons", live.body()),
    ):  # fmt: skip
        started = time.monotonic()
        refused = await live.http.post(f"/v1/{path}", json=body)
        assert time.monotonic() - started < 1
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
    started = time.monotonic()
    assert (await live.http.get("/health")).status_code == 200
    assert time.monotonic() - started < 0.5
    assert (await live.http.get("/v1/models")).status_code == 200
    live.engine.set(hold_at=None)
    assert [payloads[-1] for payloads in await asyncio.gather(*reading)] == ["[DONE]"] * 3
    await eventually(lambda: live.gateway.places.count == 0)
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_a_place_is_given_back_whatever_ends_the_answer(start: Any, eventually: Any) -> None:
    live = await start(max_requests=1)
    for trouble in ("late refusal", "broken connection", "garbage", "no finish"):
        for streamed in (True, False):
            assert (await live.chat(trouble, stream=streamed)).status_code >= 400
    assert (await live.chat("hi", temperature=3)).status_code == 400
    assert (await live.http.post("/v1/chat/completions", json={**live.body(), "model": "x"})).status_code == 404
    await eventually(lambda: live.gateway.places.count == 0)
    assert (await live.chat(max_tokens=2)).status_code == 200
