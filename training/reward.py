"""Fitting the reward adapter and head to what people said, and measuring the fit on prompts it never saw."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from feedback.statistics import Interval, bootstrap_mean
from training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import RewardConfig
from training.data import Batch, Judgement, RankedSamples, RatedSample, Sample, collate, length_bucketed, shuffled
from training.likelihoods import Labels, log_likelihood, weighted_loss
from training.models import Trunk
from training.optimization import OnProgress, clip_gradients, require_finite, restore, silent, snapshot

CACHED_TOKENS = 250_000  # of lower hidden states; more than that is computed again in each epoch


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
    tie_width: float | None  # log nu (Davidson), log(theta - 1) (Rao-Kupper); None = soft ties, or nobody gave one
    held_out: HeldOutFit | None


def split_by_prompt(
    judgements: Sequence[Judgement], fraction: float, seed: int
) -> tuple[list[Judgement], list[Judgement]]:
    """(training, held out): `fraction` of the prompts, at least one of five, with everything said about them."""
    prompts = sorted({judgement.prompt_ids for judgement in judgements})
    count = round(fraction * len(prompts)) if len(prompts) >= 5 else 0
    held_out = {prompts[i] for i in shuffled(len(prompts), seed, 0)[:count]}
    training = [j for j in judgements if j.prompt_ids not in held_out]
    return training, [j for j in judgements if j.prompt_ids in held_out]


class Scorer:
    """Scores of samples with gradients. What lies below the adapters is computed once and kept, if not too much."""

    def __init__(self, trunk: Trunk, samples: Iterable[Sample], config: RewardConfig) -> None:
        self._trunk, self._config = trunk, config
        self._hidden: dict[Sample, Tensor] = {}
        unique = sorted({s.truncated(config.max_tokens) for s in samples}, key=lambda s: (len(s), s.completion_ids))
        if sum(map(len, unique)) > CACHED_TOKENS:
            return
        for indices in length_bucketed([len(s) for s in unique], config.microbatch):
            batch = self._collate(chosen := [unique[i] for i in indices])
            hidden = trunk.lower(batch.input_ids, batch.attention_mask)
            self._hidden |= {s: h[: len(s)].clone() for s, h in zip(chosen, hidden, strict=True)}

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores (B,)."""
        samples = [sample.truncated(self._config.max_tokens) for sample in samples]
        batch = self._collate(samples)
        if self._hidden:
            hidden = nn.utils.rnn.pad_sequence([self._hidden[s] for s in samples], batch_first=True)
        else:
            hidden = self._trunk.lower(batch.input_ids, batch.attention_mask)
        return self._trunk.scores(hidden, batch)

    def _collate(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, self._trunk.pad_id, self._trunk.device)

    @torch.no_grad()
    def all(self, samples: Sequence[Sample]) -> list[float]:
        """Scores without gradients, in length-bucketed microbatches."""
        scores: dict[int, float] = {}
        for indices in length_bucketed([len(s) for s in samples], self._config.microbatch):
            scores |= dict(zip(indices, self([samples[i] for i in indices]).tolist(), strict=True))
        return [scores[i] for i in range(len(samples))]


def _chunks(judgements: Sequence[Judgement], microbatch: int) -> Iterator[list[Judgement]]:
    """Judgements of like length in groups of about `microbatch` completions; a ranking is never torn apart."""
    ordered = sorted(judgements, key=lambda j: max(map(len, j.samples)))
    chunk: list[Judgement] = []
    size = 0
    for judgement in ordered:
        if chunk and size + len(judgement.samples) > microbatch:
            yield chunk
            chunk, size = [], 0
        chunk.append(judgement)
        size += len(judgement.samples)
    yield chunk


def _backward(config: RewardConfig, scorer: Scorer, labels: Labels, judgements: Sequence[Judgement]) -> float:
    """Accumulate the gradient of the weighted mean loss (a judgement is one element, InstructGPT eq. 1)."""
    total, total_weight = 0.0, sum(j.weight for j in judgements)
    for chunk in _chunks(judgements, config.microbatch):
        scores = scorer([s for j in chunk for s in j.samples])
        values = log_likelihood(
            chunk,
            scores,
            labels,
            config.likelihood,
            margin=config.margin,
            label_smoothing=config.label_smoothing,
            center_coef=config.center_coef,
        )
        loss = weighted_loss(values, values.new_tensor([j.weight for j in chunk]), total_weight)
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

    Every completion is forwarded once per epoch. Afterwards the head's bias is set so that `demonstrations`, or without
    them all training completions, score mean 0.
    """
    judgements: list[Judgement] = [*rankings, *ratings]
    judgements = [j for j in judgements if j.weight > 0]
    training, held_out = split_by_prompt(judgements, config.held_out_fraction, seed)
    if not training:
        raise ValueError("the reward model needs rankings or ratings, and some of them with a weight")
    labels = Labels(config.ties if any(j.has_ties for j in training) else "soft").to(trunk.device)
    everything = [s for j in [*training, *held_out] for s in j.samples]
    scorer = Scorer(trunk, [*everything, *demonstrations], config)
    loss, steps = _fit(config, trunk, training, scorer, labels, checkpoint_dir, progress, seed)
    ranked = [j for j in held_out if isinstance(j, RankedSamples)]
    fit = evaluate(scorer, ranked, labels)
    mean = _center(trunk, scorer, demonstrations or [s for j in training for s in j.samples])
    return RewardReport(
        steps=steps,
        rankings=sum(isinstance(j, RankedSamples) for j in judgements),
        ratings=sum(isinstance(j, RatedSample) for j in judgements),
        loss=loss,
        bias=trunk.heads["reward"].bias.item(),
        threshold=labels.threshold.item() - mean,
        tie_width=None if labels.tie_width is None else labels.tie_width.item(),
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


@torch.no_grad()
def evaluate(
    scorer: Scorer, rankings: Sequence[RankedSamples], labels: Labels | None = None, confidence: float = 0.95
) -> HeldOutFit | None:
    """How the scores fit `rankings`; None when none of them has an untied pair. Without `labels`, ties are soft."""
    scores = torch.tensor(scorer.all([s for ranking in rankings for s in ranking.samples]) if rankings else [])
    labels = labels or Labels()
    log_losses = -log_likelihood(rankings, scores.to(labels.threshold.device), labels)
    accuracies: dict[tuple[int, ...], list[float]] = {}
    losses: dict[tuple[int, ...], list[float]] = {}
    taus: list[float] = []
    own_scores = scores.split([len(ranking.samples) for ranking in rankings])
    for ranking, own, loss in zip(rankings, map(Tensor.tolist, own_scores), log_losses.tolist(), strict=True):
        losses.setdefault(ranking.prompt_ids, []).append(loss)
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
