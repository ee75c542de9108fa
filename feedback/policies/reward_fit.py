"""How well a reward model's scores fit what people said of prompts it never saw: what a policy's manifest tells."""

import math
from typing import Annotated

from pydantic import PlainSerializer

from feedback.records import Record
from feedback.statistics import Interval

#: With fewer an interval says nothing: of five prompts all lie on one side by chance in one of 32, which is more than
#: one of 95% may err there.
MIN_PROMPTS = 6
#: As JSON an object with its three names.
Bounds = Annotated[Interval, PlainSerializer(Interval._asdict)]


class Bin(Record):
    """Pairs of like confidence: how sure the scores are of a winner, and how often that one was preferred."""

    predicted: float  # mean probability, 0.5 to 1
    observed: float  # share of the pairs
    pairs: int


class Slice(Record):
    """The accuracy on some of the pairs."""

    name: str
    pairs: int
    accuracy: float


class Fit(Record):
    """The figures of one reward model on held-out rankings. A pair is two completions of which a rater preferred one.

    Every pair counts once, whether it was asked alone or is part of a ranking. Intervals are of a bootstrap that draws
    whole prompts. What nothing can be said about is None.
    """

    prompts: int
    rankings: int
    pairs: int
    ties: int  # pairs beside those, of which the rater preferred neither
    confidence: float  # of all intervals
    accuracy: Bounds  # share of the pairs that the scores put in the rater's order; equal scores count half
    log_loss: Bounds  # nats per pair, of who wins given that somebody does; ln 2 = knows nothing
    log_loss_with_ties: Bounds | None  # nats per pair, ties among them, at the learned width; None without one
    brier: Bounds  # squared error of the winner's probability; 0.25 = knows nothing
    ece: Bounds  # expected calibration error: mean distance of `bins` from their diagonal, by pairs
    kendall_tau: Bounds | None  # tau-b, mean over rankings
    length_slope: Bounds | None  # score per completion token among the completions of a prompt, least squares
    agreement: Bounds | None  # of two raters on a pair that both judged
    agreement_pairs: int  # that two or more raters judged
    bins: tuple[Bin, ...]  # as many pairs in each
    raters: tuple[Slice, ...]  # by pseudonym, most pairs first
    lengths: tuple[Slice, ...]  # quarters of the pairs, by tokens that the preferred completion is longer


def best_accuracy(agreement: float) -> float:
    """What accuracy can come to where two raters agree so often: that of whoever says what most would.

    Raters who are right with probability q, each by chance of their own, agree in q^2 + (1 - q)^2 (Dawid & Skene 1979).
    """
    return (1 + math.sqrt(max(2 * agreement - 1, 0.0))) / 2


class RatingFit(Record):
    """The figures of one reward model on held-out ratings: P(up) at its threshold beside the share of approval.

    Every rating counts once. Intervals are of a bootstrap that draws whole prompts.
    """

    prompts: int
    ratings: int
    confidence: float  # of all intervals
    approval: float  # mean share
    log_loss: Bounds  # nats per rating; ln 2 = knows nothing
    brier: Bounds  # squared error of P(up); 0.25 = knows nothing
    entropy: Bounds  # nats per rating that even a perfect model would lose: people differ on an answer


class Change(Record):
    """What a reward model's figures are more than its predecessor's, both on the same rankings, which trained neither.

    Of untied pairs alone, because the two may differ in what they know of ties.
    """

    version: int  # of the predecessor
    prompts: int
    pairs: int
    confidence: float
    log_loss: Bounds
    accuracy: Bounds

    @property
    def worse(self) -> bool:
        """Beyond chance."""
        return self.log_loss.low > 0

    @property
    def better(self) -> bool:
        """Beyond chance."""
        return self.log_loss.high < 0
