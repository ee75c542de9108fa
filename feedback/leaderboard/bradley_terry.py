"""Strengths of policy versions from votes on their answers, side by side: an anchored Bradley-Terry model.

`davidson.py` has the likelihood. The strength of the anchor is 0. A small ridge, as of a normal prior with a
standard deviation of 1/sqrt(RIDGE) = 32, keeps what the votes leave open at 0 instead of anywhere; it moves what they
do tell by about a thousandth of its standard error. A version has a maximum likelihood strength only if a chain of
wins or ties leads from it to the anchor and one back (Ford 1957): others are left out of the fit.

A rater's votes resemble each other, so raters and not votes are what is independent: variances are sandwiches, with the
raters as clusters (Liang & Zeger 1986). Few raters, or one who casts most of the votes, say less than the sandwich
admits. So the effective number of raters G behind each estimate is reckoned from their shares in its variance if votes
were independent (Carter, Schnepel & Steigerwald 2017): the variance grows by G / (G - 1), and the quantiles are of
Student's t with G - 1 degrees of freedom. Below G = 2 there is no interval. Nor is the variance ever less than if votes
were independent: three raters who happen to agree to the vote would otherwise be certain.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from feedback.leaderboard.davidson import COVARIATES, TIES, Cells, likelihood, moments, sums
from feedback.leaderboard.newton import Floats, Point, maximise
from feedback.statistics import Interval, percentile_interval, t_quantile

RIDGE = 1e-3


class Vote(NamedTuple):
    """One word of a rater on two answers. `result` is the left one's share: 1, 0, or 0.5 for a tie.

    `side` is 1 when the left one was shown first, -1 when it was second, 0 when nobody knows; `longer` is by how much
    the left one is longer, on a log scale.
    """

    left: int
    right: int
    result: float
    rater: str
    side: float = 1.0
    longer: float = 0.0


class Estimate(NamedTuple):
    """A figure with its interval, which is None where too few raters stand behind it."""

    value: float
    interval: Interval | None


Heap = Counter[Vote]


def linked(votes: Iterable[Vote], anchor: int) -> set[int]:
    """The versions from which a chain of wins or ties leads to the anchor, and one back; itself among them."""
    beaten: dict[int, set[int]] = defaultdict(set)
    beating: dict[int, set[int]] = defaultdict(set)
    for left, right, result in {vote[:3] for vote in votes}:
        if result > 0:
            beaten[left].add(right)
            beating[right].add(left)
        if result < 1:
            beaten[right].add(left)
            beating[left].add(right)
    return reached(beaten, anchor) & reached(beating, anchor)


def reached(edges: Mapping[int, set[int]], start: int) -> set[int]:
    """Where one comes along the edges, the start included."""
    seen, ahead = {start}, [start]
    while ahead:
        new = edges.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


@dataclass(frozen=True)
class Fitted:
    """A model fitted to votes: `parameters` are a strength for each of `versions`, then alpha, gamma and ln nu."""

    versions: tuple[int, ...]
    anchor: int
    parameters: tuple[float, ...]
    covariance: Floats  # (p, p), if votes were independent: the inverse information; 0 for what is pinned
    pinned: frozenset[int]
    cells: Cells  # what it was fitted to

    def strength(self, version: int) -> float:
        return self.parameters[self.versions.index(version)]

    @property
    def nu(self) -> float:
        """The width of ties: P(tie) / sqrt(P(left) P(right))."""
        return math.exp(self.parameters[TIES])

    def leads(self, over: int, *, confidence: float = 0.95) -> dict[int, Estimate]:
        """By how much each version is stronger than one of them."""
        base = self.versions.index(over)
        values = [strength - self.parameters[base] for strength in self.parameters[: len(self.versions)]]
        directions = self.covariance[: len(self.versions)] - self.covariance[base]
        return dict(zip(self.versions, self._estimates(values, directions, confidence), strict=True))

    def effect(self, covariate: int, *, confidence: float = 0.95) -> Estimate | None:
        """SIDE's alpha or LONGER's gamma; None where all votes are alike in it."""
        if len(self.parameters) + covariate in self.pinned:
            return None
        return self._estimates([self.parameters[covariate]], self.covariance[[covariate]], confidence)[0]

    def _estimates(self, values: list[float], directions: Floats, confidence: float) -> list[Estimate]:
        """Values of contrasts c with their intervals, along H^-1 c (contrasts, p), as the module's docstring says."""
        _, m = moments(self.cells, np.array(self.parameters))
        errors = []
        for along in directions:
            eta = self.cells.eta(along)
            slopes = sums(self.cells.rater, m.slope * eta + m.slope_t * along[TIES])
            shares = sums(self.cells.rater, m.about * eta * eta)  # the width of ties taken as known
            errors.append(_error(float(slopes @ slopes), float(shares.sum()), float(shares @ shares), confidence))
        return [
            Estimate(value, None if error is None else Interval(value, value - error, value + error))
            for value, error in zip(values, errors, strict=True)
        ]


def _error(meat: float, total: float, squares: float, confidence: float) -> float | None:
    """Half the width of an interval, from sums over the raters of squared slopes, of shares and of squared shares."""
    if not squares:
        return 0.0  # known, not estimated
    effective = total * total / squares
    if effective < 2 - 1e-9:
        return None
    variance = max(meat * effective / (effective - 1), total)
    return t_quantile(confidence, round(effective - 1, 2)) * math.sqrt(variance)


def fit(votes: Iterable[Vote], anchor: int, *, ridge: float = RIDGE) -> Fitted:
    """The strengths of all versions that are linked with the anchor, by their votes among each other."""
    heap = Counter(votes)
    versions = tuple(sorted(linked(heap, anchor)))
    cells = cells_of(heap, versions)
    pinned = _pinned(cells, versions.index(anchor), len(versions))
    start = [0.0] * (len(versions) + COVARIATES)
    start[TIES] = -math.inf if len(start) + TIES in pinned else 0.0
    parameters, there = _maximum(nameless(cells), pinned, start, ridge)
    covariance = np.asarray(np.linalg.inv(there.information), dtype=np.float64)
    covariance[list(pinned)] = covariance[:, list(pinned)] = 0.0
    return Fitted(versions, anchor, tuple(parameters.tolist()), covariance, pinned, cells)


def refit(fitted: Fitted, cells: Cells, *, ridge: float = RIDGE) -> dict[int, float]:
    """The strengths of the same versions under other weights of the votes, found from where these were."""
    pinned = _pinned(cells, fitted.versions.index(fitted.anchor), len(fitted.versions)) | fitted.pinned
    start = [value if i not in pinned else 0.0 for i, value in enumerate(fitted.parameters)]
    start[TIES] = -math.inf if len(start) + TIES in pinned else start[TIES]
    parameters, _ = _maximum(cells, pinned, start, ridge)
    return dict(zip(fitted.versions, parameters.tolist(), strict=False))


def influence(fitted: Fitted, cells: Cells, leader: int, rival: int) -> Floats:
    """By how much a vote of each cell puts one version further ahead of another, to first order (c): (H^-1 c)' times
    its slope."""
    along = fitted.covariance[fitted.versions.index(leader)] - fitted.covariance[fitted.versions.index(rival)]
    _, m = moments(cells._replace(votes=np.ones_like(cells.votes)), np.array(fitted.parameters))
    ahead: Floats = m.slope * cells.eta(along) + m.slope_t * along[TIES]
    return ahead


def bootstrap(fitted: Fitted, *, confidence: float = 0.95, draws: int = 200, seed: int = 0) -> dict[int, Interval]:
    """Percentile intervals of the strengths, whole raters drawn with replacement (Cameron et al. 2008).

    Draws in which nobody voted on a version do not count for it.
    """
    cells, generator = fitted.cells, random.Random(seed)
    raters = range(int(cells.rater.max()) + 1)
    drawn: dict[int, list[float]] = {version: [] for version in fitted.versions}
    for _ in range(draws):
        times = np.bincount(generator.choices(raters, k=len(raters)), minlength=len(raters))
        own = weighted(cells, cells.votes * times[cells.rater])
        met = {fitted.anchor, *(fitted.versions[i] for i in np.union1d(own.left, own.right))}
        for version, strength in refit(fitted, own).items():
            drawn[version].append(strength if version in met else math.nan)
    return {v: percentile_interval(fitted.strength(v), values, confidence) for v, values in drawn.items()}


def cells_of(heap: Mapping[Vote, float], versions: Collection[int]) -> Cells:
    """The votes on these versions among each other; their raters are numbered as they come."""
    place = {version: index for index, version in enumerate(versions)}
    raters: dict[str, int] = {}
    rows = [
        (place[v.left], place[v.right], v.result, v.side, v.longer, count, raters.setdefault(v.rater, len(raters)))
        for v, count in heap.items()
        if v.left in place and v.right in place
    ]
    left, right, result, side, longer, count, rater = np.array(rows, dtype=np.float64).reshape(-1, 7).T.copy()
    return Cells(left.astype(np.int64), right.astype(np.int64), result, side, longer, count, rater.astype(np.int64))


def weighted(cells: Cells, votes: Floats) -> Cells:
    """So many votes of each; without those of which there are none."""
    return cells._replace(votes=votes).at(votes > 0)


def nameless(cells: Cells) -> Cells:
    """The votes without their raters: many become one. They are ordered by what they say."""
    told = cells.at(np.lexsort(cells[4::-1]))
    new = np.any([np.diff(column, prepend=math.nan) != 0 for column in told[:5]], axis=0)
    votes = sums(new.cumsum() - 1, told.votes)
    return told.at(new)._replace(votes=votes, rater=np.zeros(len(votes), dtype=np.int64))


def _pinned(cells: Cells, anchor: int, versions: int) -> frozenset[int]:
    """Places of what the votes say nothing about, beside the anchor."""
    silent = (not cells.side.any(), not cells.longer.any(), not (cells.result == 0.5).any())
    return frozenset({anchor} | {versions + i for i in range(COVARIATES) if silent[i]})


def _maximum(cells: Cells, pinned: frozenset[int], start: list[float], ridge: float) -> tuple[Floats, Point]:
    return maximise(lambda at: likelihood(cells, at, pinned=pinned, ridge=ridge), start)
