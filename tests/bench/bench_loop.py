"""The loop in figures, on the real service: start, the gateway beside the bare engine, a round, the swap under streams.

`make bench` prints a table and writes `.ratchet/bench/loop.json`.
"""

import asyncio
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from feedback.hardware import local_dtype
from tests.e2e.conftest import SHORT_ROUND, Service, wait_for
from tests.e2e.test_loop import QUESTIONS, chatting, rank_shortest_first, served
from training.base_model import DEFAULT_MODEL, fetch_base_model

STREAMS, TOKENS, REPEATS = 8, 64, 5


@dataclass(frozen=True)
class Streamed:
    """What clients saw of streams that ran together."""

    tokens_per_s: float
    first_token_s: float  # median over streams


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    model = fetch_base_model(DEFAULT_MODEL, Path(".ratchet").absolute(), print)
    (tmp_path / "round.json").write_text(json.dumps(SHORT_ROUND))
    service = Service(tmp_path, model)
    yield service
    if service.process is not None and service.process.poll() is None:
        service.stop()


def test_the_loop(service: Service) -> None:
    figures: dict[str, float | str] = {"machine": machine()}
    started = time.monotonic()
    service.start()
    figures["start to ready, s"] = time.monotonic() - started
    figures |= gateway_beside_engine(service)
    figures |= swap_under_streams(service)
    show(figures)


def gateway_beside_engine(service: Service) -> dict[str, float | str]:
    """The same streams through the gateway (which records each one durably) and straight to vLLM, by turns."""
    engine = service.settings.resolved_engine_url(), service.settings.resolved_engine_key()
    gateway = service.url, service.key
    rounds = [(asyncio.run(stream_all(*engine)), asyncio.run(stream_all(*gateway))) for _ in range(REPEATS + 1)]
    bare, ours = zip(*rounds[1:], strict=True)  # the first warms up
    ratios = [b.tokens_per_s / a.tokens_per_s for a, b in zip(bare, ours, strict=True)]
    return {
        "vLLM alone, tokens/s": statistics.median(one.tokens_per_s for one in bare),
        "through the gateway, tokens/s": statistics.median(one.tokens_per_s for one in ours),
        "gateway / vLLM, median of ratios": statistics.median(ratios),
        "gateway / vLLM, lowest": min(ratios),
        "vLLM alone, first token, s": statistics.median(one.first_token_s for one in bare),
        "through the gateway, first token, s": statistics.median(one.first_token_s for one in ours),
    }


async def stream_all(url: str, key: str) -> Streamed:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=120) as client:
        started = time.monotonic()
        firsts = await asyncio.gather(*(stream(client, number) for number in range(STREAMS)))
        return Streamed(STREAMS * TOKENS / (time.monotonic() - started), statistics.median(firsts))


async def stream(client: httpx.AsyncClient, number: int) -> float:
    """Seconds to the first token of one stream, which is read to its end."""
    messages = [{"role": "user", "content": f"Tell me a long story about {QUESTIONS[number]}"}]
    body = {"model": "policy", "messages": messages, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    started, first = time.monotonic(), None
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if first is None and '"content":"' in line.replace(" ", "") and '"content":""' not in line:
                first = time.monotonic() - started
    assert first is not None
    return first


def swap_under_streams(service: Service) -> dict[str, float | str]:
    """A short round while people chat, then as many swaps there and back as there are repeats."""
    for question in QUESTIONS:
        rank_shortest_first(service, question)
    paused, held = [], []
    with chatting(service, STREAMS) as chatters:
        started = time.monotonic()
        round = service.post("/v1/rounds", {}).json()["id"]
        wait_for(lambda: served(service) == "policy-v1", seconds=900, what=f"round {round} serving")
        trained = time.monotonic() - started
        for turn in range(REPEATS):
            service.cli("rollback", str(turn % 2))
            wait_for(lambda turn=turn: served(service) == f"policy-v{turn % 2}", seconds=60, what="the swap")
            last = service.get("/v1/policies")["last_swap"]
            paused.append(last["pause_s"])
            held.append(last["held_s"])
    failures = [failure for chatter in chatters for failure in chatter.failures]
    assert not failures, failures
    return {
        "short round (8 rollouts) beside 8 streams, s": trained,
        "swap, engine paused, median s": statistics.median(paused),
        "swap, clients held, median s": statistics.median(held),
        "swap, clients held, worst s": max(held),
        "chats in all": float(sum(len(chatter.versions) for chatter in chatters)),
        "chats failed": float(len(failures)),
    }


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return f"{len(names)} cores, {names[0] if names else platform.machine()}, {local_dtype()}"


def show(figures: dict[str, float | str]) -> None:
    table = Table("what", "figure", title="the loop")
    for name, figure in figures.items():
        table.add_row(name, figure if isinstance(figure, str) else f"{figure:.3g}")
    Console(width=110).print(table)
    path = Path(".ratchet/bench/loop.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {path}")
