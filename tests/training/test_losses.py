import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from training.losses import (
    all_log_probs,
    completion_log_probs,
    entropy,
    importance_weights,
    kl_estimate,
    kl_loss,
    language_model_loss,
    masked_mean,
    masked_whiten,
    own_draws,
    ppo_policy_loss,
    value_loss,
    whiten_together,
)

KINDS: tuple[Literal["k1", "k2", "k3"], ...] = ("k1", "k2", "k3")

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


# Log-probabilities


def test_completion_log_probs_by_hand() -> None:
    logits = torch.log(f64([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]))
    tokens = torch.tensor([[1, 2]])
    close(completion_log_probs(all_log_probs(logits + 7.0), tokens), [[math.log(0.3), math.log(0.8)]])
    halved = [math.sqrt(p) for p in (0.5, 0.3, 0.2)]  # temperature 2 takes the square root of each weight
    close(completion_log_probs(all_log_probs(logits, 2.0), tokens)[:, :1], [[math.log(halved[1] / sum(halved))]])


def test_entropy_by_hand() -> None:
    logits = torch.log(f64([[[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]]]))
    expected = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    close(entropy(all_log_probs(logits - 4.0)), [[expected, math.log(3)]])
    close(entropy(all_log_probs(logits * 0.5, 0.5))[:, :1], [[expected]])


def test_low_precision_logits_are_raised_to_fp32() -> None:
    logits = random_batch(0, (2, 3, 5), 1)[0].to(torch.bfloat16)
    log_p = all_log_probs(logits)
    assert log_p.dtype == torch.float32
    close(log_p, logits.double().log_softmax(-1).float(), 1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        all_log_probs(f64([[[0.0, 1.0]]]), temperature)


# Masked statistics


def test_whitening_golden() -> None:
    row, mask = f64([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1, 4, dtype=torch.bool)
    close(masked_whiten(row, mask), [[-1.341641, -0.447214, 0.447214, 1.341641]])
    close(masked_whiten(row, mask, shift_mean=False), [[1.158359, 2.052786, 2.947214, 3.841641]])
    close(masked_whiten(row, mask, correction=1), [[-1.161895, -0.387298, 0.387298, 1.161895]])
    close(masked_whiten(row, mask, shift_mean=False, correction=1), [[1.338105, 2.112702, 2.887298, 3.661895]])


def test_one_token_has_no_sample_variance() -> None:
    with pytest.raises(ValueError, match="variance of a single token is undefined"):
        masked_whiten(f64([[3.0, 1.0]]), torch.tensor([[True, False]]), correction=1)


def test_batches_of_different_widths_are_whitened_as_one() -> None:
    """The golden row, cut in two between 2 and 3 and padded with what must not count."""
    parts, masks = [f64([[1.0], [2.0]]), f64([[3.0, math.nan], [4.0, 9.0]])], [ragged_mask([1, 1], 1)]
    first, second = whiten_together(parts, [*masks, ragged_mask([1, 1], 2)])
    close(first, [[-1.341641], [-0.447214]])
    close(second, [[0.447214, 0.0], [1.341641, 0.0]])


def test_padding_does_not_dilute_a_mean() -> None:
    """What unmasked means do: with padding of .451 of all positions they report a number 1.82 times too small."""
    mask = ragged_mask([549], 1000)
    x = torch.full((1, 1000), 0.02).double().masked_fill(~mask, 0.0)
    assert (masked_mean(x, mask) / x.mean()).item() == pytest.approx(1 / (1 - 0.451), abs=1e-9)
    close(masked_mean(x, mask), 0.02)


@examples
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    extra=st.integers(0, 3),
)
def test_masked_statistics_ignore_padding(seed: int, lengths: list[int], extra: int) -> None:
    mask = ragged_mask(lengths, max(lengths) + extra)
    x = random_batch(seed, tuple(mask.shape), 1)[0]
    real = x[mask]
    poisoned = x.masked_fill(~mask, math.nan)
    close(masked_mean(poisoned, mask), real.mean().item(), 1e-9)
    whitened = masked_whiten(poisoned, mask)
    close(whitened[mask], (real - real.mean()) / (real.var(correction=0) + 1e-8).sqrt(), 1e-9)
    assert (whitened[~mask] == 0).all()


def test_the_mean_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        masked_mean(f64([[1.0]]), torch.tensor([[False]]))


# PPO


@pytest.mark.parametrize(
    ("advantage", "ratio", "dual_clip", "expected"),
    [
        (1.0, 1.5, None, -1.2),
        (-1.0, 0.5, None, 0.8),
        (-1.0, 5.0, None, 5.0),
        (-1.0, 5.0, 3.0, 3.0),
        (1.0, 5.0, 3.0, -1.2),
        (1.0, 0.5, 3.0, -0.5),
    ],
)
def test_policy_loss_golden(advantage: float, ratio: float, dual_clip: float | None, expected: float) -> None:
    loss, _ = ppo_policy_loss(
        f64([[math.log(ratio)]]), f64([[0.0]]), f64([[advantage]]), torch.tensor([[True]]), 0.2, dual_clip
    )
    close(loss, expected)


def test_policy_stats_by_hand() -> None:
    log_ratio = [0.5, -0.1, 0.3]
    # Only where the clipped term is the worse one: up at a positive advantage, down at a negative one.
    _, stats = ppo_policy_loss(
        f64([[*log_ratio, 9.0]]),
        torch.zeros(1, 4).double(),
        f64([[1.0, 1.0, -1.0, 1.0]]),
        ragged_mask([3], 4),
        0.2,
    )
    close(stats.clip_fraction, 1 / 3)
    close(stats.ratio_mean, sum(map(math.exp, log_ratio)) / 3)
    close(stats.approx_kl, sum(math.exp(x) - 1 - x for x in log_ratio) / 3)


def test_policy_stats_are_of_the_old_policys_own_draws() -> None:
    """Of three tokens, as often as another draws them: nothing is left of who drew, in two microbatches as in one.

    The first is 3.5 times as likely as it is drawn, beyond any cap on what it may teach.
    """
    old, new, other = [0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.2, 0.4, 0.4]
    drawn = [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    old_log, new_log, other_log = (f64([[math.log(p[token])] for token in drawn]) for p in (old, new, other))
    mask, advantages = torch.ones(10, 1, dtype=torch.bool), torch.ones(10, 1).double()
    weights = own_draws(old_log - other_log, mask)
    draws = weights * 10 / weights.sum()
    capped = importance_weights(old_log, other_log, mask, 2.0)
    assert capped.max() == 2
    parts = [
        ppo_policy_loss(
            new_log[part], old_log[part], advantages[part], mask[part], 0.2,
            weights=capped[part], normaliser=10, draws=draws[part],
        )[1]
        for part in (slice(0, 3), slice(3, 10))
    ]  # fmt: skip
    stats = [sum(each) for each in zip(*parts, strict=True)]
    kl = sum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
    for found, expected in zip(stats, (0.2, kl, 1.0), strict=True):  # only the second token's ratio goes beyond 1.2
        close(found, expected)


def test_own_draws_of_what_the_policy_has_left_are_never_none() -> None:
    """Else all tokens of a minibatch might count for nothing, and their mean would be 0 / 0."""
    found = own_draws(torch.tensor([[-900.0, 900.0, 0.0, torch.nan]]), torch.tensor([[True, True, True, False]]))
    assert torch.isfinite(found).all() and (found[0, :3] > 0).all() and found[0, 2:].tolist() == [1.0, 0.0]


def test_importance_weights_scale_each_token() -> None:
    log_ratio, advantages, weights = [0.1, -0.1, 0.05], [1.0, -2.0, 0.5], [2.0, 0.5, 0.0]
    mask = ragged_mask([3], 3)
    loss, _ = ppo_policy_loss(
        f64([log_ratio]), torch.zeros(1, 3).double(), f64([advantages]), mask, 0.2, weights=f64([weights])
    )
    terms = [-a * math.exp(x) * w for x, a, w in zip(log_ratio, advantages, weights, strict=True)]
    close(loss, sum(terms) / 3)


def test_first_epoch_changes_nothing() -> None:
    log_probs, advantages = random_batch(1, (3, 6), 2)
    mask = ragged_mask([6, 2, 4], 6)
    loss, stats = ppo_policy_loss(log_probs, log_probs.clone(), masked_whiten(advantages, mask), mask, 0.2, 3.0)
    assert [x.item() for x in (stats.ratio_mean, stats.approx_kl, stats.clip_fraction)] == [1.0, 0.0, 0.0]
    assert abs(loss.item()) < 1e-6


def test_an_absurd_log_ratio_stays_finite() -> None:
    log_probs = torch.tensor([[800.0, -800.0]], requires_grad=True)
    loss, stats = ppo_policy_loss(log_probs, torch.zeros(1, 2), -torch.ones(1, 2), ragged_mask([2], 2), 0.2)
    torch.autograd.backward(loss)
    assert log_probs.grad is not None and log_probs.grad.isfinite().all()
    assert all(value.isfinite() for value in (loss, *stats))
    close(loss / math.exp(20), 0.5, 1e-5)


def test_value_loss_golden() -> None:
    mask = torch.tensor([[True]])
    close(value_loss(f64([[1.0]]), f64([[0.5]]), f64([[0.6]]), mask, 0.2), 0.08)
    # Moving 0.7 away from the old value is cut to 0.2, and the larger error of the two counts.
    close(value_loss(f64([[1.2]]), f64([[0.5]]), f64([[1.2]]), mask, 0.2), 0.5 * 0.5**2)


@pytest.mark.parametrize(("x", "expected"), [(0.2, (0.2, 0.02, 0.018731)), (-0.1, (-0.1, 0.005, 0.005171))])
def test_kl_estimates_golden(x: float, expected: tuple[float, ...]) -> None:
    close(torch.stack([kl_estimate(f64(x), kind) for kind in KINDS]), expected)


def test_kl_estimates_in_expectation() -> None:
    q, p = f64([0.5, 0.3, 0.2]), f64([0.4, 0.4, 0.2])
    for kind, expected in zip(KINDS, (0.02526715, 0.02486241, 0.02526715), strict=True):
        close((q * kl_estimate((q / p).log(), kind)).sum(), expected, 1e-8)


@pytest.mark.parametrize(
    ("kind", "expected", "slopes"),
    [
        ("k1", 0.2 / 3, (0.2, -0.1, 0.1)),  # k2's gradient: its own would push every token down alike
        ("k2", 0.03 / 3, (0.2, -0.1, 0.1)),
        ("k3", (0.018731 + 0.005171 + 0.004837) / 3, (0.181269, -0.105171, 0.095163)),
    ],
)
def test_kl_loss_golden(kind: Literal["k1", "k2", "k3"], expected: float, slopes: tuple[float, ...]) -> None:
    """The differences of the worked example in the research notes: .2, -.1, .1."""
    log_probs = f64([[-1.0, -0.5, -0.2, 7.0]]).requires_grad_()
    loss = kl_loss(log_probs, f64([[-1.2, -0.4, -0.3, 1.0]]), ragged_mask([3], 4), kind)
    close(loss.detach(), expected)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    close(gradient, [[*(slope / 3 for slope in slopes), 0.0]])


@pytest.mark.parametrize("kind", ["k1", "k2"])
def test_the_gradient_of_the_kl_loss_is_that_of_kl(kind: Literal["k1", "k2"]) -> None:
    """In expectation over all tokens that the policy may draw, exactly."""
    logits, ref = f64([0.4, -0.2, 0.1, 0.9]).requires_grad_(), f64([0.0, 0.3, -0.5, 0.2]).log_softmax(-1)
    log_probs = logits.log_softmax(-1)
    (want,) = torch.autograd.grad((log_probs.exp() * (log_probs - ref)).sum(), logits, retain_graph=True)
    assert want.abs().max() > 0.05
    every = torch.ones(1, 1, dtype=torch.bool)
    parts = [
        p * kl_loss(lp.view(1, 1), r.view(1, 1), every, kind)
        for p, lp, r in zip(log_probs.detach().exp(), log_probs, ref, strict=True)
    ]
    close(torch.autograd.grad(torch.stack(parts).sum(), logits)[0], want, 1e-9)
    other = f64([0.1, 0.5, 0.3, 0.1])  # who draws the tokens instead
    parts = [
        b * kl_loss(lp.view(1, 1), r.view(1, 1), every, kind, weights=(lp.detach().exp() / b).view(1, 1))
        for b, lp, r in zip(other, logits.log_softmax(-1), ref, strict=True)
    ]
    close(torch.autograd.grad(torch.stack(parts).sum(), logits)[0], want, 1e-9)


def test_importance_weights_golden() -> None:
    train = f64([[-1.0, -0.5, -0.2, 5.0]])
    rollout = train - f64([[0.02, -0.3, 1.2, 0.7]])
    mask = ragged_mask([3], 4)
    close(importance_weights(train, rollout, mask, 10.0), [[1.0202, 0.74082, 3.32012, 0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0), [[1.0202, 0.74082, 2.0, 0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0, "geometric"), [[1.35889] * 3 + [0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 1.1, "geometric"), [[1.1] * 3 + [0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 10.0, "sequence"), [[2.50929] * 3 + [0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0, "sequence"), [[2.0] * 3 + [0.0]], 1e-5)


def test_importance_weights_outside_a_band_are_dropped_golden() -> None:
    """IcePop keeps what lies in [.5, 2] as it is; truncation would have made 2 of the last."""
    train, mask = f64([[-1.0, -0.5, -0.2, 5.0]]), ragged_mask([3], 4)
    rollout = train - f64([[0.02, -0.3, 1.2, 0.7]])
    close(importance_weights(train, rollout, mask, 2.0, floor=0.5), [[1.0202, 0.74082, 0.0, 0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0, floor=0.8), [[1.0202, 0.0, 0.0, 0.0]], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0, "sequence", floor=0.5), [[0.0] * 4], 1e-5)
    close(importance_weights(train, rollout, mask, 2.0, "geometric", floor=0.5), [[1.35889] * 3 + [0.0]], 1e-5)


def test_importance_weights_carry_no_gradient() -> None:
    train = f64([[-1.0]]).requires_grad_()
    assert not importance_weights(train, f64([[-2.0]]), torch.tensor([[True]]), 2.0).requires_grad


def test_unknown_kinds_are_refused() -> None:
    x = f64([[0.0]])
    with pytest.raises(ValueError, match="k4"):
        kl_estimate(x, "k4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="product"):
        importance_weights(x, x, torch.tensor([[True]]), 2.0, "product")  # type: ignore[arg-type]


def test_language_model_loss_counts_completion_tokens_only() -> None:
    log_probs = f64([[-1.0, -2.0, -50.0], [-3.0, math.nan, math.nan]])
    close(language_model_loss(log_probs, ragged_mask([2, 1], 3)), 2.0)
    close(language_model_loss(log_probs, ragged_mask([2, 1], 3), normaliser=12), 0.5)


# Gradients against finite differences

MASK = ragged_mask([4, 2], 4)
TOKENS = torch.tensor([[0, 4, 2, 1], [3, 3, 0, 2]])
X, Y, Z = random_batch(7, (2, 4), 3)
(LOGITS,) = random_batch(8, (2, 4, 5), 1)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda logits: completion_log_probs(all_log_probs(logits, 0.7), TOKENS), (LOGITS,)),
        (lambda logits: entropy(all_log_probs(logits, 0.7)), (LOGITS,)),
        (lambda x: masked_mean(x, MASK), (X,)),
        (lambda x: masked_whiten(x, MASK), (X,)),
        (lambda x: ppo_policy_loss(x, Y, Z, MASK, 0.2, 3.0)[0], (X,)),
        (lambda v: value_loss(v, Y, Z, MASK, 0.2), (X,)),
        (lambda x: kl_estimate(x, "k2"), (X,)),
        (lambda x: kl_estimate(x, "k3"), (X,)),
        (lambda x: kl_loss(x, Y, MASK, "k2"), (X,)),
        (lambda x: kl_loss(x, Y, MASK, "k3"), (X,)),
        (lambda x: language_model_loss(x, MASK), (X,)),
    ],
)
def test_gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    assert gradcheck(function, tuple(x.clone().requires_grad_() for x in inputs))
