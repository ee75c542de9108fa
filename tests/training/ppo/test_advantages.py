import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from training.ppo.advantages import (
    adapt_kl_coef,
    apply_missing_eos,
    end_positions,
    generalized_advantages,
    token_rewards,
)

LOG_PROBS, REF_LOG_PROBS = [-1.0, -0.5, -0.2], [-1.2, -0.4, -0.3]
VALUES, VALUE_AFTER_EOS = [0.1, 0.2, 0.3], 0.05

lengths_of_batch = st.lists(st.integers(1, 6), min_size=1, max_size=4)

examples = settings(max_examples=50, deadline=None)  # a busy machine is no counterexample


def f64(values: float | Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


def full_mask(rows: int, width: int) -> Tensor:
    return torch.ones(rows, width, dtype=torch.bool)


def random_batch(seed: int, lengths: list[int], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and mask; NaN in the padding, so that whoever reads it is found out."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    real = [torch.randn(len(lengths), 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    padded = [torch.nn.functional.pad(x, (0, width - 6)).masked_fill(~mask, math.nan) for x in real]
    return padded[0], padded[1], mask


def slow_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al. 2016, eq. 16 as written: for each token the sum of all later TD errors."""
    after = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


def test_score_on_the_end_token_golden() -> None:
    mask = full_mask(1, 3)
    rewards = token_rewards(f64([LOG_PROBS]) - f64([REF_LOG_PROBS]), f64([1.0]), mask, 0.05)
    close(rewards, [[-0.01, 0.005, 0.995]])
    advantages, returns = generalized_advantages(rewards, f64([VALUES]), mask, 1.0, 0.95)
    close(advantages, [[0.816987, 0.76525, 0.695]])
    close(returns, [[0.916987, 0.96525, 0.995]])


def test_score_after_the_end_token_golden() -> None:
    # TRL's convention is ours with one more position in the mask, whose KL is nothing.
    mask = full_mask(1, 4)
    kl = f64([[*(p - q for p, q in zip(LOG_PROBS, REF_LOG_PROBS, strict=True)), 0.0]])
    rewards = token_rewards(kl, f64([1.0]), mask, 0.05)
    advantages, _ = generalized_advantages(rewards, f64([[*VALUES, VALUE_AFTER_EOS]]), mask, 1.0, 0.95)
    close(advantages, [[0.774119, 0.720125, 0.6475, 0.95]])


def test_the_position_after_the_end() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [True, False, True]])
    ends = end_positions(mask, torch.tensor([True, True, False, True]))
    assert ends.int().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


@examples
@given(lengths=lengths_of_batch)
def test_the_score_lands_on_the_last_real_token(lengths: list[int]) -> None:
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    kl = torch.full((len(lengths), 8), math.nan, dtype=torch.float64).masked_fill(mask, 2.0)
    scores = torch.arange(1.0, len(lengths) + 1, dtype=torch.float64)
    rewards = token_rewards(kl, scores, mask, 0.1)
    for row, length, score in zip(rewards.tolist(), lengths, scores.tolist(), strict=True):
        expected = [-0.2] * (length - 1) + [score - 0.2] + [0.0] * (8 - length)
        assert row == pytest.approx(expected)


def test_a_score_finds_its_token_behind_a_gap() -> None:
    mask = torch.tensor([[True, False, True, False]])
    close(token_rewards(torch.zeros(1, 4).double(), f64([3.0]), mask, 0.1), [[0.0, 0.0, 3.0, 0.0]])


def test_an_empty_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        token_rewards(f64([[0.0], [0.0]]), f64([1.0, 1.0]), torch.tensor([[True], [False]]), 0.1)


@examples
@given(
    seed=st.integers(0, 999),
    lengths=lengths_of_batch,
    width=st.integers(6, 9),
    gamma=st.floats(0.5, 1.0),
    lam=st.floats(0.0, 1.0),
)
def test_advantages_are_their_definition(seed: int, lengths: list[int], width: int, gamma: float, lam: float) -> None:
    rewards, values, mask = random_batch(seed, lengths, width)
    advantages, returns = generalized_advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        expected = slow_advantages(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        close(advantages[row, :length], expected, 1e-9)
        close(returns[row, :length], f64(expected) + values[row, :length], 1e-9)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


@examples
@given(seed=st.integers(0, 999), lengths=lengths_of_batch)
def test_returns_at_lambda_one_are_rewards_to_go(seed: int, lengths: list[int]) -> None:
    rewards, values, mask = random_batch(seed, lengths, 6)
    _, returns = generalized_advantages(rewards, values, mask, 1.0, 1.0)
    for row, length in enumerate(lengths):
        close(returns[row, :length], rewards[row, :length].flip(0).cumsum(0).flip(0), 1e-9)


def test_advantages_step_over_tokens_of_others() -> None:
    mask = torch.tensor([[True, False, False, True, True]])
    rewards, values = f64([[-0.01, 9.0, math.nan, 0.005, 0.995]]), f64([[0.1, 9.0, math.nan, 0.2, 0.3]])
    advantages, _ = generalized_advantages(rewards, values, mask, 1.0, 0.95)
    close(advantages, [[0.816987, 0.0, 0.0, 0.76525, 0.695]])


@pytest.mark.parametrize(
    ("kl", "expected"), [(12.0, 0.202048), (0.0, 0.197952), (6.0, 0.2), (6.6, 0.2 * (1 + 0.1 * 0.0512))]
)
def test_adaptive_kl_golden(kl: float, expected: float) -> None:
    adapted = adapt_kl_coef(0.2, kl, target=6.0, samples=512, horizon=10_000)
    assert adapted == pytest.approx(expected, abs=1e-9)


def test_missing_end_token() -> None:
    scores, finished = f64([2.0, 2.0, -3.0]), torch.tensor([True, False, False])
    close(apply_missing_eos(scores, finished, 1.0, "replace"), [2.0, -1.0, -1.0])
    close(apply_missing_eos(scores, finished, 1.0, "subtract"), [2.0, 1.0, -4.0])


def test_a_missing_end_token_never_pays() -> None:
    with pytest.raises(ValueError, match="negative"):
        apply_missing_eos(f64([1.0]), torch.tensor([False]), -1.0, "subtract")
    with pytest.raises(ValueError, match="unknown rule"):
        apply_missing_eos(f64([1.0]), torch.tensor([False]), 1.0, "none")  # type: ignore[arg-type]
