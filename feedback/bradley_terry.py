"""Strengths of policy versions from votes on their answers, side by side: an anchored Bradley-Terry model.

`feedback/davidson.py` has the likelihood. The strength of the anchor is 0. A small ridge, as of a normal prior with a
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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feedback.davidson import COVARIATES, Cell, Cells, Moments, Pair, likelihood, moments
from feedback.newton import Matrix, Point, inverse, maximise
from feedback.statistics import Interval, percentile_interval, t_quantile

RIDGE = 1e-3
SIDE, LONGER, TIES = -3, -2, -1  # places of the covariates among the parameters


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
    for vote in votes:
        if vote.result > 0:
            beaten[vote.left].add(vote.right)
            beating[vote.right].add(vote.left)
        if vote.result < 1:
            beaten[vote.right].add(vote.left)
            beating[vote.left].add(vote.right)
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
    covariance: Matrix  # if votes were independent: the inverse information; rows of what is pinned are void
    pinned: frozenset[int]
    raters: tuple[Mapping[Pair, Moments], ...]  # each rater's part in the likelihood at the maximum

    def strength(self, version: int) -> float:
        return self.parameters[self.versions.index(version)]

    @property
    def nu(self) -> float:
        """The width of ties: P(tie) / sqrt(P(left) P(right))."""
        return math.exp(self.parameters[TIES])

    def leads(self, over: int, *, confidence: float = 0.95) -> dict[int, Estimate]:
        """By how much each version is stronger than one of them."""
        base = self.versions.index(over)
        contrasts = [{} if place == base else {place: 1.0, base: -1.0} for place in range(len(self.versions))]
        return dict(zip(self.versions, self._estimates(contrasts, confidence), strict=True))

    def effect(self, covariate: int, *, confidence: float = 0.95) -> Estimate | None:
        """SIDE's alpha or LONGER's gamma; None where all votes are alike in it."""
        place = len(self.parameters) + covariate
        return None if place in self.pinned else self._estimates([{place: 1.0}], confidence)[0]

    def _estimates(self, contrasts: Sequence[Mapping[int, float]], confidence: float) -> list[Estimate]:
        """Of weighted sums of parameters. One of pinned ones alone is not estimated: it is known."""
        values = [sum(weight * self.parameters[i] for i, weight in contrast.items()) for contrast in contrasts]
        errors = self._errors([self.direction(contrast) for contrast in contrasts], confidence)
        return [
            Estimate(value, None if error is None else Interval(value, value - error, value + error))
            for value, error in zip(values, errors, strict=True)
        ]

    def direction(self, contrast: Mapping[int, float]) -> list[float]:
        """Along which a contrast of parameters is estimated: H^-1 c (p); nowhere for what is pinned."""
        chosen = [(self.covariance[i], weight) for i, weight in contrast.items() if i not in self.pinned]
        return [
            0.0 if j in self.pinned else sum(row[j] * weight for row, weight in chosen)
            for j in range(len(self.parameters))
        ]

    def _errors(self, directions: Sequence[Sequence[float]], confidence: float) -> list[float | None]:
        """Half the width of the interval along each direction, as the module's docstring says."""
        across = [list(column) for column in zip(*directions, strict=True)]  # (p, directions)
        sums = [(0.0, 0.0, 0.0)] * len(directions)
        for pairs in self.raters:
            slopes = _weighted(across, _slopes(pairs, len(across)))
            parts = _informations(across, pairs)
            sums = [
                (meat + slope * slope, total + part, squares + part * part)
                for (meat, total, squares), slope, part in zip(sums, slopes, parts, strict=True)
            ]
        return [_error(*each, confidence) for each in sums]


def _slopes(pairs: Mapping[Pair, Moments], size: int) -> dict[int, float]:
    """A rater's part in the slope of the log-likelihood, by place."""
    slopes: dict[int, float] = defaultdict(float)
    for (left, right), m in pairs.items():
        places = (left, right, size + SIDE, size + LONGER, size + TIES)
        for place, slope in zip(places, (m.g0, -m.g0, m.gs, m.gl, m.gt), strict=True):
            slopes[place] += slope
    return slopes


def _weighted(across: Sequence[Sequence[float]], weights: Mapping[int, float]) -> list[float]:
    sums = [0.0] * len(across[0])
    for place, weight in weights.items():
        sums = [a + weight * b for a, b in zip(sums, across[place], strict=True)]
    return sums


def _informations(across: Sequence[Sequence[float]], pairs: Mapping[Pair, Moments]) -> list[float]:
    """A rater's part in the information along each direction, the width of ties taken as known."""
    side, longer = across[SIDE], across[LONGER]
    sums = [0.0] * len(side)
    for (left, right), (_, _, _, _, _, v00, v0s, v0l, vss, vsl, vll, *_) in pairs.items():
        sums = [
            e + (d := a - b) * (d * v00 + 2 * (s * v0s + x * v0l)) + s * s * vss + x * (2 * s * vsl + x * vll)
            for e, a, b, s, x in zip(sums, across[left], across[right], side, longer, strict=True)
        ]
    return sums


def _error(meat: float, total: float, squares: float, confidence: float) -> float | None:
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
    place = {version: index for index, version in enumerate(versions)}
    heap = Counter({v: n for v, n in heap.items() if v.left in place and v.right in place})
    pinned = _pinned(heap, place[anchor], len(versions))
    parameters, there = _maximum(_cells(heap, place), pinned, _start(len(versions), pinned), ridge)
    parts = tuple(
        {pair: _moments(parameters, pair, cells) for pair, cells in _cells(own, place).items()}
        for own in by_rater(heap).values()
    )
    return Fitted(versions, anchor, tuple(parameters), inverse(there.information), pinned, parts)


def refit(fitted: Fitted, heap: Mapping[Vote, float], *, ridge: float = RIDGE) -> dict[int, float]:
    """The strengths of the same versions under other weights of the votes, found from where these were."""
    place = {version: index for index, version in enumerate(fitted.versions)}
    cells = _cells({v: n for v, n in heap.items() if v.left in place and v.right in place}, place)
    pinned = _pinned(heap, place[fitted.anchor], len(place)) | fitted.pinned
    start = [value if i not in pinned else 0.0 for i, value in enumerate(fitted.parameters)]
    start[TIES] = -math.inf if len(start) + TIES in pinned else start[TIES]
    parameters, _ = _maximum(cells, pinned, start, ridge)
    return {version: parameters[index] for version, index in place.items()}


def influence(fitted: Fitted, votes: Iterable[Vote], leader: int, rival: int) -> dict[Vote, float]:
    """By how much each vote puts one version further ahead of another, to first order: (H^-1 c)' times its slope."""
    place = {version: index for index, version in enumerate(fitted.versions)}
    along = fitted.direction({place[leader]: 1.0, place[rival]: -1.0})
    found: dict[Vote, float] = {}
    for vote in votes:
        if vote.left in place and vote.right in place:
            pair = place[vote.left], place[vote.right]
            [cell] = _cells({vote: 1.0}, place)[pair]
            slopes = _slopes({pair: _moments(fitted.parameters, pair, [cell])}, len(along))
            found[vote] = sum(along[i] * slope for i, slope in slopes.items())
    return found


def bootstrap(
    votes: Iterable[Vote], fitted: Fitted, *, confidence: float = 0.95, draws: int = 200, seed: int = 0
) -> dict[int, Interval]:
    """Percentile intervals of the strengths, whole raters drawn with replacement (Cameron et al. 2008).

    Draws in which nobody voted on a version do not count for it.
    """
    raters = list(by_rater(Counter(votes)).values())
    generator = random.Random(seed)
    drawn: dict[int, list[float]] = {version: [] for version in fitted.versions}
    for _ in range(draws):
        heap: Heap = Counter()
        for own in generator.choices(raters, k=len(raters)):
            heap.update(own)
        met = {fitted.anchor, *(v.left for v in heap), *(v.right for v in heap)}
        for version, strength in refit(fitted, heap).items():
            drawn[version].append(strength if version in met else math.nan)
    return {v: percentile_interval(fitted.strength(v), values, confidence) for v, values in drawn.items()}


def by_rater(heap: Heap) -> dict[str, Heap]:
    raters: dict[str, Heap] = defaultdict(Counter)
    for vote, count in heap.items():
        raters[vote.rater][vote] = count
    return raters


def _cells(heap: Mapping[Vote, float], place: Mapping[int, int]) -> Cells:
    """The votes by pair of places and by circumstances, raters put together."""
    counts: dict[Pair, dict[tuple[float, float], list[float]]] = defaultdict(dict)
    for vote, count in heap.items():
        row = counts[place[vote.left], place[vote.right]].setdefault((vote.side, vote.longer), [0.0, 0.0, 0.0])
        row[0 if vote.result == 1 else 1 if vote.result == 0 else 2] += count
    return {pair: [Cell(*where, *row) for where, row in rows.items()] for pair, rows in counts.items()}


def _pinned(heap: Mapping[Vote, float], anchor: int, versions: int) -> frozenset[int]:
    """Places of what the votes say nothing about, beside the anchor."""
    silent = (
        all(vote.side == 0 for vote in heap),
        all(vote.longer == 0 for vote in heap),
        all(vote.result in (0, 1) for vote in heap),
    )
    return frozenset({anchor} | {versions + i for i in range(COVARIATES) if silent[i]})


def _start(versions: int, pinned: frozenset[int]) -> list[float]:
    start = [0.0] * (versions + COVARIATES)
    start[TIES] = -math.inf if versions + COVARIATES + TIES in pinned else 0.0
    return start


def _maximum(cells: Cells, pinned: frozenset[int], start: list[float], ridge: float) -> tuple[list[float], Point]:
    return maximise(lambda at: likelihood(cells, at, pinned=pinned, ridge=ridge), start)


def _moments(parameters: Sequence[float], pair: Pair, cells: Sequence[Cell]) -> Moments:
    lead = parameters[pair[0]] - parameters[pair[1]]
    return moments(cells, lead, parameters[SIDE], parameters[LONGER], parameters[TIES])
