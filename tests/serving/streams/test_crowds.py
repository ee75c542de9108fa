"""Crowds over real sockets: thousands who leave, a thousand at once; nobody goes unanswered, nothing is left behind."""

import asyncio
import json
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest

from serving.http import sockets
from tests.serving.memory import MIB, peak_from_here, resident
from tests.serving.streams.test_stream_faults import connections, let_idle_connections_go

TOKENS = 10
LEAVERS, WAVE = 2000, 100
CROWD, ADMITTED = 1000, 200


class Client:
    """One connection that asks once: no client library, which costs more than the gateway does."""

    def __init__(self, live: Any, text: str, **more: Any) -> None:
        self.port = int(live.url.rpartition(":")[2])
        content = json.dumps(live.body(text, max_tokens=TOKENS, **more)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {live.admin_key}\r\n"
        self.request = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content

    async def ask(self) -> "Client":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(self.request)
        return self

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def read(self, chunks: int) -> None:
        for _ in range(chunks):
            await self.reader.readuntil(b"data: {")

    async def leave_after(self, chunks: int) -> None:
        """0: before the first word, while the answer is awaited."""
        await self.ask()
        await self.read(chunks)
        self.writer.close()


@pytest.fixture
def many_sockets() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert sockets.raise_limit() > 3 * CROWD, "ulimit -Hn is too low"
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_two_thousand_who_leave_anywhere_leave_nothing_behind(live: Any, eventually: Any) -> None:
    """In the middle of a stream, or before anything was answered."""
    let_idle_connections_go(live)
    live.engine.set(tick=0.03)
    await live.chat(max_tokens=2)
    files, memory = connections(live), 0
    for wave in range(LEAVERS // WAVE):
        who = [Client(live, f"wave {wave}", stream=place % 20 > 0) for place in range(WAVE)]
        await asyncio.gather(*(client.leave_after(place % TOKENS) for place, client in enumerate(who)))
        memory = memory or resident()  # of the first wave something stays for those to come
    await eventually(live.engine_is_free)
    await eventually(lambda: connections(live) <= files + 2)
    assert resident() - memory < 32 * MIB
    kept = live.ledger.completions(tuple(live.ledger.completion_ids()))
    assert len(kept) == 1 + LEAVERS * (TOKENS - 1) // TOKENS, "all that somebody saw, and nothing that nobody did"
    assert {len(completion.logprobs) - len(completion.completion_token_ids) for completion in kept.values()} == {0}
    assert all("w0-0 w0-1".startswith(completion.text[:9]) for completion in kept.values())
    assert live.gateway.metrics.streams_open._value.get() == 0
    assert 'status="500"' not in (await live.http.get("/metrics")).text


async def test_a_thousand_at_once_are_all_answered(start: Any, eventually: Any, many_sockets: None) -> None:
    """As many as there are places get all of their tokens, the others are refused while those wait."""
    live = await start(max_requests=ADMITTED)
    let_idle_connections_go(live)
    live.engine.set(hold_at=1)
    files, grown = connections(live), peak_from_here()
    async with asyncio.timeout(30):
        crowd = await asyncio.gather(*(Client(live, "hi", stream=True).ask() for _ in range(CROWD)))
        heads = dict(zip(crowd, await asyncio.gather(*(client.head() for client in crowd)), strict=True))
    asked = time.monotonic()
    assert (await live.http.get("/health")).status_code == 200
    assert time.monotonic() - asked < 1
    admitted = [client for client, head in heads.items() if head.startswith(b"HTTP/1.1 200 ")]
    refused = [head for head in heads.values() if head.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in head]
    assert (len(admitted), len(refused)) == (ADMITTED, CROWD - ADMITTED)
    live.engine.set(hold_at=None)
    answers = await asyncio.gather(*(client.reader.readuntil(b"data: [DONE]\n\n") for client in admitted))
    assert {answer.count(b"data: {") for answer in answers} == {1 + TOKENS}
    assert grown() < CROWD * 96 * 1024
    for client in crowd:
        client.writer.close()
    await eventually(live.engine_is_free)
    await eventually(lambda: connections(live) <= files + 2)
    assert len(live.ledger.completion_ids()) == ADMITTED
