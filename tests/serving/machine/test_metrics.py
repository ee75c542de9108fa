"""What Prometheus reads: counted once, under few labels, and there even when Redis is not."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import NEXT_TOKEN_S, Metrics, Pace

ROOT = Path(__file__).parents[3]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    return {
        (sample.name.removeprefix("ratchet_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(live: Any) -> Series:
    return parsed((await live.http.get("/metrics")).text)


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


async def test_an_answer_is_counted_with_its_tokens_and_their_times(live: Any) -> None:
    payloads = await live.stream("hey", n=2, max_tokens=5)
    assert payloads[-1] == "[DONE]"
    series = await scrape(live)
    route = "/v1/chat/completions"
    assert value(series, "requests_total", method="POST", route=route, status="200") == 1
    assert value(series, "request_seconds_count", route=route) == 1
    assert value(series, "ttft_seconds_count") == 1
    assert value(series, "inter_token_seconds_count") == 4, "five tokens of the first choice"
    # The fake engine takes about 10 ms for each, and its prompt's tokens are bytes.
    assert 0.03 <= (value(series, "inter_token_seconds_sum") or 0) < 5
    assert value(series, "prompt_tokens_total", policy_version="0") == 3
    assert value(series, "completion_tokens_total", policy_version="0") == 10
    assert value(series, "completions_stored_total") == 2
    assert value(series, "completions_lost_total") == 0
    assert (value(series, "in_flight"), value(series, "streams_open")) == (0, 0)


async def test_open_and_broken_streams_are_seen(live: Any) -> None:
    events = live.events("hey", max_tokens=500)
    await anext(events)
    series = await scrape(live)
    assert (value(series, "in_flight"), value(series, "streams_open")) == (1, 1)
    live.engine.kill()
    assert "error" in [payload async for payload in events][-1]
    series = await scrape(live)
    assert value(series, "streams_broken_total") == 1
    assert (value(series, "in_flight"), value(series, "streams_open")) == (0, 0)


async def test_feedback_is_counted_by_what_became_of_it(live: Any) -> None:
    [id] = await live.completion_ids()
    for thumb in (1, 1, -1):
        body = {"type": "rating", "completion_id": id, "value": thumb}
        assert (await live.http.post("/v1/feedback", json=body)).is_success
    series = await scrape(live)
    for status in ("created", "same", "revised"):
        assert value(series, "feedback_total", type="rating", status=status) == 1


async def test_what_clients_make_up_is_no_label(live: Any) -> None:
    for path in ("/v1/feedback/fb_1", "/v1/feedback/fb_2", "/nothing/a", "/nothing/b"):
        await live.http.get(path)
    await live.http.request("DELETE", "/v1/models/policy")
    series = await scrape(live)
    assert value(series, "requests_total", method="GET", route="/v1/feedback/{id}", status="404") == 2
    assert value(series, "requests_total", method="GET", route="other", status="404") == 2
    assert value(series, "requests_total", method="DELETE", route="/v1/models/{id}", status="405") == 1


def test_made_up_methods_are_one_label() -> None:
    metrics = Metrics()
    for method in ("BREW", "WHEN"):
        metrics.finished(method, "other", 405, 0.1)
    series = parsed(metrics.exposition(CollectorRegistry()).decode())
    assert value(series, "requests_total", method="other", route="other", status="405") == 2


async def test_the_open_round_is_shown_with_its_progress(live: Any) -> None:
    series = await scrape(live)
    assert value(series, "learning_frozen") == 0
    assert not [name for name, _ in series if name.startswith("round_")]
    rounds = live.gateway.rounds
    id, _ = rounds.request(trigger="operator", actor="root")
    token = rounds.claim(id, owner="w", lease_s=60)
    rounds.write(id, token, stage="ppo", progress={"stage": "ppo", "step": 3, "total": 12})
    rounds.freeze(True, actor="test", reason="test")
    series = await scrape(live)
    assert value(series, "round_stage", stage="ppo") == 1
    assert value(series, "round_progress_ratio") == 0.25
    assert value(series, "learning_frozen") == 1


async def test_a_frozen_redis_costs_the_rounds_not_the_scrape(live: Any, freeze_redis: Any) -> None:
    freeze_redis()
    started = time.monotonic()
    series = await scrape(live)
    assert time.monotonic() - started < 1.5
    assert value(series, "learning_frozen") is None
    assert value(series, "policy_version") == 0


async def test_gateways_in_one_process_count_apart(start: Any) -> None:
    one = await start()
    await one.chat()
    other = await start()  # after the answer: to begin with, a gateway takes the engine for itself
    assert value(await scrape(one), "ttft_seconds_count") == 1
    assert value(await scrape(other), "ttft_seconds_count") == 0


def test_tokens_fall_into_the_bucket_of_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.3, 100.3005, 100.302, 200.0])  # asked, then four tokens
    monkeypatch.setattr("serving.metrics.perf_counter", lambda: next(times))
    metrics = Metrics()
    with metrics.answering() as pace:
        for _ in range(4):
            pace.tick()
    series = parsed(metrics.exposition(CollectorRegistry()).decode())
    assert value(series, "ttft_seconds_sum") == pytest.approx(0.3)
    buckets = [value(series, "inter_token_seconds_bucket", le=f"{le}") for le in (*NEXT_TOKEN_S, "+Inf")]
    # 0.5 ms, 1.5 ms, and one beyond all bounds; cumulative.
    assert buckets == [1, *[2] * (len(NEXT_TOKEN_S) - 1), 3]
    assert value(series, "inter_token_seconds_sum") == pytest.approx(99.7)


def test_an_answer_without_a_token_has_no_times() -> None:
    metrics = Metrics()
    with pytest.raises(RuntimeError), metrics.answering() as pace:
        raise RuntimeError
    assert isinstance(pace, Pace)
    series = parsed(metrics.exposition(CollectorRegistry()).decode())
    assert value(series, "ttft_seconds_count") == 0
    assert value(series, "in_flight") == 0


def test_processes_that_share_a_directory_are_added_up(tmp_path: Path) -> None:
    script = (
        "from prometheus_client import CollectorRegistry; from serving.metrics import Metrics; m = Metrics()\n"
        "with m.answering() as pace: pace.tick(); pace.tick()\n"
        "m.finished('GET', '/ready', 200, 0.1); print(m.exposition(CollectorRegistry()).decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    ]
    first, second = parsed(texts[0]), parsed(texts[1])
    for series, processes in ((first, 1), (second, 2)):
        assert value(series, "requests_total", method="GET", route="/ready", status="200") == processes
        assert value(series, "inter_token_seconds_count") == processes
        assert value(series, "ttft_seconds_count") == processes
    assert value(second, "in_flight") == 0
