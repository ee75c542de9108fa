"""The losses over tokens as pure functions: tensors in, tensors out; no models, config or logging.

Letters: B batch, T completion tokens, V vocabulary. A mask is boolean and True marks a real completion token;
whatever stands in the padding, NaN included, changes neither a loss nor a gradient.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# exp(20) is far outside any trust region, yet finite: one absurd token cannot turn the whole update into NaN.
MAX_LOG_RATIO = 20.0


def _real(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with zeros in the padding; unlike `x * mask` it also stops NaN, forwards and backwards."""
    return x.masked_fill(~mask, 0.0)


def _token_mean(x: Tensor, mask: Tensor, normaliser: Tensor | float | None = None) -> Tensor:
    """Sum over the real tokens / `normaliser` (default: their number); ValueError when that is zero."""
    count = mask.sum() if normaliser is None else normaliser
    if count <= 0:
        raise ValueError("the mean over no tokens is undefined")
    return _real(x, mask).sum() / count


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of what `mask` keeps of `x`, of one shape -> scalar. ValueError when it keeps nothing."""
    return _token_mean(x, mask)


def masked_whiten(x: Tensor, mask: Tensor, shift_mean: bool = True, correction: Literal[0, 1] = 0) -> Tensor:
    """`x` at unit variance, and at zero mean if `shift_mean`, over everything that `mask` keeps; 0 elsewhere.

    Population variance (OpenAI lm-human-preferences, `whiten`), or Bessel's with `correction` 1 (TRL). Pass the
    whole batch, not a microbatch. ValueError when the mask keeps no more than `correction`.
    """
    mean = masked_mean(x, mask)
    if mask.sum() <= correction:
        raise ValueError("Bessel's variance of a single token is undefined")
    variance = _token_mean((x - mean).square(), mask, mask.sum() - correction)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return _real(whitened if shift_mean else whitened + mean, mask)


def whiten_together(
    parts: Sequence[Tensor], masks: Sequence[Tensor], shift_mean: bool = True, correction: Literal[0, 1] = 0
) -> list[Tensor]:
    """`masked_whiten` over all `parts` as one, whatever the width that each was padded to; shapes as they were."""
    flat = torch.cat([part[mask] for part, mask in zip(parts, masks, strict=True)])
    whitened = masked_whiten(flat, torch.ones_like(flat, dtype=torch.bool), shift_mean, correction)
    pieces = whitened.split([int(mask.sum()) for mask in masks])
    zeros = [torch.zeros_like(part) for part in parts]
    return [zero.masked_scatter(mask, piece) for zero, mask, piece in zip(zeros, masks, pieces, strict=True)]


def all_log_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (..., V), at least fp32, of the whole vocabulary at the sampling temperature."""
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # no copy where they are: (B, T, V) is large
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)


def completion_log_probs(log_p: Tensor, tokens: Tensor) -> Tensor:
    """Those (B, T) of `tokens` (B, T) among `all_log_probs` (B, T, V).

    log_p[:, t] must be of the logits that predict tokens[:, t]: the caller shifts.
    """
    return log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropy(log_p: Tensor) -> Tensor:
    """Entropy in nats (B, T) of `all_log_probs` (B, T, V), all finite."""
    return -torch.linalg.vecdot(log_p.exp(), log_p)


def language_model_loss(log_probs: Tensor, mask: Tensor, normaliser: Tensor | float | None = None) -> Tensor:
    """Negative log-likelihood per completion token; the prompt is not trained on. (B, T), (B, T) -> scalar.

    `normaliser` is the number of real tokens of the whole optimizer step, when this is one of its
    microbatches.
    """
    return -_token_mean(log_probs, mask, normaliser)


class PolicyStats(NamedTuple):
    """Detached scalars beside the policy loss, over the same normaliser: those of microbatches add up.

    All are means over the old policy's own draws, by `own_draws` where another has drawn the tokens.
    """

    clip_fraction: Tensor  # share of tokens where the clipped objective was the larger loss
    approx_kl: Tensor  # k3 estimate of KL(old || new), nats per token
    ratio_mean: Tensor  # mean probability ratio new / old; near 1 for a sound update


def ppo_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
    normaliser: Tensor | float | None = None,
    draws: Tensor | None = None,
) -> tuple[Tensor, PolicyStats]:
    """Clipped policy loss (Schulman et al. 2017, eq. 7), token mean. All tensors (B, T) -> scalar, stats.

    `dual_clip` bounds the loss of a negative advantage at dual_clip * |A| (Ye et al. 2020, eq. 5). `weights`
    are `importance_weights`. `normaliser` is the number of real tokens of the whole optimizer step (default:
    of this call); with it the losses and gradients of microbatches add up to those of the batch, however it
    is cut. `draws` is how much each token counts in the stats (default: 1), all together as much as `normaliser`.
    """
    log_ratio = _real(log_probs - old_log_probs, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(unclipped, clipped)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    if weights is not None:
        loss = loss * weights
    with torch.no_grad():
        draws = torch.ones_like(ratio) if draws is None else draws
        stats = PolicyStats(
            clip_fraction=_token_mean(draws * (clipped > unclipped), mask, normaliser),
            approx_kl=_token_mean(draws * kl_estimate(-log_ratio, "k3"), mask, normaliser),
            ratio_mean=_token_mean(draws * ratio, mask, normaliser),
        )
    return _token_mean(loss, mask, normaliser), stats


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float,
    normaliser: Tensor | float | None = None,
) -> Tensor:
    """Half the squared error to the returns, the worse of plain and clipped around the old value; token mean.

    OpenAI baselines ppo2 and lm-human-preferences. All (B, T) -> scalar; `normaliser` as in
    `ppo_policy_loss`.
    """
    values = _real(values, mask)
    plain, clipped = _value_errors(values, old_values, returns, clip_range)
    return 0.5 * _token_mean(torch.maximum(plain, clipped), mask, normaliser)


def value_clip_fraction(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float,
    normaliser: Tensor | float | None = None,
) -> Tensor:
    """Share of tokens where `value_loss` took the clipped error, which does not move the value. Same arguments."""
    with torch.no_grad():
        plain, clipped = _value_errors(values, old_values, returns, clip_range)
        beyond = (values - old_values).abs() > clip_range  # within, the two differ by rounding alone
        return _token_mean((beyond & (clipped > plain)).to(values.dtype), mask, normaliser)


def _value_errors(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """Squared errors to the returns: of the values, and of those clipped around the old ones. All of one shape."""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return (values - returns).square(), (clipped - returns).square()


def kl_estimate(log_ratio: Tensor, kind: Literal["k1", "k2", "k3"]) -> Tensor:
    """Per-token estimate of KL(p || q) from x = log p - log q at tokens drawn from p (Schulman 2020).

    k1 = x: unbiased; k2 = x^2 / 2: low variance, biased; k3 = e^-x - 1 + x: unbiased, never negative. Any
    shape.
    """
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return torch.expm1(-log_ratio) + log_ratio
    raise ValueError(f"unknown KL estimator {kind!r}")


def kl_loss(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    mask: Tensor,
    kind: Literal["k1", "k2", "k3"],
    normaliser: Tensor | float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Token mean of the KL estimate as a loss, where the rewards do not hold it. (B, T) each -> scalar.

    The gradient of k2 is that of KL(policy || reference) at the policy's own tokens; that of k1 is zero in
    expectation, so k1 here has its own value and k2's gradient. k3 has its own (Shao et al. 2024), which is right
    to first order only. `normaliser` and `weights` as in `ppo_policy_loss`: the estimates are of the policy's own
    tokens, and to learn from another's unweighted would be to imitate them.
    """
    log_ratio = _real(log_probs - ref_log_probs, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    estimate = kl_estimate(log_ratio, kind)
    if kind == "k1":
        guide = kl_estimate(log_ratio, "k2")
        estimate = guide + (estimate - guide).detach()
    if weights is not None:
        estimate = estimate * weights
    return _token_mean(estimate, mask, normaliser)


def importance_weights(
    train_log_probs: Tensor,
    rollout_log_probs: Tensor,
    mask: Tensor,
    cap: float,
    kind: Literal["token", "geometric", "sequence"] = "token",
    floor: float | None = None,
) -> Tensor:
    """Detached weights (B, T) of tokens that another engine sampled: trainer / rollout probability, capped.

    'token' truncates each token's own ratio (Yao et al. 2025, TIS); 'sequence' gives each token of a completion the
    product of all its ratios, 'geometric' their geometric mean, which does not grow with length. With `floor`
    nothing is truncated: a weight outside [floor, cap] becomes 0 (IcePop). Inputs (B, T); 0 in the padding.
    """
    log_ratio = _real(train_log_probs - rollout_log_probs, mask).detach()
    if kind not in ("token", "geometric", "sequence"):
        raise ValueError(f"unknown kind of importance weight {kind!r}")
    if kind != "token":
        parts = mask.sum(dim=-1, keepdim=True).clamp(min=1) if kind == "geometric" else 1  # (B, 1)
        log_ratio = (log_ratio.sum(dim=-1, keepdim=True) / parts).expand_as(log_ratio)
    weights = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    if floor is None:
        return _real(weights.clamp(max=cap), mask)
    return _real(weights, mask & (weights >= floor) & (weights <= cap))


def own_draws(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """How often the policy would draw each token for once that another drew it, from log(policy / other); 0 in the
    padding. Any shape.

    For means that tell of the policy, divided by their sum. Unlike `importance_weights`, which bound what one token may
    teach, they are not capped: a cap would take away just the tokens that the policy has come to prefer.
    """
    return _real(log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp(), mask)
