"""From rollouts to what PPO learns from them: rewards, advantages and returns, over all rollouts of an iteration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import PPOConfig
from training.losses import importance_weights, kl_estimate, whiten_together
from training.model.samples import Batch
from training.model.trunk import Trunk
from training.ppo.advantages import (
    apply_missing_eos,
    certain_scores,
    end_positions,
    generalized_advantages,
    token_rewards,
)
from training.ppo.rollout import Rollout


class Valued(NamedTuple):
    """Where values were read and are learnt: at completion tokens, and after the end where the score lies there."""

    batch: Batch
    values: Tensor  # (B, C) or (B, C + 1), when the completions were sampled
    returns: Tensor  # the same


@dataclass(frozen=True)
class Experience:
    """A rollout with what to learn from it."""

    rollout: Rollout
    advantages: Tensor  # (B, C)
    valued: Valued
    kl_coef: float = 0.0  # weight of the KL penalty in the loss; 0 where the rewards hold it
    weights: Tensor | None = None  # (B, C) `importance_weights`; None = the policy itself has sampled

    @property
    def returns(self) -> Tensor:
        """Returns (B, C) of the completion's tokens alone."""
        mask = self.rollout.batch.completion_mask
        return self.valued.returns[:, : mask.shape[1]].masked_fill(~mask, 0.0)


@torch.no_grad()
def read_after_ends(config: PPOConfig, trunk: Trunk, rollout: Rollout) -> tuple[Batch, Tensor]:
    """The rollout's batch with a position after each end token, as TRL has it, and the values (B, C + 1) of all.

    A completion that was cut, or that fills `max_new_tokens`, has no position left: its score stays at its last token.
    """
    mask = rollout.batch.completion_mask
    room = mask.sum(-1) < config.max_new_tokens
    batch = rollout.batch.with_ends(end_positions(mask, rollout.finished & room))
    return batch, trunk.values(rollout.hidden, batch)


def estimate_advantages(
    config: PPOConfig,
    rollouts: Sequence[Rollout],
    kl_coef: float,
    read: Sequence[tuple[Batch, Tensor]] | None = None,
) -> list[Experience]:
    """Advantages and returns; whitening is over all rollouts together, so microbatches cannot change it.

    `read` says where values were read, and which, if not only at the completions' tokens: `read_after_ends`.
    """
    read = [(r.batch, r.values) for r in rollouts] if read is None else read
    masks, places = [r.batch.completion_mask for r in rollouts], [batch.completion_mask for batch, _ in read]
    in_reward, in_loss = (kl_coef, 0.0) if config.kl_in == "reward" else (0.0, kl_coef)
    rewards = [_rewards(config, r, place, in_reward) for r, place in zip(rollouts, places, strict=True)]
    correction: Literal[0, 1] = 1 if config.whitening == "bessel" else 0
    if config.whiten_rewards:
        rewards = whiten_together(rewards, places, shift_mean=False, correction=correction)
    found = [
        generalized_advantages(reward, values, batch.completion_mask, config.gamma, config.lam)
        for reward, (batch, values) in zip(rewards, read, strict=True)
    ]
    advantages = [a[:, : m.shape[1]].masked_fill(~m, 0.0) for (a, _), m in zip(found, masks, strict=True)]
    if config.whiten_advantages:
        advantages = whiten_together(advantages, masks, correction=correction)
    valued = [Valued(batch, values, f[1]) for (batch, values), f in zip(read, found, strict=True)]
    return [
        Experience(r, a, v, in_loss, _weights(config, r)) for r, a, v in zip(rollouts, advantages, valued, strict=True)
    ]


def _weights(config: PPOConfig, rollout: Rollout) -> Tensor | None:
    behaviour = rollout.behaviour_log_probs
    if behaviour is None:
        return None
    mask = rollout.batch.completion_mask
    return importance_weights(rollout.log_probs, behaviour, mask, config.importance_cap, config.importance)


def _rewards(config: PPOConfig, rollout: Rollout, places: Tensor, kl_coef: float) -> Tensor:
    """Token rewards at `places` (B, C) or (B, C + 1): the score, as the config amends it, at the last of them."""
    scores = certain_scores(rollout.scores, rollout.uncertainty, config.uncertainty_coef)
    if config.score_clip is not None:
        scores = scores.clamp(-config.score_clip, config.score_clip)
    if config.missing_eos is not None:
        scores = apply_missing_eos(scores, rollout.finished, config.missing_eos_penalty, config.missing_eos)
    kl = kl_estimate(rollout.log_probs - rollout.ref_log_probs, config.kl_estimator)
    kl = kl.masked_fill(~rollout.batch.completion_mask, 0.0)
    return token_rewards(F.pad(kl, (0, places.shape[1] - kl.shape[1])), scores, places, kl_coef)
