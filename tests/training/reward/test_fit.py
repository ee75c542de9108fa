"""Every figure of a reward model by hand, what must not change them, and how often their intervals hold the truth."""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.policies.reward_fit import Fit, Slice
from feedback.statistics import Interval
from training.config import Ties
from training.model.samples import RankedSamples, Sample
from training.reward.fit import Scores, compare, equal_mass, evaluate, measure, reflected
from training.reward.likelihoods import Labels
from training.reward.pairs import kendall_tau

A, B, C = (10,), (10, 11), (10, 11, 12)


def ranking(
    tiers: Sequence[int],
    completions: Sequence[tuple[int, ...]] = (A, B, C),
    prompt: int = 1,
    rater: str = "ann",
    unplaced: int | None = None,
) -> RankedSamples:
    samples = tuple(Sample((prompt,), completion) for completion in completions)
    return RankedSamples(samples, tuple(tiers), unplaced, rater=rater)


def fit(rankings: Sequence[RankedSamples], scores: Sequence[Scores], labels: Labels | None = None) -> Fit:
    found = measure(rankings, scores, labels, draws=50)
    assert found is not None
    return found


def test_every_figure_of_one_ranking_by_hand() -> None:
    """A > B > C, scored 1, 0, 0.5: the winners' scores lie higher by 1, 0.5 and -0.5, of which sigmoid is .731059,
    .622459 and .377541."""
    found = fit([ranking((0, 1, 2))], [(1.0, 0.0, 0.5)])
    assert (found.prompts, found.rankings, found.pairs, found.ties) == (1, 1, 3, 0)
    assert found.accuracy.mean == pytest.approx(2 / 3)
    assert found.log_loss.mean == pytest.approx((0.313262 + 0.474077 + 0.974077) / 3, abs=1e-6)
    assert found.brier.mean == pytest.approx((0.072329 + 0.142537 + 0.387455) / 3, abs=1e-6)
    assert found.ece.mean == pytest.approx(abs((0.731059 + 0.622459 + 0.622459) / 3 - 2 / 3), abs=1e-6)
    [only] = found.bins
    assert (only.predicted, only.observed, only.pairs) == pytest.approx((0.658659, 2 / 3, 3), abs=1e-6)
    assert found.kendall_tau is not None and found.kendall_tau.mean == pytest.approx(1 / 3)
    # lengths 1, 2, 3 lie -1, 0, 1 from their mean, scores 0.5, -0.5, 0 from theirs: -0.5 / 2
    assert found.length_slope is not None and found.length_slope.mean == pytest.approx(-0.25)
    assert found.lengths == (
        Slice(name="-2 to -2", pairs=1, accuracy=1.0),
        Slice(name="-1 to -1", pairs=2, accuracy=0.5),
    )
    assert (found.agreement, found.agreement_pairs, found.log_loss_with_ties) == (None, 0, None)


def test_ties_count_where_their_width_is_known_and_nowhere_else() -> None:
    """Davidson at scores .8, .3 and nu .5 gives a tie .195097 (research notes, R4)."""
    tie, win = ranking((0, 0), (A, B)), ranking((0, 1), (A, B))
    found = fit([tie, win], [(0.8, 0.3)] * 2, labels=Labels("davidson", math.log(0.5)))
    assert (found.pairs, found.ties) == (1, 1)
    assert found.log_loss.mean == pytest.approx(math.log(1 + math.exp(-0.5)))
    total = math.exp(0.8) + math.exp(0.3) + 0.5 * math.exp(0.55)
    assert found.log_loss_with_ties is not None
    assert found.log_loss_with_ties.mean == pytest.approx(
        -(math.log(0.195097) + math.log(math.exp(0.8) / total)) / 2, abs=1e-5
    )
    assert measure([tie], [(0.8, 0.3)]) is None


def test_who_wins_is_as_sure_as_the_model_of_ties_has_it() -> None:
    """Rao-Kupper, theta 2, scores .8 and .3: P(win) = e^.8 / (e^.8 + 2 e^.3), P(loss) = e^.3 / (e^.3 + 2 e^.8)."""
    win, loss = 1 / (1 + 2 * math.exp(-0.5)), 1 / (1 + 2 * math.exp(0.5))
    sure, labels = win / (win + loss), Labels("rao_kupper", 0.0)
    for tiers, chance in [((0, 1), sure), ((1, 0), 1 - sure)]:
        found = fit([ranking(tiers, (A, B))], [(0.8, 0.3)], labels)
        assert found.log_loss.mean == pytest.approx(-math.log(chance))
        assert found.brier.mean == pytest.approx((1 - chance) ** 2)
        assert found.bins[0].predicted == pytest.approx(sure)
    plain = fit([ranking((0, 1), (A, B))], [(0.8, 0.3)])
    assert plain.bins[0].predicted == pytest.approx(1 / (1 + math.exp(-0.5))) != pytest.approx(sure)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_a_crowd_that_ties_by_the_model_is_calibrated(ties: Ties) -> None:
    draw, labels = random.Random(0), Labels(ties, 0.0)
    scores = [(draw.gauss(0, 1), draw.gauss(0, 1)) for _ in range(3000)]
    with torch.no_grad():
        chances = torch.stack(labels.pair_log_probs(*torch.tensor(scores).T)).exp().T.tolist()
    said = [draw.choices([(0, 1), (0, 0), (1, 0)], own)[0] for own in chances]
    found = fit([ranking(tiers, (A, B), prompt=n) for n, tiers in enumerate(said)], scores, labels)
    assert found.ece.mean < 0.03
    assert all(abs(one.predicted - one.observed) < 0.1 for one in found.bins)


def test_nothing_is_said_among_the_unplaced() -> None:
    """A over B and C, which are unplaced: two pairs and no tie, and no order of theirs counts against tau."""
    found = fit([ranking((0, 1, 1), unplaced=1)], [(1.0, 0.0, 0.5)], labels=Labels("davidson"))
    assert (found.pairs, found.ties) == (2, 0)
    assert found.kendall_tau is not None and found.kendall_tau.mean == 1.0
    tied = fit([ranking((0, 1, 1))], [(1.0, 0.0, 0.5)])
    assert (tied.pairs, tied.ties) == (2, 1)
    assert tied.kendall_tau is not None and tied.kendall_tau.mean == pytest.approx(2 / math.sqrt(6))


def test_equal_scores_are_a_coin() -> None:
    found = fit([ranking((0, 1, 2))], [(1.0, 1.0, 1.0)])
    assert (found.accuracy.mean, found.brier.mean, found.ece.mean) == (0.5, 0.25, 0.0)
    assert found.log_loss.mean == pytest.approx(math.log(2))
    assert found.kendall_tau is None
    assert found.length_slope is not None and found.length_slope.mean == 0.0


def test_raters_and_how_far_they_agree() -> None:
    """Ann and Bob agree on A:B alone; Cid sides with Ann there, so A:B is 1, A:C and B:C are 0."""
    rankings = [
        ranking((0, 1, 2), rater="ann"),
        ranking((1, 2, 0), rater="bob"),
        ranking((0, 1), (A, B), rater="cid"),
        ranking((1, 0), (A, B), rater=""),  # who has no name might be Ann
        ranking((1, 0), (A, B), rater="ann", prompt=2),  # another prompt is another pair
        ranking((0, 1), (A, B), rater="ann", prompt=2),  # and nobody disagrees with herself
    ]
    found = fit(rankings, [(2.0, 1.0, 0.0)] * 2 + [(2.0, 1.0)] * 4)
    assert found.agreement_pairs == 3
    assert found.agreement is not None and found.agreement.mean == pytest.approx(1 / 3)
    assert [(s.name, s.pairs, pytest.approx(s.accuracy)) for s in found.raters] == [
        ("ann", 5, 4 / 5),
        ("bob", 3, 1 / 3),
        ("", 1, 0.0),
        ("cid", 1, 1.0),
    ]


def test_of_three_raters_each_couple_counts_the_same() -> None:
    said = [ranking(tiers, (A, B), rater=name) for tiers, name in [((0, 1), "a"), ((0, 1), "b"), ((1, 0), "c")]]
    found = fit(said, [(1.0, 0.0)] * 3)
    assert found.agreement is not None and found.agreement.mean == pytest.approx(1 / 3)


def test_the_slope_on_length_is_within_prompts() -> None:
    """Long prompts' answers score higher altogether, yet within each a token more costs 0.1."""
    rankings = [ranking((0, 1), ((1,) * n, (1,) * (n + 5)), prompt=n) for n in range(1, 9)]
    found = fit(rankings, [(10.0 * n, 10.0 * n - 0.5) for n in range(1, 9)])
    assert found.length_slope == pytest.approx((-0.1, -0.1, -0.1))


def test_quarters_by_length_and_bins_of_equal_mass() -> None:
    assert equal_mass([5, 1, 4, 2, 3, 6, 8, 7], 4) == [2, 0, 1, 0, 1, 2, 3, 3]
    assert equal_mass([1, 1, 1, 1, 2], 2) == [0, 0, 0, 0, 1]
    assert equal_mass([3.0], 4) == [0]
    rankings = [ranking((0, 1), (A, (1,) * (1 + n)), prompt=n) for n in range(1, 41)]
    found = fit(rankings, [(n / 10, 0.0) for n in range(1, 41)])
    assert [(s.name, s.pairs) for s in found.lengths] == [
        ("-40 to -31", 10), ("-30 to -21", 10), ("-20 to -11", 10), ("-10 to -1", 10)
    ]  # fmt: skip
    assert [one.pairs for one in found.bins] == [10] * 4
    first = sum(1 / (1 + math.exp(-n / 10)) for n in range(1, 11)) / 10
    assert found.bins[0].predicted == pytest.approx(first)


@pytest.mark.parametrize(
    ("scores", "tiers", "tau"),
    [
        ([3.0, 2.0, 1.0], [0, 1, 2], 1.0),
        ([1.0, 2.0, 3.0], [0, 1, 2], -1.0),
        ([3.0, 1.0, 2.0], [0, 1, 2], 1 / 3),
        ([3.0, 2.0, 1.0], [0, 0, 1], 2 / math.sqrt(6)),  # tau-b: 2 concordant, 3 and 2 ordered pairs
        ([1.0, 2.0], [0, 0], None),
    ],
)
def test_tau_by_hand(scores: list[float], tiers: list[int], tau: float | None) -> None:
    assert kendall_tau(scores, tiers) == (None if tau is None else pytest.approx(tau))


def test_a_distance_is_reflected_and_never_negative() -> None:
    assert reflected(Interval(0.10, 0.07, 0.15)) == pytest.approx((0.10, 0.05, 0.13))
    assert reflected(Interval(0.02, 0.01, 0.06)) == pytest.approx((0.02, 0.0, 0.03))


scored = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.permutations([0, 1, 2]),
        st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=3, max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(scored, st.integers(-8, 8), st.permutations([0, 1, 2]))
def test_shifts_and_the_order_of_completions_change_nothing(
    judged: list[tuple[int, list[int], list[float]]], shift: int, order: list[int]
) -> None:
    plain = fit([ranking(tiers, prompt=n) for n, (_, tiers, _) in enumerate(judged)], [own for *_, own in judged])
    moved = fit(
        [
            ranking([tiers[i] for i in order], [(A, B, C)[i] for i in order], prompt=n)
            for n, (_, tiers, _) in enumerate(judged)
        ],
        [[own[i] + shift for i in order] for *_, own in judged],
    )
    for name in ("accuracy", "log_loss", "brier", "ece", "kendall_tau", "length_slope"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), abs=1e-9), name
    assert (moved.lengths, moved.raters) == (plain.lengths, plain.raters)


def test_a_fit_survives_json() -> None:
    found = fit([ranking((0, 1, 2)), ranking((1, 0, 2), rater="bob")], [(1.0, 0.0, 0.5)] * 2)
    content = found.model_dump(mode="json")
    assert content["accuracy"].keys() == {"mean", "low", "high"}
    assert Fit.model_validate(content) == found


class Lengths:
    """Scores a sample by its length."""

    def log_odds(self, samples: Sequence[Sample]) -> list[float]:
        return [float(len(sample.completion_ids)) for sample in samples]


def test_evaluate_gives_each_ranking_its_own_scores() -> None:
    found = evaluate(Lengths(), [ranking((0, 1), (B, A)), ranking((2, 1, 0), prompt=2), ranking((0, 1), (A, C), 3)])
    assert found is not None
    assert found.accuracy.mean == 4 / 5
    assert evaluate(Lengths(), []) is None


def crowd(prompts: int, seed: int, scale: float = 1.0) -> tuple[list[RankedSamples], list[Scores]]:
    """Two comparisons a prompt by a Bradley-Terry crowd whose log-odds are the scores / `scale`."""
    draw = random.Random(seed)
    rankings, scores = [], []
    for prompt in range(prompts):
        for _ in range(2):
            true = draw.gauss(0, 1.4)
            preferred = draw.random() < 1 / (1 + math.exp(-true))
            rankings.append(ranking((0, 1) if preferred else (1, 0), (A, B), prompt=prompt))
            scores.append((scale * true, 0.0))
    return rankings, scores


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 80 crowds; what is true was summed over 10^5 gaps of the same distribution. Standard error 2.4%."""
    draw = random.Random(0)
    chances = [1 / (1 + math.exp(-abs(draw.gauss(0, 1.4)))) for _ in range(100_000)]
    truth = {
        "accuracy": sum(chances) / len(chances),
        "log_loss": sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in chances) / len(chances),
        "brier": sum(p * (1 - p) for p in chances) / len(chances),
        "kendall_tau": 2 * sum(chances) / len(chances) - 1,
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(80):
        found = measure(*crowd(60, seed), draws=100, seed=seed)
        assert found is not None
        for name, value in truth.items():
            held[name] += getattr(found, name).low <= value <= getattr(found, name).high
    assert all(count >= 0.86 * 80 for count in held.values()), held


def test_calibration_tells_the_sure_from_the_right() -> None:
    calibrated, sure = (measure(*crowd(300, 1, scale), draws=200) for scale in (1.0, 3.0))
    assert calibrated is not None and sure is not None
    assert sure.accuracy == calibrated.accuracy
    assert calibrated.ece.low < 0.02 < 0.08 < sure.ece.low
    assert sure.log_loss.mean > calibrated.log_loss.mean


def test_the_same_scores_are_no_change() -> None:
    rankings, scores = crowd(20, 0)
    found = compare(rankings, scores, scores, version=3)
    assert found is not None
    assert (found.version, found.prompts, found.pairs) == (3, 20, 40)
    assert found.log_loss == found.accuracy == Interval(0.0, 0.0, 0.0)
    assert not found.worse and not found.better


def test_a_change_by_hand() -> None:
    """Six prompts of one pair: old has all right by 1, new all wrong by 1; a seventh of a tie, which says nothing."""
    rankings = [ranking((0, 1), (A, B), prompt=n) for n in range(6)] + [ranking((0, 0), (A, B), prompt=9)]
    found = compare(rankings, [(0.0, 1.0)] * 7, [(1.0, 0.0)] * 7, version=1)
    assert found is not None
    assert (found.prompts, found.pairs) == (6, 6)
    assert found.log_loss == pytest.approx((1.0, 1.0, 1.0))  # 1.313262 less 0.313262
    assert found.accuracy == Interval(-1.0, -1.0, -1.0)
    assert found.worse
    assert compare(rankings[1:], [(0.0, 1.0)] * 6, [(1.0, 0.0)] * 6, version=1) is None  # five prompts cannot tell


def test_a_change_is_of_each_model_by_its_own_ties() -> None:
    """The same scores by Rao-Kupper at theta 2, whose winner has .788 of the decided, and by Bradley-Terry, .731."""
    rankings, scores = [ranking((0, 1), (A, B), prompt=n) for n in range(6)], [(1.0, 0.0)] * 6
    wider, plain = Labels("rao_kupper", 0.0), Labels("soft")
    win, loss = math.e / (math.e + 2), 1 / (1 + 2 * math.e)
    change = -math.log(win / (win + loss)) - math.log1p(math.exp(-1))
    for ours, theirs, sign in [(wider, plain, 1), (plain, wider, -1)]:
        found = compare(rankings, scores, scores, version=1, labels=ours, old_labels=theirs)
        assert found is not None and found.log_loss.mean == pytest.approx(sign * change)
        assert found.accuracy == Interval(0.0, 0.0, 0.0)


def test_pairing_sees_what_two_intervals_cannot() -> None:
    """New is old with half of each gap lost: both figures are wide, their difference is not."""
    rankings, scores = crowd(60, 4)
    weaker = [[x / 2 for x in own] for own in scores]
    old, new = measure(rankings, scores), measure(rankings, weaker)
    found = compare(rankings, weaker, scores, version=1)
    assert old is not None and new is not None and found is not None
    assert found.log_loss.mean == pytest.approx(new.log_loss.mean - old.log_loss.mean)
    assert found.accuracy == Interval(0.0, 0.0, 0.0)
    assert found.log_loss.high - found.log_loss.low < 0.7 * (old.log_loss.high - old.log_loss.low)
