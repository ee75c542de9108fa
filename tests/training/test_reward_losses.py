import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from training.losses import davidson_log_probs, pair_loss, plackett_luce_loss, ranking_loss, rating_loss

RANKED = [2.0, 1.0, 0.5, -1.0]  # scores of one prompt's completions, best first
LOG_NU = math.log(0.5)

scores_and_tiers = st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 3)), min_size=2, max_size=6)
log_nus = st.none() | st.floats(-3, 2)

examples = settings(max_examples=50, deadline=None)  # a busy machine is no counterexample


def f64(values: float | Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.048587),
        ({"margin": 1.0}, 0.126928),
        ({"label_smoothing": 0.1}, 0.348587),
        ({"center_coef": 0.01}, 0.058587),
    ],
)
def test_pair_loss_golden(options: dict[str, float], expected: float) -> None:
    close(pair_loss(f64([2.0]), f64([-1.0]), **options), expected)


def test_ranking_loss_golden() -> None:
    loss = ranking_loss(f64(RANKED), torch.arange(4))
    close(loss, 0.227613)
    adjacent_only = 0.329584  # the known wrong reading of eq. 1
    assert abs(loss.item() - adjacent_only) > 0.1


def test_plackett_luce_golden() -> None:
    close(plackett_luce_loss(f64(RANKED)), 1.251552)
    close(plackett_luce_loss(f64(RANKED)) / 3, 0.417184)


def test_the_likelihoods_agree_on_two_completions() -> None:
    pair = f64([1.4, 0.3])
    close(plackett_luce_loss(pair), 0.287335)
    close(pair_loss(pair[:1], pair[1:]), 0.287335)
    close(ranking_loss(pair, torch.tensor([0, 1])), 0.287335)


def test_davidson_golden() -> None:
    win, tie, lose = davidson_log_probs(f64(0.8), f64(0.3), LOG_NU)
    close(torch.stack([win, tie, lose]).exp(), [0.501019, 0.195097, 0.303884])


@pytest.mark.parametrize("log_nu", [-30.0, -math.inf])
def test_davidson_without_ties_is_bradley_terry(log_nu: float) -> None:
    win, _, lose = davidson_log_probs(f64(0.8), f64(0.3), log_nu)
    close(win, math.log(1 / (1 + math.exp(-0.5))))
    close(lose, math.log(1 / (1 + math.exp(0.5))))
    close(ranking_loss(f64(RANKED), torch.arange(4), log_nu), 0.227613)


@examples
@given(a=st.floats(-50, 50), b=st.floats(-50, 50), log_nu=st.floats(-10, 10))
def test_davidson_probabilities_sum_to_one(a: float, b: float, log_nu: float) -> None:
    close(torch.stack(davidson_log_probs(f64(a), f64(b), log_nu)).exp().sum(), 1.0, 1e-9)


def test_ties_golden() -> None:
    tied = torch.tensor([0, 0])
    close(ranking_loss(f64([0.8, 0.3]), tied), 0.724077)
    close(ranking_loss(f64([0.8, 0.3]), tied, LOG_NU), -math.log(0.195097), 1e-5)


def slow_ranking_loss(scores: list[float], tiers: list[int], log_nu: float | None) -> float:
    """The definition, pair by pair in plain floats."""
    losses = []
    for i, j in combinations(range(len(scores)), 2):
        a, b = (scores[i], scores[j]) if tiers[i] <= tiers[j] else (scores[j], scores[i])
        nu = 0.0 if log_nu is None else math.exp(log_nu)
        strengths = math.exp(a), nu * math.exp((a + b) / 2), math.exp(b)
        win, tie, lose = (x / sum(strengths) for x in strengths)
        if tiers[i] != tiers[j]:
            losses.append(-math.log(win))
        elif log_nu is None:
            losses.append(-0.5 * math.log(win) - 0.5 * math.log(lose))
        else:
            losses.append(-math.log(tie))
    return sum(losses) / len(losses)


@examples
@given(candidates=scores_and_tiers, log_nu=log_nus)
def test_ranking_loss_is_its_definition(candidates: list[tuple[float, int]], log_nu: float | None) -> None:
    scores, tiers = map(list, zip(*candidates, strict=True))
    close(ranking_loss(f64(scores), torch.tensor(tiers), log_nu), slow_ranking_loss(scores, tiers, log_nu), 1e-9)


@examples
@given(candidates=scores_and_tiers, log_nu=log_nus, shift=st.floats(-100, 100), data=st.data())
def test_ranking_loss_knows_neither_zero_nor_input_order(
    candidates: list[tuple[float, int]], log_nu: float | None, shift: float, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(candidates))
    scores, tiers = zip(*candidates, strict=True)
    moved, moved_tiers = zip(*shuffled, strict=True)
    expected = ranking_loss(f64(scores), torch.tensor(tiers), log_nu)
    close(ranking_loss(f64(moved) + shift, torch.tensor(moved_tiers), log_nu), expected.item(), 1e-9)


@examples
@given(scores=st.lists(st.floats(-5, 5), min_size=2, max_size=6), shift=st.floats(-100, 100))
def test_plackett_luce_loss_knows_no_zero(scores: list[float], shift: float) -> None:
    close(plackett_luce_loss(f64(scores) + shift), plackett_luce_loss(f64(scores)).item(), 1e-9)


def test_label_smoothing_of_a_ranking() -> None:
    close(ranking_loss(f64([2.0, -1.0]), torch.tensor([0, 1]), label_smoothing=0.1), 0.348587)


def test_a_ranking_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        ranking_loss(f64([1.0]), torch.tensor([0]))


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    for log_nu in (None, 0.0):
        loss = ranking_loss(scores, torch.tensor([0, 1, 1]), log_nu)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.isfinite() and gradient.isfinite().all()


def test_rating_loss_by_hand() -> None:
    # At the threshold a thumb is worth log 2; one up and one down at gap 1 are softplus(-1) and softplus(1).
    close(rating_loss(f64([0.7]), f64([1.0]), 0.7), math.log(2))
    softplus = [math.log1p(math.exp(x)) for x in (-1.0, 1.0)]
    close(rating_loss(f64([1.5, 1.5]), f64([1.0, 0.0]), f64(0.5)), sum(softplus) / 2)
    close(rating_loss(f64([1.5]), f64([0.25]), f64(0.5)), 0.25 * softplus[0] + 0.75 * softplus[1])


SCORES, OTHERS = f64([0.3, -1.2, 0.9, 2.1]), f64([0.1, 0.4, -0.5, 1.0])
TIERS = torch.tensor([1, 0, 1, 2])


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda a, b: pair_loss(a, b, 0.3, 0.1, 0.01), (SCORES, OTHERS)),
        (lambda s: ranking_loss(s, TIERS), (SCORES,)),
        (lambda s, log_nu: ranking_loss(s, TIERS, log_nu, 0.1), (SCORES, f64(-0.4))),
        (davidson_log_probs, (SCORES, OTHERS, f64(-0.4))),
        (plackett_luce_loss, (SCORES,)),
        (lambda s, threshold: rating_loss(s, f64([0.0, 1.0, 1.0, 0.3]), threshold), (SCORES, f64(0.2))),
    ],
)
def test_gradients_against_finite_differences(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    assert gradcheck(function, tuple(x.clone().requires_grad_() for x in inputs))
