"""The losses of all stages as pure functions: tensors in, tensors out; no models, config or logging.

Letters: B batch, T completion tokens, V vocabulary, K completions of one prompt. A mask is boolean and True
marks a real completion token; whatever stands in the padding, NaN included, changes neither a loss nor a
gradient.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

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


def masked_whiten(x: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """`x` at unit variance, and at zero mean if `shift_mean`, over everything that `mask` keeps; 0 elsewhere.

    Population variance (OpenAI lm-human-preferences, `whiten`). Pass the whole batch, not a microbatch.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean).square(), mask)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return _real(whitened if shift_mean else whitened + mean, mask)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits / temperature in at least fp32, uncopied at 1.0: (B, T, V) is the largest tensor of all."""
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits / temperature


def completion_log_probs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (B, T), at least fp32, of `tokens` (B, T) at the sampling temperature.

    logits[:, t] (B, T, V) must be the ones that predict tokens[:, t]: the caller shifts.
    """
    logits = _tempered(logits, temperature)
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)  # (B, T)
    return chosen - logits.logsumexp(dim=-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats (B, T), fp32 or more, of the tempered distribution. Logits (B, T, V), all finite."""
    logits = _tempered(logits, temperature)
    return logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)


def language_model_loss(log_probs: Tensor, mask: Tensor, normaliser: Tensor | float | None = None) -> Tensor:
    """Negative log-likelihood per completion token; the prompt is not trained on. (B, T), (B, T) -> scalar.

    `normaliser` is the number of real tokens of the whole optimizer step, when this is one of its
    microbatches.
    """
    return -_token_mean(log_probs, mask, normaliser)


def pair_loss(
    winner: Tensor, loser: Tensor, margin: float = 0.0, label_smoothing: float = 0.0, center_coef: float = 0.0
) -> Tensor:
    """Bradley-Terry negative log-likelihood, mean over all pairs (Ouyang et al. 2022, eq. 1 with K = 2).

    Scores of one shape -> scalar. `margin` in score units (Touvron et al. 2023, eq. 2); `label_smoothing` is
    the chance that the label is the wrong way round; `center_coef` weighs (winner + loser)^2 (Eisenstein et
    al. 2023, eq. 2).
    """
    gap = winner - loser - margin
    loss = -(1 - label_smoothing) * F.logsigmoid(gap) - label_smoothing * F.logsigmoid(-gap)
    return (loss + center_coef * (winner + loser).square()).mean()


def davidson_log_probs(a: Tensor, b: Tensor, log_nu: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities that the completion scored `a` wins against, ties with, loses to the one scored `b`.

    Davidson 1970: a tie has weight nu * sqrt(e^a e^b) beside e^a and e^b; nu -> 0 is Bradley-Terry. Shapes
    broadcast.
    """
    tie = log_nu + 0.5 * (a + b)
    log_total = torch.logaddexp(torch.logaddexp(a, b), tie)
    return a - log_total, tie - log_total, b - log_total


def _pair_log_probs(a: Tensor, b: Tensor, log_nu: Tensor | float | None) -> tuple[Tensor, Tensor, Tensor]:
    """`davidson_log_probs`, or without `log_nu` Bradley-Terry, where a tie is half a win and half a loss."""
    if log_nu is not None:
        return davidson_log_probs(a, b, log_nu)
    win, lose = F.logsigmoid(a - b), F.logsigmoid(b - a)
    return win, 0.5 * (win + lose), lose


def ranking_loss(
    scores: Tensor, tiers: Tensor, log_nu: Tensor | float | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean negative log-likelihood of the C(K, 2) pairs of one prompt's ranking (Ouyang et al. 2022, eq. 1).

    scores (K,), tiers (K,) integers, 0 the best; equal tiers are ties. With `log_nu` pairs follow Davidson,
    without it Bradley-Terry with ties as soft labels. Average the result over prompts, not over pairs.
    ValueError when K < 2.
    """
    if len(scores) < 2:
        raise ValueError(f"a ranking needs at least two completions, got {len(scores)}")
    i, j = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    in_order = tiers[i] <= tiers[j]
    upper = torch.where(in_order, scores[i], scores[j])  # (K * (K - 1) / 2,)
    lower = torch.where(in_order, scores[j], scores[i])
    win, tie, lose = _pair_log_probs(upper, lower, log_nu)
    ordered = (1 - label_smoothing) * win + label_smoothing * lose
    return -torch.where(tiers[i] == tiers[j], tie, ordered).mean()


def plackett_luce_loss(scores: Tensor) -> Tensor:
    """Negative log-likelihood of a strict ranking, a sequence of choices of the best (Plackett 1975).

    scores (K,) from the best completion to the worst -> scalar, a sum of K - 1 choices; for K = 2 it is
    `pair_loss`.
    """
    log_remaining = scores.flip(0).logcumsumexp(0).flip(0)  # (K,)
    return (log_remaining - scores).sum()


def rating_loss(scores: Tensor, labels: Tensor, threshold: Tensor | float) -> Tensor:
    """Binary cross-entropy of sigmoid(score - threshold), mean over the batch.

    scores (B,), labels (B,) in [0, 1]: 1 a thumb up, 0 a thumb down; `threshold` is the score of an even
    chance.
    """
    return F.binary_cross_entropy_with_logits(scores - threshold, labels.to(scores.dtype))


class PolicyStats(NamedTuple):
    """Detached scalars beside the policy loss, over the same normaliser: those of microbatches add up."""

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
) -> tuple[Tensor, PolicyStats]:
    """Clipped policy loss (Schulman et al. 2017, eq. 7), token mean. All tensors (B, T) -> scalar, stats.

    `dual_clip` bounds the loss of a negative advantage at dual_clip * |A| (Ye et al. 2020, eq. 5). `weights`
    are `importance_weights`. `normaliser` is the number of real tokens of the whole optimizer step (default:
    of this call); with it the losses and gradients of microbatches add up to those of the batch, however it
    is cut.
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
        stats = PolicyStats(
            clip_fraction=_token_mean((clipped > unclipped).to(ratio.dtype), mask, normaliser),
            approx_kl=_token_mean(kl_estimate(-log_ratio, "k3"), mask, normaliser),
            ratio_mean=_token_mean(ratio, mask, normaliser),
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
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    worse = torch.maximum((values - returns).square(), (clipped - returns).square())
    return 0.5 * _token_mean(worse, mask, normaliser)


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


def importance_weights(
    train_log_probs: Tensor,
    rollout_log_probs: Tensor,
    mask: Tensor,
    cap: float,
    kind: Literal["token", "geometric"] = "token",
) -> Tensor:
    """Detached weights (B, T) of tokens that another engine sampled: trainer / rollout probability, capped.

    'token' truncates each token's own ratio (Yao et al. 2025, TIS); 'geometric' gives each token of a
    completion the geometric mean of its ratios, which does not grow with length as the product does. Inputs
    (B, T); 0 in the padding.
    """
    log_ratio = _real(train_log_probs - rollout_log_probs, mask).detach()
    if kind == "geometric":
        lengths = mask.sum(dim=-1, keepdim=True).clamp(min=1)  # (B, 1)
        log_ratio = (log_ratio.sum(dim=-1, keepdim=True) / lengths).expand_as(log_ratio)
    elif kind != "token":
        raise ValueError(f"unknown kind of importance weight {kind!r}")
    return _real(log_ratio.clamp(max=MAX_LOG_RATIO).exp().clamp(max=cap), mask)
