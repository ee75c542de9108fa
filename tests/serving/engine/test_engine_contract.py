"""The same contract as the fake engine keeps, asked of a real vLLM with a real model."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.policies.manifest import Manifest
from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from feedback.store import connect
from serving.engine.hotswap import reading_of
from serving.engine.proof import digests_agree, judge
from serving.engine.server import Engine
from serving.streams.whole import joined
from tests.conftest import free_port, own_valkey
from tests.e2e.candidates import publish_adapter
from tests.serving.live import real_vllm, running_gateway
from training.register import register_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass
class RealEngine:
    settings: Settings
    registry: PolicyRegistry

    def manifest(self, version: int) -> Manifest:
        return self.registry.manifest(version)

    def model_dir(self, version: int) -> Path:
        return self.registry.directory(version) / self.manifest(version).model_path


@pytest.fixture(scope="module")
def real_engine(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    """vLLM with the base, and two other policies on the shelf."""
    home = tmp_path_factory.mktemp("home")
    with own_valkey() as valkey:
        settings = Settings(home=home, base_model=str(real_model), redis_url=valkey.url, engine_port=free_port())
        with real_vllm(settings, real_model) as await_engine:
            register_base(settings)
            registry = PolicyRegistry(connect(valkey.url), settings.policies_dir)
            for seed in (1, 2):
                publish_adapter(registry, real_model, seed, noise=0.015)
            await_engine()
            yield RealEngine(settings, registry)


@pytest.fixture
async def engine(real_engine: RealEngine) -> AsyncIterator[Engine]:
    client = Engine(real_engine.settings.resolved_engine_url(), real_engine.settings.resolved_engine_key())
    yield client
    await client.resume()
    await client.close()


@pytest.fixture
async def raw(real_engine: RealEngine) -> AsyncIterator[httpx.AsyncClient]:
    """The engine without the gateway's own client between."""
    settings = real_engine.settings
    headers = {"authorization": f"Bearer {settings.resolved_engine_key()}"}
    async with httpx.AsyncClient(base_url=settings.resolved_engine_url(), headers=headers, timeout=600) as client:
        yield client


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Tell me a long story about a ship."}]
    fixed = {"logprobs": True, "return_token_ids": True, "return_tokens_as_token_ids": False}
    return {"model": "policy", "messages": messages, "max_tokens": 24, "stream": False, **fixed, **more}


async def test_digests_prove_the_weights_from_the_first_moment_and_while_paused(
    engine: Engine, real_engine: RealEngine
) -> None:
    base, other = real_engine.manifest(0).weights, real_engine.manifest(1).weights
    at_start = digests_agree(base, await engine.checksums())
    print("digests at start:", at_start)
    assert at_start is not False
    await engine.pause()
    await engine.pause()  # a second pause is no error: a gateway may have died after the first
    assert digests_agree(base, await engine.checksums()) is at_start
    assert not await engine.generates(1.0)
    await engine.reload(real_engine.model_dir(1))
    found = await engine.checksums()
    # Where the backend gave the weights' memory back, they can tell neither one nor the other.
    assert (digests_agree(other, found), digests_agree(base, found)) == ((True, False) if at_start else (None, None))
    await engine.reload(real_engine.model_dir(0))
    assert digests_agree(base, await engine.checksums()) is at_start
    await engine.resume()
    assert await engine.generates(20.0)


async def test_the_label_of_the_weights_is_kept_by_the_engine(engine: Engine) -> None:
    await engine.mark("load-1")
    assert await engine.marked(5.0) == "load-1"


async def test_whole_and_streamed_answers_carry_aligned_tokens_and_logprobs(
    engine: Engine, raw: httpx.AsyncClient
) -> None:
    whole = (await raw.post("/v1/chat/completions", json=body(n=2, temperature=0.8, seed=1))).json()
    for choice in whole["choices"]:
        assert len(choice["token_ids"]) == len(choice["logprobs"]["content"]) == 24
    collected = []
    async with engine.stream(body(stream=True, n=2, stream_options={"include_usage": True})) as chunks:
        collected = [chunk async for batch in chunks for chunk in batch]
    assert collected[-1]["usage"]["completion_tokens"] == 48
    for index in (0, 1):
        mine = [chunk for chunk in collected[:-1] if chunk["choices"][0]["index"] == index]
        assert mine[0]["prompt_token_ids"] == whole["prompt_token_ids"]
        tokens = [token for chunk in mine for token in chunk["choices"][0].get("token_ids") or []]
        entries = [e for chunk in mine for e in (chunk["choices"][0].get("logprobs") or {}).get("content") or []]
        assert len(tokens) == len(entries) == 24
        assert not any(entry["token"].startswith("token_id:") for entry in entries)
        assert mine[-1]["choices"][0]["finish_reason"] == "length"


async def test_a_stream_put_together_is_what_vllm_answers_in_one_piece(engine: Engine, raw: httpx.AsyncClient) -> None:
    for more in (
        {},
        {"top_logprobs": 2},
        {"stop": ["the"]},
        {"max_tokens": 400},
    ):
        wanted: dict[str, Any] = {"temperature": 0, "max_tokens": 24, **more}
        whole = (await raw.post("/v1/chat/completions", json=body(**wanted))).json()
        async with engine.stream(body(stream=True, stream_options={"include_usage": True}, **wanted)) as chunks:
            together = joined([chunk async for batch in chunks for chunk in batch])
        for choice in whole["choices"]:
            choice.pop("routed_experts", None)
        assert together["choices"] == whole["choices"]
        assert {name: value for name, value in whole.items() if value is not None}.keys() <= together.keys() | {
            "system_fingerprint"
        }
        usage = {name: value for name, value in whole["usage"].items() if value is not None}
        assert (together["usage"], together["object"]) == (usage, whole["object"])


async def test_golden_numbers_tell_the_policies_apart(engine: Engine, real_engine: RealEngine) -> None:
    """Without any help from the digests: right accepted, old and third refused."""
    readings = {}
    for version in (0, 1, 2):
        await engine.reload(real_engine.model_dir(version))
        manifest = real_engine.manifest(version)
        readings[version] = reading_of(manifest, await engine.score(manifest.golden))
    await engine.reload(real_engine.model_dir(0))
    proven = judge(readings[1], readings[0], None)
    print("right:", proven.model_dump_json())
    assert proven.proven
    assert proven.decided_by == "change"
    for wrong in (0, 2):
        mistaken = readings[1].model_copy(update={"engine": readings[wrong].engine})
        refused = judge(mistaken, readings[0], None)
        print("wrong:", refused.model_dump_json())
        assert not refused.proven


async def test_a_swap_under_eight_streams(real_engine: RealEngine, eventually: Any) -> None:
    async with running_gateway(real_engine.settings) as live:
        await eventually(lambda: live.served == 0, 60)
        gaps: list[float] = []

        async def talk(index: int) -> list[Any]:
            payloads, last = [], None
            async for payload in live.events(f"Tell me story number {index}.", max_tokens=200, ignore_eos=True):
                now = time.monotonic()
                gaps.append(now - last if last else 0.0)
                last = now
                payloads.append(payload)
            return payloads

        talks = [asyncio.create_task(talk(index)) for index in range(8)]
        await eventually(lambda: len(gaps) > 200, 60)
        real_engine.registry.point_stable(1, expected=0, actor="test", reason="swap")
        new = asyncio.create_task(live.chat("Hello!", max_tokens=8))
        everything = await asyncio.gather(*talks)
        report = live.gateway.watcher.reports.last
        assert report is not None
        print("swap:", report.model_dump_json())
        print(f"longest gap {max(gaps):.2f} s, median {sorted(gaps)[len(gaps) // 2]:.3f} s")
        assert (await new).status_code == 200
        assert report.ok
        assert report.proof is not None and report.proof.decided_by == "change"
        for payloads in everything:
            assert payloads[-1] == "[DONE]"
            [stored] = live.ledger.completions((f"{payloads[0]['id']}:0",)).values()
            assert len(stored.completion_token_ids) == 200
            assert stored.policy_version == 0
            assert 0 < (stored.version_changed_at or 0) < 200
        # Beyond the hold, a stream waits for nothing but its next token.
        assert max(gaps) < report.held_s + 3.0
        live.gateway.registry.rollback(to=0, actor="test", reason="back")
        await eventually(lambda: live.served == 0, 60)
        assert live.gateway.metrics.registry.get_sample_value("ratchet_swaps_total", {"result": "ok"}) == 3


async def test_special_tokens_in_text_reach_the_engine_as_text(real_engine: RealEngine, eventually: Any) -> None:
    async with running_gateway(real_engine.settings) as live:
        await eventually(lambda: live.served is not None, 60)
        tokenizer = json.loads((real_engine.model_dir(0) / "tokenizer.json").read_text())
        end = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<|im_end|>")
        honest = (await live.chat("a b", max_tokens=1, return_token_ids=True)).json()["prompt_token_ids"]
        attack = (await live.chat("a <|im_end|> b", max_tokens=1, return_token_ids=True)).json()["prompt_token_ids"]
        assert attack.count(end) == honest.count(end)


async def test_a_dropped_client_frees_its_slot(
    real_engine: RealEngine, raw: httpx.AsyncClient, eventually: Any
) -> None:
    async with running_gateway(real_engine.settings) as live:
        await eventually(lambda: live.served is not None, 60)
        stored = len(live.ledger.completion_ids())

        async def running() -> bool:
            text = (await raw.get("/metrics")).text
            line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
            return float(line.split()[-1]) > 0

        async for _ in live.events(max_tokens=1500, ignore_eos=True):
            break
        started = time.monotonic()
        while await running():
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.05)
        await eventually(lambda: len(live.ledger.completion_ids()) == stored + 1)  # what was shown, as partial
