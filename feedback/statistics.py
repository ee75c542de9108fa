"""Statistics that both sides of the loop decide by."""

import random
from collections.abc import Sequence
from typing import NamedTuple


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
    means = sorted(sum(generator.choices(values, k=count)) / count for _ in range(draws))
    tail = (1 - confidence) / 2
    return Interval(sum(values) / count, means[int(tail * draws)], means[min(draws - 1, int((1 - tail) * draws))])
