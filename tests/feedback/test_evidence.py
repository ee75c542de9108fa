"""E-values and confidence sequences: against integrals, products and figures by hand, and under constant looking."""

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.e_values import (
    Moments,
    balance,
    bounded_difference,
    flagged,
    log_e,
    log_e_above,
    log_e_below,
    log_e_better,
    mean_difference,
    rho_squared,
    still_needed,
    win_rate,
)
from tests.bench.releases_runs import left_bias, votes_to_decide

COUNTS = st.integers(0, 300)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def integral(f: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    """Gauss-Legendre: exact for polynomials of degree below 800."""
    middle, half = (low + high) / 2, (high - low) / 2
    return float(half * (WEIGHTS * f(middle + half * NODES)).sum())


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 1), (3, 8), (8, 3), (40, 40), (130, 90), (10, 120)])
def test_mixtures_are_the_integrals_that_they_say(wins: int, losses: int) -> None:
    def ratio(rate: np.ndarray) -> np.ndarray:
        return (2 * rate) ** wins * (2 * (1 - rate)) ** losses

    assert math.exp(log_e(wins, losses)) == pytest.approx(integral(ratio, 0, 1), rel=1e-9)
    assert math.exp(log_e_better(wins, losses)) == pytest.approx(2 * integral(ratio, 0.5, 1), rel=1e-9)


@pytest.mark.parametrize("limit", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 1), (8, 3), (3, 8), (120, 10), (10, 90)])
def test_the_mixture_below_a_limit_is_the_integral_that_it_says(wins: int, losses: int, limit: float) -> None:
    def ratio(rate: np.ndarray) -> np.ndarray:
        return (rate / limit) ** wins * ((1 - rate) / (1 - limit)) ** losses

    assert math.exp(log_e_below(wins, losses, limit)) == pytest.approx(integral(ratio, 0, limit) / limit, rel=1e-9)
    assert log_e_below(wins, losses, 0.5) == pytest.approx(log_e_better(losses, wins), abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from((0.5, 0.8, 0.9)), st.floats(0, 1))
def test_below_a_limit_is_no_evidence_on_average_at_or_above_it(
    wins: int, losses: int, limit: float, up: float
) -> None:
    """Whatever was seen, under a rate of the limit or more the next factor is at most 1 on average."""
    rate, now = limit + up * (1 - limit), log_e_below(wins, losses, limit)
    won = math.exp(log_e_below(wins + 1, losses, limit) - now)
    lost = math.exp(log_e_below(wins, losses + 1, limit) - now)
    assert rate * won + (1 - rate) * lost <= 1 + 1e-9
    assert limit * won + (1 - limit) * lost == pytest.approx(1, rel=1e-9)


def test_values_by_hand() -> None:
    assert math.exp(log_e_below(3, 0, 0.8)) == pytest.approx(1 / 4, rel=1e-12)  # the mean of (p / 0.8)^3 up to 0.8
    assert math.exp(log_e_below(0, 1, 0.8)) == pytest.approx(3, rel=1e-12)  # (1 - 0.4) / 0.2
    assert log_e_below(0, 2000, 0.8) == pytest.approx(2000 * math.log(5) - math.log(2001 * 0.8), rel=1e-12)
    assert math.exp(log_e(8, 0)) == pytest.approx(256 / 9, rel=1e-12)
    assert math.exp(log_e_better(1, 0)) == pytest.approx(1.5, rel=1e-12)  # 2 * integral of 2 p from 1/2
    assert math.exp(log_e_better(0, 1)) == pytest.approx(0.5, rel=1e-12)
    assert log_e_better(2000, 0) == pytest.approx(2001 * math.log(2) - math.log(2001), rel=1e-12)  # no overflow


@given(st.lists(st.booleans(), max_size=200))
def test_each_vote_multiplies_by_what_the_mixture_expected_of_it(won: list[bool]) -> None:
    """Laplace's rule of succession, vote by vote: order changes the road and not where it ends."""
    total, wins = 0.0, 0
    for n, win in enumerate(won):
        expected = (wins + 1) / (n + 2)
        total += math.log(2 * (expected if win else 1 - expected))
        wins += win
    assert log_e(wins, len(won) - wins) == pytest.approx(total, abs=1e-9)


@given(COUNTS, COUNTS)
def test_one_vote_more_is_a_fair_bet_at_one_half(wins: int, losses: int) -> None:
    now = log_e_better(wins, losses)
    won, lost = (math.exp(log_e_better(wins + w, losses + 1 - w) - now) for w in (1, 0))
    assert (won + lost) / 2 == pytest.approx(1, abs=1e-9)
    assert won > 1 > lost  # so it loses on average for any candidate that is worse


@given(COUNTS, COUNTS)
def test_candidate_and_stable_are_treated_alike(wins: int, losses: int) -> None:
    assert log_e(wins, losses) == pytest.approx(log_e(losses, wins), abs=1e-9)
    both = (math.exp(log_e_better(wins, losses)) + math.exp(log_e_better(losses, wins))) / 2
    assert math.log(both) == pytest.approx(log_e(wins, losses), abs=1e-9)
    one, other = win_rate(wins, losses), win_rate(losses, wins)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-9)
    assert still_needed(wins, losses) == still_needed(losses, wins)


@given(COUNTS, COUNTS, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_interval_ends_where_the_mixture_refutes(wins: int, losses: int, alpha: float) -> None:
    mean, low, high = win_rate(wins, losses, alpha)
    assert 0 <= low <= mean <= high <= 1
    assert (low <= 0.5 <= high) == (log_e(wins, losses) < -math.log(alpha))
    mixture = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)
    for end in (low, high):
        if 0 < end < 1:
            likelihood = wins * math.log(end) + losses * math.log(1 - end)
            assert mixture - likelihood == pytest.approx(-math.log(alpha), abs=1e-6)


def test_intervals_by_hand() -> None:
    assert win_rate(0, 0) == (0.5, 0, 1)
    # p^3 = 0.05 / 4, and nothing speaks against certainty.
    assert win_rate(3, 0) == pytest.approx((1, (0.05 / 4) ** (1 / 3), 1), abs=1e-9)


def test_votes_still_needed() -> None:
    assert still_needed(9, 10) is None  # too few
    assert still_needed(500, 500) is None  # nothing tells them apart
    assert still_needed(30, 20, max_votes=60) is None  # not by then
    assert still_needed(40, 10) == 1  # decided: one at most
    near, far = still_needed(32, 18), still_needed(30, 20)
    assert near is not None and far is not None and near < far
    # A random walk with this drift passes the deciding lead within so many steps half of the time.
    rng = np.random.default_rng(3)
    steps = np.where(rng.random((4000, 2000)) < 0.5 + 10 / 52 / 2, 1, -1).cumsum(1) + 10
    lead = np.sqrt((n := 50 + np.arange(1, 2001)) * 2 * (math.log(20) + np.log(2 * n / math.pi) / 2))
    passed = (steps >= lead).argmax(1) + 1
    assert far == pytest.approx(float(np.median(passed)), rel=0.3)


def test_alarms_of_a_balance() -> None:
    even, left = balance(50, 50), balance(8, 0)
    assert not even.alarm and even.rate.mean == 0.5
    assert left.alarm and left.log_e == pytest.approx(math.log(256 / 9), rel=1e-12)
    assert not balance(7, 0).alarm  # 128 / 8 = 16


def test_many_are_suspected_only_together_or_with_more_evidence() -> None:
    """Of four at 0.05: one needs 80, two 40 each, four 20 each."""
    assert flagged({"a": math.log(79), "b": 0, "c": 0, "d": 0}) == []
    assert flagged({"a": 0, "b": math.log(81), "c": 0, "d": 0}) == ["b"]
    assert flagged({"a": math.log(41), "b": 0, "c": math.log(50), "d": 0}) == ["c", "a"]
    assert flagged({}) == []


def test_moments_add_up_to_mean_and_variance() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    moments = Moments.of(*values)
    assert moments.mean == pytest.approx(2.8)
    assert moments.variance_of_mean == pytest.approx(statistics.variance(values) / 5, rel=1e-12)
    assert Moments.of_rate(3, 10) == Moments.of(*[1.0] * 3, *[0.0] * 7)


def test_difference_of_means_by_hand() -> None:
    """80 of 100 against 70 of 100: variances 0.16 and 0.21 by 99; rho^2 = (2 ln 20 + ln(1 + 2 ln 20)) / 500."""
    rho2 = (5.991464547 + 1.944689999) / 500
    assert rho_squared(0.05, 500) == pytest.approx(rho2, rel=1e-8)
    clock = 200 * rho2
    half = math.sqrt((0.16 + 0.21) / 99 * 2 * (clock + 1) / clock * math.log(math.sqrt(clock + 1) / 0.05))
    found = mean_difference(Moments.of_rate(80, 100), Moments.of_rate(70, 100))
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-9)
    assert mean_difference(Moments.of(1.0), Moments.of(1.0, 2.0)) is None


def test_a_bounded_difference_by_hand() -> None:
    """Two liked beside two not: the likeliest means d apart have the likelihood ((1 + d) / 2)^4, the mixtures 1/9."""
    low = 2 * (0.05 / 9) ** (1 / 4) - 1
    assert bounded_difference(Moments.of(1, 1), Moments.of(0, 0)) == pytest.approx((1, low, 1), abs=1e-9)
    assert bounded_difference(Moments(0, 0, 0), Moments(0, 0, 0)) == pytest.approx((0, -1, 1), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=40), st.lists(st.floats(0, 1), max_size=40))
def test_a_bounded_difference_refutes_just_what_the_product_of_mixtures_does(
    ours: list[float], theirs: list[float]
) -> None:
    """Over all pairs of means at its ends the evidence is 1 / alpha at least, and at one of them no more."""
    sides = [(sum(values), len(values) - sum(values)) for values in (ours, theirs)]
    mean, low, high = bounded_difference(Moments.of(*ours), Moments.of(*theirs))
    assert -1 <= low <= mean <= high <= 1
    mirrored = bounded_difference(Moments.of(*theirs), Moments.of(*ours))
    assert (mirrored.low, mirrored.high) == pytest.approx((-high, -low), abs=1e-6)
    mixture = sum(math.lgamma(yes + 1) + math.lgamma(no + 1) - math.lgamma(yes + no + 2) for yes, no in sides)
    for end in (low, high):
        if abs(end) < 1 - 1e-6:
            rates = np.linspace(max(end, 0), min(1 + end, 1), 2001)[1:-1]
            pairs = [
                yes * np.log(r) + no * np.log1p(-r) for (yes, no), r in zip(sides, (rates, rates - end), strict=True)
            ]
            assert (mixture - sum(pairs)).min() == pytest.approx(math.log(20), abs=0.05)


def test_a_bounded_difference_holds_however_often_one_looks_and_of_few() -> None:
    """Thumbs up 9 of 10 times on both sides, a tenth of the conversations the candidate's: no difference."""
    rng, wrong = np.random.default_rng(9), 0
    for _ in range(60):
        ours, liked = rng.random(200) < 0.1, rng.random(200) < 0.9
        for at in range(4, 200, 10):
            up = [int((liked & side)[:at].sum()) for side in (ours, ~ours)]
            units = [int(side[:at].sum()) for side in (ours, ~ours)]
            found = bounded_difference(*(Moments.of_rate(*each) for each in zip(up, units, strict=True)))
            if not found.low <= 0 <= found.high:
                wrong += 1
                break
    assert wrong <= 3


def test_the_means_mixture_is_the_integral_over_half_a_normal() -> None:
    """Of exp(theta S - theta^2 t / 2) over theta = rho |N(0, 1)|, in units of the difference's own deviation."""
    candidate, stable, limit, alpha = Moments.of_rate(45, 200), Moments.of_rate(90, 600), 0.02, 0.05
    deviation = math.sqrt(candidate.variance_of_mean + stable.variance_of_mean)
    units, rho = 800, math.sqrt(rho_squared(alpha, 500))
    total = (0.225 - 0.15 - limit) / deviation * math.sqrt(units)
    drifts = np.linspace(0, 12, 200_001)  # in units of rho
    values = 2 / math.sqrt(2 * math.pi) * np.exp(rho * drifts * total - (rho * drifts) ** 2 * units / 2 - drifts**2 / 2)
    expected = float(np.trapezoid(values, drifts))
    assert log_e_above(candidate, stable, limit, alpha) == pytest.approx(math.log(expected), abs=1e-7)
    assert log_e_above(Moments.of(1.0, 1.0), Moments.of(1.0, 1.0), 0.0, alpha) == 0.0
    assert math.isfinite(log_e_above(Moments.of(0.0, 1e-9), Moments.of(5.0, 6.0), 0.0, alpha))
    assert math.isfinite(log_e_above(Moments(10**6, 0, 1.0), Moments(10**6, 10.0**6, 10.0**6 + 1), 0.0, alpha))


def test_looking_after_every_vote_promotes_no_more_equals_than_promised() -> None:
    runs, alpha = 2000, 0.05
    found = votes_to_decide(0.5, runs=runs, max_votes=1500, alpha=alpha, rng=np.random.default_rng(1))
    most = alpha / 2 + 3 * math.sqrt(alpha / 2 / runs)
    assert 0.005 < found["promoted"] <= most
    assert 0.005 < found["rolled back"] <= most
    worse = votes_to_decide(0.48, runs=runs, max_votes=1500, alpha=alpha, rng=np.random.default_rng(2))
    assert worse["promoted"] < 0.01


def test_votes_to_a_decision_are_those_that_this_was_designed_by() -> None:
    for rate, median in ((0.6, 224), (0.65, 86), (0.7, 46)):
        found = votes_to_decide(rate, runs=3000, max_votes=1500, alpha=0.05, rng=np.random.default_rng(4))
        assert found["promoted"] > 0.99
        assert found["median"] == pytest.approx(median, rel=0.1)


def test_liking_the_left_decides_nothing_where_sides_are_chosen_by_chance() -> None:
    rng = np.random.default_rng(5)
    randomised = left_bias(0.05, True, runs=1500, max_votes=1500, rng=rng)
    fixed = left_bias(0.05, False, runs=300, max_votes=1500, rng=rng)
    assert randomised["promoted"] <= 0.025 + 3 * math.sqrt(0.025 / 1500) < 0.5 < fixed["promoted"]
