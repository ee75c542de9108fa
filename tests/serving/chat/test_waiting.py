"""Requests that nothing can be done for yet: so many may wait, one more is refused at once, and no one else notices."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from serving.engine.control_tokens import ControlTokens
from serving.engine.swap_gate import Close, Open, Served, SwapGate
from serving.http import limits
from serving.http.errors import ApiError
from serving.http.places import Places
from serving.metrics import Metrics
from tests.serving.machine.test_metrics import scrape, value

FEW = 3


@pytest.fixture
async def few(live: Any) -> Any:
    live.gateway.waiting.limit = FEW
    return live


class Dribble:
    """A client that sends half of a chat, and the rest when it is told to."""

    def __init__(self, live: Any, key: str) -> None:
        self.content = json.dumps(live.body(max_tokens=2)).encode()
        self.head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n".encode()
        self.port = int(live.url.rpartition(":")[2])

    async def begin(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(self.head + b"content-length: %d\r\n\r\n" % len(self.content) + self.content[:10])
        await self.writer.drain()

    async def end(self) -> bytes:
        self.writer.write(self.content[10:])
        return await self.reader.readuntil(b"\r\n")


def refused(answer: httpx.Response) -> bool:
    error = answer.json().get("error", {})
    assert (answer.status_code, error.get("code")) in ((503, "queue_full"), (200, None)), answer.text
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_bodies_that_do_not_end_are_few(few: Any, eventually: Any) -> None:
    clients = [Dribble(few, few.admin_key) for _ in range(FEW)]
    for client in clients:
        await client.begin()
    await eventually(lambda: few.gateway.waiting.count == FEW)
    assert value(await scrape(few), "waiting") == FEW
    assert refused(await few.chat(max_tokens=2))
    assert few.engine.state()["bodies"] == []
    assert (await few.http.get("/v1/models")).status_code == 200, "there is no body to wait for"
    assert b"200" in await clients[0].end()
    assert not refused(await few.chat(max_tokens=2))
    clients[1].writer.close()
    await eventually(lambda: few.gateway.waiting.count == 1)
    assert b"200" in await clients[2].end()
    await eventually(few.engine_is_free)
    assert value(await scrape(few), "waiting") == 0


async def test_whoever_has_no_key_takes_no_place(few: Any) -> None:
    strangers = [Dribble(few, "rk-wrong") for _ in range(FEW + 1)]
    for client in strangers:
        await client.begin()
        assert b"401" in await client.reader.readuntil(b"\r\n")
    assert not refused(await few.chat(max_tokens=2))


async def begun_to_sign_in(few: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Somebody who says no more than the beginning."""
    head = b"POST /v1/session HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n"
    reader, writer = await asyncio.open_connection(*few.url.removeprefix("http://").split(":"))
    writer.write(head + b"{")
    return reader, writer


async def test_who_signs_in_without_a_word_has_not_long(few: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_IN_S", 0.2)
    reader, _ = await begun_to_sign_in(few)
    answer = await asyncio.wait_for(reader.read(), 20)  # to its end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408 ") and b"body_too_slow" in answer


async def test_who_signs_in_without_a_word_takes_no_place_of_others(
    few: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGN_IN_S", 600.0)
    strangers = [await begun_to_sign_in(few) for _ in range(64)]

    async def waiting() -> bool:
        return value(await scrape(few), "waiting") == 64

    await eventually(waiting)
    assert few.gateway.waiting.count == 0
    assert not refused(await few.chat(max_tokens=2))
    signing_in = {"json": {"key": few.user_key}, "headers": {"x-ratchet-page": "1"}}
    assert refused(await few.http.post("/v1/session", **signing_in))
    for _, writer in strangers:
        writer.close()

    async def let_in() -> bool:
        return bool((await few.http.post("/v1/session", **signing_in)).status_code == 200)

    await eventually(let_in)


async def test_few_wait_for_a_swap_and_all_of_them_are_answered(few: Any, eventually: Any) -> None:
    gate = few.gateway.gate
    served = gate.served
    gate.obey(Close())
    held = [asyncio.create_task(few.chat(max_tokens=2)) for _ in range(FEW)]
    await eventually(lambda: few.gateway.waiting.count == FEW)
    assert refused(await few.chat(max_tokens=2))
    gate.obey(Open(served))
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200] * FEW
    await eventually(few.engine_is_free)


@pytest.mark.parametrize("turns", range(5))
async def test_who_leaves_as_a_swap_ends_is_not_let_in(turns: int) -> None:
    gate = SwapGate()
    gate.obey(Close())

    async def ask() -> None:
        async with gate.admission():
            await asyncio.sleep(5)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.01)
    gate.obey(Open(Served(1, "policy", "fp_1", ControlTokens(()), True, None, 0.0)))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asking, 1)
    assert sum(gate.in_flight.values()) == 0


def test_a_place_is_taken_counted_and_given_back() -> None:
    metrics = Metrics()
    places = Places(1, "are waiting", metrics.waiting)
    with pytest.raises(RuntimeError), places.taken():
        with pytest.raises(ApiError, match="1 requests are waiting already"), places.taken():
            pass
        assert "ratchet_waiting 1.0" in metrics.exposition(CollectorRegistry()).decode()
        raise RuntimeError
    assert places.count == 0
    assert "ratchet_waiting 0.0" in metrics.exposition(CollectorRegistry()).decode()
