"""Rounds by turns, and what is said of them."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from rig import Round, Server

Figures = dict[str, Any]


def by_turns(sides: Sequence[Server], repeats: int, run: Callable[[Server], Round]) -> dict[str, list[Round]]:
    """`repeats` rounds of each side, by turns, so that a noisy machine hits all; the first of each is thrown away."""
    rounds: dict[str, list[Round]] = {side.name: [] for side in sides}
    for _ in range(repeats + 1):
        for side in sides:
            rounds[side.name].append(run(side))
    return {name: each[1:] for name, each in rounds.items()}


def spread(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(rounds: Sequence[Round], figure: Callable[[Round], float]) -> Figures:
    return spread([figure(each) for each in rounds])


def ratio(ours: Sequence[Round], theirs: Sequence[Round], figure: Callable[[Round], float]) -> Figures:
    """Of neighbouring rounds."""
    return spread([figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True)])


def difference(ours: Sequence[Round], theirs: Sequence[Round], figure: Callable[[Round], float]) -> Figures:
    """Of neighbouring rounds."""
    return spread([figure(a) - figure(b) for a, b in zip(ours, theirs, strict=True)])


def at_least(figures: Figures, target: float) -> Figures:
    return {**figures, "target": f">= {target:g}", "met": figures["median"] >= target}


def below(figures: Figures, target: float) -> Figures:
    return {**figures, "target": f"< {target:g}", "met": figures["median"] < target}


def percentile(values: Sequence[float], share: float) -> float:
    """The value at a share of a sorted sequence."""
    return float(values[min(int(share * len(values)), len(values) - 1)])


def tokens_per_s(done: Round) -> float:
    return float(done.seen["tokens"] / done.seen["seconds"])


def cpu_us(done: Round) -> float:
    """CPU of the server per token, in microseconds."""
    return 1e6 * done.cpu_s / float(done.seen["tokens"])


def client_cpu_us(done: Round) -> float:
    return 1e6 * float(done.seen["client_cpu_s"]) / float(done.seen["tokens"])


def ttft_ms(done: Round) -> float:
    """The median time from request to first event."""
    return 1000 * percentile(sorted(done.seen["ttft_s"]), 0.5)


def ttft_p99_ms(done: Round) -> float:
    return 1000 * percentile(sorted(done.seen["ttft_s"]), 0.99)


def failed(done: Round) -> float:
    """How many streams did not come to their end."""
    return float(done.seen["failed"])
