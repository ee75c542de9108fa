"""Intervals: against formulas, by hand, and by how often they hold the truth."""

import math
import random

import pytest

from feedback.statistics import Interval, bootstrap_mean, cluster_bootstrap, share, t_mean


def test_bootstrap_mean_against_the_normal_interval() -> None:
    values = [float(i % 10) for i in range(1000)]  # mean 4.5, standard deviation 2.8723
    mean, low, high = bootstrap_mean(values)
    half = 1.96 * 2.8723 / 1000**0.5
    assert mean == 4.5
    assert low == pytest.approx(4.5 - half, abs=0.02)
    assert high == pytest.approx(4.5 + half, abs=0.02)
    with pytest.raises(ValueError):
        bootstrap_mean([])


def test_student_s_interval_by_the_tables() -> None:
    """Of 1, 2, 3, 4 and 5: mean 3, standard deviation sqrt(2.5), t of four degrees of freedom 2.77645."""
    half = 2.77645 * 0.5**0.5
    assert t_mean([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-5)
    assert t_mean([0.0, 2.0]) == pytest.approx((1.0, 1 - 12.7062, 1 + 12.7062), abs=1e-4)
    assert t_mean([0.5, 0.5]) == Interval(0.5, 0.5, 0.5)
    assert all(map(math.isnan, t_mean([math.inf, -math.inf])))
    alone = t_mean([7.0])
    assert alone.mean == 7.0 and math.isnan(alone.low) and math.isnan(alone.high)
    with pytest.raises(ValueError, match="no values"):
        t_mean([])


def mean(totals: object) -> float:
    total, count = totals  # type: ignore[misc]
    return share(total, count)


def test_one_value_a_cluster_is_the_plain_bootstrap_draw_for_draw() -> None:
    values = [float(i * i % 13) for i in range(40)]
    [clustered] = cluster_bootstrap([(value, 1.0) for value in values], [mean], draws=300, seed=7)
    assert clustered == pytest.approx(bootstrap_mean(values, draws=300, seed=7), abs=1e-9)


def test_repeating_a_cluster_s_values_widens_nothing_and_narrows_nothing() -> None:
    """Ten copies of each value are no more evidence than one, which a bootstrap of values would not know."""
    values = [float(i % 7) for i in range(30)]
    once, copied = (cluster_bootstrap([(n * v, n) for v in values], [mean], draws=300)[0] for n in (1, 10))
    assert copied == pytest.approx(once, abs=1e-9)
    naive = bootstrap_mean([v for v in values for _ in range(10)], draws=300)
    assert (naive.high - naive.low) < 0.5 * (copied.high - copied.low)


def test_statistics_share_their_draws() -> None:
    """A difference that is the same in all clusters has no width, however wide the two figures are."""
    clusters = [(float(i), i + 2.0, 1.0) for i in range(12)]
    figures = [lambda t: t[0] / t[2], lambda t: t[1] / t[2], lambda t: (t[1] - t[0]) / t[2]]
    one, other, difference = cluster_bootstrap(clusters, figures, draws=200)
    assert difference == Interval(2.0, 2.0, 2.0)
    assert other.low - one.low == 2.0 and one.high - one.low > 2


def test_draws_without_a_value_do_not_count() -> None:
    [rare] = cluster_bootstrap([(0.0, 0.0)] * 9 + [(3.0, 1.0)], [mean], draws=200)
    assert rare == Interval(3.0, 3.0, 3.0)
    [never] = cluster_bootstrap([(0.0, 0.0)] * 3, [mean], draws=20)
    assert all(map(math.isnan, never))
    with pytest.raises(ValueError, match="no clusters"):
        cluster_bootstrap([], [mean])


def test_95_percent_of_intervals_hold_the_truth() -> None:
    """200 samples of 40 clusters of one to nine coins that share a bias of their cluster: the mean is 0.6.

    Of 95% intervals 90% to 99% must hold it (three standard errors either way, and the percentile bootstrap of 40
    is a little narrow); intervals that take each coin as independent hold it much more rarely.
    """
    draw = random.Random(5)
    held = naive_held = 0
    for seed in range(200):
        clusters, coins = [], []
        for _ in range(40):
            bias, count = draw.choice((0.3, 0.9)), draw.randrange(1, 10)
            own = [float(draw.random() < bias) for _ in range(count)]
            clusters.append((sum(own), float(count)))
            coins += own
        [(_, low, high)] = cluster_bootstrap(clusters, [mean], draws=100, seed=seed)
        held += low <= 0.6 <= high
        _, low, high = bootstrap_mean(coins, draws=100, seed=seed)
        naive_held += low <= 0.6 <= high
    assert 0.90 <= held / 200 <= 0.99
    assert naive_held / 200 < 0.85
