"""Rankings and their scores as pairs of completions: what every figure of a reward model is counted in.

A score is read as a log-odds: of two completions the one scored higher by g is preferred with probability sigmoid(g),
given that one is. A model of ties may say otherwise: see `fit.decided`.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from training.model.samples import RankedSamples

Ids = tuple[int, ...]
Scores = Sequence[float]  # of a ranking's completions


class Pair(NamedTuple):
    """Two completions of a prompt and what one rater said of them."""

    prompt: Ids
    rater: str
    winner: Ids
    loser: Ids
    gap: float  # the winner's score less the loser's
    log_odds: float  # by the scores, that the winner wins, given that one of the two does
    tied: bool  # neither won

    @property
    def hit(self) -> float:
        """1 when the scores have the winner right; equal scores are a coin."""
        return 0.5 if self.log_odds == 0 else float(self.log_odds > 0)

    @property
    def log_loss(self) -> float:
        """-log sigmoid(log-odds), in nats."""
        return math.log1p(math.exp(-abs(self.log_odds))) + max(-self.log_odds, 0.0)

    @property
    def confidence(self) -> float:
        """Probability of the one that the scores prefer, 0.5 to 1."""
        return 1 / (1 + math.exp(-abs(self.log_odds)))

    @property
    def brier(self) -> float:
        """(1 - sigmoid(log-odds))^2: half of Brier's sum over the two outcomes (1950)."""
        return (1 - self.confidence if self.log_odds >= 0 else self.confidence) ** 2

    @property
    def longer(self) -> int:
        """Tokens by which the winner is longer."""
        return len(self.winner) - len(self.loser)


def pairs_of(rankings: Sequence[RankedSamples], scores: Sequence[Scores]) -> Iterator[Pair]:
    """The pairs that something is said about: none of two unplaced completions. Gaps are taken for log-odds."""
    for ranking, own in zip(rankings, scores, strict=True):
        judged = zip((s.completion_ids for s in ranking.samples), ranking.tiers, own, strict=True)
        for (a, p, x), (b, q, y) in combinations(judged, 2):
            if p == q == ranking.unplaced:
                continue
            if p > q:
                a, b, x, y = b, a, y, x
            yield Pair(ranking.prompt_ids, ranking.rater, a, b, x - y, x - y, p == q)


def kendall_tau(scores: Scores, tiers: Sequence[int], unplaced: int | None = None) -> float | None:
    """Kendall's tau-b of scores with places (0 is best); None when either has no order at all.

    Of two completions in the tier `unplaced` nothing is said.
    """
    both = combinations(zip(scores, tiers, strict=True), 2)
    pairs = [(a - b, q - p) for (a, p), (b, q) in both if not p == q == unplaced]
    agreement = sum((x > 0) - (x < 0) if y > 0 else (x < 0) - (x > 0) for x, y in pairs if y)
    ordered_scores, ordered_tiers = sum(x != 0 for x, _ in pairs), sum(y != 0 for _, y in pairs)
    if not ordered_scores or not ordered_tiers:
        return None
    return float(agreement / (ordered_scores * ordered_tiers) ** 0.5)


def agreements(pairs: Sequence[Pair]) -> Iterator[tuple[Ids, float]]:
    """(prompt, share of the couples of raters who prefer the same) of each two completions that several raters judged.

    Of untied pairs. Nobody agrees with themselves, and whoever has no name might be anybody: neither counts.
    """
    said: defaultdict[tuple[Ids, frozenset[Ids]], list[tuple[str, Ids]]] = defaultdict(list)
    for pair in pairs:
        if pair.rater and pair.winner != pair.loser:
            said[pair.prompt, frozenset((pair.winner, pair.loser))].append((pair.rater, pair.winner))
    for (prompt, _), votes in said.items():
        same = [a == b for (one, a), (other, b) in combinations(votes, 2) if one != other]
        if same:
            yield prompt, sum(same) / len(same)


def covariances(rankings: Sequence[RankedSamples], scores: Sequence[Scores]) -> Iterator[tuple[Ids, float, float]]:
    """(prompt, sum of products of length and score, sum of squares of length), both around the prompt's means.

    Lengths are in completion tokens; what several rankings have of a completion counts once.
    """
    known: defaultdict[Ids, dict[Ids, float]] = defaultdict(dict)
    for ranking, own in zip(rankings, scores, strict=True):
        known[ranking.prompt_ids] |= {s.completion_ids: x for s, x in zip(ranking.samples, own, strict=True)}
    for prompt, scored in known.items():
        length, centre = sum(map(len, scored)) / len(scored), sum(scored.values()) / len(scored)
        apart = [(len(completion) - length, x - centre) for completion, x in scored.items()]
        yield prompt, sum(d * e for d, e in apart), sum(d * d for d, _ in apart)
