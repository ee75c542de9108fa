"""PPO (Schulman et al. 2017) of the policy adapter against the reward adapter, with a KL penalty to the reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from training.advantages import adapt_kl_coef, apply_missing_eos, certain_scores, generalized_advantages, token_rewards
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import PPOConfig
from training.data import shuffled
from training.live import turns
from training.losses import importance_weights, kl_estimate, masked_whiten, ppo_policy_loss, value_loss
from training.models import Role, Trunk
from training.optimization import OnProgress, clip_gradients, require_finite, restore, silent, snapshot
from training.rollout import Rollout, Sampled, Sampler, observed, own_sampler

TRAINED: tuple[Role, ...] = ("policy", "value")


class StalePolicy(AssertionError):
    """The first minibatch after sampling did not see ratio 1: the weights or the forward pass are not those that
    computed the old log-probs, and every update from them would be wrong."""


@dataclass(frozen=True)
class PPOReport:
    """One dictionary of metrics per iteration; the keys are those of OpenAI's lm-human-preferences."""

    iterations: int
    history: tuple[dict[str, float], ...]

    @property
    def last(self) -> dict[str, float]:
        return self.history[-1]


@dataclass(frozen=True)
class Experience:
    """A rollout with what to learn from it."""

    rollout: Rollout
    advantages: Tensor  # (B, C)
    returns: Tensor  # (B, C)
    weights: Tensor | None = None  # (B, C) `importance_weights`; None = the policy itself has sampled


def estimate_advantages(config: PPOConfig, rollouts: Sequence[Rollout], kl_coef: float) -> list[Experience]:
    """Advantages and returns; whitening is over all rollouts together, so microbatches cannot change it."""
    found = []
    for rollout in rollouts:
        mask = rollout.batch.completion_mask
        scores = certain_scores(rollout.scores, rollout.uncertainty, config.uncertainty_coef)
        if config.missing_eos is not None:
            scores = apply_missing_eos(scores, rollout.finished, config.missing_eos_penalty, config.missing_eos)
        kl = kl_estimate(rollout.log_probs - rollout.ref_log_probs, config.kl_estimator)
        rewards = token_rewards(kl, scores, mask, kl_coef)
        found.append(generalized_advantages(rewards, rollout.values, mask, config.gamma, config.lam))
    masks = [rollout.batch.completion_mask for rollout in rollouts]
    flat = torch.cat([advantages[mask] for (advantages, _), mask in zip(found, masks, strict=True)])
    if config.whiten_advantages:
        flat = masked_whiten(flat, torch.ones_like(flat, dtype=torch.bool))
    parts = flat.split([int(mask.sum()) for mask in masks])
    return [
        Experience(rollout, rollout.batch.spread(advantages), returns, _weights(config, rollout))
        for rollout, advantages, (_, returns) in zip(rollouts, parts, found, strict=True)
    ]


def _weights(config: PPOConfig, rollout: Rollout) -> Tensor | None:
    if rollout.behaviour_log_probs is None:
        return None
    mask = rollout.batch.completion_mask
    behaviour = rollout.behaviour_log_probs
    return importance_weights(rollout.log_probs, behaviour, mask, config.importance_cap, config.importance)


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What the policy did, per completion; over real tokens only."""
    kl = torch.cat([(r.log_probs - r.ref_log_probs).sum(-1) for r in rollouts])  # padding is 0 in both
    surprise = torch.cat([-r.log_probs.sum(-1) for r in rollouts])
    lengths = torch.cat([r.batch.completion_mask.sum(-1) for r in rollouts]).float()
    scores = torch.cat([r.scores for r in rollouts])
    uncertainty = torch.cat([r.uncertainty for r in rollouts])
    return {
        "objective/kl": float(kl.mean()),
        "objective/score": float(scores.mean()),
        "objective/score_std": float(scores.std(correction=0)),
        "objective/uncertainty": float(uncertainty.mean()),  # standard deviation over the reward heads
        "objective/entropy": float(surprise.sum() / lengths.sum()),  # sampled estimate, nats per token
        "completion/length": float(lengths.mean()),
        "completion/finished": float(torch.cat([r.finished for r in rollouts]).float().mean()),
    }


def _minibatch(config: PPOConfig, trunk: Trunk, experiences: Sequence[Experience]) -> dict[str, float]:
    """Accumulate the gradients of one optimizer step; the token mean is over all of its microbatches."""
    tokens = float(sum(int(e.rollout.batch.completion_mask.sum()) for e in experiences))
    names = ("ppo/policy_loss", "ppo/value_loss", "ppo/clipfrac", "ppo/approxkl", "ppo/ratio")
    sums = dict.fromkeys(names, 0.0)
    for e in experiences:
        old, mask = e.rollout, e.rollout.batch.completion_mask
        wants_entropy = config.entropy_coef > 0
        log_probs, entropies = trunk.log_probs(old.hidden, old.batch, "policy", config.temperature, wants_entropy)
        policy_loss, stats = ppo_policy_loss(
            log_probs, old.log_probs, e.advantages, mask, config.clip_range, config.dual_clip, e.weights, tokens
        )
        bonus = config.entropy_coef * entropies.sum() / tokens if entropies is not None else 0.0
        (policy_loss - bonus).backward()
        values = trunk.values(old.hidden, old.batch)
        loss = value_loss(values, old.values, e.returns, mask, config.value_clip, normaliser=tokens)
        (config.value_coef * loss).backward()
        parts = (policy_loss, loss, stats.clip_fraction, stats.approx_kl, stats.ratio_mean)
        for name, part in zip(names, parts, strict=True):
            sums[name] += part.item()
    return sums


def _require_on_policy(metrics: dict[str, float]) -> None:
    if abs(metrics["ppo/ratio"] - 1) > 1e-3 or metrics["ppo/approxkl"] > 1e-5:
        ratio, kl = metrics["ppo/ratio"], metrics["ppo/approxkl"]
        raise StalePolicy(f"ratio {ratio:.6f} and approximate KL {kl:.2e} before the first update; want 1 and 0")


def update(
    config: PPOConfig,
    trunk: Trunk,
    optimizer: torch.optim.Optimizer,
    experiences: Sequence[Experience],
    *,
    seed: int,
    iteration: int,
    alive: Callable[[], None],
) -> dict[str, float]:
    """All epochs over the rollouts of one iteration; stops early when the policy has moved `max_kl_step` away."""
    per_step = config.minibatch // config.microbatch
    steps: list[dict[str, float]] = []
    for epoch in range(config.epochs):
        order = shuffled(len(experiences), seed, iteration * config.epochs + epoch)
        for start in range(0, len(order), per_step):
            optimizer.zero_grad()
            metrics = _minibatch(config, trunk, [experiences[i] for i in order[start : start + per_step]])
            require_finite("ppo", iteration, **{name.replace("/", "_"): x for name, x in metrics.items()})
            if not steps:
                _require_on_policy(metrics)
            steps.append(metrics)
            if metrics["ppo/approxkl"] > config.max_kl_step:
                return _averages(steps)
            for role in TRAINED:  # apart, so that the value's gradients cannot scale down the policy's
                parameters = trunk.parameters(role).values()
                clip_gradients(parameters, config.max_grad_norm, stage="ppo", step=iteration)
            optimizer.step()
            alive()
    return _averages(steps)


def _averages(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return means | {"ppo/steps": float(len(steps)), "ppo/approxkl_last": steps[-1]["ppo/approxkl"]}


def explained_variance(experiences: Sequence[Experience]) -> float:
    """1 - Var(return - value) / Var(return) over real tokens; 1 = the values foresee the returns."""
    masks = [e.rollout.batch.completion_mask for e in experiences]
    returns = torch.cat([e.returns[mask] for e, mask in zip(experiences, masks, strict=True)])
    values = torch.cat([e.rollout.values[mask] for e, mask in zip(experiences, masks, strict=True)])
    return float(1 - (returns - values).var(correction=0) / returns.var(correction=0).clamp(min=1e-8))


def train_ppo(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    checkpoint_dir: Path,
    progress: OnProgress = silent,
    ref: Role | None = None,
    sampler: Sampler | None = None,
    weights: Sequence[float] | None = None,
    live: Sequence[Sampled] = (),
    seed: int = 0,
) -> PPOReport:
    """Improve the policy adapter on `prompts`; goes on from the last checkpoint, if any.

    `ref` is the role that KL is measured from, None the base model; `sampler` writes the completions, None = the
    trainer. `weights` say how often each prompt is used; `live` are completions for rollouts that are not all fresh.
    The value adapter and head start as the reward model's. Raises NonFinite on NaN, StalePolicy when the old log-probs
    are not those of the policy, TooFewLive, and ValueError when one head is to say how certain it is.
    """
    if config.uncertainty_coef > 0 and trunk.heads["reward"].out_features == 1:
        raise ValueError("uncertainty_coef: one head never disagrees; the trunk needs at least 2 reward heads")
    sampler = sampler or own_sampler(trunk, config, eos_ids)
    optimizer = torch.optim.Adam([{"params": list(trunk.parameters(role).values())} for role in TRAINED])
    kl_coef, history = _resume(config, trunk, optimizer, checkpoint_dir)
    order = islice(turns(config, weights or [1.0] * len(prompts), len(live), seed), len(history), None)

    for iteration in range(len(history), config.iterations):

        def alive(done: int = iteration) -> None:
            progress("ppo", done, config.iterations, {})

        _set_rates(config, optimizer, iteration)
        sampled = next(order).sampled(prompts, live, sampler, seed=seed * 1_000_003 + iteration, alive=alive)
        rollouts = observed(config, trunk, sampled, eos_ids=eos_ids, ref=ref, alive=alive)
        experiences = estimate_advantages(config, rollouts, kl_coef)
        metrics = rollout_metrics(rollouts)
        metrics |= {"ppo/explained_variance": explained_variance(experiences), "objective/kl_coef": kl_coef}
        metrics |= update(config, trunk, optimizer, experiences, seed=seed, iteration=iteration, alive=alive)
        require_finite("ppo", iteration, **{name.replace("/", "_"): x for name, x in metrics.items()})
        kl_coef = _adapted(config, kl_coef, metrics["objective/kl"])
        history.append(metrics)
        if (iteration + 1) % config.checkpoint_every == 0 or iteration + 1 == config.iterations:
            state = {"kl_coef": kl_coef, "history": history}
            save_checkpoint(checkpoint_dir, snapshot(trunk, TRAINED, optimizer, iteration + 1, state))
        progress("ppo", iteration + 1, config.iterations, metrics)
    return PPOReport(len(history), tuple(history))


def _resume(
    config: PPOConfig, trunk: Trunk, optimizer: torch.optim.Optimizer, checkpoint_dir: Path
) -> tuple[float, list[dict[str, float]]]:
    """The KL coefficient and the history to go on from; `trunk` and `optimizer` become what they were then."""
    if path := latest_checkpoint(checkpoint_dir):
        checkpoint = load_checkpoint(path)
        restore(trunk, TRAINED, optimizer, checkpoint)
        return checkpoint.state["kl_coef"], list(checkpoint.state["history"])
    trunk.copy_role("reward", "value")
    return config.kl_coef, []


def _adapted(config: PPOConfig, kl_coef: float, kl: float) -> float:
    """The KL coefficient of the next iteration."""
    if config.kl_target is None:
        return kl_coef
    return adapt_kl_coef(kl_coef, kl, config.kl_target, config.rollouts_per_iteration, config.kl_horizon)


def learning_rates(config: PPOConfig, iteration: int) -> tuple[float, float]:
    """The policy's and the value's: falling in a straight line towards 0, so that the last updates cannot overshoot."""
    left = 1 - iteration / config.iterations
    return config.learning_rate * left, config.value_learning_rate * left


def _set_rates(config: PPOConfig, optimizer: torch.optim.Optimizer, iteration: int) -> None:
    for group, rate in zip(optimizer.param_groups, learning_rates(config, iteration), strict=True):
        group["lr"] = rate
