"""Swaps under way: streams live on, and unproven weights never speak."""

import asyncio
import errno
import hashlib
import json
import math
from collections import Counter
from typing import Any

import httpx
import pytest

from feedback.policies.manifest import write_manifest
from feedback.reconcile import reconcile
from serving.engine.proof import Proof
from serving.engine.swap_reports import LAST_SWAP
from tests.serving.machine.test_metrics import scrape, value


def _swaps(live: Any, result: str) -> float:
    return live.gateway.metrics.registry.get_sample_value("ratchet_swaps_total", {"result": result}) or 0


async def test_a_swap_under_streams_loses_nothing(live: Any, eventually: Any) -> None:
    streams = [asyncio.create_task(live.stream(f"s{i}", max_tokens=80, return_token_ids=True)) for i in range(8)]
    await eventually(lambda: live.engine.state()["active"] == 8)
    live.shelf.publish(1, move=0.4)
    during = asyncio.create_task(live.chat("during", max_tokens=2))
    await eventually(lambda: live.served == 1)
    assert (await during).status_code == 200
    for payloads in await asyncio.gather(*streams):
        assert payloads[-1] == "[DONE]"
        tokens = [t for p in payloads[:-1] for t in p["choices"][0].get("token_ids", [])]
        assert tokens == [*range(100, 179), 2], "a token was lost, doubled or reordered"
        [stored] = live.ledger.completions((f"{payloads[0]['id']}:0",)).values()
        words = stored.text.split()
        changed = next(index for index, word in enumerate(words) if word.startswith("w1-"))
        assert stored.policy_version == 0
        assert stored.version_changed_at == changed
        assert all(word.startswith("w0-") for word in words[:changed])
    after = (await live.chat(max_tokens=2)).json()
    assert after["model"] == "policy-v1"
    assert after["choices"][0]["message"]["content"] == "w1-0 "
    calls = live.engine.state()["calls"]
    assert calls[calls.index("pause keep", 1) :][:6] == [
        "pause keep", "reload", "checksum", "reset", "resume", "score policy",
    ]  # fmt: skip
    assert live.gateway.watcher.reports.last.in_flight >= 8
    last = live.gateway.watcher.reports.last
    assert 0.05 <= last.pause_s < 3
    series = await scrape(live)
    assert (value(series, "swap_pause_seconds"), value(series, "swap_held_seconds")) == (last.pause_s, last.held_s)
    assert last.held_s != last.pause_s


async def test_a_whole_answer_across_a_swap_says_so(live: Any, eventually: Any) -> None:
    request = asyncio.create_task(live.chat(max_tokens=60))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(1, move=0.4)
    answer = (await request).json()
    [stored] = live.ledger.completions((f"{answer['id']}:0",)).values()
    words = answer["choices"][0]["message"]["content"].split()
    changed = next(index for index, word in enumerate(words) if word.startswith("w1-"))
    assert 0 < changed < 59
    assert (stored.policy_version, stored.version_changed_at) == (0, changed)


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_that_waited_for_the_swap_names_the_new_policy(
    live: Any, eventually: Any, streamed: bool
) -> None:
    """The engine is frozen when the request comes: all of it is written by the policy swapped in."""
    await live.gateway.engine.pause()
    request = asyncio.create_task(live.chat(max_tokens=3, stream=streamed))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(1, move=0.4)
    response = await request
    assert response.headers["x-policy-version"] == "1"
    assert "w1-1" in response.text
    assert "policy-v0" not in response.text
    [id] = live.ledger.completion_ids()
    [stored] = live.ledger.completions((id,)).values()
    assert (stored.policy_version, stored.version_changed_at) == (1, None)


async def test_prefixes_cached_by_other_weights_are_never_reused(live: Any, eventually: Any) -> None:
    """The engine cannot reset its cache while streams hold blocks, so each load has a salt of its own."""
    await live.chat(max_tokens=1)
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    await live.chat(max_tokens=1)
    live.gateway.registry.rollback(to=0, actor="t", reason="t")
    await eventually(lambda: live.served == 0)
    await live.chat(max_tokens=1)
    salts = [body["cache_salt"] for body in live.engine.state()["bodies"]]
    assert len(set(salts)) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"engine_checksum": "other"}, "weight digests differ", id="other bytes"),
        pytest.param({"engine_scores": [[-1.0, -1.0, -1.0], [-1.0, -1.0]]}, "0.00 of the way", id="old weights"),
        pytest.param({"engine_scores": [[-3.0, -3.0, -3.0], [-3.0, -3.0]]}, "off by", id="other weights"),
        pytest.param({"engine_scores": [[math.nan] * 3, [math.nan] * 2]}, "has no log-probs", id="NaN"),
    ],
)
async def test_a_failed_proof_brings_the_previous_policy_back(
    live: Any, eventually: Any, fault: Any, reason: str
) -> None:
    manifest_weights = {} if "engine_scores" in fault else None
    live.shelf.publish(1, move=0.2, weights=manifest_weights, **fault)
    await eventually(lambda: live.gateway.registry.states().get(1) == "rejected")
    await eventually(lambda: live.served == 0)
    assert live.gateway.registry.stable() == 0
    line = live.gateway.registry.audit()[-1]
    assert (line.action, line.actor, line.version) == ("reject", "engine", 0)
    assert reason in line.reason
    answer = (await live.chat(max_tokens=2)).json()
    assert answer["choices"][0]["message"]["content"] == "w0-0 "
    report = json.loads(live.gateway.registry.redis.get(LAST_SWAP))
    assert (report["ok"], report["from_version"], report["to_version"]) == (False, 0, 1)
    assert not Proof.model_validate(report["proof"]).proven


async def test_weights_whose_digests_differ_never_write_a_token(live: Any, eventually: Any) -> None:
    stream = asyncio.create_task(live.stream(max_tokens=150))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(1, move=0.1, engine_checksum="other")
    payloads = await stream
    assert live.gateway.registry.states()[1] == "rejected"
    assert payloads[-1] == "[DONE]"
    text = "".join(p["choices"][0]["delta"].get("content", "") for p in payloads[:-1])
    assert set(word.split("-")[0] for word in text.split()) == {"w0"}


async def test_what_weights_wrote_that_failed_their_proof_is_never_shown(live: Any, eventually: Any) -> None:
    """Golden scores need a running engine, so a wrong policy may write a little: that stream ends in an error."""
    stream = asyncio.create_task(live.stream(max_tokens=300))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(1, move=0.1, weights={}, engine_scores=[[-3.0, -3.0, -3.0], [-3.0, -3.0]])
    payloads = await stream
    assert payloads[-1]["error"]["code"] == "policy_unproven"
    assert "w1-" not in json.dumps(payloads)
    assert live.ledger.completion_ids() == []
    await eventually(lambda: live.served == 0)
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_a_damaged_directory_is_lost_before_the_engine_is_touched_and_may_come_back(
    live: Any, eventually: Any
) -> None:
    live.shelf.publish(1, move=0.4, stable=False)
    registry = live.gateway.registry
    weights = registry.directory(1) / "model" / "weights.json"
    whole = weights.read_text()
    weights.write_text("{}")
    before = live.engine.state()["calls"]
    live.shelf.promote(1)
    await eventually(lambda: registry.states()[1] == "broken")
    assert [call for call in live.engine.state()["calls"][len(before) :] if call != "probe"] == []
    assert (live.served, registry.audit()[-1].action) == (0, "lose")
    weights.write_text(whole)
    assert [(found.version, found.state) for found in reconcile(registry)] == [(1, "candidate")]


async def test_a_disk_that_cannot_be_read_ends_neither_the_version_nor_what_serves(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live.gateway.watcher.retry_s = 0.05
    live.shelf.publish(1, move=0.4, stable=False)

    def fail(registry: Any, version: int) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("serving.engine.watcher.read_policy", fail)
        live.shelf.promote(1)
        await eventually(lambda: caplog.text.count("policy-v1 cannot be read") >= 2)
        assert live.served == 0
        assert (await live.chat(max_tokens=2)).status_code == 200
        assert live.gateway.registry.states()[1] == "stable"
    await eventually(lambda: live.served == 1)


async def test_a_restarted_engine_gets_its_policy_back_before_it_serves(live: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    live.engine.kill()
    await eventually(lambda: live.served is None)
    assert (await live.chat()).status_code == 503
    assert (await live.http.get("/ready")).json()["ready"] is False
    live.engine.start()
    await eventually(lambda: live.served == 1)
    assert live.engine.state()["calls"][:2] == ["pause keep", "reload"]
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w1-0 "


async def test_a_restarted_gateway_does_not_take_the_parent_for_its_child(
    start: Any, shelf: Any, eventually: Any
) -> None:
    """The engine has no digests and computes with the parent's weights: nothing was proven before to compare with."""
    shelf.publish(1, move=0.1, weights={}, engine_scores=[[-1.0, -1.0, -1.0], [-1.0, -1.0]])
    live = await start()
    assert live.served == 0
    assert live.gateway.registry.states()[1] == "rejected"
    assert "trained from" in live.gateway.registry.audit()[-1].reason


async def test_an_engine_left_paused_by_a_killed_gateway_is_woken(start: Any, fake_engine: Any) -> None:
    httpx.post(f"{fake_engine.url}/pause?mode=keep")
    live = await start()
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_an_engine_that_hangs_is_not_ready(live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engine.watcher.PROBE_EVERY_S", 0.3)
    live.engine.set(hang=True)
    await eventually(lambda: live.served is None)
    assert "does not generate" in (await live.http.get("/ready")).json()["reasons"][0]
    live.engine.set(hang=False)
    await eventually(lambda: live.served == 0)


async def test_an_engine_at_rest_is_asked_now_and_then_and_at_once_when_it_is_doubted(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is asked costs its core time that tokens need."""
    watcher = live.gateway.watcher
    asked, looked = Counter[str](), watcher.target.look

    async def health(_: float) -> None:
        asked["engine"] += 1

    async def look() -> int | None:
        asked["pointer"] += 1
        version: int | None = await looked()
        return version

    monkeypatch.setattr(watcher, "ask_s", 3600.0)
    monkeypatch.setattr(watcher.engine, "health", health)
    monkeypatch.setattr(watcher.target, "look", look)
    await eventually(lambda: asked["pointer"] >= 5)
    assert asked["engine"] <= 1, "when the test began"
    live.gateway.gate.doubt()
    before = asked["engine"]
    await eventually(lambda: asked["engine"] == before + 1)
    asked["pointer"] = 0
    await eventually(lambda: asked["pointer"] >= 5)
    assert asked["engine"] == before + 1
    monkeypatch.setattr(watcher, "ask_s", 0.0)
    await eventually(lambda: asked["engine"] >= before + 4)


async def test_swaps_and_serving_survive_redis_being_away(live: Any, valkey: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    await live.chat(max_tokens=1)  # from now on the gateway knows the key
    valkey.kill()
    live.engine.kill()
    live.engine.start()  # this blocks the gateway's loop: it cannot see the engine gone, only that it is another
    await eventually(lambda: live.served is None)
    await eventually(lambda: live.served == 1)
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w1-0 "
    valkey.start()
    live.shelf.publish(2, move=-0.4)
    await eventually(lambda: live.served == 2)


async def test_a_faulty_engine_does_not_reject_policies_that_were_proven(live: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    live.gateway.watcher.retry_s = 0.05
    wrong = live.gateway.registry.directory(1) / "model" / "weights.json"
    original = wrong.read_text()
    live.engine.kill()
    await eventually(lambda: live.served is None)
    manifest = live.gateway.registry.manifest(1)
    forged = json.dumps({**json.loads(original), "scores": [[-5.0, -5.0, -5.0], [-5.0, -5.0]]})
    wrong.write_text(forged)  # as if the engine computed nonsense: the bytes on disk pass
    files = {**manifest.files, "model/weights.json": manifest.files["model/weights.json"].model_copy(
        update={"size": len(forged), "sha256": hashlib.sha256(forged.encode()).hexdigest()})}  # fmt: skip
    write_manifest(live.gateway.registry.directory(1), manifest.model_copy(update={"files": files}))
    live.engine.start()
    await eventually(lambda: _swaps(live, "failed") >= 2)
    assert live.gateway.registry.states() == {0: "retired", 1: "stable"}
    assert live.served is None


async def test_a_policy_that_kills_the_engine_again_and_again_is_rejected(live: Any, eventually: Any) -> None:
    live.gateway.watcher.retry_s = 0.05
    live.shelf.publish(1, move=0.4, kills_engine=True)
    for _ in range(3):
        await eventually(lambda: not live.engine.alive())
        live.engine.start()
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    await eventually(lambda: live.served == 0)


async def test_a_fault_nobody_foresaw_does_not_end_the_watcher(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.gateway.watcher.retry_s = 0.05

    def stumble(*_: Any) -> None:
        raise ArithmeticError("of all things")

    with monkeypatch.context() as patched:
        patched.setattr("serving.engine.verified.verify_files", stumble)
        live.shelf.publish(1, move=0.4)
        await eventually(lambda: live.served is None)
        assert "of all things" in (await live.http.get("/ready")).json()["reasons"][0]
    await eventually(lambda: live.served == 1)


async def test_no_policy_published_is_said_so(start: Any, settings: Any, shelf: Any) -> None:
    shelf.registry.redis.delete("policy:stable")
    live = await start(wait=False)
    response = await live.chat()
    assert response.status_code == 503
    assert "no policy" in response.json()["error"]["message"]
