"""Statistics that both sides of the loop decide by."""

import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
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
    return percentile_interval(sum(values) / count, means, confidence)


def t_mean(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean (1908); one value = one independent unit, e.g. a prompt.

    For few values: a percentile bootstrap of two is above 0 whenever both are. One value has no bounds (NaN). Raises
    ValueError without values.
    """
    if not values:
        raise ValueError("no values to average")
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = t_quantile(confidence, count - 1) * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half)


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
    return [percentile_interval(s(whole), v, confidence) for s, v in zip(statistics, values, strict=True)]


@cache
def t_quantile(confidence: float, df: float) -> float:
    """What |t| of Student's distribution stays below with a probability; `df` of 1 or more need not be whole.

    With t = sqrt(df) tan(phi) the density of phi is proportional to cos(phi)^(df - 1): Simpson's rule, and bisection.
    """
    if df > 300:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(df / 2) - math.lgamma((df + 1) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _cosines(middle, df - 1) < confidence * whole else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _cosines(end: float, power: float, parts: int = 128) -> float:
    """The integral of cos^power from 0 to `end`."""
    at: list[float] = [math.pow(math.cos(end * i / parts), power) for i in range(parts + 1)]
    return end / parts / 3 * (at[0] + at[-1] + 4 * sum(at[1:-1:2]) + 2 * sum(at[2:-1:2]))


def share(part: float, whole: float) -> float:
    """part / whole; NaN of nothing."""
    return part / whole if whole else math.nan


def percentile_interval(mean: float, draws: Sequence[float], confidence: float) -> Interval:
    """Around a figure the middle of what a bootstrap drew of it; NaN does not count."""
    known = sorted(value for value in draws if not math.isnan(value))
    if not known:
        return Interval(mean, math.nan, math.nan)
    tail = (1 - confidence) / 2
    return Interval(mean, known[int(tail * len(known))], known[min(len(known) - 1, int((1 - tail) * len(known)))])
