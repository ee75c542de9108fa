"""Strengths by closed forms and by a slow climb; the sandwich by hand; and how often intervals hold the truth."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedback.leaderboard.bradley_terry import Vote, bootstrap, cells_of, fit, influence, linked, nameless, refit
from feedback.leaderboard.davidson import LONGER, SIDE
from feedback.leaderboard.newton import Floats, Point, maximise
from feedback.statistics import t_quantile


def votes(left: int, right: int, rater: str, won: int = 0, lost: int = 0, tied: int = 0) -> list[Vote]:
    """Of a rater on two versions of which nobody knows how they stood."""
    results = [1.0] * won + [0.0] * lost + [0.5] * tied
    return [Vote(left, right, result, rater, side=0.0) for result in results]


def test_of_two_versions_it_is_the_log_odds_and_ties_are_davidsons() -> None:
    fitted = fit(votes(1, 0, "ann", won=30, lost=20, tied=10), 0, ridge=1e-12)
    assert fitted.strength(0) == 0
    assert fitted.strength(1) == pytest.approx(math.log(30 / 20), abs=1e-9)
    assert fitted.nu == pytest.approx(10 / math.sqrt(30 * 20), abs=1e-9)
    assert fit(votes(1, 0, "ann", won=30, lost=20), 0, ridge=1e-12).strength(1) == pytest.approx(
        math.log(1.5), abs=1e-9
    )


def test_side_and_length_are_taken_out() -> None:
    """Version 1 wins 8 of 10 on the left and 5 of 10 on the right: the odds on both sides make strength and side."""
    left = [Vote(1, 0, float(i < 8), "ann") for i in range(10)]
    right = [Vote(0, 1, float(i < 5), "ann") for i in range(10)]
    fitted = fit(left + right, 0, ridge=1e-12)
    assert fitted.strength(1) == pytest.approx((math.log(8 / 2) + 0) / 2, abs=1e-9)
    side = fitted.effect(SIDE)
    assert side is not None and side.value == pytest.approx((math.log(8 / 2) - 0) / 2, abs=1e-9)
    assert fitted.effect(LONGER) is None, "all are equally long"


def some_votes(count: int, versions: int, seed: int, raters: int = 7) -> list[Vote]:
    draw = random.Random(seed)
    found = []
    while len(found) < count:
        a, b = draw.randrange(versions), draw.randrange(versions)
        if a != b:
            facts = {"side": draw.choice([1.0, 1.0, -1.0, 0.0]), "longer": draw.randrange(-8, 9) / 8}
            found.append(Vote(a, b, draw.choice([1.0, 0.0, 0.5]), f"r{draw.randrange(raters)}", **facts))
    return found


def climbed(said: Sequence[Vote], versions: int, ridge: float) -> list[float]:
    """Gradient ascent, a vote at a time: strengths, alpha, gamma, ln nu."""
    at = [0.0] * (versions + 3)
    for _ in range(6000):
        slope = [-ridge * x for x in at]
        for vote in said:
            eta = at[vote.left] - at[vote.right] + at[-3] * vote.side + at[-2] * vote.longer
            weights = {1.0: math.exp(eta / 2), 0.0: math.exp(-eta / 2), 0.5: math.exp(at[-1])}
            chance = {result: weight / sum(weights.values()) for result, weight in weights.items()}
            half = (vote.result == 1) / 2 - (vote.result == 0) / 2 - (chance[1.0] - chance[0.0]) / 2
            slope[vote.left] += half
            slope[vote.right] -= half
            slope[-3] += half * vote.side
            slope[-2] += half * vote.longer
            slope[-1] += (vote.result == 0.5) - chance[0.5]
        slope[0] = 0.0
        at = [x + 3 / len(said) * change for x, change in zip(at, slope, strict=True)]
    return at


def test_newton_gets_where_a_slow_climb_gets() -> None:
    said = some_votes(40, 4, seed=3)
    assert linked(said, 0) == {0, 1, 2, 3}
    assert fit(said, 0).parameters == pytest.approx(climbed(said, 4, ridge=1e-3), abs=1e-5)


def test_the_sandwich_by_hand() -> None:
    """Nobody is stronger: p = 1/2, information 12/4 = 3; the raters' slopes are 1, -1, 0; all weigh alike: G = 3."""
    said = [v for rater, won in [("ann", 3), ("bob", 1), ("eve", 2)] for v in votes(1, 0, rater, won, 4 - won)]
    lead = fit(said, 0, ridge=1e-12).leads(0)[1]
    variance = (1 + 1 + 0) / 3**2 * 3 / (3 - 1)
    assert lead.interval is not None
    assert (lead.interval.low, lead.interval.high) == pytest.approx(
        (-4.302653 * variance**0.5, 4.302653 * variance**0.5), abs=1e-5
    )


def test_raters_of_unequal_weight_count_for_fewer_by_hand() -> None:
    """8, 6 and 6 votes are worth G = 20^2 / (64 + 36 + 36) raters; p = 11/20, information 20 p (1 - p)."""
    said = [*votes(1, 0, "ann", 6, 2), *votes(1, 0, "bob", 3, 3), *votes(1, 0, "eve", 2, 4)]
    lead = fit(said, 0, ridge=1e-12).leads(0)[1]
    effective = 400 / 136
    variance = (1.6**2 + 0.3**2 + 1.3**2) / 4.95**2 * effective / (effective - 1)
    assert lead.interval is not None
    assert lead.interval.high - lead.value == pytest.approx(t_quantile(0.95, 1.94) * variance**0.5, abs=1e-5)


def test_intervals_with_ties_sides_and_lengths_are_those_of_whole_matrices() -> None:
    """The same sandwich from one dense row a vote: of two strengths beside the anchor's, side, length and ties."""
    said, ridge = some_votes(120, 3, seed=8), 1e-3
    fitted = fit(said, 0, ridge=ridge)
    theta, (alpha, gamma, ln_nu) = fitted.parameters[:3], fitted.parameters[3:]
    slopes: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    bread = ridge * np.eye(5)
    for vote in said:
        eta = theta[vote.left] - theta[vote.right] + alpha * vote.side + gamma * vote.longer
        odds = np.exp([eta / 2, -eta / 2, ln_nu])
        chance = odds / odds.sum()
        row = np.array([(vote.left == i) - (vote.right == i) for i in (1, 2)] + [vote.side, vote.longer], float)
        by_result = np.array([[*row / 2, 0], [*-row / 2, 0], [0, 0, 0, 0, 1]])  # (3 results, 5)
        slope = by_result[{1.0: 0, 0.0: 1, 0.5: 2}[vote.result]] - chance @ by_result
        information = by_result.T @ (np.diag(chance) - np.outer(chance, chance)) @ by_result
        bread += information
        slopes[vote.rater] = slopes.get(vote.rater, 0) + slope
        parts[vote.rater] = parts.get(vote.rater, 0) + information
    asked = {
        "1 over 0": ([1, 0, 0, 0, 0], fitted.leads(0)[1]),
        "1 over 2": ([1, -1, 0, 0, 0], fitted.leads(2)[1]),
        "side": ([0, 0, 1, 0, 0], fitted.effect(SIDE)),
        "longer": ([0, 0, 0, 1, 0], fitted.effect(LONGER)),
    }
    for name, (contrast, estimate) in asked.items():
        along = np.linalg.solve(bread, contrast)
        known = np.array([*along[:4], 0])  # the width of ties is not estimated as far as shares go
        shares = np.array([known @ part @ known for part in parts.values()])
        effective = shares.sum() ** 2 / (shares**2).sum()
        variance = sum((along @ slope) ** 2 for slope in slopes.values()) * effective / (effective - 1)
        variance = max(variance, shares.sum())
        assert estimate is not None and estimate.interval is not None, name
        half = t_quantile(0.95, round(effective - 1, 2)) * variance**0.5
        assert estimate.interval.high - estimate.value == pytest.approx(half, abs=1e-5), name


def test_raters_who_agree_to_the_vote_are_not_certain() -> None:
    """Their slopes are all 0; what remains is what independent votes would leave: 1 / (9 * 2/3 * 1/3)."""
    lead = fit([v for rater in ("ann", "bob", "eve") for v in votes(1, 0, rater, 2, 1)], 0, ridge=1e-12).leads(0)[1]
    assert lead.interval is not None
    assert lead.interval.high - lead.value == pytest.approx(4.302653 * (1 / 2) ** 0.5, abs=1e-5)


def test_one_rater_is_no_evidence_however_often_they_vote() -> None:
    alone = fit(votes(1, 0, "ann", 600, 400), 0).leads(0)[1]
    assert alone.interval is None and alone.value == pytest.approx(math.log(1.5), abs=1e-4)
    nearly = fit([*votes(1, 0, "ann", 600, 400), *votes(1, 0, "bob", 1, 1)], 0).leads(0)[1]
    assert nearly.interval is None


def test_a_chain_is_as_sure_as_its_weakest_link() -> None:
    """Only ann compared 1 with 0: what fifty others say of 2 and 1 cannot tell where 2 stands beside 0."""
    many = [v for i in range(50) for v in votes(2, 1, f"r{i}", 2 + i % 2, 2)]
    fitted = fit([*votes(1, 0, "ann", 3, 2), *many], 0)
    assert fitted.leads(0)[2].interval is None
    assert fitted.leads(1)[2].interval is not None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """40 raters with a taste and a favourite side of their own, who cast few votes or many.

    The strength to find is that of all people together: the log-odds of their mean chance to prefer version 1.
    """
    runs, theta, taste, side = 250, 0.4, 0.6, 0.5
    spread = math.hypot(taste, side)
    grid = [NormalDist().inv_cdf((i + 0.5) / 4000) for i in range(4000)]
    chance = sum(1 / (1 + math.exp(-theta - spread * z)) for z in grid) / len(grid)
    truth = math.log(chance / (1 - chance))
    draw = random.Random(11)
    held = {"clustered": 0, "naive": 0}
    for _ in range(runs):
        said = []
        for rater in range(40):
            liking, leaning = draw.gauss(theta, taste), draw.gauss(0, side)
            for _ in range(draw.randrange(5, 25)):
                first = draw.random() < 0.5
                won = draw.random() < 1 / (1 + math.exp(-(liking if first else -liking) - leaning))
                said.append(Vote(1 if first else 0, 0 if first else 1, float(won), f"r{rater}"))
        strangers = [vote._replace(rater=str(i)) for i, vote in enumerate(said)]
        for name, cast in (("clustered", said), ("naive", strangers)):
            interval = fit(cast, 0).leads(0)[1].interval
            assert interval is not None
            held[name] += interval.low <= truth <= interval.high
    error = math.sqrt(0.95 * 0.05 / runs)
    assert held["clustered"] / runs == pytest.approx(0.95, abs=3 * error)
    assert held["naive"] / runs < 0.90, "votes of one person are not independent"


def test_the_bootstrap_comes_to_the_sandwich() -> None:
    draw = random.Random(5)
    won = [draw.choice([1, 4, 5]) for _ in range(60)]
    said = [vote for i, count in enumerate(won) for vote in votes(1, 0, f"r{i}", count, 6 - count)]
    fitted = fit(said, 0)
    drawn, told = bootstrap(fitted, draws=400)[1], fitted.leads(0)[1].interval
    assert told is not None
    assert (drawn.low, drawn.high) == pytest.approx((told.low, told.high), abs=0.05)
    assert drawn.mean == told.mean


def test_influence_is_what_leaving_a_vote_out_does() -> None:
    said = some_votes(400, 3, seed=1)
    fitted = fit(said, 0)
    heap = Counter(said)
    weights = dict(zip(heap, influence(fitted, cells_of(heap, fitted.versions), 1, 2), strict=True))
    for vote in said[:20]:
        rest = [other for other in said if other is not vote]
        strengths = fit(rest, 0)
        change = (fitted.strength(1) - fitted.strength(2)) - (strengths.strength(1) - strengths.strength(2))
        assert weights[vote] == pytest.approx(change, abs=2e-3)
        assert abs(weights[vote]) < 0.2


def test_fitting_other_weights_from_where_one_was_is_fitting_them() -> None:
    said = some_votes(60, 3, seed=2)
    fitted, again = fit(said, 0), Counter(said[:50] + said[:50])
    fresh = fit(again.elements(), 0)
    assert refit(fitted, cells_of(again, fitted.versions)) == pytest.approx(
        {v: fresh.strength(v) for v in fresh.versions}, abs=1e-6
    )


Said = st.lists(
    st.builds(
        lambda pair, result, rater, side, longer: Vote(*pair, result, rater, side, longer / 8),
        st.sampled_from([(a, b) for a in range(4) for b in range(4) if a != b]),
        st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from([-1.0, 0.0, 1.0]), st.integers(-16, 16),
    ),
    max_size=30,
)  # fmt: skip


@given(Said, st.permutations(range(4)))
@settings(max_examples=60, deadline=None)
def test_names_do_not_matter(said: list[Vote], name: list[int]) -> None:
    fitted = fit(said, 0)
    renamed = fit([vote._replace(left=name[vote.left], right=name[vote.right]) for vote in said], name[0])
    assert {name[v]: fitted.strength(v) for v in fitted.versions} == pytest.approx(
        {v: renamed.strength(v) for v in renamed.versions}, abs=1e-5
    )


@given(Said)
@settings(max_examples=60, deadline=None)
def test_a_vote_told_from_the_other_side_is_the_same_vote(said: list[Vote]) -> None:
    mirrored = [Vote(v.right, v.left, 1 - v.result, v.rater, -v.side, -v.longer) for v in said]
    one, other = fit(said, 0), fit(mirrored, 0)
    assert one.versions == other.versions
    assert one.parameters == pytest.approx(other.parameters, abs=1e-5)
    for version, lead in one.leads(0).items():
        told = other.leads(0)[version].interval
        assert (lead.interval is None) == (told is None)
        assert lead.interval is None or lead.interval == pytest.approx(told, abs=1e-4)


@given(Said)
@settings(max_examples=60, deadline=None)
def test_all_votes_twice_are_no_more_than_what_the_raters_differ_by(said: list[Vote]) -> None:
    once, twice = fit(said, 0), fit(said + said, 0, ridge=2e-3)
    assert once.parameters == pytest.approx(twice.parameters, abs=1e-5)
    for version, lead in once.leads(0).items():
        told = twice.leads(0)[version].interval
        assert (lead.interval is None) == (told is None)
        if lead.interval is not None and told is not None:
            half, half_twice = lead.interval.high - lead.value, told.high - told.mean
            assert half / math.sqrt(2) - 1e-4 <= half_twice <= half + 1e-4, "the raters are the same"


def test_draws_without_the_raters_who_disagree_have_strengths_too() -> None:
    """Where the likelihood is almost flat, a whole step leads to where its exponentials overflow."""
    said = [
        *votes(1, 0, "ann", won=20), *votes(0, 1, "bob", won=1), *votes(2, 0, "eve", won=20),
        *votes(0, 2, "bob", won=1), *votes(1, 0, "zoe", tied=1),
    ]  # fmt: skip
    fitted = fit(said, 0)
    drawn = bootstrap(fitted, draws=100)
    for version in (1, 2):
        assert drawn[version].low <= fitted.strength(version) <= drawn[version].high < math.inf


OneSided = st.lists(
    st.builds(
        lambda pair, result, count, side: [Vote(*pair, result, "ann", side)] * count,
        st.sampled_from([(1, 0), (2, 0), (2, 1)]), st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from([1, 20, 300]), st.sampled_from([0.0, 0.0, 1.0]),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@example(  # nothing but ties: terms of hundreds add up to almost 0, and their rounding is no loss
    [votes(2, 1, "ann", tied=1), votes(1, 0, "ann", tied=300), [Vote(1, 0, 0.5, "ann")] * 21,
     votes(2, 0, "ann", tied=300)],
    [votes(1, 0, "ann", lost=20), votes(1, 0, "ann", tied=1)],
)  # fmt: skip
@given(OneSided, OneSided)
@settings(max_examples=100, deadline=None)
def test_one_sided_votes_have_one_maximum_wherever_the_search_starts(
    said: list[list[Vote]], other: list[list[Vote]]
) -> None:
    """From the strengths of more votes, as a draw starts, and from 0."""
    fitted = fit(sum(said + other, []), 0)
    drawn = cells_of(Counter(sum(said, [])), fitted.versions)
    flat = replace(fitted, parameters=tuple(0.0 if math.isfinite(x) else x for x in fitted.parameters))
    assert refit(fitted, drawn) == pytest.approx(refit(flat, drawn), abs=1e-5)


def test_a_search_does_not_go_to_and_fro_across_the_maximum() -> None:
    """Steps that only had to lead up changed the order effect by 30 and back, a hundred times over."""
    said = [
        *votes(1, 0, "ann", lost=300), *votes(2, 0, "ann", won=20), *votes(2, 1, "ann", tied=20),
        Vote(2, 0, 0.5, "ann", 1.0),
    ]  # fmt: skip
    other = [*[Vote(1, 0, 0.0, "ann", 1.0)] * 300, *votes(2, 1, "ann", lost=20)]
    fitted = fit(said + other, 0)
    assert refit(fitted, cells_of(Counter(said), fitted.versions))[1] == pytest.approx(
        fit(said, 0).strength(1), abs=1e-5
    )


def test_linked_is_a_chain_of_wins_there_and_back() -> None:
    said = [*votes(1, 0, "ann", 1, 1), *votes(2, 1, "ann", 0, 0, 1), *votes(3, 2, "ann", 1), *votes(4, 5, "ann", 1, 1)]
    assert linked(said, 0) == {0, 1, 2}
    assert linked(said, 4) == {4, 5}
    assert linked([], 7) == {7}


def test_votes_without_their_raters_are_told_once_by_hand() -> None:
    heap = Counter({Vote(1, 0, 1.0, "ann"): 2, Vote(0, 1, 1.0, "bob"): 1, Vote(1, 0, 1.0, "bob"): 3})
    told = nameless(cells_of(heap, (0, 1)))
    assert [column.tolist() for column in told[:3]] == [[0, 1], [1, 0], [1.0, 1.0]]
    assert told.votes.tolist() == [1, 5]
    assert nameless(cells_of({}, (0, 1))).votes.tolist() == []


def point(value: float, slope: float, curve: float) -> Point:
    """Of a function of one variable."""
    return Point(value, np.array([slope]), np.array([[curve]]))


def test_maxima_by_hand() -> None:
    def peak(at: Floats) -> Point:  # -sqrt(1 + x^2) drives plain Newton steps from 3 ever further away
        root = math.sqrt(1 + at[0] ** 2)
        return point(-root, -at[0] / root, root**-3)

    assert maximise(peak, [3.0])[0] == pytest.approx([0.0], abs=1e-9)

    def steep(at: Floats) -> Point:  # of a - exp(a), flat to the left: from -9 a whole step leads to 8093
        power = np.exp(at[0]) if at[0] < 700 else math.inf
        return point(at[0] - power, 1 - power, power)

    assert maximise(steep, [-9.0])[0] == pytest.approx([0.0], abs=1e-9)

    def pole(at: Floats) -> Point:  # ln a - a, whose whole step from 2 leads to 0
        return point(math.log(at[0]) - at[0], 1 / at[0] - 1, at[0] ** -2) if at[0] else point(math.nan, 0, 1)

    assert maximise(pole, [2.0])[0] == pytest.approx([1.0], abs=1e-9)


def test_quantiles_of_t_are_those_in_the_tables() -> None:
    tables = {1: 12.7062, 2: 4.30265, 3: 3.18245, 9: 2.26216, 39: 2.02269, 120: 1.97993}
    for df, quantile in tables.items():
        assert t_quantile(0.95, df) == pytest.approx(quantile, abs=1e-4)
    assert t_quantile(0.99, 5) == pytest.approx(4.03214, abs=1e-4)
    assert t_quantile(0.95, 1e6) == pytest.approx(1.959964, abs=1e-5)
