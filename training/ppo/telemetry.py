"""What PPO tells of itself as pure functions: over real tokens only, so that neither padding nor length leaks in.

Letters: B batch, C completion tokens. A mask is boolean and True marks a real completion token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses import MAX_LOG_RATIO, kl_estimate
from training.ppo.rollout import Rollout

NGRAM = 4


def repetition(completion: Sequence[int], n: int = NGRAM) -> float:
    """Share of the n-grams that have occurred before in the completion; 0 when it is shorter than n + 1."""
    grams = [tuple(completion[i : i + n]) for i in range(len(completion) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What the policy did before the update.

    KL and entropy are exact at each place that a completion came to, over the whole vocabulary, so that which token was
    drawn there, and by whom, does not matter: weights could not make up for tokens that whoever sampled hardly ever
    draws. Which places those are is up to who sampled, and score, length and repetition are of what was sampled.
    """
    kl = torch.cat([_summed(r.kl, r.batch.completion_mask) for r in rollouts])
    entropy = torch.cat([_summed(r.entropies, r.batch.completion_mask) for r in rollouts])
    lengths = torch.cat([r.batch.completion_mask.sum(-1) for r in rollouts]).float()
    scores = torch.cat([r.scores for r in rollouts])
    repeated = [repetition(completion) for r in rollouts for completion in _completions(r)]
    return {
        "objective/kl": float(kl.mean()),  # summed over a completion, nats
        "objective/kl_per_token": float(kl.sum() / lengths.sum()),
        "objective/score": float(scores.mean()),
        "objective/score_std": float(scores.std(correction=0)),
        "objective/uncertainty": float(torch.cat([r.uncertainty for r in rollouts]).mean()),  # spread of the heads
        "objective/entropy": float(entropy.sum() / lengths.sum()),  # nats per token
        "completion/length": float(lengths.mean()),
        "completion/finished": float(torch.cat([r.finished for r in rollouts]).float().mean()),
        "completion/repetition": sum(repeated) / len(repeated),
    }


def explained_variance(values: Sequence[Tensor], returns: Sequence[Tensor], masks: Sequence[Tensor]) -> float:
    """1 - Var(return - value) / Var(return) of microbatches (B, C); 1 = the values foresee the returns."""
    foreseen = torch.cat([x[mask] for x, mask in zip(values, masks, strict=True)])
    came = torch.cat([x[mask] for x, mask in zip(returns, masks, strict=True)])
    return float(1 - (came - foreseen).var(correction=0) / came.var(correction=0).clamp(min=1e-8))


def importance_metrics(log_ratios: Tensor, weights: Tensor, cap: float) -> dict[str, float]:
    """How far who sampled is from who learns, over tokens (N,).

    `log_ratios` are `Rollout.log_ratios`: the mean ratio is 1 but for chance, whoever has sampled, and anything else
    says that the log-probs are not of who did; KL(sampler || policy) is by k3, nats per token. `weights` are what the
    losses made of them, 'capped' the share at the bound. Their effective sample size (Kong 1992), (sum w)^2 / (n sum
    w^2), is given as a share: 1 / n when one token bears all the weight, and 0 when none bears any.
    """
    log_ratios = log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    mean, square = weights.mean(), weights.square().mean()
    return {
        "importance/ratio": float(log_ratios.exp().mean()),
        "importance/kl": float(kl_estimate(-log_ratios, "k3").mean()),
        "importance/capped": float((weights >= cap).float().mean()),
        "importance/ess": float(mean.square() / square) if square > 0 else 0.0,
    }


def _summed(x: Tensor, mask: Tensor) -> Tensor:
    """(B, C), (B, C) -> (B,) over real tokens."""
    return x.masked_fill(~mask, 0.0).sum(-1)


def _completions(rollout: Rollout) -> list[list[int]]:
    batch = rollout.batch
    return [ids[mask].tolist() for ids, mask in zip(batch.completion_ids, batch.completion_mask, strict=True)]
