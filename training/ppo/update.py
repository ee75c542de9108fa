"""What PPO does with the rollouts of one iteration: optimizer steps, and what each must hold to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from training.config import PPOConfig
from training.losses import (
    kl_loss,
    language_model_loss,
    own_draws,
    ppo_policy_loss,
    value_clip_fraction,
    value_loss,
)
from training.model.roles import Role
from training.model.samples import Sample, collate, endless, length_bucketed
from training.model.trunk import Trunk
from training.optimizing.parallel import share, sum_gradients, summed
from training.optimizing.steps import clip_gradients, follow, require_finite
from training.ppo.experience import Experience
from training.ppo.minibatches import redrawn

TRAINED: tuple[Role, ...] = ("policy", "value")


class StalePolicy(AssertionError):
    """The first minibatch after sampling did not see ratio 1: the weights or the forward pass are not those that
    computed the old log-probs, and every update from them would be wrong."""


def _minibatch(config: PPOConfig, trunk: Trunk, experiences: Sequence[Experience]) -> dict[str, float]:
    """Accumulate the gradients of one optimizer step; the token mean is over all of its microbatches.

    Of several processes each has its share of both, which are still to be summed.
    """
    tokens, places, drawn = _counts(experiences)
    names = (
        "ppo/policy_loss", "ppo/value_loss", "ppo/clipfrac", "ppo/approxkl", "ppo/ratio", "ppo/value_clipfrac",
    )  # fmt: skip
    sums = dict.fromkeys(names, 0.0)
    for e in experiences:
        old, mask = e.rollout, e.rollout.batch.completion_mask
        wants_entropy = config.entropy_coef > 0
        log_probs, entropies = trunk.log_probs(old.hidden, old.batch, "policy", config.temperature, wants_entropy)
        draws = own_draws(old.log_ratios, mask) * (tokens / drawn)
        policy_loss, stats = ppo_policy_loss(
            log_probs, old.log_probs, e.advantages, mask, config.clip_range, config.dual_clip, e.weights, tokens, draws
        )
        objective = policy_loss
        if entropies is not None:
            objective = objective - config.entropy_coef * entropies.sum() / tokens
        if e.kl_coef > 0:
            kl = kl_loss(log_probs, old.ref_log_probs, mask, config.kl_estimator, tokens, e.weights)
            objective = objective + e.kl_coef * kl
        objective.backward()
        batch, old_values, returns = e.valued
        values = trunk.values(old.hidden, batch)
        loss = value_loss(values, old_values, returns, batch.completion_mask, config.value_clip, normaliser=places)
        (config.value_coef * loss).backward()
        clipped = value_clip_fraction(values, old_values, returns, batch.completion_mask, config.value_clip, places)
        parts = (policy_loss, loss, stats.clip_fraction, stats.approx_kl, stats.ratio_mean, clipped)
        for name, part in zip(names, parts, strict=True):
            sums[name] += part.item()
    return sums


def _counts(experiences: Sequence[Experience]) -> tuple[float, float, float]:
    """Completion tokens, places with values, and the sum of `own_draws`, of all processes together."""
    tokens = float(sum(int(e.rollout.batch.completion_mask.sum()) for e in experiences))
    places = float(sum(int(e.valued.batch.completion_mask.sum()) for e in experiences))
    drawn = sum(float(own_draws(e.rollout.log_ratios, e.rollout.batch.completion_mask).sum()) for e in experiences)
    counts = summed({"tokens": tokens, "places": places, "drawn": drawn})
    return counts["tokens"], counts["places"], counts["drawn"]


def ptx_gradients(config: PPOConfig, trunk: Trunk, samples: Sequence[Sample]) -> float:
    """Accumulate those of ptx_coef * the demonstrations' loss per token (Ouyang et al. 2022, eq. 2); returns the loss.

    Beside PPO's own in one optimizer step, and not a step of its own. Of several processes each has its share.
    """
    tokens = float(sum(len(sample.completion_ids) for sample in samples))
    total = 0.0
    for number, indices in enumerate(length_bucketed([len(sample) for sample in samples], config.microbatch)):
        chosen = [samples[i] for i in share(indices, number * config.microbatch)]
        # Who has none reads one for nothing: processes that share the base's weights run it equally often.
        batch = collate(chosen or [samples[indices[0]]], trunk.pad_id, trunk.device)
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, "policy")
        loss = bool(chosen) * language_model_loss(log_probs, batch.completion_mask, normaliser=tokens)
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

    `ptx` are demonstrations to mix in; `average` follows the policy's weights, in place. The metrics are those of the
    steps taken, save `ppo/approxkl_last`: how far the policy was when it was last looked at.
    """
    demonstrations = _ptx_batches(config, ptx, seed, iteration) if ptx and config.ptx_coef > 0 else None
    taken: list[dict[str, float]] = []
    for minibatch in _minibatches(config, experiences, seed, iteration):
        optimizer.zero_grad()
        metrics = _minibatch(config, trunk, minibatch)
        if demonstrations is not None:
            metrics["ppo/ptx_loss"] = ptx_gradients(config, trunk, next(demonstrations))
        metrics = summed(metrics)
        require_finite("ppo", iteration, **{name.replace("/", "_"): x for name, x in metrics.items()})
        if not taken:
            _require_on_policy(metrics)
        if metrics["ppo/approxkl"] > config.max_kl_step:
            break
        _step(config, trunk, optimizer, iteration)
        taken.append(metrics)
        if average is not None and config.ema_decay is not None:
            follow(average, trunk.parameters("policy"), config.ema_decay)
        alive()
    told = {"ppo/steps": float(len(taken)), "ppo/approxkl_last": metrics["ppo/approxkl"]}
    return _averages(taken or [metrics]) | told


def _minibatches(
    config: PPOConfig, experiences: Sequence[Experience], seed: int, iteration: int
) -> Iterator[Sequence[Experience]]:
    """Of all epochs, in microbatches. Those of the first are left as they were observed: computed in the same way, the
    log-probs are the old ones to the last bit, also in bf16."""
    per_step = config.minibatch // config.microbatch
    yield from (experiences[start : start + per_step] for start in range(0, len(experiences), per_step))
    for epoch in range(iteration * config.epochs + 1, (iteration + 1) * config.epochs):
        yield from redrawn(experiences, config.minibatch, config.microbatch, seed, epoch)


def _step(config: PPOConfig, trunk: Trunk, optimizer: torch.optim.Optimizer, iteration: int) -> None:
    """One of the optimizer, by the gradients of all processes."""
    sum_gradients([p for role in TRAINED for p in trunk.parameters(role).values()])
    for role in TRAINED:  # apart, so that the value's gradients cannot scale down the policy's
        clip_gradients(trunk.parameters(role).values(), config.max_grad_norm, stage="ppo", step=iteration)
    optimizer.step()


def _averages(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
