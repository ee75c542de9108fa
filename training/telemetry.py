"""What PPO tells of itself as pure functions: over real tokens only, so that neither padding nor length leaks in.

Letters: B batch, C completion tokens. A mask is boolean and True marks a real completion token.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from feedback.curves import Curves, thinned
from training.losses import masked_mean
from training.rollout import Rollout

NGRAM = 4


def repetition(completion: Sequence[int], n: int = NGRAM) -> float:
    """Share of the n-grams that have occurred before in the completion; 0 when it is shorter than n + 1."""
    grams = [tuple(completion[i : i + n]) for i in range(len(completion) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def rollout_metrics(rollouts: Sequence[Rollout], weights: Sequence[Tensor] | None = None) -> dict[str, float]:
    """What the policy did, as sampled, before the update.

    `weights` (B, C) each are `importance_weights` where another has sampled: KL and entropy are the policy's all the
    same. Unweighted, KL would come out below 0 there, and steer its own coefficient the wrong way. Score and length are
    those of what was sampled.
    """
    weights = [torch.ones_like(r.log_probs) for r in rollouts] if weights is None else weights
    pairs = list(zip(rollouts, weights, strict=True))
    kl = torch.cat([_summed(w * (r.log_probs - r.ref_log_probs), r.batch.completion_mask) for r, w in pairs])
    surprise = torch.cat([_summed(-w * r.log_probs, r.batch.completion_mask) for r, w in pairs])
    lengths = torch.cat([r.batch.completion_mask.sum(-1) for r in rollouts]).float()
    scores = torch.cat([r.scores for r in rollouts])
    repeated = [repetition(completion) for r in rollouts for completion in _completions(r)]
    return {
        "objective/kl": float(kl.mean()),  # k1 summed over a completion, nats
        "objective/kl_per_token": float(kl.sum() / lengths.sum()),
        "objective/score": float(scores.mean()),
        "objective/score_std": float(scores.std(correction=0)),
        "objective/uncertainty": float(torch.cat([r.uncertainty for r in rollouts]).mean()),  # spread of the heads
        "objective/entropy": float(surprise.sum() / lengths.sum()),  # sampled estimate, nats per token
        "completion/length": float(lengths.mean()),
        "completion/finished": float(torch.cat([r.finished for r in rollouts]).float().mean()),
        "completion/repetition": sum(repeated) / len(repeated),
    }


def explained_variance(values: Sequence[Tensor], returns: Sequence[Tensor], masks: Sequence[Tensor]) -> float:
    """1 - Var(return - value) / Var(return) of microbatches (B, C); 1 = the values foresee the returns."""
    foreseen = torch.cat([x[mask] for x, mask in zip(values, masks, strict=True)])
    came = torch.cat([x[mask] for x, mask in zip(returns, masks, strict=True)])
    return float(1 - (came - foreseen).var(correction=0) / came.var(correction=0).clamp(min=1e-8))


def importance_metrics(weights: Tensor, mask: Tensor) -> dict[str, float]:
    """How far who sampled is from who learns, from importance weights, of the shape of `mask`; 1 and 1 = not at all.

    The effective sample size (Kong 1992), (sum w)^2 / (n sum w^2), is given as a share: 1 / n when one token bears
    all the weight, and 0 when none bears any. ValueError when the mask keeps nothing.
    """
    mean, square = masked_mean(weights, mask), masked_mean(weights.square(), mask)
    return {"importance/ratio": float(mean), "importance/ess": float(mean.square() / square) if square > 0 else 0.0}


def curves(history: Sequence[Mapping[str, float]]) -> Curves:
    """A run's iterations as what a manifest keeps of them."""
    kept = thinned(len(history))

    def of(name: str) -> tuple[float, ...]:
        return tuple(history[i][name] for i in kept)

    return Curves(
        iterations=tuple(i + 1 for i in kept),
        score=of("objective/score"),
        kl=of("objective/kl"),
        entropy=of("objective/entropy"),
        length=of("completion/length"),
        clip_fraction=of("ppo/clipfrac"),
        explained_variance=of("ppo/explained_variance"),
    )


def _summed(x: Tensor, mask: Tensor) -> Tensor:
    """(B, C), (B, C) -> (B,) over real tokens."""
    return x.masked_fill(~mask, 0.0).sum(-1)


def _completions(rollout: Rollout) -> list[list[int]]:
    batch = rollout.batch
    return [ids[mask].tolist() for ids, mask in zip(batch.completion_ids, batch.completion_mask, strict=True)]
