"""PPO (Schulman et al. 2017) of the policy adapter against the reward adapter, with a KL penalty to the reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from training.advantages import adapt_kl_coef, apply_missing_eos, certain_scores, generalized_advantages, token_rewards
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.collapse import Collapsed, collapse
from training.config import PPOConfig
from training.data import endless, shuffled
from training.losses import kl_estimate, masked_whiten, ppo_policy_loss, value_clip_fraction, value_loss
from training.metrics_log import MetricsLog
from training.models import Role, Trunk
from training.optimization import OnProgress, clip_gradients, require_finite, restore, silent, snapshot
from training.phases import PhaseClock
from training.rollout import Rollout, collect_rollouts
from training.telemetry import explained_variance, rollout_metrics

TRAINED: tuple[Role, ...] = ("policy", "value")


class StalePolicy(AssertionError):
    """The first minibatch after sampling did not see ratio 1: the weights or the forward pass are not those that
    computed the old log-probs, and every update from them would be wrong."""


@dataclass(frozen=True)
class PPOReport:
    """One dictionary of metrics per iteration; the keys are those of OpenAI's lm-human-preferences."""

    iterations: int
    history: tuple[dict[str, float], ...]
    timings: tuple[dict[str, float], ...] = field(default=(), compare=False)  # of each iteration; see PhaseClock

    @property
    def last(self) -> dict[str, float]:
        return self.history[-1]


@dataclass(frozen=True)
class Experience:
    """A rollout with what to learn from it."""

    rollout: Rollout
    advantages: Tensor  # (B, C)
    returns: Tensor  # (B, C)


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
    return [Experience(r, r.batch.spread(a), f[1]) for r, a, f in zip(rollouts, parts, found, strict=True)]


def _minibatch(config: PPOConfig, trunk: Trunk, experiences: Sequence[Experience]) -> dict[str, float]:
    """Accumulate the gradients of one optimizer step; the token mean is over all of its microbatches."""
    tokens = float(sum(int(e.rollout.batch.completion_mask.sum()) for e in experiences))
    names = (
        "ppo/policy_loss", "ppo/value_loss", "ppo/clipfrac", "ppo/approxkl", "ppo/ratio", "ppo/value_clipfrac",
    )  # fmt: skip
    sums = dict.fromkeys(names, 0.0)
    for e in experiences:
        old, mask = e.rollout, e.rollout.batch.completion_mask
        wants_entropy = config.entropy_coef > 0
        log_probs, entropies = trunk.log_probs(old.hidden, old.batch, "policy", config.temperature, wants_entropy)
        policy_loss, stats = ppo_policy_loss(
            log_probs, old.log_probs, e.advantages, mask, config.clip_range, config.dual_clip, normaliser=tokens
        )
        bonus = config.entropy_coef * entropies.sum() / tokens if entropies is not None else 0.0
        (policy_loss - bonus).backward()
        values = trunk.values(old.hidden, old.batch)
        loss = value_loss(values, old.values, e.returns, mask, config.value_clip, normaliser=tokens)
        (config.value_coef * loss).backward()
        clipped = value_clip_fraction(values, old.values, e.returns, mask, config.value_clip, normaliser=tokens)
        parts = (policy_loss, loss, stats.clip_fraction, stats.approx_kl, stats.ratio_mean, clipped)
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


def train_ppo(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    checkpoint_dir: Path,
    metrics_dir: Path | None = None,
    progress: OnProgress = silent,
    ref: Role | None = None,
    seed: int = 0,
) -> PPOReport:
    """Improve the policy adapter on `prompts`; goes on from the last checkpoint, if any.

    `ref` is the role that KL is measured from, None the base model. The value adapter and head start as the reward
    model's. `metrics_dir` (default: `checkpoint_dir`) gets every iteration's metrics as files, see MetricsLog. Raises
    NonFinite on NaN, Collapsed when the policy is past saving, StalePolicy when the old log-probs are not those of the
    policy, and ValueError when one head is to say how certain it is.
    """
    if config.uncertainty_coef > 0 and trunk.heads["reward"].out_features == 1:
        raise ValueError("uncertainty_coef: one head never disagrees; the trunk needs at least 2 reward heads")
    optimizer = torch.optim.Adam([{"params": list(trunk.parameters(role).values())} for role in TRAINED])
    kl_coef, history, timings = _resume(config, trunk, optimizer, checkpoint_dir)
    order = islice(endless(len(prompts), seed), len(history) * config.rollouts_per_iteration, None)
    known = [a | b for a, b in zip(history, timings, strict=True)]

    with MetricsLog(metrics_dir or checkpoint_dir, known) as log:
        for iteration in range(len(history), config.iterations):

            def alive(done: int = iteration) -> None:
                progress("ppo", done, config.iterations, {})

            _set_rates(config, optimizer, iteration)
            clock = PhaseClock()
            chosen = [prompts[i] for i in islice(order, config.rollouts_per_iteration)]
            drawn = seed * 1_000_003 + iteration
            rollouts = collect_rollouts(
                config, trunk, chosen, eos_ids=eos_ids, ref=ref, seed=drawn, alive=alive, clock=clock
            )
            experiences = estimate_advantages(config, rollouts, kl_coef)
            metrics = rollout_metrics(rollouts) | _foresight(experiences) | {"objective/kl_coef": kl_coef}
            with clock("update"):
                metrics |= update(config, trunk, optimizer, experiences, seed=seed, iteration=iteration, alive=alive)
            require_finite("ppo", iteration, **{name.replace("/", "_"): x for name, x in metrics.items()})
            history.append(metrics)
            timings.append(clock.metrics(metrics["completion/length"] * len(chosen)))
            log.append(metrics | timings[-1])
            if (reason := collapse(config, history)) is not None:
                raise Collapsed(reason, history)
            kl_coef = _adapted(config, kl_coef, metrics["objective/kl"])
            if (iteration + 1) % config.checkpoint_every == 0 or iteration + 1 == config.iterations:
                state = {"kl_coef": kl_coef, "history": history, "timings": timings}
                save_checkpoint(checkpoint_dir, snapshot(trunk, TRAINED, optimizer, iteration + 1, state))
            progress("ppo", iteration + 1, config.iterations, metrics | timings[-1])
    return PPOReport(len(history), tuple(history), tuple(timings))


def _foresight(experiences: Sequence[Experience]) -> dict[str, float]:
    rollouts = [e.rollout for e in experiences]
    masks = [rollout.batch.completion_mask for rollout in rollouts]
    returns = [e.returns for e in experiences]
    return {"ppo/explained_variance": explained_variance([r.values for r in rollouts], returns, masks)}


def _resume(
    config: PPOConfig, trunk: Trunk, optimizer: torch.optim.Optimizer, checkpoint_dir: Path
) -> tuple[float, list[dict[str, float]], list[dict[str, float]]]:
    """KL coefficient, history and timings to go on from; `trunk` and `optimizer` become what they were then."""
    if path := latest_checkpoint(checkpoint_dir):
        checkpoint = load_checkpoint(path)
        restore(trunk, TRAINED, optimizer, checkpoint)
        return checkpoint.state["kl_coef"], list(checkpoint.state["history"]), list(checkpoint.state["timings"])
    trunk.copy_role("reward", "value")
    return config.kl_coef, [], []


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
