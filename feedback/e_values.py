"""Evidence that may be looked at after every vote: e-values, confidence sequences, and how far a decision is.

An e-process is at most 1 on average under what it tests, whenever one stops, and never negative: it reaches 1 / alpha
with a chance of at most alpha, however often one looks (Ville 1939). Those of votes are mixtures of likelihood ratios
(Robbins 1970), exact for independent votes, as one rater's need not be (`votes.clustering`); those of means hold as
counts grow, but for `bounded_difference`, which is exact.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from feedback.records import Record
from feedback.statistics import Interval

# Asymptotic sequences are narrowest when so many units have come, both sides together.
TUNED_FOR = 500
LEAST_TO_ESTIMATE = 20  # decisive votes, before which a forecast says nothing
_STEPS = 60  # of a bisection: 2^-60 of what it began with


def log_e(wins: int, losses: int) -> float:
    """Against p = 1/2, either way: log of the likelihood ratio averaged over win rates uniform on [0, 1]."""
    votes = wins + losses
    return _log_beta(wins, losses) + votes * math.log(2)


def log_e_better(wins: int, losses: int) -> float:
    """Against p <= 1/2: the same, averaged over win rates uniform on [1/2, 1]. The two ways' mean is `log_e`'s.

    With swapped arguments it is against p >= 1/2.
    """
    if wins < losses:
        return _log_e_behind(losses, wins)
    both = math.log(2) + log_e(wins, losses)
    return both + math.log1p(-math.exp(_log_e_behind(wins, losses) - both))


def log_e_below(wins: int, losses: int, limit: float) -> float:
    """Against p >= limit: log of the likelihood ratio to p = limit, averaged over win rates uniform on [0, limit].

    At most 1 on average also under every p > limit, where wins, which speak against each of those rates, are more. Of
    w wins and l losses e is
        1 / limit * sum over j = 1 .. l + 1 of w! l! / ((w + j)! (l + 1 - j)!) * limit^j * (1 - limit)^(1 - j),
    the incomplete beta function of whole numbers as a binomial sum. With limit 1/2 it is `log_e_better(losses, wins)`.
    """
    fixed = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.log(limit)
    terms = [
        fixed - math.lgamma(wins + j + 1) - math.lgamma(losses - j + 2)
        + j * math.log(limit) + (1 - j) * math.log1p(-limit)
        for j in range(1, losses + 2)
    ]  # fmt: skip
    largest = max(terms)
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))


def _log_e_behind(more: int, fewer: int) -> float:
    """For the side with fewer wins: sum of C(n + 1, k) over k <= fewer, by (n + 1) C(n, fewer), largest term first."""
    term = total = 1.0
    for i in range(fewer):
        term *= (fewer - i) / (more + 2 + i)
        total += term
        if term < 1e-17 * total:
            break
    return math.log(total / (more + 1))


def win_rate(wins: float, losses: float, alpha: float = 0.05) -> Interval:
    """Where the win rate is, at all times together with confidence 1 - alpha: what the mixture has not refuted.

    It leaves out 1/2 exactly when `log_e` reaches 1 / alpha. Of no votes the mean is 1/2.
    """
    votes = wins + losses
    if not votes:
        return Interval(0.5, 0.0, 1.0)
    mean, bound = wins / votes, _log_beta(wins, losses) + math.log(alpha)

    def refuted(rate: float) -> bool:
        return _log_likelihood(wins, losses, rate) <= bound

    low = _bisect(0.0, mean, lambda rate: not refuted(rate)) if wins else 0.0
    return Interval(mean, low, _bisect(mean, 1.0, refuted) if losses else 1.0)


def still_needed(wins: int, losses: int, alpha: float = 0.05, max_votes: int = 4000) -> int | None:
    """About how many more decisive votes to a decision, should they go on as the posterior mean of the win rate says.

    Half of all such roads are shorter: the median first passage of a Brownian motion with drift (inverse Gaussian) to
    the lead that decides by then. None where there is no telling: too few votes yet, or no decision by `max_votes`.
    """
    votes = wins + losses
    if votes < LEAST_TO_ESTIMATE or votes >= max_votes:
        return None
    lead, drift = abs(wins - losses), abs(wins - losses) / (votes + 2)

    def decided(more: float) -> bool:
        away = _deciding_lead(votes + more, alpha) - lead
        if away <= 0:
            return True
        direct = math.exp(_log_normal_cdf((drift * more - away) / math.sqrt(more)))
        reflected = math.exp(2 * drift * away + _log_normal_cdf(-(drift * more + away) / math.sqrt(more)))
        return direct + reflected >= 0.5

    left = float(max_votes - votes)
    return math.ceil(_bisect(0.0, left, decided)) if decided(left) else None


def _deciding_lead(votes: float, alpha: float) -> float:
    """The lead at which `log_e` reaches log(1 / alpha), by Laplace's approximation of its mixture."""
    return math.sqrt(votes * (math.log(2 * votes / math.pi) - 2 * math.log(alpha)))


class Balance(Record):
    """Whether two names for the same thing win equally often: left and right, or stable against stable."""

    first: int
    second: int
    rate: Interval
    log_e: float
    alarm: bool


def balance(first: int, second: int, alpha: float = 0.05) -> Balance:
    """Of decisive votes. An alarm with nothing wrong has a chance of at most alpha, ever."""
    found = log_e(first, second)
    rate = win_rate(first, second, alpha)
    return Balance(first=first, second=second, rate=rate, log_e=found, alarm=found >= -math.log(alpha))


def flagged(log_es: Mapping[str, float], alpha: float = 0.05) -> list[str]:
    """Whom to suspect, so that on average at most alpha of those named are innocent: e-BH (Wang & Ramdas 2022)."""
    ordered = sorted(log_es, key=lambda name: -log_es[name])
    for count in range(len(ordered), 0, -1):
        if log_es[ordered[count - 1]] >= math.log(len(ordered) / (alpha * count)):
            return ordered[:count]
    return []


class Moments(NamedTuple):
    """Sums over independent units, such as conversations: those of two days add up."""

    units: int
    total: float
    squares: float

    @classmethod
    def of(cls, *values: float) -> Self:
        return cls(len(values), math.fsum(values), math.fsum(value * value for value in values))

    @classmethod
    def of_rate(cls, yes: int, units: int) -> Self:
        return cls(units, yes, yes)

    @property
    def mean(self) -> float:
        return self.total / self.units

    @property
    def variance_of_mean(self) -> float:
        spread = max(self.squares - self.total * self.total / self.units, 0.0)
        return spread / max(self.units - 1, 1) / self.units


def mean_difference(
    candidate: Moments, stable: Moments, alpha: float = 0.05, tuned_for: int = TUNED_FOR
) -> Interval | None:
    """Asymptotic confidence sequence of candidate's mean less stable's (Gaussian mixture of Waudby-Smith et al. 2021).

    Each unit is put on a side by chance, so the clock counts both sides. It does not hold before both have some 100;
    None before both have 2.
    """
    if min(candidate.units, stable.units) < 2:
        return None
    clock = rho_squared(alpha, tuned_for) * (candidate.units + stable.units)
    variance = candidate.variance_of_mean + stable.variance_of_mean
    half = math.sqrt(variance * 2 * (1 + 1 / clock) * math.log(math.sqrt(clock + 1) / alpha))
    mean = candidate.mean - stable.mean
    return Interval(mean, mean - half, mean + half)


def bounded_difference(candidate: Moments, stable: Moments, alpha: float = 0.05) -> Interval:
    """Candidate's mean less stable's, of independent values in [0, 1], at all times together with confidence 1 - alpha.

    `win_rate`'s mixture is at most 1 on average under the mean of any such values, not of zeros and ones alone, since
    a^x b^(1 - x) <= a x + b (1 - x) (Hoeffding 1963). So is the product of both sides' mixtures under both means: an
    end is where it refutes every pair of means so far apart. Of no values a mean is 1/2.
    """
    sides = [(each.total, each.units - each.total) for each in (candidate, stable)]
    (wins, losses), (others, lacking) = sides
    bound = sum(_log_beta(*side) for side in sides) + math.log(alpha)

    def refuted(apart: float) -> bool:
        low, high = max(apart, 0.0), min(1.0 + apart, 1.0)

        def past(rate: float) -> bool:  # the likeliest of these pairs
            return _slope(wins, losses, rate) + _slope(others, lacking, rate - apart) <= 0

        rate = _bisect(low, high, past)
        return _log_likelihood(wins, losses, rate) + _log_likelihood(others, lacking, rate - apart) <= bound

    mean = (wins + (not candidate.units) / 2) / max(candidate.units, 1)
    mean -= (others + (not stable.units) / 2) / max(stable.units, 1)
    return Interval(mean, _bisect(-1.0, mean, lambda apart: not refuted(apart)), _bisect(mean, 1.0, refuted))


def log_e_above(candidate: Moments, stable: Moments, limit: float, alpha: float, tuned_for: int = TUNED_FOR) -> float:
    """Against a difference of means of at most `limit`: that sequence's mixture over the upper half of the normal.

    Asymptotic. No evidence, 0, where nothing varies.
    """
    variance = candidate.variance_of_mean + stable.variance_of_mean
    if variance <= 0:
        return 0.0
    clock = rho_squared(alpha, tuned_for) * (candidate.units + stable.units)
    z = (candidate.mean - stable.mean - limit) / math.sqrt(variance) * math.sqrt(clock / (1 + clock))
    return math.log(2) + _log_normal_cdf(z) + z * z / 2 - math.log1p(clock) / 2


def rho_squared(alpha: float, tuned_for: int) -> float:
    """The mixture's variance that is narrowest near `tuned_for` units (Waudby-Smith et al. 2021), to a logarithm."""
    doubled = -2 * math.log(alpha)
    return (doubled + math.log1p(doubled)) / tuned_for


def _log_normal_cdf(z: float) -> float:
    if z > -30:
        return math.log(math.erfc(-z / math.sqrt(2)) / 2)
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi))  # the leading term; erfc would be 0


def _log_beta(wins: float, losses: float) -> float:
    return math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)


def _times_log(count: float, rate: float) -> float:
    """count * log(rate), where nothing times log 0 is nothing."""
    return 0.0 if not count else count * math.log(rate) if rate > 0 else -math.inf


def _slope(wins: float, losses: float, rate: float) -> float:
    """Of the logarithm of the likelihood."""
    up = wins / rate if rate > 0 else math.inf if wins else 0.0
    return up - (losses / (1 - rate) if rate < 1 else math.inf if losses else 0.0)


def _log_likelihood(wins: float, losses: float, rate: float) -> float:
    return _times_log(wins, rate) + _times_log(losses, 1 - rate)


def _bisect(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Where `holds` turns true between a point where it does not and one where it does."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
