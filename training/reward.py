"""Fitting the reward adapter and head to what people said, and measuring the fit on prompts it never saw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from feedback.statistics import Interval, bootstrap_mean
from training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import RewardConfig
from training.data import RankedSamples, RatedSample, Sample, shuffled
from training.losses import ranking_loss, rating_loss
from training.models import Trunk
from training.optimization import OnProgress, clip_gradients, require_finite, restore, silent, snapshot
from training.scoring import Scorer

Judgement = RankedSamples | RatedSample


@dataclass(frozen=True)
class HeldOutFit:
    """How well scores agree with rankings of unseen prompts; the prompt is the unit of the intervals."""

    prompts: int
    accuracy: Interval  # share of untied pairs that the scores put in the raters' order
    log_loss: Interval  # nats per pair; ln 2 = knows nothing
    kendall_tau: float  # tau-b, mean over rankings


@dataclass(frozen=True)
class RewardReport:
    """`held_out` is None when no prompt could be spared or no held-out ranking has an untied pair."""

    steps: int
    rankings: int
    ratings: int
    loss: float  # of the last optimizer step
    bias: float  # of the head, so that demonstrations (or the training completions) score mean 0
    threshold: float  # score of an even chance of a thumb up
    log_nu: float | None  # width of ties (Davidson 1970); None = nobody gave a tie
    held_out: HeldOutFit | None


class Labels(nn.Module):
    """What the likelihood of judgements needs beside the scores; not part of the reward model."""

    def __init__(self, with_ties: bool) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))
        self.log_nu = nn.Parameter(torch.zeros(())) if with_ties else None

    def loss(self, scores: Tensor, judgement: Judgement, label_smoothing: float) -> Tensor:
        """Negative log-likelihood of one judgement from the scores (K,) of its completions."""
        if isinstance(judgement, RatedSample):
            return rating_loss(scores, torch.tensor([judgement.label], device=scores.device), self.threshold)
        tiers = torch.tensor(judgement.tiers, device=scores.device)
        return ranking_loss(scores, tiers, self.log_nu, label_smoothing)


def split_by_prompt(
    judgements: Sequence[Judgement], fraction: float, seed: int
) -> tuple[list[Judgement], list[Judgement]]:
    """(training, held out): `fraction` of the prompts, at least one of five, with everything said about them."""
    prompts = sorted({judgement.prompt_ids for judgement in judgements})
    count = round(fraction * len(prompts)) if len(prompts) >= 5 else 0
    held_out = {prompts[i] for i in shuffled(len(prompts), seed, 0)[:count]}
    training = [j for j in judgements if j.prompt_ids not in held_out]
    return training, [j for j in judgements if j.prompt_ids in held_out]


def _samples(judgement: Judgement) -> tuple[Sample, ...]:
    return judgement.samples if isinstance(judgement, RankedSamples) else (judgement.sample,)


def _backward(config: RewardConfig, scorer: Scorer, labels: Labels, judgements: Sequence[Judgement]) -> float:
    """Accumulate the gradient of the weighted mean loss over judgements (a prompt is one element, InstructGPT eq. 1).

    Batches of `scorer` bound the memory and leave the result alone: the mean is over all of them.
    """
    groups, weights = [_samples(j) for j in judgements], [j.weight for j in judgements]
    total = 0.0
    for batch in scorer.batches(groups):
        scores = scorer([s for i in batch for s in groups[i]]).split([len(groups[i]) for i in batch])
        losses = [
            weights[i] * labels.loss(x, judgements[i], config.label_smoothing)
            for i, x in zip(batch, scores, strict=True)
        ]
        loss = torch.stack(losses).sum() / sum(weights)
        loss.backward()
        total += loss.item()
    return total


def train_reward_model(
    config: RewardConfig,
    trunk: Trunk,
    rankings: Sequence[RankedSamples],
    ratings: Sequence[RatedSample] = (),
    *,
    checkpoint_dir: Path,
    demonstrations: Sequence[Sample] = (),
    progress: OnProgress = silent,
    seed: int = 0,
) -> RewardReport:
    """Fit the reward adapter and head; goes on from the last checkpoint, if any.

    Every distinct completion is forwarded once per optimizer step, and a prompt once for its completions. Afterwards
    the head's bias is set so that `demonstrations`, or without them all training completions, score mean 0.
    """
    training, held_out = split_by_prompt([*rankings, *ratings], config.held_out_fraction, seed)
    training = [j for j in training if j.weight > 0]
    if not training:
        raise ValueError("the reward model needs rankings or ratings")
    with_ties = any(len(set(r.tiers)) < len(r.tiers) for r in rankings)
    labels = Labels(with_ties).to(trunk.device)
    everything = [s for j in [*training, *held_out] for s in _samples(j)]
    scorer = Scorer(trunk, [*everything, *demonstrations], config)
    loss, steps = _fit(config, trunk, training, scorer, labels, checkpoint_dir, progress, seed)
    ranked = [j for j in held_out if isinstance(j, RankedSamples)]
    fit = evaluate(scorer, ranked, labels.log_nu)
    mean = _center(trunk, scorer, demonstrations or [s for j in training for s in _samples(j)])
    return RewardReport(
        steps=steps,
        rankings=len(rankings),
        ratings=len(ratings),
        loss=loss,
        bias=trunk.heads["reward"].bias.item(),
        threshold=labels.threshold.item() - mean,
        log_nu=None if labels.log_nu is None else labels.log_nu.item(),
        held_out=fit,
    )


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
    parameters = [*trunk.parameters("reward").values(), *labels.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    first, loss = 0, float("nan")
    if path := latest_checkpoint(checkpoint_dir):
        checkpoint = load_checkpoint(path)
        restore(trunk, ["reward"], optimizer, checkpoint)
        labels.load_state_dict(checkpoint.section("labels"))
        first, loss = checkpoint.step, checkpoint.state["loss"]
    steps_per_epoch = -(-len(training) // config.batch_rankings)
    total = config.epochs * steps_per_epoch
    for step in range(first, total):
        epoch, start = divmod(step, steps_per_epoch)
        order = shuffled(len(training), seed, epoch)[start * config.batch_rankings :][: config.batch_rankings]
        optimizer.zero_grad()
        loss = _backward(config, scorer, labels, [training[i] for i in order])
        require_finite("reward", step, loss=loss)
        clip_gradients(parameters, config.max_grad_norm, stage="reward", step=step)
        optimizer.step()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == total:
            save_checkpoint(checkpoint_dir, _snapshot(trunk, optimizer, labels, step + 1, loss))
        progress("reward", step + 1, total, {"reward/loss": loss})
    return loss, total


def _snapshot(trunk: Trunk, optimizer: torch.optim.Optimizer, labels: Labels, step: int, loss: float) -> Checkpoint:
    checkpoint = snapshot(trunk, ["reward"], optimizer, step, {"loss": loss})
    extra = {f"labels/{name}": tensor for name, tensor in labels.state_dict().items()}
    return Checkpoint(step, {**checkpoint.tensors, **extra}, checkpoint.state)


@torch.no_grad()
def _center(trunk: Trunk, scorer: Scorer, samples: Sequence[Sample]) -> float:
    """Set the head's bias so that `samples` score mean 0; returns the mean they had."""
    mean = _mean(scorer.all(samples))
    trunk.heads["reward"].bias.sub_(mean)
    return mean


def kendall_tau(scores: Sequence[float], tiers: Sequence[int]) -> float | None:
    """Kendall's tau-b of scores with places (0 is best); None when either has no order at all."""
    pairs = [(a - b, q - p) for (a, p), (b, q) in combinations(zip(scores, tiers, strict=True), 2)]
    agreement = sum((x > 0) - (x < 0) if y > 0 else (x < 0) - (x > 0) for x, y in pairs if y)
    ordered_scores, ordered_tiers = sum(x != 0 for x, _ in pairs), sum(y != 0 for _, y in pairs)
    if not ordered_scores or not ordered_tiers:
        return None
    return float(agreement / (ordered_scores * ordered_tiers) ** 0.5)


def pair_accuracy(scores: Sequence[float], tiers: Sequence[int]) -> float | None:
    """Share of the untied pairs that the scores put in order; None when all places are tied."""
    pairs = combinations(zip(scores, tiers, strict=True), 2)
    hits = [a > b if p < q else b > a for (a, p), (b, q) in pairs if p != q]
    return sum(hits) / len(hits) if hits else None


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def evaluate(
    scorer: Scorer, rankings: Sequence[RankedSamples], log_nu: Tensor | None = None, confidence: float = 0.95
) -> HeldOutFit | None:
    """How the scores fit `rankings`; None when none of them has an untied pair."""
    scores = iter(scorer.all([s for ranking in rankings for s in ranking.samples]) if rankings else [])
    accuracies: dict[tuple[int, ...], list[float]] = {}
    losses: dict[tuple[int, ...], list[float]] = {}
    taus: list[float] = []
    for ranking in rankings:
        own = [next(scores) for _ in ranking.samples]
        loss = ranking_loss(torch.tensor(own), torch.tensor(ranking.tiers), log_nu)
        losses.setdefault(ranking.prompt_ids, []).append(loss.item())
        if (accuracy := pair_accuracy(own, ranking.tiers)) is not None:
            accuracies.setdefault(ranking.prompt_ids, []).append(accuracy)
        if (tau := kendall_tau(own, ranking.tiers)) is not None:
            taus.append(tau)
    if not accuracies or not taus:
        return None
    return HeldOutFit(
        prompts=len(losses),
        accuracy=bootstrap_mean([_mean(x) for x in accuracies.values()], confidence=confidence),
        log_loss=bootstrap_mean([_mean(x) for x in losses.values()], confidence=confidence),
        kendall_tau=_mean(taus),
    )
