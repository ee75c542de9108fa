"""Guardrails: what a candidate must not worsen beyond a tolerance, however it is liked. Tests to be looked at any time.

The unit is what is put on a side by chance, a conversation: several answers of one are one unit, or nothing here holds.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from feedback.e_values import Moments, log_e_above, mean_difference, win_rate
from feedback.records import Record
from feedback.statistics import Interval

Verdict = Literal["ok", "breached", "unknown"]
LEAST = 100  # units on each side before the asymptotic tests say anything
# How many times the tolerated ratio the true one may be: the mixture's equal parts.
EXCESSES = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)


class Guardrail(Record):
    """What is known of one: `value` is the candidate's figure less, or over, the stable one's, to be at most `limit`.

    `candidate` and `stable` are units. `log_e` is the evidence that it is above, `log_e_ok` that it is below; each is
    enough at log(1 / alpha).
    """

    name: str
    verdict: Verdict
    value: float | None
    interval: Interval | None
    limit: float
    log_e: float
    log_e_ok: float
    candidate: int
    stable: int


class Failures(NamedTuple):
    """Units, and those that failed, while the candidate had `weight` of the traffic: one of these for each weight."""

    weight: float
    candidate: int
    stable: int
    candidate_failed: int
    stable_failed: int


def failure_guardrail(
    name: str, steps: Sequence[Failures], *, ratio: float = 1.5, ceiling: float = 0.01, alpha: float = 0.01
) -> Guardrail:
    """Breached when the candidate fails more than `ratio` times as often as stable: errors, refusals, empty answers.

    Of those that failed, candidate's share is then above weight * ratio : 1 - weight, whatever the rates are and
    however they move by the hour: exact at any time (as in Lindon & Malek 2022). Ok when it is shown to be below that,
    or that less than `ceiling` of its units fail. `value` is the ratio found.
    """
    worse = _log_mean_exp([_log_ratio(steps, ratio, excess) for excess in EXCESSES])
    better = _log_mean_exp([_log_ratio(steps, ratio, 1 / excess) for excess in EXCESSES])
    units, failed = sum(step.candidate for step in steps), sum(step.candidate_failed for step in steps)
    rare = win_rate(failed, units - failed, alpha).high < ceiling
    verdict: Verdict = (
        "breached" if worse >= -math.log(alpha) else "ok" if rare or better >= -math.log(alpha) else "unknown"
    )
    return Guardrail(
        name=name, verdict=verdict, value=_rate_ratio(steps), interval=None, limit=ratio, log_e=worse,
        log_e_ok=better, candidate=units, stable=sum(step.stable for step in steps),
    )  # fmt: skip


def mean_guardrail(
    name: str, candidate: Moments, stable: Moments, *, limit: float, alpha: float = 0.01, least: int = LEAST
) -> Guardrail:
    """Breached when candidate's mean is more than `limit` above stable's: length, time to first token, minus the score.

    Give logarithms where values are skewed: log 1.2 tolerates a fifth more. Asymptotic, so silent, and
    without an interval, before both sides have `least` units.
    """
    enough = min(candidate.units, stable.units) >= least
    worse = log_e_above(candidate, stable, limit, alpha) if enough else 0.0
    better = log_e_above(stable, candidate, -limit, alpha) if enough else 0.0
    verdict: Verdict = "breached" if worse >= -math.log(alpha) else "ok" if better >= -math.log(alpha) else "unknown"
    interval = mean_difference(candidate, stable, alpha) if enough else None
    value = candidate.mean - stable.mean if candidate.units and stable.units else None
    return Guardrail(
        name=name, verdict=verdict, value=value, interval=interval, limit=limit,
        log_e=worse, log_e_ok=better, candidate=candidate.units, stable=stable.units,
    )  # fmt: skip


def _log_ratio(steps: Sequence[Failures], ratio: float, excess: float) -> float:
    """Log likelihood of candidate's share among what failed, at `excess` times the ratio over at the ratio itself."""
    total = 0.0
    for step in steps:
        odds = step.weight / (1 - step.weight) * ratio
        failed = step.candidate_failed + step.stable_failed
        total += step.candidate_failed * math.log(excess) - failed * math.log((1 + odds * excess) / (1 + odds))
    return total


def _rate_ratio(steps: Sequence[Failures]) -> float | None:
    """Mantel-Haenszel over the weights; None where stable has not failed beside the candidate."""
    ours = sum(s.candidate_failed * s.stable / (s.candidate + s.stable) for s in steps if s.candidate + s.stable)
    theirs = sum(s.stable_failed * s.candidate / (s.candidate + s.stable) for s in steps if s.candidate + s.stable)
    return ours / theirs if theirs else None


def _log_mean_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values) / len(values))
