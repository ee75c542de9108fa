"""PPO (Schulman et al. 2017) of the policy adapter against the reward adapter, with a KL penalty to the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from training.advantages import adapt_kl_coef
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import PPOConfig
from training.data import Sample, endless
from training.experience import Experience, estimate_advantages, read_after_ends
from training.models import Role, Trunk
from training.optimization import OnProgress, require_finite, restore, silent, snapshot
from training.ppo_update import TRAINED, update
from training.rollout import Rollout, Sampler, observed, own_sampler


@dataclass(frozen=True)
class PPOReport:
    """One dictionary of metrics per iteration; the keys are those of OpenAI's lm-human-preferences."""

    iterations: int
    history: tuple[dict[str, float], ...]

    @property
    def last(self) -> dict[str, float]:
        return self.history[-1]


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
    ptx: Sequence[Sample] = (),
    seed: int = 0,
) -> PPOReport:
    """Improve the policy adapter on `prompts`; goes on from the last checkpoint, if any.

    `ref` is the role that KL is measured from, None the base model; `sampler` writes the completions, None = the
    trainer; `ptx` are the demonstrations of `ptx_coef`, and without any there is no such loss. The value adapter and
    head start as the reward model's. With `ema_decay` the policy adapter becomes the average in the end. Raises
    NonFinite on NaN, StalePolicy when the old log-probs are not those of the policy, and ValueError when one head is
    to say how certain it is.
    """
    if config.uncertainty_coef > 0 and trunk.heads["reward"].out_features == 1:
        raise ValueError("uncertainty_coef: one head never disagrees; the trunk needs at least 2 reward heads")
    sampler = sampler or own_sampler(trunk, config, eos_ids)
    trunk.value_role = "policy" if config.value_trunk == "policy" else "value"
    optimizer = torch.optim.Adam([{"params": list(trunk.parameters(role).values())} for role in TRAINED])
    kl_coef, history, average = _resume(config, trunk, optimizer, checkpoint_dir)
    order = islice(endless(len(prompts), seed), len(history) * config.rollouts_per_iteration, None)

    for iteration in range(len(history), config.iterations):

        def alive(done: int = iteration) -> None:
            progress("ppo", done, config.iterations, {})

        _set_rates(config, optimizer, iteration)
        chosen = [prompts[i] for i in islice(order, config.rollouts_per_iteration)]
        sampled = sampler(chosen, seed=seed * 1_000_003 + iteration, alive=alive)
        rollouts = observed(config, trunk, sampled, eos_ids=eos_ids, ref=ref, alive=alive)
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
