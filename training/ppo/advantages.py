"""From scores to advantages: token rewards, GAE, the KL controller, and what uncertainty and a missing end cost.

Letters: B batch, T completion tokens. A mask is boolean, True = a real completion token; NaN in the padding
is harmless.
"""

from typing import Literal

import torch
from torch import Tensor


def end_positions(mask: Tensor, ended: Tensor) -> Tensor:
    """The mask (B, T + 1) of the one position right after the last real token of each row that `ended` (B,) marks.

    There the score may stand beside a value of its own, as in TRL; rows that were cut short have no such position.
    """
    positions = torch.arange(mask.shape[-1] + 1, device=mask.device)
    after = (positions[:-1] * mask).amax(dim=-1, keepdim=True) + 1  # (B, 1)
    return (positions == after) & ended.unsqueeze(-1)


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Rewards (B, T): -kl_coef * KL on each real token, the score on the last (Ziegler et al. 2019, eq. 2).

    kl (B, T) per-token estimate from `kl_estimate`, scores (B,). The last token is found in `mask`, never by
    a pad id, which for many models is also the end token. ValueError when a completion has no token to carry
    its score.
    """
    if not mask.any(dim=-1).all():
        raise ValueError("a completion without tokens cannot carry its score")
    positions = torch.arange(mask.shape[-1], device=mask.device)
    last = (positions * mask).argmax(dim=-1, keepdim=True)  # (B, 1)
    rewards = (-kl_coef * kl).masked_fill(~mask, 0.0)
    return rewards.scatter_add(-1, last, scores.to(rewards.dtype).unsqueeze(-1))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T), 0 in the padding; V = 0 beyond the end (Schulman et al. 2016, eq. 16).

    rewards, values, mask (B, T). Tokens outside the mask are stepped over: value and advantage carry across
    them, so padding of any amount changes nothing, and turns that the policy did not write do not discount
    it.
    """
    advantages = torch.zeros_like(values)
    advantage = torch.zeros_like(values[:, 0])  # (B,)
    next_value = torch.zeros_like(advantage)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(mask[:, t], delta + gamma * lam * advantage, advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = advantage
    return advantages.masked_fill(~mask, 0.0), (advantages + values).masked_fill(~mask, 0.0)


def adapt_kl_coef(kl_coef: float, kl: float, target: float, samples: int, horizon: int) -> float:
    """The KL coefficient after `samples` more completions (Ziegler et al. 2019, section 2.2).

    `kl` and `target` are nats per completion: the mean over completions of the sum over tokens.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * samples / horizon)


def certain_scores(scores: Tensor, uncertainty: Tensor, coef: float) -> Tensor:
    """scores - coef * uncertainty, both (B,): uncertainty-weighted optimisation (Coste et al. 2023).

    `uncertainty` is a standard deviation over an ensemble. There it is the variance; this one has the scores' unit, so
    that `coef` means the same whatever their scale.
    """
    return scores - coef * uncertainty


def apply_missing_eos(scores: Tensor, finished: Tensor, penalty: float, mode: Literal["replace", "subtract"]) -> Tensor:
    """Scores (B,) where completions without a stop token pay: they become -penalty, or lose it.

    finished (B,) bool, by the actual stop tokens. 'replace' is OpenAI's rule (lm-human-preferences),
    'subtract' TRL's. `penalty` is in score units and not negative in either mode, so that changing the mode
    cannot turn it into a bonus; else ValueError.
    """
    if penalty < 0:
        raise ValueError(f"the penalty must not be negative, got {penalty}")
    if mode not in ("replace", "subtract"):
        raise ValueError(f"unknown rule for a missing end token {mode!r}")
    penalised = torch.full_like(scores, -penalty) if mode == "replace" else scores - penalty
    return torch.where(finished, scores, penalised)
