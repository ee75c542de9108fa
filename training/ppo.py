"""PPO (Schulman et al. 2017) of the policy adapter against the reward adapter, with a KL penalty to the reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.advantages import (
    adapt_kl_coef,
    apply_missing_eos,
    certain_scores,
    end_positions,
    generalized_advantages,
    token_rewards,
)
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import PPOConfig
from training.data import Batch, Sample, collate, endless, length_bucketed, shuffled
from training.losses import (
    kl_estimate,
    kl_loss,
    language_model_loss,
    ppo_policy_loss,
    value_loss,
    whiten_together,
)
from training.models import Role, Trunk
from training.optimization import OnProgress, clip_gradients, follow, require_finite, restore, silent, snapshot
from training.rollout import Rollout, collect_rollouts

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
    return [Experience(r, a, v, in_loss) for r, a, v in zip(rollouts, advantages, valued, strict=True)]


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
    places = float(sum(int(e.valued.batch.completion_mask.sum()) for e in experiences))
    names = ("ppo/policy_loss", "ppo/value_loss", "ppo/clipfrac", "ppo/approxkl", "ppo/ratio")
    sums = dict.fromkeys(names, 0.0)
    for e in experiences:
        old, mask = e.rollout, e.rollout.batch.completion_mask
        wants_entropy = config.entropy_coef > 0
        log_probs, entropies = trunk.log_probs(old.hidden, old.batch, "policy", config.temperature, wants_entropy)
        policy_loss, stats = ppo_policy_loss(
            log_probs, old.log_probs, e.advantages, mask, config.clip_range, config.dual_clip, normaliser=tokens
        )
        objective = policy_loss
        if entropies is not None:
            objective = objective - config.entropy_coef * entropies.sum() / tokens
        if e.kl_coef > 0:
            kl = kl_loss(log_probs, old.ref_log_probs, mask, config.kl_estimator, normaliser=tokens)
            objective = objective + e.kl_coef * kl
        objective.backward()
        batch, old_values, returns = e.valued
        values = trunk.values(old.hidden, batch)
        loss = value_loss(values, old_values, returns, batch.completion_mask, config.value_clip, normaliser=places)
        (config.value_coef * loss).backward()
        parts = (policy_loss, loss, stats.clip_fraction, stats.approx_kl, stats.ratio_mean)
        for name, part in zip(names, parts, strict=True):
            sums[name] += part.item()
    return sums


def ptx_gradients(config: PPOConfig, trunk: Trunk, samples: Sequence[Sample]) -> float:
    """Accumulate those of ptx_coef * the demonstrations' loss per token (Ouyang et al. 2022, eq. 2); returns the loss.

    Beside PPO's own in one optimizer step, and not a step of its own.
    """
    tokens = float(sum(len(sample.completion_ids) for sample in samples))
    total = 0.0
    for indices in length_bucketed([len(sample) for sample in samples], config.microbatch):
        batch = collate([samples[i] for i in indices], trunk.pad_id, trunk.device)
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, "policy")
        loss = language_model_loss(log_probs, batch.completion_mask, normaliser=tokens)
        (config.ptx_coef * loss).backward()
        total += loss.item()
    return total


def _ptx_batches(config: PPOConfig, ptx: Sequence[Sample], seed: int, iteration: int) -> Iterator[list[Sample]]:
    """The demonstrations of each optimizer step of an iteration: a pure function of its arguments, for resuming."""
    per_iteration = config.epochs * (config.rollouts_per_iteration // config.minibatch) * config.ptx_batch
    order = islice(endless(len(ptx), ~seed), iteration * per_iteration, None)  # ~: not the order of the prompts
    while True:
        yield [ptx[i] for i in islice(order, config.ptx_batch)]


def _require_on_policy(metrics: dict[str, float]) -> None:
    ratio, kl, clipped = metrics["ppo/ratio"], metrics["ppo/approxkl"], metrics["ppo/clipfrac"]
    if abs(ratio - 1) > 1e-3 or kl > 1e-5 or clipped > 0:
        found = f"ratio {ratio:.6f}, approximate KL {kl:.2e} and {clipped:.1%} clipped"
        raise StalePolicy(f"{found} before the first update; want 1, 0 and none")


def update(
    config: PPOConfig,
    trunk: Trunk,
    optimizer: torch.optim.Optimizer,
    experiences: Sequence[Experience],
    *,
    seed: int,
    iteration: int,
    alive: Callable[[], None],
    ptx: Sequence[Sample] = (),
    average: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """All epochs over the rollouts of one iteration; stops early when the policy has moved `max_kl_step` away.

    `ptx` are demonstrations to mix in; `average` follows the policy's weights, in place.
    """
    per_step = config.minibatch // config.microbatch
    demonstrations = _ptx_batches(config, ptx, seed, iteration) if ptx and config.ptx_coef > 0 else None
    steps: list[dict[str, float]] = []
    for epoch in range(config.epochs):
        order = shuffled(len(experiences), seed, iteration * config.epochs + epoch)
        for start in range(0, len(order), per_step):
            optimizer.zero_grad()
            metrics = _minibatch(config, trunk, [experiences[i] for i in order[start : start + per_step]])
            if demonstrations is not None:
                metrics["ppo/ptx_loss"] = ptx_gradients(config, trunk, next(demonstrations))
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
            if average is not None and config.ema_decay is not None:
                follow(average, trunk.parameters("policy"), config.ema_decay)
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
    ptx: Sequence[Sample] = (),
    seed: int = 0,
) -> PPOReport:
    """Improve the policy adapter on `prompts`; goes on from the last checkpoint, if any.

    `ref` is the role that KL is measured from, None the base model; `ptx` are the demonstrations of `ptx_coef`, and
    without any there is no such loss. The value adapter and head start as the reward model's. With `ema_decay` the
    policy adapter becomes the average in the end. Raises NonFinite on NaN, StalePolicy when the old log-probs are not
    those of the policy, and ValueError when one head is to say how certain it is.
    """
    if config.uncertainty_coef > 0 and trunk.heads["reward"].out_features == 1:
        raise ValueError("uncertainty_coef: one head never disagrees; the trunk needs at least 2 reward heads")
    trunk.value_role = "policy" if config.value_trunk == "policy" else "value"
    optimizer = torch.optim.Adam([{"params": list(trunk.parameters(role).values())} for role in TRAINED])
    kl_coef, history, average = _resume(config, trunk, optimizer, checkpoint_dir)
    order = islice(endless(len(prompts), seed), len(history) * config.rollouts_per_iteration, None)

    for iteration in range(len(history), config.iterations):

        def alive(done: int = iteration) -> None:
            progress("ppo", done, config.iterations, {})

        _set_rates(config, optimizer, iteration)
        chosen = [prompts[i] for i in islice(order, config.rollouts_per_iteration)]
        drawn = seed * 1_000_003 + iteration
        rollouts = collect_rollouts(config, trunk, chosen, eos_ids=eos_ids, ref=ref, seed=drawn, alive=alive)
        read = [read_after_ends(config, trunk, r) for r in rollouts] if config.score_at == "after_end" else None
        experiences = estimate_advantages(config, rollouts, kl_coef, read)
        metrics = rollout_metrics(rollouts)
        metrics |= {"ppo/explained_variance": explained_variance(experiences), "objective/kl_coef": kl_coef}
        metrics |= update(
            config, trunk, optimizer, experiences,
            seed=seed, iteration=iteration, alive=alive, ptx=ptx, average=average,
        )  # fmt: skip
        require_finite("ppo", iteration, **{name.replace("/", "_"): x for name, x in metrics.items()})
        kl_coef = _adapted(config, kl_coef, metrics["objective/kl"])
        history.append(metrics)
        if (iteration + 1) % config.checkpoint_every == 0 or iteration + 1 == config.iterations:
            state = {"kl_coef": kl_coef, "history": history}
            checkpoint = snapshot(trunk, TRAINED, optimizer, iteration + 1, state, average=average)
            save_checkpoint(checkpoint_dir, checkpoint)
        progress("ppo", iteration + 1, config.iterations, metrics)
    if average:
        trunk.load_state("policy", average)
    return PPOReport(len(history), tuple(history))


def _resume(
    config: PPOConfig, trunk: Trunk, optimizer: torch.optim.Optimizer, checkpoint_dir: Path
) -> tuple[float, list[dict[str, float]], dict[str, Tensor]]:
    """The KL coefficient, the history and the policy's average, empty when off, to go on from.

    `trunk` and `optimizer` become what they were then.
    """
    if path := latest_checkpoint(checkpoint_dir):
        checkpoint = load_checkpoint(path)
        restore(trunk, TRAINED, optimizer, checkpoint)
        average = {name: tensor.to(trunk.device) for name, tensor in checkpoint.section("average").items()}
        return checkpoint.state["kl_coef"], list(checkpoint.state["history"]), average
    trunk.copy_role("reward", "value")
    policy = trunk.parameters("policy") if config.ema_decay is not None else {}
    return config.kl_coef, [], {name: weight.detach().clone() for name, weight in policy.items()}


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
