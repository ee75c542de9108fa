"""Simulated releases: votes, raters and measurements by chance, judged by the statistics as shipped."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feedback.decisions import Rules, decide
from feedback.evidence import Moments, log_e, log_e_better, still_needed
from feedback.guardrails import Failures, Verdict, failure_guardrail, mean_guardrail
from feedback.votes import Caps, Vote

Figures = dict[str, Any]
VOTES_A_DAY = 10  # of a rater, on average
UNCAPPED = Caps(per_day=10**9, deviations=math.inf)


def least_wins(log_threshold: float, max_votes: int) -> np.ndarray:
    """For each number of votes, the fewest wins that promote: (max_votes + 1,), more than there are where none do."""
    fewest, wins = np.zeros(max_votes + 1, dtype=np.int64), 1
    for votes in range(max_votes + 1):
        # With one vote more and as many wins there is less evidence, so the bound never falls.
        while wins <= votes and log_e_better(wins, votes - wins) < log_threshold:
            wins += 1
        fewest[votes] = wins
    return fewest


def stops(won: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """When each run of votes (R, N) was first decided, N + 1 for never, and whether for the candidate: both (R,)."""
    runs, most = won.shape
    bound = least_wins(math.log(2 / alpha), most)[1:]
    wins = won.cumsum(1, dtype=np.int32)
    losses = np.arange(1, most + 1) - wins
    better, worse = first(wins >= bound), first(losses >= bound)
    return np.minimum(better, worse), better < worse


def first(true: np.ndarray) -> np.ndarray:
    """When each row is first true, counted from 1; one more than its length for never."""
    return np.where(true.any(1), true.argmax(1) + 1, true.shape[1] + 1)


def votes_to_decide(rate: float, *, runs: int, max_votes: int, alpha: float, rng: np.random.Generator) -> Figures:
    """What becomes of candidates with that win rate, looked at after every vote."""
    return outcomes(*stops(rng.random((runs, max_votes)) < rate, alpha), max_votes)


def left_bias(bias: float, randomised: bool, *, runs: int, max_votes: int, rng: np.random.Generator) -> Figures:
    """Equal policies, and raters who like what stands left by `bias` more often."""
    left_won = rng.random((runs, max_votes)) < 0.5 + bias
    candidate_left = rng.random((runs, max_votes)) < 0.5 if randomised else np.ones((runs, max_votes), dtype=bool)
    return outcomes(*stops(left_won == candidate_left, 0.05), max_votes)


def outcomes(stop: np.ndarray, promoted: np.ndarray, max_votes: int) -> Figures:
    decided = stop <= max_votes
    return {
        "promoted": float((promoted & decided).mean()),
        "rolled back": float((~promoted & decided).mean()),
        "median": float(np.median(stop)),
        "p90": float(np.quantile(stop, 0.9)),
    }


def crowd(
    rate: float, rules: Rules, *, runs: int, raters: int, bought: int, eagerness: float, rng: np.random.Generator
) -> Figures:
    """Raters in random order, of whom some always vote for the candidate, `eagerness` times as often as others."""
    weights = np.where(np.arange(raters) < bought, eagerness, 1.0)
    decisions = []
    for _ in range(runs):
        who = rng.choice(raters, size=int(1.5 * rules.max_votes), p=weights / weights.sum())
        won = (who < bought) | (rng.random(who.size) < rate)
        days = np.arange(who.size) // (VOTES_A_DAY * raters)
        come = zip(who.tolist(), won.tolist(), days.tolist(), strict=True)
        votes = (Vote(f"r{r}", "candidate" if w else "stable", True, day) for r, w, day in come)
        decisions.append(decide(votes, rules=rules))
    shares = Counter(decision.outcome for decision in decisions)
    stop = [d.votes if d.outcome in ("promote", "roll back") else rules.max_votes + 1 for d in decisions]
    return {
        "promoted": shares["promote"] / runs,
        "rolled back": shares["roll back"] / runs,
        "median": float(np.median(stop)),
        "p90": float(np.quantile(stop, 0.9)),
        "capped": sum(d.capped for d in decisions) / sum(d.capped + d.votes for d in decisions),
    }


def failures_alarm(
    rates: tuple[float, float], weight: float, *, runs: int, units: int, rng: np.random.Generator
) -> Figures:
    """Candidate's and stable's rates of failure, looked at after every unit that can tell."""
    found = []
    for _ in range(runs):
        ours = rng.random(units) < weight
        failed = rng.random(units) < np.where(ours, *rates)
        sums = np.cumsum([ours, ~ours, ours & failed, ~ours & failed], axis=1)  # (4, units)
        looks = np.flatnonzero(ours & failed).tolist()  # nothing else is evidence of a breach
        found.append(
            alarm(looks, lambda at, sums=sums: failure_guardrail("", [Failures(weight, *sums[:, at].tolist())]))
        )
    return alarms(found, units)


def mean_alarm(
    draw: Callable[[int, bool], np.ndarray], weight: float, limit: float, *, runs: int, units: int, every: int,
    rng: np.random.Generator,
) -> Figures:  # fmt: skip
    """A mean of what `draw` gives for a number of units and a side, looked at after each `every` units."""
    found = []
    for _ in range(runs):
        ours = rng.random(units) < weight
        values = np.where(ours, draw(units, True), draw(units, False))
        sums = [np.cumsum([side, side * values, side * values**2], axis=1) for side in (ours, ~ours)]  # (3, units)
        found.append(
            alarm(
                range(every - 1, units, every),
                lambda at, sums=sums: mean_guardrail("", *(moments(side[:, at]) for side in sums), limit=limit),
            )
        )
    return alarms(found, units)


def moments(sums: np.ndarray) -> Moments:
    return Moments(int(sums[0]), float(sums[1]), float(sums[2]))


def alarm(looks: Sequence[int] | range, judged: Callable[[int], Any]) -> int | None:
    """After how many units it was first breached."""
    breached: Verdict = "breached"
    return next((at + 1 for at in looks if judged(at).verdict == breached), None)


def alarms(found: Sequence[int | None], units: int) -> Figures:
    known = [units + 1 if at is None else at for at in found]
    return {"breached": sum(at is not None for at in found) / len(found), "median": float(np.median(known))}


def forecasts(rate: float, after: int, *, runs: int, max_votes: int, alpha: float, rng: np.random.Generator) -> Figures:
    """Votes still needed as foretold after some, over those that were: the quartiles, and how often it can tell."""
    won = rng.random((runs, max_votes)) < rate
    stop, _ = stops(won, alpha)
    open_ = (stop > after) & (stop <= max_votes)
    wins = won[open_, :after].sum(1)
    foretold = [still_needed(int(w), after - int(w), alpha, max_votes) for w in wins]
    ratios = [more / (at - after) for more, at in zip(foretold, stop[open_], strict=True) if more is not None]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {"told": len(ratios) / len(foretold), "low": float(low), "median": float(median), "high": float(high)}


def side_flagged(bias: float, votes: int, *, runs: int, alpha: float, rng: np.random.Generator) -> Figures:
    """How often somebody who likes the left that much is noticed, in so many votes."""
    left = (rng.random((runs, votes)) < 0.5 + bias).cumsum(1)
    found = [
        next((n for n, wins in enumerate(row.tolist(), 1) if log_e(wins, n - wins) >= -math.log(alpha)), None)
        for row in left
    ]
    return alarms(found, votes)
