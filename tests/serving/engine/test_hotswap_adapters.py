"""Swaps by adapter: the old policy goes on beside the new one until its streams have ended."""

import asyncio
from typing import Any

import pytest

from serving.engine.hotswap import SwapFailed


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
    await live.gateway.watcher.loader.settle()
    assert sorted(live.engine.state()["adapters"]) == ["policy-v1", "policy-v2"], "there is no way back"
    live.shelf.publish(3, move=0.2)
    await eventually(lambda: live.served == 3)
    await eventually(lambda: sorted(live.engine.state()["adapters"]) == ["policy-v2", "policy-v3"])
    await live.gateway.watcher.loader.settle()
    assert sorted(live.engine.state()["adapters"]) == ["policy-v2", "policy-v3"]
    assert "pause keep" not in live.engine.state()["calls"]


async def test_a_rollback_to_what_was_proven_waits_for_nothing(adapters: Any, eventually: Any) -> None:
    live = adapters
    for version, move in ((1, 0.4), (2, -0.4)):
        live.shelf.publish(version, move=move)
        await eventually(lambda version=version: live.served == version)
    await live.gateway.watcher.loader.settle()
    before = live.engine.state()["calls"]
    live.gateway.registry.rollback(to=1, actor="t", reason="t")
    await eventually(lambda: live.served == 1)
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w1-0 "
    assert live.engine.state()["calls"][len(before) :] == [], "read, measured or loaded anew"
    live.gateway.registry.rollback(to=0, actor="t", reason="t")
    await eventually(lambda: live.served == 0)
    assert "checksum" not in live.engine.state()["calls"][len(before) :], "the base was proven when it served first"


async def test_what_another_gateway_loaded_is_proven_and_not_loaded_again(
    start: Any, fake_engine: Any, shelf: Any, eventually: Any
) -> None:
    fake_engine.set(started_with=str(shelf.registry.directory(0) / "model"))
    shelf.publish(1, move=0.4)
    fake_engine.load_adapter("policy-v1", shelf.registry.directory(1) / "adapter")
    live = await start(engine_mode="adapter")
    assert live.served == 1
    calls = live.engine.state()["calls"]
    assert (calls.count("load policy-v1"), calls.count("unload policy-v1"), calls.count("checksum")) == (1, 0, 1)


async def test_what_bears_the_name_but_is_from_elsewhere_makes_way(
    start: Any, fake_engine: Any, shelf: Any, eventually: Any
) -> None:
    fake_engine.set(started_with=str(shelf.registry.directory(0) / "model"))
    shelf.publish(1, move=0.4)
    shelf.publish(2, move=-0.4)
    fake_engine.load_adapter("policy-v2", shelf.registry.directory(1) / "adapter")
    live = await start(engine_mode="adapter")
    assert live.served == 2
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w2-0 "


@pytest.mark.parametrize("by_another", [False, True])
async def test_a_proof_is_of_what_never_left_the_engine_since(adapters: Any, eventually: Any, by_another: bool) -> None:
    """Version 1 is proven, is unloaded, and comes back as something else."""
    live = adapters
    for version, move in ((1, 0.4), (2, -0.4), (3, 0.2)):
        live.shelf.publish(version, move=move)
        await eventually(lambda version=version: live.served == version)
    await eventually(lambda: "policy-v1" not in live.engine.state()["adapters"])
    live.engine.set(mixed_bug=True)
    if by_another:
        live.engine.load_adapter("policy-v1", live.shelf.registry.directory(1) / "adapter")
    live.gateway.registry.rollback(to=1, actor="t", reason="t")
    loader, policy = live.gateway.watcher.loader, live.gateway.watcher._read
    for _ in range(2):  # not the second time either
        with pytest.raises(SwapFailed):
            await loader.load(await policy(1))
    assert live.served == 3


async def test_an_adapter_that_has_no_numbers_is_refused(adapters: Any, eventually: Any) -> None:
    live = adapters
    live.shelf.publish(1, move=0.4, engine_scores=[[float("nan")] * 3, [-1.0, -1.0]])
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    assert live.served == 0


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


async def test_an_adapter_that_a_restarted_engine_lost_is_forgotten(adapters: Any, eventually: Any) -> None:
    live = adapters
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    live.engine.kill()
    live.engine.start()
    live.engine.set(started_with=str(live.shelf.registry.directory(0) / "model"))
    for version, move in ((2, -0.4), (3, 0.2)):
        live.shelf.publish(version, move=move)
        await eventually(lambda version=version: live.served == version)
    await eventually(lambda: live.gateway.watcher.loader.adapters.present == {2, 3})
    assert live.engine.state()["calls"].count("unload policy-v1") == 1
