"""Values of the published formulas, worked out by hand once: one small example, six digits."""

import math

import torch
from parity_draws import Pairs
from torch import Tensor

from training.losses import importance_weights, kl_estimate, masked_whiten, ppo_policy_loss, value_loss
from training.ppo.advantages import adapt_kl_coef, generalized_advantages, token_rewards


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def golden() -> dict[str, Pairs]:
    """Three tokens, score 1, KL coefficient .05, gamma 1, lambda .95."""
    kl, scores = row(0.2, -0.1, 0.1), torch.tensor([1.0], dtype=torch.float64)
    three, four = row(1, 1, 1).bool(), row(1, 1, 1, 1).bool()
    at_end = generalized_advantages(token_rewards(kl, scores, three, 0.05), row(0.1, 0.2, 0.3), three, 1.0, 0.95)
    rewards = token_rewards(row(0.2, -0.1, 0.1, 0.0), scores, four, 0.05)
    after_end = generalized_advantages(rewards, row(0.1, 0.2, 0.3, 0.05), four, 1.0, 0.95)
    x = row(1, 2, 3, 4)
    zeros, rollout = row(0, 0, 0), row(-0.02, 0.3, -1.2)
    return {
        "KL k1, k2, k3": [
            (kl_estimate(row(0.2, -0.1), "k1"), row(0.2, -0.1)),
            (kl_estimate(row(0.2, -0.1), "k2"), row(0.02, 0.005)),
            (kl_estimate(row(0.2, -0.1), "k3"), row(0.018731, 0.005171)),
        ],
        "advantages, returns; score at the end": [
            (at_end[0], row(0.816987, 0.76525, 0.695)),
            (at_end[1], row(0.916987, 0.96525, 0.995)),
        ],
        "advantages; score after the end": [(after_end[0], row(0.774119, 0.720125, 0.6475, 0.95))],
        "whitening, population and Bessel": [
            (masked_whiten(x, four), row(-1.341641, -0.447214, 0.447214, 1.341641)),
            (masked_whiten(x, four, correction=1), row(-1.161895, -0.387298, 0.387298, 1.161895)),
            (masked_whiten(x, four, False, 1), row(1.338105, 2.112702, 2.887298, 3.661895)),
        ],
        "policy loss": [
            (_policy(1.0, 1.5, None), -1.2),
            (_policy(-1.0, 0.5, None), 0.8),
            (_policy(-1.0, 5.0, None), 5.0),
            (_policy(-1.0, 5.0, 3.0), 3.0),
        ],
        "value loss": [(value_loss(row(1.0), row(0.5), row(0.6), row(1).bool(), 0.2), 0.08)],
        "adaptive KL": [(adapt_kl_coef(0.2, 12.0, 6.0, 512, 10_000), 0.202048)],
        "importance weights": [
            (importance_weights(zeros, rollout, three, 2.0), row(1.020201, 0.740818, 2.0)),
            (importance_weights(zeros, rollout, three, 2.0, floor=0.5), row(1.020201, 0.740818, 0.0)),
            (importance_weights(zeros, rollout, three, 9.0, "sequence"), row(*[2.509290] * 3)),
            (importance_weights(zeros, rollout, three, 2.0, "geometric"), row(*[1.358888] * 3)),
        ],
    }


def _policy(advantage: float, ratio: float, dual_clip: float | None) -> Tensor:
    return ppo_policy_loss(row(math.log(ratio)), row(0.0), row(advantage), row(1).bool(), 0.2, dual_clip)[0]
