"""Every likelihood against golden values, slow definitions, and the sum over everything that could have been said."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations, product
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from training.config import RankingLikelihood, Ties
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample
from training.reward.likelihoods import (
    Labels,
    PairLogProbs,
    bradley_terry_log_probs,
    choice_log_probs,
    davidson_log_probs,
    log_likelihood,
    rao_kupper_log_probs,
    rating_log_likelihood,
    weighted_loss,
)

RANKED = [2.0, 1.0, 0.5, -1.0]  # scores of one prompt's completions, best first
LOG_HALF = math.log(0.5)
SAMPLE = Sample((1,), (2,))
LIKELIHOODS: list[tuple[RankingLikelihood, Ties]] = [
    ("pairs", "davidson"),
    ("pairs", "rao_kupper"),
    ("pairs", "soft"),
    ("plackett_luce", "davidson"),
    ("plackett_luce", "soft"),
]

every_likelihood = pytest.mark.parametrize(("likelihood", "ties"), LIKELIHOODS)
examples = settings(max_examples=30, deadline=None)  # a busy machine is no counterexample
finite = st.floats(-5, 5, width=32)
widths = st.floats(-3, 2, width=32)


def f64(values: float | Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


def ranking(tiers: Sequence[int], unplaced: int | None = None, weight: float = 1.0) -> RankedSamples:
    return RankedSamples((SAMPLE,) * len(tiers), tuple(tiers), unplaced, weight)


def labels(ties: Ties = "soft", width: float = 0.0, threshold: float = 0.0) -> Labels:
    return Labels(ties, width, threshold).double()


def said(
    judgement: Judgement,
    scores: Sequence[float],
    ties: Ties = "soft",
    width: float = 0.0,
    likelihood: RankingLikelihood = "pairs",
    **options: float,
) -> Tensor:
    """The log-likelihood of one judgement."""
    return log_likelihood([judgement], f64(scores), labels(ties, width), likelihood, **options)[0]


def orders(count: int) -> list[tuple[int, ...]]:
    """The tiers of all ordered partitions of `count` things: 1, 3, 13, 75 of them."""
    return [tiers for tiers in product(range(count), repeat=count) if set(tiers) == set(range(max(tiers) + 1))]


@st.composite
def rankings(draw: st.DrawFn, least: int = 2, most: int = 5) -> tuple[list[float], list[int], int | None]:
    """Scores, tiers with ties, and perhaps a tier of the unplaced."""
    count = draw(st.integers(least, most))
    tiers = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    scores = draw(st.lists(finite, min_size=count, max_size=count))
    partial = draw(st.booleans()) and len(set(tiers)) > 1
    return scores, tiers, max(tiers) if partial else None


# Golden values of R1 to R4, and of what they leave out worked out by hand.


@pytest.mark.parametrize("likelihood", ["pairs", "plackett_luce"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.048587),
        ({"margin": 1.0}, 0.126928),
        ({"label_smoothing": 0.1}, 0.348587),
        ({"center_coef": 0.01}, 0.058587),
    ],
)
def test_pair_golden(likelihood: RankingLikelihood, options: dict[str, float], expected: float) -> None:
    """A ranking of two, in either order of its completions, by either likelihood."""
    close(-said(ranking([0, 1]), [2.0, -1.0], likelihood=likelihood, **options), expected)
    close(-said(ranking([1, 0]), [-1.0, 2.0], likelihood=likelihood, **options), expected)


def test_centering_penalty_is_the_mean_over_the_pairs_that_say_something() -> None:
    """At scores 2, 0.5, -1.5: 2.5^2 and 0.5^2; what was left out is not paired with its like."""
    judgement, scores = ranking([0, 1, 1], unplaced=1), [2.0, 0.5, -1.5]
    taken_off = said(judgement, scores) - said(judgement, scores, center_coef=0.1)
    close(taken_off, 0.1 * (2.5**2 + 0.5**2) / 2)


def test_mean_over_pairs_golden() -> None:
    loss = -said(ranking([0, 1, 2, 3]), RANKED)
    close(loss, 0.227613)
    adjacent_only = 0.329584  # the known wrong reading of eq. 1
    assert abs(loss.item() - adjacent_only) > 0.1


def test_plackett_luce_golden() -> None:
    close(-said(ranking([0, 1, 2, 3]), RANKED, likelihood="plackett_luce"), 1.251552)
    close(-said(ranking([0, 1]), [1.4, 0.3], likelihood="plackett_luce"), 0.287335)
    best_of_four = ranking([0, 1, 1, 1], unplaced=1)
    close(-said(best_of_four, RANKED, likelihood="plackett_luce"), 0.495182)


def test_ties_golden() -> None:
    a, b = f64(0.8), f64(0.3)
    close(torch.stack(davidson_log_probs(a, b, LOG_HALF)).exp(), [0.501019, 0.195097, 0.303884])
    close(torch.stack(rao_kupper_log_probs(a, b, f64(LOG_HALF))).exp(), [0.523616, 0.188455, 0.287929])
    close(-bradley_terry_log_probs(a, b).tie, 0.724077)


@pytest.mark.parametrize(
    ("likelihood", "ties", "expected"),
    [
        ("pairs", "davidson", -math.log(0.195097)),
        ("pairs", "rao_kupper", -math.log(0.188455)),
        ("pairs", "soft", 0.724077),
        ("plackett_luce", "davidson", -math.log(0.195097)),
        ("plackett_luce", "soft", 0.724077),
    ],
)
def test_tie_of_two_golden(likelihood: RankingLikelihood, ties: Ties, expected: float) -> None:
    close(-said(ranking([0, 0]), [0.8, 0.3], ties, LOG_HALF, likelihood), expected, 1e-5)


def test_tie_of_three_by_hand() -> None:
    """Davidson-Luce at equal scores: three sets of one weigh 1, three of two nu, one of three nu^2."""
    nu = 0.5
    total = 3 + 3 * nu + nu**2
    loss = {tiers: -said(ranking(tiers), [0.0] * 3, "davidson", LOG_HALF, "plackett_luce") for tiers in orders(3)}
    close(loss[0, 0, 0], -math.log(nu**2 / total))
    close(loss[0, 0, 1], -math.log(nu / total))
    close(loss[0, 1, 1], -math.log(1 / total) - math.log(nu / (2 + nu)))
    close(loss[0, 1, 2], -math.log(1 / total) - math.log(1 / (2 + nu)))


def test_thumb_by_hand() -> None:
    # At the threshold a thumb is worth log 2; a gap of 1 makes it softplus(-1) or softplus(1).
    close(-rating_log_likelihood(f64([0.7]), f64([1.0]), 0.7), [math.log(2)])
    softplus = [math.log1p(math.exp(x)) for x in (-1.0, 1.0)]
    judgements = [RatedSample(SAMPLE, label) for label in (1.0, 0.0, 0.25)]
    values = log_likelihood(judgements, f64([1.5] * 3), labels(threshold=0.5))
    close(-values, [*softplus, 0.25 * softplus[0] + 0.75 * softplus[1]])


# Probabilities.


@examples
@given(a=st.floats(-50, 50), b=st.floats(-50, 50), width=st.floats(-10, 10))
@pytest.mark.parametrize("model", [davidson_log_probs, rao_kupper_log_probs])
def test_win_tie_and_loss_sum_to_one(
    model: Callable[[Tensor, Tensor, Tensor], PairLogProbs], a: float, b: float, width: float
) -> None:
    close(torch.stack(model(f64(a), f64(b), f64(width))).exp().sum(), 1.0, 1e-9)


@examples
@given(scores=st.lists(finite, min_size=2, max_size=4), width=widths)
def test_all_rankings_of_two_three_or_four_sum_to_one(scores: list[float], width: float) -> None:
    every = orders(len(scores))
    assert len(every) == {2: 3, 3: 13, 4: 75}[len(scores)]
    judgements = [ranking(tiers) for tiers in every]
    values = log_likelihood(judgements, f64(scores * len(every)), labels("davidson", width), "plackett_luce")
    close(values.exp().sum(), 1.0, 1e-9)


@examples
@given(scores=st.lists(finite, min_size=2, max_size=5))
def test_all_strict_rankings_sum_to_one(scores: list[float]) -> None:
    every = [ranking(tiers) for tiers in permutations(range(len(scores)))]
    values = log_likelihood(every, f64(scores * len(every)), labels(), "plackett_luce")
    close(values.exp().sum(), 1.0, 1e-9)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_all_that_can_be_said_of_two_sums_to_one(ties: Ties) -> None:
    judgements = [ranking(tiers) for tiers in orders(2)]
    close(log_likelihood(judgements, f64([0.7, -0.4] * 3), labels(ties, 0.3)).exp().sum(), 1.0, 1e-9)


@examples
@given(scores=st.lists(finite, min_size=2, max_size=4), width=widths, placed=st.integers(1, 3))
def test_all_partial_rankings_up_to_a_depth_sum_to_one(scores: list[float], width: float, placed: int) -> None:
    """Rankings that stop after the first so many groups; those that have no more are whole."""
    cut = {tuple(min(tier, placed) for tier in tiers) for tiers in orders(len(scores))}
    judgements = [ranking(tiers, unplaced=placed) for tiers in cut]
    values = log_likelihood(judgements, f64(scores * len(cut)), labels("davidson", width), "plackett_luce")
    close(values.exp().sum(), 1.0, 1e-9)


def completions_of(tiers: Sequence[int], unplaced: int) -> Iterator[tuple[int, ...]]:
    """All whole rankings that agree with a partial one."""
    free = [n for n, tier in enumerate(tiers) if tier == unplaced]
    for below in orders(len(free)):
        order = dict(zip(free, below, strict=True))
        yield tuple(unplaced + order[n] if n in order else tier for n, tier in enumerate(tiers))


@examples
@given(candidates=rankings(most=4), width=widths)
def test_partial_ranking_is_as_likely_as_all_whole_ones_that_agree(
    candidates: tuple[list[float], list[int], int | None], width: float
) -> None:
    scores, tiers, _ = candidates
    assume(len(set(tiers)) > 1)
    unplaced = max(tiers)
    whole = [ranking(each) for each in completions_of(tiers, unplaced)]
    values = log_likelihood(whole, f64(scores * len(whole)), labels("davidson", width), "plackett_luce")
    partial = said(ranking(tiers, unplaced), scores, "davidson", width, "plackett_luce")
    close(values.logsumexp(0), partial.item(), 1e-9)


# Slow definitions.


def slow_pairs(scores: list[float], tiers: list[int], unplaced: int | None, ties: Ties, width: float) -> float:
    """The definition, pair by pair in plain floats."""
    values = []
    for i, j in combinations(range(len(scores)), 2):
        if tiers[i] == tiers[j] == unplaced:
            continue
        a, b = (math.exp(scores[n]) for n in ((i, j) if tiers[i] <= tiers[j] else (j, i)))
        tied, nu, theta = tiers[i] == tiers[j], math.exp(width), 1 + math.exp(width)
        if ties == "davidson":
            values.append(math.log((nu * math.sqrt(a * b) if tied else a) / (a + b + nu * math.sqrt(a * b))))
        elif ties == "rao_kupper":
            values.append(
                math.log((theta**2 - 1) * b / (b + theta * a) if tied else 1.0) + math.log(a / (a + theta * b))
            )
        else:
            win, lose = math.log(a / (a + b)), math.log(b / (a + b))
            values.append((win + lose) / 2 if tied else win)
    return sum(values) / len(values)


def slow_plackett_luce(scores: list[float], tiers: list[int], unplaced: int | None, ties: Ties, width: float) -> float:
    """The definition: in each choice, all sets that could have been the best."""

    def weight(members: Sequence[int]) -> float:
        return math.exp(width * (len(members) - 1) + sum(scores[n] for n in members) / len(members))

    value, everyone = 0.0, range(len(scores))
    for tier in sorted(set(tiers) - {unplaced}):
        best = [n for n in everyone if tiers[n] == tier]
        rest = [n for n in everyone if tiers[n] >= tier]
        sizes = [1] if ties == "soft" else range(1, len(rest) + 1)
        total = sum(weight(members) for size in sizes for members in combinations(rest, size))
        value += math.log(weight(best) / total) - (width * (len(best) - 1) if ties == "soft" else 0)
    return value


@examples
@every_likelihood
@given(candidates=rankings(), width=widths)
def test_likelihood_is_its_definition(
    likelihood: RankingLikelihood, ties: Ties, candidates: tuple[list[float], list[int], int | None], width: float
) -> None:
    scores, tiers, unplaced = candidates
    slow = slow_pairs if likelihood == "pairs" else slow_plackett_luce
    actual = said(ranking(tiers, unplaced), scores, ties, width, likelihood)
    close(actual, slow(scores, tiers, unplaced, ties, width), 1e-9)


@pytest.mark.parametrize("ties", ["davidson", "soft"])
@given(scores=st.tuples(finite, finite), width=widths, tiers=st.sampled_from(orders(2)))
@examples
def test_two_completions_are_a_pair_in_plackett_luce(
    ties: Ties, scores: tuple[float, float], width: float, tiers: tuple[int, int]
) -> None:
    options = {"margin": 0.3, "label_smoothing": 0.1}
    pair, choices = (said(ranking(tiers), scores, ties, width, kind, **options) for kind in ("pairs", "plackett_luce"))
    close(choices, pair.item(), 1e-9)


@pytest.mark.parametrize(("likelihood", "ties"), [each for each in LIKELIHOODS if each[1] != "soft"])
def test_ties_of_no_width_leave_the_likelihood_without_ties(likelihood: RankingLikelihood, ties: Ties) -> None:
    """nu -> 0 and theta -> 1."""
    strict = ranking([2, 0, 1, 3])
    close(said(strict, RANKED, ties, -40.0, likelihood), said(strict, RANKED, "soft", 0.0, likelihood), 1e-9)


def test_margin_and_wrong_labels_of_a_choice_by_hand() -> None:
    """The chosen leads by the margin, and a wrong label is either of the two others."""
    scores, everyone = f64([[1.0, 0.5, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
    chosen = torch.tensor([[True, False, False]])
    total = math.log(math.exp(1.0 - 0.2) + math.exp(0.5) + 1)
    expected = 0.9 * (0.8 - total) + 0.1 * (0.25 - total)
    close(choice_log_probs(scores, chosen, everyone, None, margin=0.2, label_smoothing=0.1), [expected])


# Invariances.


@examples
@every_likelihood
@given(candidates=rankings(), width=widths, shift=st.floats(-100, 100), data=st.data())
def test_zero_and_input_order_do_not_matter(
    likelihood: RankingLikelihood,
    ties: Ties,
    candidates: tuple[list[float], list[int], int | None],
    width: float,
    shift: float,
    data: st.DataObject,
) -> None:
    scores, tiers, unplaced = candidates
    moved, moved_tiers = zip(*data.draw(st.permutations(list(zip(scores, tiers, strict=True)))), strict=True)
    options = {"margin": 0.2, "label_smoothing": 0.1}
    expected = said(ranking(tiers, unplaced), scores, ties, width, likelihood, **options)
    shifted = [score + shift for score in moved]
    close(said(ranking(moved_tiers, unplaced), shifted, ties, width, likelihood, **options), expected.item(), 1e-9)


@examples
@every_likelihood
@given(candidates=rankings(least=3), data=st.data())
def test_scores_of_the_unplaced_may_change_places(
    likelihood: RankingLikelihood,
    ties: Ties,
    candidates: tuple[list[float], list[int], int | None],
    data: st.DataObject,
) -> None:
    scores, tiers, _ = candidates
    assume(len(set(tiers)) > 1)
    unplaced = max(tiers)
    free = [n for n, tier in enumerate(tiers) if tier == unplaced]
    moved = list(scores)
    for n, other in zip(free, data.draw(st.permutations(free)), strict=True):
        moved[n] = scores[other]
    judgement = ranking(tiers, unplaced)
    close(said(judgement, moved, ties, 0.1, likelihood), said(judgement, scores, ties, 0.1, likelihood).item(), 1e-9)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Judgement], list[float]]:
    """Judgements of all kinds, weighted, and the scores of their completions."""
    judgements: list[Judgement] = []
    scores: list[float] = []
    weights = st.sampled_from([0.0, 0.5, 1.0, 3.0])
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            own, tiers, unplaced = draw(rankings())
            judgements.append(ranking(tiers, unplaced, draw(weights)))
            scores += own
        else:
            judgements.append(RatedSample(SAMPLE, draw(st.sampled_from([0.0, 0.4, 1.0])), draw(weights)))
            scores.append(draw(finite))
    return judgements, scores


@examples
@every_likelihood
@given(crowd=crowds())
def test_judgements_beside_and_padding_do_not_matter(
    likelihood: RankingLikelihood, ties: Ties, crowd: tuple[list[Judgement], list[float]]
) -> None:
    judgements, scores = crowd
    own = f64(scores).split([len(judgement.samples) for judgement in judgements])
    alone = [
        log_likelihood([j], s, labels(ties, 0.2, 0.4), likelihood)[0] for j, s in zip(judgements, own, strict=True)
    ]
    close(log_likelihood(judgements, f64(scores), labels(ties, 0.2, 0.4), likelihood), torch.stack(alone), 1e-12)


@examples
@given(crowd=crowds(), data=st.data())
def test_microbatches_add_up_to_the_weighted_mean(
    crowd: tuple[list[Judgement], list[float]], data: st.DataObject
) -> None:
    judgements, scores = crowd
    weights = f64([judgement.weight for judgement in judgements])
    if not weights.sum():
        with pytest.raises(ValueError, match="no weight"):
            weighted_loss(torch.zeros_like(weights), weights)
        return
    values = log_likelihood(judgements, f64(scores), labels("davidson"))
    total = sum(judgement.weight for judgement in judgements)
    expected = -sum(v * j.weight for v, j in zip(values.tolist(), judgements, strict=True)) / total
    close(weighted_loss(values, weights), expected, 1e-9)
    cut = data.draw(st.integers(0, len(judgements)))
    parts = [weighted_loss(values[s], weights[s], total) for s in (slice(cut), slice(cut, None))]
    close(parts[0] + parts[1], expected, 1e-9)


def test_a_ranking_weighs_like_a_comparison_whatever_its_length() -> None:
    """At equal scores each pair is worth log 2, and so is their mean."""
    close(-said(ranking(range(9)), [0.0] * 9), math.log(2))


# Gradients and numbers at the edge.


class WithLabels(torch.nn.Module):
    """The likelihood as a module, so that a test may put tensors in the place of its parameters."""

    def __init__(self, ties: Ties) -> None:
        super().__init__()
        self.labels = labels(ties)

    def forward(self, judgements: list[Judgement], scores: Tensor, likelihood: RankingLikelihood) -> Tensor:
        options = {"margin": 0.3, "label_smoothing": 0.1, "center_coef": 0.01}
        return log_likelihood(judgements, scores, self.labels, likelihood, **options)


@every_likelihood
def test_gradients_against_finite_differences(likelihood: RankingLikelihood, ties: Ties) -> None:
    judgements = [ranking([1, 0, 1, 2]), RatedSample(SAMPLE, 0.3), ranking([0, 2, 1, 2, 2], 2), ranking([0, 0])]
    module = WithLabels(ties)
    names = [name for name, _ in module.named_parameters()]

    def function(scores: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        result: Tensor = torch.func.functional_call(module, named, (judgements, scores, likelihood))
        return result

    scores = f64([0.3, -1.2, 0.9, 2.1, 0.1, 0.4, -0.5, 1.0, -0.2, 0.6, 0.8, 0.3])
    assert gradcheck(function, tuple(x.requires_grad_() for x in (scores, f64(0.2), f64(-0.4))[: 1 + len(names)]))


@every_likelihood
def test_every_parameter_learns(likelihood: RankingLikelihood, ties: Ties) -> None:
    module = labels(ties, 0.1)
    judgements = [ranking([0, 0, 1]), RatedSample(SAMPLE, 1.0)]
    log_likelihood(judgements, f64([0.1, 0.2, 0.3, 0.4]), module, likelihood).sum().backward()
    assert len(list(module.parameters())) == (1 if ties == "soft" else 2)
    assert all(parameter.grad is not None and parameter.grad != 0 for parameter in module.parameters())


@every_likelihood
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_stay_finite(likelihood: RankingLikelihood, ties: Ties, dtype: torch.dtype) -> None:
    judgements = [ranking([0, 1, 1]), RatedSample(SAMPLE, 0.0), ranking([0, 1, 0, 2], 2)]
    scores = torch.tensor([-1e4, 1e4, 0.0, 1e4, 1e4, -1e4, -1e4, 0.0], dtype=dtype, requires_grad=True)
    module = Labels(ties)
    options = {"margin": 0.5, "label_smoothing": 0.1}
    values = log_likelihood(judgements, scores, module, likelihood, **options)
    assert values.dtype == torch.float32
    values.sum().backward()
    gradients = [tensor.grad for tensor in (scores, *module.parameters())]
    assert values.isfinite().all()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


# What cannot be meant.


def test_as_many_scores_as_completions() -> None:
    with pytest.raises(ValueError, match="3 scores for 2 completions"):
        said(ranking([0, 1]), [1.0, 2.0, 3.0])


def test_rao_kupper_knows_no_choices() -> None:
    with pytest.raises(ValueError, match="for pairs only"):
        said(ranking([0, 1]), [1.0, 2.0], "rao_kupper", likelihood="plackett_luce")


@pytest.mark.parametrize(
    ("tiers", "unplaced", "weight"),
    [([0], None, 1.0), ([1, 1], 1, 1.0), ([0, 2], 1, 1.0), ([0, 1], None, -1.0), ([0, 1], None, math.nan)],
)
def test_impossible_ranking_is_refused(tiers: list[int], unplaced: int | None, weight: float) -> None:
    with pytest.raises(ValueError, match="places two or more|unplaced comes after|weight"):
        ranking(tiers, unplaced, weight)


@pytest.mark.parametrize(("label", "weight"), [(-0.1, 1.0), (1.1, 1.0), (1.0, math.inf)])
def test_impossible_rating_is_refused(label: float, weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1|weight"):
        RatedSample(SAMPLE, label, weight)
