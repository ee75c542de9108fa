"""How likely votes on answers side by side are: Bradley-Terry with ties (Davidson 1970), for side and length as well.

Of two answers the left one is better by eta = theta_left - theta_right + alpha * side + gamma * longer, and

    P(left) : P(right) : P(tie) = exp(eta / 2) : exp(-eta / 2) : nu.

So a decisive vote is Bradley and Terry's, sigmoid(eta); the order effect is multiplicative (Davidson & Beaver 1977),
and the width nu of ties is learned. In (theta, alpha, gamma, ln nu) this is an exponential family: concave, and what is
observed of its information is what is expected.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from feedback.newton import Matrix, Point

#: Beside the strengths: alpha (side), gamma (length), ln nu (ties), in this order after them.
COVARIATES = 3


class Cell(NamedTuple):
    """Votes on one pair of versions under the same circumstances: how many were for the left, the right, neither."""

    side: float
    longer: float
    left: float
    right: float
    ties: float


class Moments(NamedTuple):
    """Of the votes on one pair: log-likelihood, its slopes, and its information.

    Subscripts: 0 = eta, s = side, l = longer, t = ties. `g0` is the slope along eta, `gs` along alpha, and so on;
    `v0s` is the information between eta and alpha.
    """

    value: float
    g0: float
    gs: float
    gl: float
    gt: float
    v00: float
    v0s: float
    v0l: float
    vss: float
    vsl: float
    vll: float
    v0t: float
    vst: float
    vlt: float
    vtt: float


Pair = tuple[int, int]  # places of the left and the right version
Cells = Mapping[Pair, Sequence[Cell]]


def moments(cells: Iterable[Cell], lead: float, alpha: float, gamma: float, ln_nu: float) -> Moments:
    """Of votes on a pair whose left version is stronger by `lead`; `ln_nu` of -inf is a world without ties."""
    nu = math.exp(ln_nu)
    value = g0 = gs = gl = gt = v00 = v0s = v0l = vss = vsl = vll = v0t = vst = vlt = vtt = 0.0
    for side, longer, left, right, ties in cells:
        eta = lead + alpha * side + gamma * longer
        up = math.exp(eta / 2)
        total = up + 1 / up + nu
        votes, tie = left + right + ties, nu / total
        mean = (up - 1 / up) / (2 * total)
        value += (left - right) * eta / 2 + (ties * ln_nu if ties else 0.0) - votes * math.log(total)
        g = (left - right) / 2 - votes * mean
        v = votes * ((1 - tie) / 4 - mean * mean)
        c = -votes * mean * tie
        g0, gs, gl, gt = g0 + g, gs + g * side, gl + g * longer, gt + ties - votes * tie
        v00, v0s, v0l = v00 + v, v0s + v * side, v0l + v * longer
        vss, vsl, vll = vss + v * side * side, vsl + v * side * longer, vll + v * longer * longer
        v0t, vst, vlt, vtt = v0t + c, vst + c * side, vlt + c * longer, vtt + votes * tie * (1 - tie)
    return Moments(value, g0, gs, gl, gt, v00, v0s, v0l, vss, vsl, vll, v0t, vst, vlt, vtt)


def likelihood(cells: Cells, at: Sequence[float], *, pinned: Collection[int], ridge: float) -> Point:
    """The penalised log-likelihood of all votes at parameters (p); those `pinned` are constants.

    The penalty is ridge / 2 * |parameters|^2, a normal prior of precision `ridge`.
    """
    size = len(at)
    a, b, t = range(size - COVARIATES, size)
    value = -ridge / 2 * sum(x * x for x in at if math.isfinite(x))
    gradient = [-ridge * x for x in at]
    information = [[ridge * (i == j) for j in range(size)] for i in range(size)]
    for (left, right), votes in cells.items():
        m = moments(votes, at[left] - at[right], at[a], at[b], at[t])
        value += m.value
        for index, slope in ((left, m.g0), (right, -m.g0), (a, m.gs), (b, m.gl), (t, m.gt)):
            gradient[index] += slope
        _add(information, (left, right, a, b, t), m)
    for index in pinned:
        gradient[index] = 0.0
        for row in information:
            row[index] = 0.0
        information[index] = [float(index == j) for j in range(size)]
    return Point(value, gradient, information)


def _add(information: Matrix, places: tuple[int, int, int, int, int], m: Moments) -> None:
    block = (
        (m.v00, -m.v00, m.v0s, m.v0l, m.v0t),
        (-m.v00, m.v00, -m.v0s, -m.v0l, -m.v0t),
        (m.v0s, -m.v0s, m.vss, m.vsl, m.vst),
        (m.v0l, -m.v0l, m.vsl, m.vll, m.vlt),
        (m.v0t, -m.v0t, m.vst, m.vlt, m.vtt),
    )
    for i, row in zip(places, block, strict=True):
        line = information[i]
        for j, value in zip(places, row, strict=True):
            line[j] += value
