"""How likely votes on answers side by side are: Bradley-Terry with ties (Davidson 1970), for side and length as well.

Of two answers the left one is better by eta = theta_left - theta_right + alpha * side + gamma * longer, and

    P(left) : P(right) : P(tie) = exp(eta / 2) : exp(-eta / 2) : nu.

So a decisive vote is Bradley and Terry's, sigmoid(eta); the order effect is multiplicative (Davidson & Beaver 1977),
and the width nu of ties is learned. In (theta, alpha, gamma, ln nu) this is an exponential family: concave, and what is
observed of its information is what is expected.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedback.leaderboard.newton import Floats, Point

Ints = NDArray[np.int64]

#: Beside the strengths: alpha (side), gamma (length), ln nu (ties), in this order after them.
COVARIATES = 3
SIDE, LONGER, TIES = -3, -2, -1  # their places among the parameters


class Cells(NamedTuple):
    """Votes, alike ones of a rater together: one column each (c)."""

    left: Ints  # places of the versions among the strengths
    right: Ints
    result: Floats  # the left one's share: 1, 0, or 0.5 for a tie
    side: Floats
    longer: Floats
    votes: Floats
    rater: Ints

    def eta(self, parameters: Floats) -> Floats:
        """By how much the left one is better (c); of a direction in the parameters (p), by how much more along it."""
        lead = parameters[self.left] - parameters[self.right]
        eta: Floats = lead + parameters[SIDE] * self.side + parameters[LONGER] * self.longer
        return eta

    def at(self, which: NDArray[np.bool_] | Ints) -> "Cells":
        """Only these, in this order."""
        words = self.result[which], self.side[which], self.longer[which], self.votes[which]
        return Cells(self.left[which], self.right[which], *words, self.rater[which])


class Moments(NamedTuple):
    """Of each cell (c): the log-likelihood's slopes along eta and ln nu (t), and its information on the two."""

    slope: Floats
    slope_t: Floats
    about: Floats
    about_t: Floats
    about_tt: Floats


def moments(cells: Cells, at: Floats) -> tuple[float, Moments]:
    """The log-likelihood at parameters (p) and what it is made of; ln nu of -inf is a world without ties."""
    eta, ln_nu = cells.eta(at), at[TIES]
    up = np.exp(eta / 2)
    total = up + 1 / up + np.exp(ln_nu)
    tie, mean = np.exp(ln_nu) / total, (up - 1 / up) / (2 * total)
    half, tied = cells.result - 0.5, cells.result == 0.5
    value = cells.votes @ (half * eta - np.log(total)) + cells.votes @ np.where(tied, ln_nu, 0.0)
    return float(value), Moments(
        slope=cells.votes * (half - mean),
        slope_t=cells.votes * (tied - tie),
        about=cells.votes * ((1 - tie) / 4 - mean * mean),
        about_t=-cells.votes * mean * tie,
        about_tt=cells.votes * tie * (1 - tie),
    )


def likelihood(cells: Cells, at: Floats, *, pinned: Collection[int], ridge: float) -> Point:
    """The penalised log-likelihood of all votes at parameters (p); those `pinned` are constants.

    The penalty is ridge / 2 * |parameters|^2, a normal prior of precision `ridge`. Where exponentials overflow the
    value is NaN or -inf.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value, parts = moments(cells, at)
        gradient = _slopes(cells, parts, len(at)) - ridge * at
        information = _information(cells, parts, len(at)) + ridge * np.eye(len(at))
    held = list(pinned)
    gradient[held] = 0.0
    information[held, :] = information[:, held] = 0.0
    information[held, held] = 1.0
    known = at[np.isfinite(at)]
    return Point(value - ridge / 2 * float(known @ known), gradient, information)


def _slopes(cells: Cells, m: Moments, size: int) -> Floats:
    """The slope of the log-likelihood (p)."""
    rest = [m.slope @ cells.side, m.slope @ cells.longer, m.slope_t.sum()]
    return np.concatenate([_by_version(cells, m.slope, size), rest])


def _information(cells: Cells, m: Moments, size: int) -> Floats:
    """What the votes tell of all parameters (p, p), from three blocks: of strengths, of the covariates, of both."""
    versions, side, longer = size - COVARIATES, cells.side, cells.longer
    met = sums(cells.left * versions + cells.right, m.about, versions * versions).reshape(versions, versions)
    met = met + met.T
    strengths = np.diag(met.sum(axis=0)) - met
    both = np.stack([_by_version(cells, w, size) for w in (m.about * side, m.about * longer, m.about_t)])
    ss, sl, ll = m.about @ (side * side), m.about @ (side * longer), m.about @ (longer * longer)
    st, lt, tt = m.about_t @ side, m.about_t @ longer, m.about_tt.sum()
    return np.block([[strengths, both.T], [both, np.array([[ss, sl, st], [sl, ll, lt], [st, lt, tt]])]])


def _by_version(cells: Cells, weights: Floats, size: int) -> Floats:
    """Summed for the left version and against the right one, by place (versions)."""
    versions = size - COVARIATES
    return sums(cells.left, weights, versions) - sums(cells.right, weights, versions)


def sums(places: Ints, weights: Floats, size: int = 0) -> Floats:
    """Of the weights (c) at each place (at least `size`)."""
    return np.bincount(places, weights, size).astype(np.float64, copy=False)  # whose stub knows counts alone
