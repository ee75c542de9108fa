"""The figures of a reward model on judgements that it never saw: pure functions of rankings and their scores.

Intervals are drawn by prompt: the rankings of one, and the pairs of a ranking, hang together.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Protocol

import torch

from feedback.policies.reward_fit import MIN_PROMPTS, Bin, Change, Fit, Slice
from feedback.statistics import Interval, Statistic, cluster_bootstrap, share
from training.model.samples import RankedSamples, Sample
from training.reward.likelihoods import Labels
from training.reward.pairs import Ids, Pair, Scores, agreements, covariances, kendall_tau, pairs_of

BINS = 10
PAIRS_PER_BIN = 10

#: What each figure divides by what; the sums are by prompt.
SHARES = {
    "accuracy": ("hits", "pairs"),
    "log_loss": ("log-loss", "pairs"),
    "brier": ("brier", "pairs"),
    "log_loss_with_ties": ("joint log-loss", "joint pairs"),
    "kendall_tau": ("tau", "taus"),
    "length_slope": ("length x score", "length x length"),
    "agreement": ("agreement", "shared"),
}
BIN = "bin "


class Scoring(Protocol):
    """What can score samples, in log-odds: probabilities must not depend on the scale that a version carries on."""

    def log_odds(self, samples: Sequence[Sample]) -> list[float]: ...


def score(scorer: Scoring, rankings: Sequence[RankedSamples]) -> list[list[float]]:
    """The scores of each ranking's completions, in log-odds."""
    flat = iter(scorer.log_odds([sample for ranking in rankings for sample in ranking.samples]) if rankings else [])
    return [[next(flat) for _ in ranking.samples] for ranking in rankings]


def evaluate(
    scorer: Scoring, rankings: Sequence[RankedSamples], labels: Labels | None = None, confidence: float = 0.95
) -> Fit | None:
    """`measure` with the scores that `scorer` gives."""
    return measure(rankings, score(scorer, rankings), labels, confidence=confidence)


def measure(
    rankings: Sequence[RankedSamples],
    scores: Sequence[Scores],
    labels: Labels | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Fit | None:
    """How `scores` fit `rankings`; None when no rater preferred anything. `labels` know the width of ties."""
    everything = list(pairs_of(rankings, scores))
    pairs = decided(everything, labels)
    if not pairs:
        return None
    groups, bins = reliability(pairs)
    sums = _sums(rankings, scores, pairs, groups)
    if labels is not None and labels.tie_width is not None:
        for pair, loss in zip(everything, joint_log_losses(everything, labels), strict=True):
            sums.add(pair.prompt, {"joint pairs": 1, "joint log-loss": loss})
    figures = _intervals(sums, confidence, draws, seed)
    return Fit(
        prompts=len(sums.by_prompt),
        rankings=len(rankings),
        pairs=len(pairs),
        ties=len(everything) - len(pairs),
        confidence=confidence,
        accuracy=figures["accuracy"],
        log_loss=figures["log_loss"],
        log_loss_with_ties=figures.get("log_loss_with_ties"),
        brier=figures["brier"],
        ece=figures["ece"],
        kendall_tau=figures.get("kendall_tau"),
        length_slope=figures.get("length_slope"),
        agreement=figures.get("agreement"),
        agreement_pairs=round(sums.total("shared")),
        bins=bins,
        raters=rater_slices(pairs),
        lengths=length_slices(pairs),
    )


class _Sums:
    """Named sums by prompt, which every figure is a function of."""

    def __init__(self) -> None:
        self.by_prompt: defaultdict[Ids, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, prompt: Ids, amounts: Mapping[str, float]) -> None:
        for name, amount in amounts.items():
            self.by_prompt[prompt][name] += amount

    def total(self, name: str) -> float:
        return sum(own.get(name, 0.0) for own in self.by_prompt.values())

    @property
    def names(self) -> list[str]:
        return sorted({name for own in self.by_prompt.values() for name in own})

    def clusters(self) -> list[list[float]]:
        """A row for each prompt, a column for each of `names`."""
        names = self.names
        return [[own.get(name, 0.0) for name in names] for own in self.by_prompt.values()]


def _sums(
    rankings: Sequence[RankedSamples], scores: Sequence[Scores], pairs: Sequence[Pair], groups: Sequence[int]
) -> _Sums:
    sums = _Sums()
    for pair, group in zip(pairs, groups, strict=True):
        distance = {f"{BIN}{group}": pair.confidence - pair.hit}
        own = {"pairs": 1, "hits": pair.hit, "log-loss": pair.log_loss, "brier": pair.brier}
        sums.add(pair.prompt, own | distance)
    for ranking, given in zip(rankings, scores, strict=True):
        if (tau := kendall_tau(given, ranking.tiers, ranking.unplaced)) is not None:
            sums.add(ranking.prompt_ids, {"taus": 1, "tau": tau})
    for prompt, product, square in covariances(rankings, scores):
        sums.add(prompt, {"length x score": product, "length x length": square})
    for prompt, agreement in agreements(pairs):
        sums.add(prompt, {"shared": 1, "agreement": agreement})
    return sums


def _intervals(sums: _Sums, confidence: float, draws: int, seed: int) -> dict[str, Interval]:
    """All figures that there is something to divide by."""
    column = {name: i for i, name in enumerate(sums.names)}
    known = {name: parts for name, parts in SHARES.items() if sums.total(parts[1])}
    bins = [i for name, i in column.items() if name.startswith(BIN)]

    def ece(totals: Sequence[float]) -> float:
        return share(sum(abs(totals[i]) for i in bins), totals[column["pairs"]])

    statistics: dict[str, Statistic] = {name: _share(column[a], column[b]) for name, (a, b) in known.items()}
    statistics["ece"] = ece
    found = cluster_bootstrap(sums.clusters(), list(statistics.values()), confidence=confidence, draws=draws, seed=seed)
    figures = dict(zip(statistics, found, strict=True))
    return figures | {"ece": reflected(figures["ece"])}


def _share(part: int, whole: int) -> Statistic:
    return lambda totals: share(totals[part], totals[whole])


def reflected(interval: Interval) -> Interval:
    """The basic bootstrap interval (Davison & Hinkley 1997, eq. 5.6) of a figure that cannot be negative.

    Distances grow with noise: of a sample's the resamples' are more, by about as much as the sample's own is more than
    the truth.
    """
    mean, low, high = interval
    return Interval(mean, max(0.0, 2 * mean - high), max(0.0, 2 * mean - low))


@torch.no_grad()
def decided(pairs: Sequence[Pair], labels: Labels | None) -> list[Pair]:
    """The pairs without ties, with log-odds by the model of ties, if there is one: log P(win) - log P(loss).

    That is the gap by Bradley and Terry, and by Davidson; by Rao and Kupper it is more.
    """
    untied = [pair for pair in pairs if not pair.tied]
    if labels is None or labels.tie_width is None:
        return untied
    gaps = torch.tensor([pair.gap for pair in untied], dtype=torch.float64, device=labels.threshold.device)
    win, _, lose = labels.pair_log_probs(gaps, torch.zeros_like(gaps))
    return [pair._replace(log_odds=x) for pair, x in zip(untied, (win - lose).tolist(), strict=True)]


@torch.no_grad()
def joint_log_losses(pairs: Sequence[Pair], labels: Labels) -> list[float]:
    """Negative log-likelihood of each pair, tied or not, by a model that knows ties as a third outcome."""
    gaps = torch.tensor([pair.gap for pair in pairs], device=labels.threshold.device)
    win, tie, _ = (log_probs.cpu() for log_probs in labels.pair_log_probs(gaps, torch.zeros_like(gaps)))
    losses: list[float] = (-torch.where(torch.tensor([pair.tied for pair in pairs]), tie, win)).tolist()
    return losses


def equal_mass(values: Sequence[float], count: int) -> list[int]:
    """Which of `count` groups of about equal size each value falls into, in ascending order; equal values share one."""
    ordered = sorted(values)
    cuts = [ordered[-(-i * len(ordered) // count) - 1] for i in range(1, count)]
    return [bisect_left(cuts, value) for value in values]


def reliability(pairs: Sequence[Pair]) -> tuple[list[int], tuple[Bin, ...]]:
    """(the bin of each untied pair, the bins): at most BINS of them, with PAIRS_PER_BIN or more in each if possible."""
    groups = equal_mass([pair.confidence for pair in pairs], max(1, min(BINS, len(pairs) // PAIRS_PER_BIN)))
    members: defaultdict[int, list[Pair]] = defaultdict(list)
    for group, pair in zip(groups, pairs, strict=True):
        members[group].append(pair)
    bins = [
        Bin(predicted=fmean([p.confidence for p in own]), observed=fmean([p.hit for p in own]), pairs=len(own))
        for _, own in sorted(members.items())
    ]
    return groups, tuple(bins)


def rater_slices(pairs: Sequence[Pair]) -> tuple[Slice, ...]:
    """The accuracy by rater, who judged most first."""
    return tuple(sorted(_slices(pairs, [pair.rater for pair in pairs]), key=lambda s: (-s.pairs, s.name)))


def length_slices(pairs: Sequence[Pair]) -> tuple[Slice, ...]:
    """The accuracy by quarters of the difference in length, first those whose winner is the shorter by most."""
    ordered = sorted(pairs, key=lambda pair: pair.longer)
    groups = equal_mass([pair.longer for pair in ordered], 4)
    ends: defaultdict[int, list[int]] = defaultdict(list)
    for group, pair in zip(groups, ordered, strict=True):
        ends[group].append(pair.longer)
    return tuple(_slices(ordered, [f"{ends[g][0]:+d} to {ends[g][-1]:+d}" for g in groups]))


def _slices(pairs: Sequence[Pair], names: Sequence[str]) -> list[Slice]:
    """In order of first appearance."""
    hits: defaultdict[str, list[float]] = defaultdict(list)
    for pair, name in zip(pairs, names, strict=True):
        hits[name].append(pair.hit)
    return [Slice(name=name, pairs=len(own), accuracy=fmean(own)) for name, own in hits.items()]


def compare(
    rankings: Sequence[RankedSamples],
    new: Sequence[Scores],
    old: Sequence[Scores],
    *,
    version: int,
    labels: Labels | None = None,
    old_labels: Labels | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Change | None:
    """The scores `new` beside `old`, those of policy `version`, paired by prompt; None with too few of them to tell.

    Each by its own `labels`.
    """
    sums = _Sums()
    pairs, others = (list(pairs_of(rankings, scores)) for scores in (new, old))
    for a, b in zip(decided(pairs, labels), decided(others, old_labels), strict=True):
        sums.add(a.prompt, {"hits": a.hit - b.hit, "log-loss": a.log_loss - b.log_loss, "pairs": 1})
    if len(sums.by_prompt) < MIN_PROMPTS:
        return None
    figures = [_share(0, 2), _share(1, 2)]  # the columns are in the order of the alphabet
    accuracy, log_loss = cluster_bootstrap(sums.clusters(), figures, confidence=confidence, draws=draws, seed=seed)
    return Change(
        version=version,
        prompts=len(sums.by_prompt),
        pairs=round(sums.total("pairs")),
        confidence=confidence,
        log_loss=log_loss,
        accuracy=accuracy,
    )
