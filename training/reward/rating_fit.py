"""The figures of a reward model on ratings that it never saw: how well it foresees the share of approval.

Intervals are drawn by prompt: the ratings of one hang together.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from feedback.policies.reward_fit import RatingFit
from feedback.statistics import Statistic, cluster_bootstrap, share
from training.model.samples import RatedSample, Sample
from training.reward.likelihoods import rating_log_likelihood


def measure_ratings(
    ratings: Sequence[RatedSample],
    scores: Sequence[float],
    threshold: float,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> RatingFit | None:
    """How P(up) = sigmoid(score - threshold), both in log-odds, fits what was said; None when nothing was."""
    if not ratings:
        return None
    given, labels = torch.tensor(scores).double(), torch.tensor([rating.label for rating in ratings]).double()
    figures = [
        -rating_log_likelihood(given, labels, threshold),
        (torch.sigmoid(given - threshold) - labels).square(),
        _entropies(ratings),
    ]
    clusters = _summed(ratings, figures)
    means = [_mean(column) for column in range(1, 1 + len(figures))]
    log_loss, brier, entropy = cluster_bootstrap(clusters, means, confidence=confidence, draws=draws, seed=seed)
    return RatingFit(
        prompts=len(clusters),
        ratings=len(ratings),
        confidence=confidence,
        approval=labels.mean().item(),
        log_loss=log_loss,
        brier=brier,
        entropy=entropy,
    )


def _entropies(ratings: Sequence[RatedSample]) -> Tensor:
    """(N,) of all that was said of each rating's answer, in nats: no score of an answer foresees more."""
    said: defaultdict[Sample, list[float]] = defaultdict(list)
    for rating in ratings:
        said[rating.sample].append(rating.label)
    shares = torch.tensor([sum(said[r.sample]) / len(said[r.sample]) for r in ratings]).double()
    return torch.special.entr(shares) + torch.special.entr(1 - shares)


def _summed(ratings: Sequence[RatedSample], figures: Sequence[Tensor]) -> list[list[float]]:
    """A row for each prompt: its number of ratings, then the sum of each figure (N,)."""
    members: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for n, rating in enumerate(ratings):
        members[rating.prompt_ids].append(n)
    return [[float(len(own)), *(figure[own].sum().item() for figure in figures)] for own in members.values()]


def _mean(column: int) -> Statistic:
    return lambda totals: share(totals[column], totals[0])
