"""Requests that cannot be answered: each gets an error of its own, and the others are served."""

from typing import Any

import aiohttp
import pytest


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", '{"model": "policy", "temperature": NaN}', "temperature"),
        ("chat/completions", '{"temperature": 1e999}', "temperature"),
        ("chat/completions", '{"logit_bias": {"5": -Infinity}}', "logit_bias.5"),
        ("chat/completions", r'{"messages": [{"role": "user", "content": "\ud800"}]}', "messages[0].content"),
        ("chat/completions", r'{"messages": [{"role": "user", "\udfff": 1}]}', "messages[0]"),
        ("chat/completions", r'{"stop": ["END", "\ud800"]}', "stop[1]"),
        ("chat/completions", r'{"user": "\ud83d"}', "user"),
        ("chat/completions", r'{"metadata": {"conversation_id": "\ud800"}}', "metadata.conversation_id"),
        ("chat/completions", '{"tools": ' + "[" * 500 + "]" * 500 + "}", "tools"),
        ("chat/completions", "[" * 100_000, None),
        ("feedback", r'{"client_id": "\ud800"}', "client_id"),
        ("feedback", r'{"comment": "\ud800"}', "comment"),
    ],
)
async def test_json_that_cannot_be_passed_on_names_its_field(live: Any, path: str, body: str, param: Any) -> None:
    response = await live.http.post(f"/v1/{path}", content=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    response.json()["error"]["message"].encode()


async def test_whole_surrogate_pairs_are_plain_text(live: Any) -> None:
    body = r'{"model": "policy", "max_tokens": 2, "messages": [{"role": "user", "content": "\ud83d\ude00"}]}'
    assert (await live.http.post("/v1/chat/completions", content=body)).status_code == 200
    assert live.engine.state()["bodies"][-1]["messages"][0]["content"] == "\U0001f600"


@pytest.mark.parametrize("streamed", [True, False])
async def test_one_slow_request_fails_alone(live: Any, streamed: bool) -> None:
    live.gateway.engine.patience = aiohttp.ClientTimeout(sock_read=0.2)
    slow = await live.chat("silence", stream=streamed)
    assert slow.status_code == 504
    assert slow.json()["error"]["code"] == "engine_timeout"
    assert int(slow.headers["retry-after"]) >= 1
    assert live.served == 0, "others lost the service over one request"
    assert (await live.chat(max_tokens=2)).status_code == 200


@pytest.mark.parametrize("trouble", ["broken connection", "no finish"])
async def test_one_broken_connection_fails_alone(live: Any, trouble: str) -> None:
    broken = await live.chat(trouble)
    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "engine_unavailable")
    assert (await live.chat(trouble, stream=True)).status_code == 503
    assert live.served == 0
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_after_a_broken_connection_the_engine_is_asked_at_once(live: Any, eventually: Any) -> None:
    """A dead engine may look healthy: what was heard before must not vouch for it."""
    before = live.engine.state()["calls"].count("probe")
    await live.chat("broken connection")
    await eventually(lambda: live.engine.state()["calls"].count("probe") > before, seconds=3)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_fault_found_once_it_streams_is_still_the_clients(live: Any, streamed: bool) -> None:
    response = await live.chat("late refusal", stream=streamed)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


async def test_a_chunk_that_is_none_is_an_error(live: Any) -> None:
    assert (await live.chat("garbage", stream=True)).status_code == 500
    assert (await live.chat("garbage")).status_code == 500
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_a_fault_of_ours_in_the_middle_ends_the_stream_with_an_error(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = []
    async for payload in live.events(max_tokens=1000):
        payloads.append(payload)
        if len(payloads) == 3:
            monkeypatch.setattr(live.gateway.gate, "writer", lambda admitted: 1 / 0)
    assert payloads[-1]["error"]["code"] == "internal_error"
    assert live.ledger.completion_ids() == []
