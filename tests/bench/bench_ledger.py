"""Feedback that is acknowledged only when it is on the disk: how many a second, beside the least that could be written.

`make bench` prints a table and writes `.ratchet/bench/ledger.json`. The limit is a bare XADD of the same bytes into the
same Valkey, which fsyncs every write; both sides wait for each answer, by turns, so that a noisy machine hits both.
"""

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from feedback.judgements import Feedback, Rating
from feedback.records import new_id
from feedback.store import Ledger, connect

JUDGEMENTS, REPEATS = 1000, 5


def judgement(number: int) -> Feedback:
    rating = Rating(completion_id=f"completion-{number}", value=1)
    return Feedback(id=new_id("fb_"), judgement=rating, rater=f"rater-{number % 50}", split="train", created=1.0)


@pytest.mark.parametrize("writers", [1, 8])
def test_acknowledged_judgements(valkey_url: str, writers: int) -> None:
    redis = connect(valkey_url)
    ledger = Ledger(redis)

    def rate(write: Callable[[Feedback], object]) -> float:
        work = [judgement(number) for number in range(JUDGEMENTS)]
        redis.flushall()
        with ThreadPoolExecutor(writers) as pool:
            started = time.perf_counter()
            list(pool.map(write, work))
            return JUDGEMENTS / (time.perf_counter() - started)

    def bare(feedback: Feedback) -> object:
        return redis.xadd("bare", {"body": feedback.model_dump_json()})

    pairs = [(rate(ledger.append_feedback), rate(bare)) for _ in range(REPEATS + 1)][1:]  # the first warms up
    ratios = [ours / limit for ours, limit in pairs]
    show(
        writers,
        {
            "ledger, judgements/s": statistics.median(ours for ours, _ in pairs),
            "bare fsynced XADD, entries/s": statistics.median(limit for _, limit in pairs),
            "ledger / bare, median of ratios": statistics.median(ratios),
            "ledger / bare, lowest": min(ratios),
        },
    )


def show(writers: int, figures: dict[str, float]) -> None:
    table = Table("what", "figure", title=f"acknowledged feedback, {writers} writers")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.3g}")
    Console(width=100).print(table)
    path = Path(".ratchet/bench/ledger.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, f"{writers} writers": figures}, indent=2) + "\n")
