"""Fitting the reward adapter, or by option whole layers, and heads to what people said.

The fit is measured on prompts that it never saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from feedback.policies.reward_fit import Fit
from training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import RewardConfig
from training.model.heads import bootstrap_weights, spread
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample, evenly_cut, shuffled
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.optimizing.parallel import evenly, leads, share
from training.optimizing.sharding import in_shares
from training.optimizing.steps import OnProgress, descend, restore, set_rates, share_of_rate, silent, snapshot
from training.reward.fit import evaluate
from training.reward.likelihoods import Labels, log_likelihood, weighted_loss


@dataclass(frozen=True)
class RewardReport:
    """`held_out` is None when no prompt could be spared or no held-out ranking has an untied pair."""

    steps: int
    rankings: int
    ratings: int
    loss: float  # of the last optimizer step
    bias: float  # of the heads, mean, so that demonstrations (or the training completions) score mean 0
    threshold: float  # score of an even chance of a thumb up
    tie_width: float | None  # log nu (Davidson), log(theta - 1) (Rao-Kupper); None = soft ties, or nobody gave one
    temperature: float  # scores over log-odds, which the likelihood and `tie_width` are about
    held_out: Fit | None


def split_by_prompt(
    judgements: Sequence[Judgement], fraction: float, seed: int
) -> tuple[list[Judgement], list[Judgement]]:
    """(training, held out): `fraction` of the prompts, at least one of five, with everything said about them."""
    prompts = sorted({judgement.prompt_ids for judgement in judgements})
    count = round(fraction * len(prompts)) if len(prompts) >= 5 else 0
    held_out = {prompts[i] for i in shuffled(len(prompts), seed, 0)[:count]}
    training = [j for j in judgements if j.prompt_ids not in held_out]
    return training, [j for j in judgements if j.prompt_ids in held_out]


@dataclass(frozen=True)
class Weighed:
    """A judgement and what it weighs with each head: its weight, as often as the head's bootstrap sample has it."""

    judgement: Judgement
    by_head: tuple[float, ...]

    @classmethod
    def of(cls, judgement: Judgement, heads: int, seed: int) -> "Weighed":
        return cls(judgement, tuple(judgement.weight * n for n in bootstrap_weights(judgement, heads, seed)))


def _backward(
    config: RewardConfig, scorer: Scorer, labels: Labels, step: Sequence[Weighed], step_weight: float
) -> float:
    """Accumulate the gradient of the step's part of the weighted loss (a judgement is one element, InstructGPT eq. 1).

    It is divided by `step_weight`, which is what the judgements of a step weigh on average: by its own weight a step
    of light ones would pull as hard as any other, and weights and caps would say nothing but within a step. Batches of
    `scorer` bound the memory and leave the result alone. Of several processes each has its share of loss and gradient,
    which are still to be summed.
    """
    total, total_weight = 0.0, config.reward_heads * step_weight
    own = share(step)
    batches = scorer.batches([each.judgement.samples for each in own])
    for weighed, counts in evenly([[own[i] for i in indices] for indices in batches], step[:1]):
        batch = [each.judgement for each in weighed]
        scores = scorer.by_head([s for j in batch for s in j.samples])  # (N, K)
        values = log_likelihood(
            batch * config.reward_heads,
            scores.T.flatten(),
            labels,
            config.likelihood,
            margin=config.margin,
            label_smoothing=config.label_smoothing,
            center_coef=config.center_coef,
        )
        weights = values.new_tensor([each.by_head for each in weighed])  # (J, K)
        loss = counts * weighted_loss(values, weights.T.flatten(), total_weight)
        loss.backward()
        total += loss.item()
    return total


@in_shares
def train_reward_model(
    config: RewardConfig,
    trunk: Trunk,
    rankings: Sequence[RankedSamples],
    ratings: Sequence[RatedSample] = (),
    *,
    checkpoint_dir: Path,
    demonstrations: Sequence[Sample] = (),
    successor: bool = False,
    progress: OnProgress = silent,
    seed: int = 0,
) -> RewardReport:
    """Fit the reward adapter (or layers) and heads; goes on from the last checkpoint, if any.

    Every distinct completion is forwarded once per optimizer step, and a prompt once for its completions. Afterwards
    each head's bias is set so that `demonstrations`, or without them all training completions, score mean 0. The
    `successor` of the reward model that the trunk holds has its scale, too: both spread alike within the prompts of the
    training completions. The fit itself is always in log-odds. Of several processes, which all call this, each works on
    its share of every step, and one writes.
    """
    _require_form(config, trunk)
    trunk.gradient_checkpointing = config.gradient_checkpointing
    judgements: list[Judgement] = [j for kind in (rankings, ratings) for j in kind if j.weight > 0]
    training, held_out = split_by_prompt(judgements, config.held_out_fraction, seed)
    if not training:
        raise ValueError("the reward model needs rankings or ratings, and some of them with a weight")
    labels = Labels(config.ties if any(j.has_ties for j in training) else "soft").to(trunk.device)
    taught = [s for j in training for s in j.samples]
    scorer = Scorer(trunk, [*taught, *(s for j in held_out for s in j.samples), *demonstrations], config)
    completions = list(dict.fromkeys(taught))
    before = _spread(scorer, completions) if successor and config.carry_scale else None
    trunk.set_temperature(1.0)
    loss, steps = _fit(config, trunk, training, scorer, labels, checkpoint_dir, progress, seed)
    fit = evaluate(scorer, [j for j in held_out if isinstance(j, RankedSamples)], labels)
    if before and (after := _spread(scorer, completions)):
        trunk.set_temperature(before / after)
    mean = _center(trunk, scorer, demonstrations or taught)
    return RewardReport(
        steps=steps,
        rankings=sum(isinstance(j, RankedSamples) for j in judgements),
        ratings=sum(isinstance(j, RatedSample) for j in judgements),
        loss=loss,
        bias=trunk.heads["reward"].bias.mean().item(),
        threshold=labels.threshold.item() * trunk.temperature - mean,
        tie_width=None if labels.tie_width is None else labels.tie_width.item(),
        temperature=trunk.temperature,
        held_out=fit,
    )


def _require_form(config: RewardConfig, trunk: Trunk) -> None:
    heads = trunk.heads["reward"].out_features
    if heads != config.reward_heads:
        raise ValueError(f"the trunk has {heads} reward heads, not {config.reward_heads}")
    if trunk.full_reward != (config.trains == "full"):
        raise ValueError(f"the trunk's reward model is not one that trains: {config.trains}")


def _fit(
    config: RewardConfig,
    trunk: Trunk,
    training: Sequence[Judgement],
    scorer: Scorer,
    labels: Labels,
    checkpoint_dir: Path,
    progress: OnProgress,
    seed: int,
) -> tuple[float, int]:
    """All epochs; returns the last step's loss and the number of steps."""
    optimizer = torch.optim.Adam([*trunk.parameters("reward").values(), *labels.parameters()], lr=config.rate)
    first, loss = _resume(trunk, optimizer, labels, checkpoint_dir)
    weighed = [Weighed.of(judgement, config.reward_heads, seed) for judgement in training]
    steps_per_epoch = -(-len(training) // config.batch_rankings)
    step_weight = sum(judgement.weight for judgement in training) / steps_per_epoch
    total = config.epochs * steps_per_epoch
    for step in range(first, total):
        epoch, part = divmod(step, steps_per_epoch)
        order = evenly_cut(shuffled(len(training), seed, epoch), steps_per_epoch)[part]
        optimizer.zero_grad()
        own = _backward(config, scorer, labels, [weighed[i] for i in order], step_weight)
        set_rates(optimizer, config.rate * share_of_rate(step, total, warmup=config.warmup, decay=config.decay))
        loss = descend(optimizer, own, config.max_grad_norm, stage="reward", step=step)
        if leads() and ((step + 1) % config.checkpoint_every == 0 or step + 1 == total):
            save_checkpoint(checkpoint_dir, _snapshot(trunk, optimizer, labels, step + 1, loss))
        progress("reward", step + 1, total, {"reward/loss": loss})
    return loss, total


def _snapshot(trunk: Trunk, optimizer: torch.optim.Optimizer, labels: Labels, step: int, loss: float) -> Checkpoint:
    checkpoint = snapshot(trunk, ["reward"], optimizer, step, {"loss": loss})
    extra = {f"labels/{name}": tensor for name, tensor in labels.state_dict().items()}
    return Checkpoint(step, {**checkpoint.tensors, **extra}, checkpoint.state)


def _resume(trunk: Trunk, optimizer: torch.optim.Optimizer, labels: Labels, checkpoint_dir: Path) -> tuple[int, float]:
    """The number of steps so far and the loss of the last one; trunk, optimizer and labels become what they were."""
    if (path := latest_checkpoint(checkpoint_dir)) is None:
        return 0, float("nan")
    checkpoint = load_checkpoint(path)
    restore(trunk, ["reward"], optimizer, checkpoint)
    labels.load_state_dict(checkpoint.section("labels"))
    return checkpoint.step, checkpoint.state["loss"]


def _spread(scorer: Scorer, samples: Sequence[Sample]) -> float:
    return spread(torch.tensor(scorer.all(samples)), [sample.prompt_ids for sample in samples])


@torch.no_grad()
def _center(trunk: Trunk, scorer: Scorer, samples: Sequence[Sample]) -> float:
    """Set each head's bias so that `samples` score mean 0 with it; returns the mean they had, over all heads.

    What people prefer says nothing about a head's zero, and heads that differ in it alone do not disagree.
    """
    means = scorer.all_by_head(samples).mean(0)  # (K,)
    trunk.heads["reward"].bias.sub_(means.to(trunk.device))
    return means.mean().item()
