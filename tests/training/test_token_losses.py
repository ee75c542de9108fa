"""What holds for every loss over tokens: microbatches add up, and padding does not count."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from training.losses import kl_loss, language_model_loss, ppo_policy_loss, value_loss

examples = settings(max_examples=50, deadline=None)  # a busy machine is no counterexample


def f64(values: float | Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


def random_batch(seed: int, shape: tuple[int, ...], count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def ragged_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


TokenLoss = Callable[[list[Tensor], Tensor, float | None], Tensor]


def policy_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    return ppo_policy_loss(x[0], x[1], x[2], mask, 0.2, 3.0, x[3].exp(), normaliser)[0]


def value_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    return value_loss(x[0], x[1], x[2], mask, 0.2, normaliser)


def language_model_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    return language_model_loss(x[0], mask, normaliser)


def kl_k1_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    return kl_loss(x[0], x[1], mask, "k1", normaliser)


def kl_k3_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    return kl_loss(x[0], x[1], mask, "k3", normaliser)


def stats_term(x: list[Tensor], mask: Tensor, normaliser: float | None) -> Tensor:
    stats = ppo_policy_loss(x[0], x[1], x[2], mask, 0.2, normaliser=normaliser)[1]
    return torch.stack(stats).dot(f64([1.0, 10.0, 100.0])) + 0 * x[0].nan_to_num().sum()


every_token_loss = pytest.mark.parametrize(
    "term", [policy_term, value_term, language_model_term, kl_k1_term, kl_k3_term, stats_term]
)


def loss_and_gradient(term: TokenLoss, x: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    first = x[0].clone().requires_grad_()
    loss = term([first, *x[1:]], mask, None)
    return loss.detach(), torch.autograd.grad(loss, first)[0]


@every_token_loss
@examples
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any),
    cuts=st.sets(st.integers(1, 5)),
)
def test_microbatches_add_up_to_the_batch(term: TokenLoss, seed: int, lengths: list[int], cuts: set[int]) -> None:
    mask = ragged_mask(lengths, 5)
    x = random_batch(seed, tuple(mask.shape), 4)
    loss, gradient = loss_and_gradient(term, x, mask)
    edges = [0, *sorted(cut for cut in cuts if cut < len(lengths)), len(lengths)]
    first, parts = x[0].clone().requires_grad_(), []
    for start, end in zip(edges, edges[1:], strict=False):
        part = term([first[start:end], *(y[start:end] for y in x[1:])], mask[start:end], float(mask.sum()))
        torch.autograd.backward(part)
        parts.append(part.item())
    close(loss, sum(parts), 1e-9)
    assert first.grad is not None
    close(first.grad, gradient, 1e-9)


@every_token_loss
@examples
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    extra=st.integers(1, 4),
    poisoned=st.sets(st.integers(0, 3)),
)
def test_padding_changes_nothing(
    term: TokenLoss, seed: int, lengths: list[int], extra: int, poisoned: set[int]
) -> None:
    mask, wide_mask = ragged_mask(lengths, 5), ragged_mask(lengths, 5 + extra)
    x = random_batch(seed, tuple(mask.shape), 4)
    # Inputs are poisoned one by one: where all are NaN, one masked input can hide that another is not.
    padding = [math.nan if i in poisoned else 1.0 for i in range(4)]
    wide = [pad(y, (0, extra)).masked_fill(~wide_mask, value) for y, value in zip(x, padding, strict=True)]
    loss, gradient = loss_and_gradient(term, x, mask)
    wide_loss, wide_gradient = loss_and_gradient(term, wide, wide_mask)
    close(wide_loss, loss.item(), 1e-9)
    if term is not stats_term:
        close(wide_gradient[:, :5], gradient, 1e-9)
        assert (wide_gradient[~wide_mask] == 0).all()
