"""Swaps under way: streams live on, unproven weights never speak, and the proof tells new from old and third."""

import asyncio
import json
import math
from typing import Any

import pytest

from serving.proof import Proof, Reading, digests_agree, judge
from serving.watcher import LAST_SWAP

GOLDEN = ((1, 2, 3, 4, 5),)


def reading(version: int, engine: list[float], trainer: list[float]) -> Reading:
    return Reading(version=version, golden=GOLDEN, engine=(tuple(engine),), trainer=(tuple(trainer),))


# By hand: the engine reads 0.01 to 0.03 off the trainer; the new policy moves by ±0.2.
OLD = reading(1, [-1.01, -2.02, -0.99, -3.03], [-1.0, -2.0, -1.0, -3.0])
NEW_TRAINER = [-0.8, -2.2, -0.8, -3.2]
NEW_ENGINE = [-0.81, -2.21, -0.8, -3.22]


@pytest.mark.parametrize("checksum", [True, None])
def test_the_new_policy_is_recognised_by_its_change(checksum: bool | None) -> None:
    proof = judge(reading(2, NEW_ENGINE, NEW_TRAINER), OLD, checksum)
    assert proof.proven
    assert proof.decided_by == "change"
    # Changes seen +0.20 -0.19 +0.19 -0.19 against told +0.2 -0.2 +0.2 -0.2.
    assert proof.slope == pytest.approx(0.77 / 0.8)
    assert proof.signal == pytest.approx(0.2)
    assert proof.residual == pytest.approx(math.sqrt(3 * 0.01**2 / 4))
    assert proof.tokens == 4


def test_the_old_policy_still_in_the_engine_is_refused() -> None:
    proof = judge(reading(2, list(OLD.engine[0]), NEW_TRAINER), OLD, None)
    assert not proof.proven
    assert proof.slope == 0
    assert "0.00 of the way" in proof.reason


@pytest.mark.parametrize(
    "third",
    [
        pytest.param([-0.61, -2.42, -0.59, -3.43], id="twice as far"),
        pytest.param([-1.21, -1.82, -1.19, -2.83], id="the other way"),
        pytest.param([-0.61, -2.02, -0.99, -3.23], id="elsewhere"),
        pytest.param([-0.91, -2.11, -0.9, -3.12], id="half way"),
    ],
)
def test_a_third_policy_is_refused(third: list[float]) -> None:
    assert not judge(reading(2, third, NEW_TRAINER), OLD, None).proven


def test_a_third_policy_with_the_right_slope_but_other_numbers_is_refused() -> None:
    """Orthogonal to the told change: it adds +d +d -d -d to ±0.2, so the slope stays 1."""
    d = 0.12
    engine = [-0.81 + d, -2.22 + d, -0.79 - d, -3.23 - d]
    proof = judge(reading(2, engine, NEW_TRAINER), OLD, None)
    assert proof.slope == pytest.approx(1.0)
    assert not proof.proven
    assert "residual" in proof.reason


def test_a_change_below_the_noise_is_left_to_the_digests() -> None:
    trainer = [-1.001, -2.001, -0.999, -3.001]
    still_old = reading(2, list(OLD.engine[0]), trainer)
    assert judge(still_old, OLD, True).decided_by == "checksum"
    assert judge(still_old, OLD, True).proven
    assert judge(still_old, OLD, None).decided_by == "nothing"
    assert not judge(still_old, OLD, None).proven
    assert not judge(still_old, OLD, False).proven


def test_the_same_numbers_trained_anew_are_left_to_the_digests() -> None:
    twin = reading(2, list(OLD.engine[0]), list(OLD.trainer[0]))
    assert judge(twin, OLD, True).slope_error is None
    assert judge(twin, OLD, True).proven


def test_without_an_old_policy_the_numbers_count_as_they_are() -> None:
    assert judge(reading(2, NEW_ENGINE, NEW_TRAINER), None, None).decided_by == "absolute"
    assert judge(reading(2, NEW_ENGINE, NEW_TRAINER), None, True).decided_by == "checksum"
    far = judge(reading(2, [score - 0.3 for score in NEW_TRAINER], NEW_TRAINER), None, True)
    assert not far.proven
    assert far.gap == pytest.approx(0.3)


@pytest.mark.parametrize("engine", [[-1.0, -1.0, -1.0], [-1.0, math.nan, -1.0, -1.0], [-1.0, -math.inf, -1.0, -1.0]])
def test_missing_or_broken_numbers_prove_nothing(engine: list[float]) -> None:
    assert not judge(reading(2, engine, NEW_TRAINER), None, True).proven


def test_digests_that_differ_refute_alone_and_no_evidence_proves_nothing() -> None:
    empty = Reading(version=2, golden=(), engine=(), trainer=())
    assert not judge(reading(2, NEW_ENGINE, NEW_TRAINER), OLD, False).proven
    assert not judge(empty, None, None).proven
    assert judge(empty, None, True).proven


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "3"}, False),
        ({"a": "1"}, None),
        ({"a": "9"}, False),
        ({"tp0:a": "4", "tp1:a": "5"}, None),
        ({}, None),
    ],
)
def test_digests_prove_only_what_they_cover(found: dict[str, str], verdict: bool | None) -> None:
    assert digests_agree({"a": "1", "b": "2"}, found) is verdict
    assert digests_agree({}, {}) is None


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
    assert live.gateway.watcher.last.in_flight >= 8
    assert 0.05 <= live.gateway.watcher.last.pause_s < 3


async def test_a_whole_answer_across_a_swap_says_so(live: Any, eventually: Any) -> None:
    request = asyncio.create_task(live.chat(max_tokens=60))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(1, move=0.4)
    answer = (await request).json()
    [stored] = live.ledger.completions((f"{answer['id']}:0",)).values()
    assert (stored.policy_version, stored.version_changed_at) == (0, 0)


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


async def test_a_damaged_directory_is_rejected_before_the_engine_is_touched(live: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4, stable=False)
    (live.gateway.registry.directory(1) / "model" / "weights.json").write_text("{}")
    before = live.engine.state()["calls"]
    live.shelf.promote(1)
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    assert [call for call in live.engine.state()["calls"][len(before) :] if call != "probe"] == []
    assert live.served == 0


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


async def test_an_engine_left_paused_by_a_killed_gateway_is_woken(start: Any, fake_engine: Any) -> None:
    import httpx

    httpx.post(f"{fake_engine.url}/pause?mode=keep")
    live = await start()
    assert (await live.chat(max_tokens=2)).status_code == 200


async def test_an_engine_that_hangs_is_not_ready(live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.watcher.PROBE_EVERY_S", 0.3)
    live.engine.set(hang=True)
    await eventually(lambda: live.served is None)
    assert "does not generate" in (await live.http.get("/ready")).json()["reasons"][0]
    live.engine.set(hang=False)
    await eventually(lambda: live.served == 0)


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
        update={"size": len(forged), "sha256": __import__("hashlib").sha256(forged.encode()).hexdigest()})}  # fmt: skip
    from feedback.manifest import write_manifest

    write_manifest(live.gateway.registry.directory(1), manifest.model_copy(update={"files": files}))
    live.engine.start()
    await eventually(lambda: live.gateway.watcher.swaps["failed"] >= 2)
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


async def test_no_policy_published_is_said_so(start: Any, settings: Any, shelf: Any) -> None:
    shelf.registry.redis.delete("policy:stable")
    live = await start(wait=False)
    response = await live.chat()
    assert response.status_code == 503
    assert "no policy" in response.json()["error"]["message"]


@pytest.fixture
async def adapters(start: Any, fake_engine: Any, shelf: Any) -> Any:
    """An engine started with the base, into which policies come as adapters."""
    fake_engine.set(started_with=str(shelf.registry.directory(0) / "model"))
    return await start(engine_mode="adapter")


async def test_adapters_are_loaded_beside_the_old_and_unloaded_when_drained(adapters: Any, eventually: Any) -> None:
    live = adapters
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    stream = asyncio.create_task(live.stream(max_tokens=150))
    await eventually(lambda: live.engine.state()["active"] == 1)
    live.shelf.publish(2, move=-0.4)
    await eventually(lambda: live.served == 2)
    assert sorted(live.engine.state()["adapters"]) == ["policy-v1", "policy-v2"], "unloaded under a stream"
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w2-0 "
    payloads = await stream
    text = "".join(p["choices"][0]["delta"].get("content", "") for p in payloads[:-1])
    assert {word.split("-")[0] for word in text.split()} == {"w1"}
    [stored] = live.ledger.completions((f"{payloads[0]['id']}:0",)).values()
    assert (stored.policy_version, stored.version_changed_at) == (1, None)
    await eventually(lambda: live.engine.state()["adapters"] == ["policy-v2"])
    assert "pause keep" not in live.engine.state()["calls"]


async def test_adapters_on_anything_but_the_base_are_refused(
    start: Any, fake_engine: Any, shelf: Any, eventually: Any
) -> None:
    """An adapter on top of weights that hold it already moves as far as on the base: only digests can tell."""
    shelf.publish(1, move=0.4, stable=False)
    fake_engine.set(started_with=str(shelf.registry.directory(1) / "model"))
    live = await start(engine_mode="adapter", wait=False)
    await eventually(lambda: "not started with the base" in live.gateway.gate.reason)
    assert (await live.chat()).status_code == 503


async def test_adapters_that_leak_into_other_rows_are_refused(adapters: Any, eventually: Any) -> None:
    """vLLM's CPU backend does this: rows without an adapter get the adapter's output."""
    live = adapters
    live.engine.set(mixed_bug=True)
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    assert "mixed batch" in live.gateway.registry.audit()[-1].reason
    assert live.served == 0
    assert (await live.chat(max_tokens=2)).json()["model"] == "policy-v0"


async def test_adapters_that_never_arrived_are_refused(adapters: Any, eventually: Any) -> None:
    live = adapters
    live.shelf.publish(1, move=0.25, engine_scores=[[-1.0, -1.0, -1.0], [-1.0, -1.0]])
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    assert "0.00 of the way" in live.gateway.registry.audit()[-1].reason
