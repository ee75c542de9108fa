"""What judgements are worth, by hand: agreement, log-odds, age, source, and the cap as exact water-filling."""

import random
from collections import defaultdict
from itertools import count
from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import WeightsConfig
from training.lessons.weights import (
    DAY_S,
    Agreement,
    Opinion,
    Topics,
    agreements,
    in_short,
    log_odds_weight,
    recency,
    reliability_weights,
    water_filled,
    weigh,
)

NUMBERS = count(1000)
TOTALS = st.dictionaries(
    st.text(max_size=3), st.floats(0.01, 1000.0) | st.sampled_from([1e-19, 1.0, 10.0]), min_size=1, max_size=40
)


def opinion(rater: str, says: dict[tuple[int, ...], float], *, source: str = "live", created: float = 0.0) -> Opinion:
    return Opinion(rater, source, created, says)


def alone(rater: str, judgements: int, *, source: str = "live") -> list[Opinion]:
    """Judgements of what nobody else judged."""
    return [opinion(rater, {(next(NUMBERS),): 1.0}, source=source) for _ in range(judgements)]


def test_topics_are_what_was_compared_whatever_the_order_shown() -> None:
    topics = Topics()
    assert topics.ranked((1,), [(5,), (6,), (7,)], [0, 1, 1]) == {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.5}
    assert topics.ranked((1,), [(7,), (5,)], [0, 1]) == {(0, 2): 0.0}
    assert topics.ranked((2,), [(5,), (6,)], [0, 1]) == {(3, 4): 1.0}, "another prompt"
    assert topics.ranked((1,), [(5,), (5,)], [0, 1]) == {}, "one answer twice"
    assert topics.ranked((1,), [(5,), (6,), (7,)], [0, 1, 1], unplaced=1) == {(0, 1): 1.0, (0, 2): 1.0}
    assert topics.rated((1,), (6,), 0.8) == {(1,): 0.8}


def test_agreement_leaves_the_rater_out_and_counts_judgements() -> None:
    """ann ranks three answers; bob and eve judge two of the pairs, eve one of them twice; dan is on his own."""
    said = [
        opinion("ann", {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.5}),
        opinion("bob", {(0, 1): 1.0}),
        opinion("bob", {(1, 2): 0.0}),
        opinion("eve", {(0, 1): 0.0}),
        opinion("eve", {(0, 1): 1.0}),
        opinion("dan", {(8, 9): 1.0}),
    ]
    # On (0, 1) eve holds 0.5. ann: (1 + 0.5) / 2 there, and 0.5 on (1, 2): one judgement, 0.625.
    # bob: (1 + 0.5) / 2 and 0.5. eve: with two who say 1, first 0, then 1.
    assert agreements(said) == {
        "ann": Agreement(0.625, 1),
        "bob": Agreement(1.25, 2),
        "eve": Agreement(1.0, 2),
    }


def test_log_odds_weight_by_hand() -> None:
    """0.82 = 0.9^2 + 0.1^2: typical raters are right in 0.9; one of 0.7 agrees in 0.7 x 0.9 + 0.3 x 0.1 = 0.66."""
    assert log_odds_weight(0.66, 0.82) == pytest.approx(log(7 / 3) / log(9), abs=1e-12)
    assert log_odds_weight(0.66, 0.82) == pytest.approx(0.3856219, abs=1e-7)
    assert log_odds_weight(0.82, 0.82) == 1.0
    assert log_odds_weight(0.95, 0.82) == 1.0, "nobody above the typical one"
    assert log_odds_weight(0.5, 0.82) == 0.0
    assert log_odds_weight(0.1, 0.82) == 0.0
    assert log_odds_weight(0.3, 0.5) == 1.0, "where all agree by chance it tells nothing"


def test_reliability_is_shrunk_to_the_population_by_hand() -> None:
    """All: (90 + 5 + 10 x 10 x 0.73) / (100 + 10 + 100) = 0.8. ann (90 + 8) / 110, eve (5 + 8) / 20 = 0.65."""
    weights = reliability_weights({"ann": Agreement(90.0, 100), "eve": Agreement(5.0, 10)}, 0.73, 10.0)
    skill = (2 * 0.8 - 1) ** 0.5
    right, typical = 0.5 + 0.15 / skill, (1 + skill) / 2
    assert weights["ann"] == 1.0
    assert weights["eve"] == pytest.approx(log(right / (1 - right)) / log(typical / (1 - typical)), abs=1e-12)


@given(st.floats(0, 1), st.integers(0, 200))
def test_the_longer_somebody_contradicts_the_less_they_weigh(rate: float, judgements: int) -> None:
    crowd = {f"r{n}": Agreement(80.0, 100) for n in range(20)}

    def weight(n: int) -> float:
        return reliability_weights({**crowd, "eve": Agreement(0.3 * n, n)}, 0.73, 10.0)["eve"]

    assert 0.0 <= weight(judgements + 1) <= weight(judgements) + 1e-12 <= 1.0 + 1e-12
    assert 0.0 <= log_odds_weight(rate, 0.8) <= 1.0


def test_recency_halves_with_each_half_life() -> None:
    assert recency(14 * DAY_S, 7.0) == 0.25
    assert recency(0.0, 7.0) == 1.0
    assert recency(1e12, None) == 1.0


def test_water_filling_by_hand() -> None:
    """Of 100, 10, 5, 5 under a half: the level L = (10 + 5 + 5 + L) / 2 = 20. Twice an equal share is a half too."""
    assert water_filled({"a": 100, "b": 10, "c": 5, "d": 5}, 0.5) == {"a": 20, "b": 10, "c": 5, "d": 5}
    assert water_filled({"a": 100, "b": 10, "c": 5, "d": 5}, 0.01) == {"a": 20, "b": 10, "c": 5, "d": 5}
    two_cut = water_filled({"a": 100, "b": 80, **{f"r{n}": 1.0 for n in range(18)}}, 0.1)
    assert two_cut["a"] == two_cut["b"] == pytest.approx(0.1 * 18 / 0.8)


@pytest.mark.parametrize("totals", [{"a": 7.0}, {"a": 7.0, "b": 0.1}, {"a": 7.0, "b": 0.0, "c": 0.0}, {"a": 0.0}, {}])
def test_one_or_two_raters_are_never_cut(totals: dict[str, float]) -> None:
    assert water_filled(totals, 0.01) == totals


@pytest.mark.parametrize("raters", [4, 6, 14, 100])
def test_a_half_that_weighs_next_to_nothing_is_no_division_by_zero(raters: int) -> None:
    """All who speak come down to the least of them: 2 / raters of what then is left, to the last digit."""
    half = raters // 2
    heavy = {f"r{n}": 1.0 + (half - n) for n in range(half)}
    silent = {f"s{n}": 1e-19 for n in range(half)}
    filled = water_filled({**heavy, **silent}, 0.01)
    assert filled == pytest.approx({**dict.fromkeys(heavy, 2.0), **silent}, rel=1e-9)


def test_those_who_fell_silent_long_ago_stop_no_round() -> None:
    """Three who judge today, unlike each other, and three whose last word is sixty half-lives old."""
    today = [opinion(f"r{n}", {(10 * n + i,): 1.0}, created=420 * DAY_S) for n in range(3) for i in range(1 + n)]
    before = [opinion(f"s{n}", {(100 + n,): 1.0}) for n in range(3)]
    weights, _ = weigh([*today, *before], WeightsConfig(recency_half_life_days=7.0))
    assert weights == pytest.approx([1.0, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, *[0.5**60] * 3])


@given(TOTALS, st.floats(0.001, 1.0))
def test_water_filling_is_consistent(totals: dict[str, float], cap: float) -> None:
    """Nobody exceeds the cap of what is left, who is cut is exactly at it, and all others keep what they had."""
    filled = water_filled(totals, cap)
    allowed = max(cap, 2 / len(totals)) * sum(filled.values())
    for rater, total in totals.items():
        assert 0 < filled[rater] <= allowed * (1 + 1e-9)
        assert filled[rater] == total or filled[rater] == pytest.approx(allowed, rel=1e-9)
    assert filled == {rater: min(total, max(filled.values())) for rater, total in totals.items()}


def test_all_that_weighs_is_multiplied_by_hand() -> None:
    config = WeightsConfig(recency_half_life_days=1.0, source_weights={"import": 0.5})
    said = [
        opinion("ann", {(0,): 1.0}, created=2 * DAY_S),
        opinion("ann", {(1,): 1.0}, created=0.0),
        opinion("x", {(2,): 1.0}, source="import", created=DAY_S),
    ]
    weights, raters = weigh(said, config)
    assert weights == [1.0, 0.25, 0.25]
    assert [(r.rater, r.source, r.judgements, r.agreement, r.reliability, r.capped) for r in raters] == [
        ("x", "import", 1, None, 1.0, False),
        ("ann", "live", 2, None, 1.0, False),
    ]
    assert [r.share for r in raters] == pytest.approx([1 / 6, 5 / 6])


def test_cap_holds_within_a_source_and_one_file_is_one_rater() -> None:
    people = [each for n in range(40) for each in alone(f"r{n}", 2)]
    weights, raters = weigh([*people, *alone("eve", 60), *alone("file", 500, source="import")], WeightsConfig())
    by_rater = {r.rater: r for r in raters}
    level = (2 / 41) * 80 / (1 - 2 / 41)  # L = cap (80 + L), where the cap is twice an equal share of 41
    assert by_rater["eve"].capped and not by_rater["file"].capped and not by_rater["r0"].capped
    assert sum(weights[80:140]) == pytest.approx(level)
    assert weights[:80] == [1.0] * 80
    assert weights[140:] == [1.0] * 500
    assert by_rater["eve"].share == pytest.approx(level / (80 + level + 500))


def test_raters_of_chance_weigh_less_than_raters_who_know() -> None:
    """Twenty are right in 0.9 of 40 questions, five answer by a coin."""
    draw = random.Random(0)
    said = [
        opinion(f"{kind}{n}", {(topic,): float(draw.random() < right)})
        for kind, number, right in (("good", 20, 0.9), ("coin", 5, 0.5))
        for n in range(number)
        for topic in range(40)
    ]
    raters = weigh(said, WeightsConfig())[1]
    groups: dict[str, list[float]] = defaultdict(list)
    for each in raters:
        groups[each.rater[:4]].append(each.reliability)
    assert min(groups["good"]) > 0.7
    assert sum(groups["coin"]) / 5 < 0.25


def test_a_round_says_of_its_raters_who_matters_and_who_is_doubted() -> None:
    doubted = opinion("eve", {(0,): 0.0})
    said = [opinion(f"r{n}", {(0,): 1.0}) for n in range(3)] + alone("ann", 5) + [doubted]
    raters = weigh(said, WeightsConfig(prior_judgements=1.0))[1]
    found = in_short(raters)
    assert (found["count"], found["capped"]) == (5, 1)
    assert list(found["largest_share"])[0] == "ann"
    assert list(found["least_reliable"]) == ["eve"]


def test_nothing_to_weigh() -> None:
    assert weigh([], WeightsConfig()) == ([], [])
    weights, raters = weigh(alone("ann", 2), WeightsConfig(source_weights={"live": 0.0}))
    assert weights == [0.0, 0.0]
    assert (raters[0].share, raters[0].capped) == (0.0, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rater_cap": 0.0}, "rater_cap"),
        ({"prior_agreement": 0.5}, "prior_agreement"),
        ({"prior_judgements": 0.0}, "prior_judgements"),
        ({"recency_half_life_days": 0.0}, "recency_half_life_days"),
        ({"source_weights": {"imports": 0.5}}, "live, operator, import"),
        ({"source_weights": {"import": -0.5}}, "not negative"),
        ({"source_weights": {"import": inf}}, "not negative"),
    ],
)
def test_a_wrong_config_names_its_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        WeightsConfig(**changes)  # type: ignore[arg-type]
