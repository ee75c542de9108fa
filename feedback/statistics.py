"""Statistics that both sides of the loop decide by."""

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Statistic = Callable[[Sequence[float]], float]


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], *, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean (Efron 1979); one value = one independent unit, e.g. a prompt.

    Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values to average")
    generator = random.Random(seed)
    count = len(values)
    means = [sum(generator.choices(values, k=count)) / count for _ in range(draws)]
    return _percentiles(sum(values) / count, means, confidence)


def cluster_bootstrap(
    clusters: Sequence[Sequence[float]],
    statistics: Sequence[Statistic],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """Percentile intervals of functions of sums, whole clusters drawn with replacement (Cameron et al. 2008).

    `clusters[c]` are the sums over one independent unit, such as all pairs of a prompt; a statistic sees their totals.
    All see the same draws, so a statistic of differences is a paired comparison. Draws where one is NaN, such as a
    share of nothing, do not count for it. Raises ValueError without clusters.
    """
    if not clusters:
        raise ValueError("no clusters to draw from")
    columns = list(zip(*clusters, strict=True))
    generator = random.Random(seed)
    drawn: list[list[float]] = []
    for _ in range(draws):
        chosen = generator.choices(range(len(clusters)), k=len(clusters))
        totals = [sum(map(column.__getitem__, chosen)) for column in columns]
        drawn.append([statistic(totals) for statistic in statistics])
    whole = [math.fsum(column) for column in columns]
    values = zip(*drawn, strict=True)
    return [_percentiles(s(whole), v, confidence) for s, v in zip(statistics, values, strict=True)]


def share(part: float, whole: float) -> float:
    """part / whole; NaN of nothing."""
    return part / whole if whole else math.nan


def _percentiles(mean: float, draws: Sequence[float], confidence: float) -> Interval:
    known = sorted(value for value in draws if not math.isnan(value))
    if not known:
        return Interval(mean, math.nan, math.nan)
    tail = (1 - confidence) / 2
    return Interval(mean, known[int(tail * len(known))], known[min(len(known) - 1, int((1 - tail) * len(known)))])
