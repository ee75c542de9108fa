"""Simulated releases: votes, raters and measurements by chance, judged by the statistics as shipped."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feedback.e_values import Moments, log_e, log_e_better, still_needed
from feedback.releases.decisions import Rules, decide
from feedback.releases.guardrails import Failures, Verdict, failure_guardrail, mean_guardrail
from feedback.releases.observations import alike
from feedback.releases.votes import Caps, Vote

Figures = dict[str, Any]
VOTES_A_DAY = 10  # of a rater, on average
UNCAPPED = Caps(per_day=10**9)


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
    rates: Sequence[float], rules: Rules, *, runs: int, rng: np.random.Generator,
    eagerness: Sequence[float] | None = None, in_a_row: int = 1,
) -> Figures:  # fmt: skip
    """Raters who vote for the candidate at a rate of their own, and come in random order, some more often than others.

    Whoever comes votes so often in a row. `median` and `p90` are of votes that counted, `given` is the median of all.
    """
    chosen, raters = np.array(rates), len(rates)
    weights = np.ones(raters) if eagerness is None else np.array(eagerness)
    decisions = []
    for _ in range(runs):
        come = rng.choice(raters, size=math.ceil(1.5 * rules.max_votes / in_a_row), p=weights / weights.sum())
        who = come.repeat(in_a_row)
        won = rng.random(who.size) < chosen[who]
        days = np.arange(who.size) // (VOTES_A_DAY * raters)
        said = zip(who.tolist(), won.tolist(), days.tolist(), strict=True)
        votes = (Vote(f"r{r}", "candidate" if w else "stable", True, day) for r, w, day in said)
        decisions.append(decide(votes, rules=rules))
    shares = Counter(decision.outcome for decision in decisions)
    ended = [d.outcome in ("promote", "roll back") for d in decisions]
    stop = [d.votes if end else rules.max_votes + 1 for d, end in zip(decisions, ended, strict=True)]
    given = [d.votes + d.capped if end else math.inf for d, end in zip(decisions, ended, strict=True)]
    return {
        "promoted": shares["promote"] / runs,
        "rolled back": shares["roll back"] / runs,
        "median": float(np.median(stop)),
        "p90": float(np.quantile(stop, 0.9)),
        "given": float(np.median(given)),
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
    draw: Callable[[int, bool], np.ndarray], steps: Sequence[tuple[float, int]], limit: float, *, runs: int, every: int,
    rng: np.random.Generator,
) -> Figures:  # fmt: skip
    """A mean of what `draw` gives for a number of units and a side, looked at after each `every` units.

    `steps` are the candidate's weights, and for how many units.
    """
    weights = np.repeat([weight for weight, _ in steps], [count for _, count in steps])
    under = np.repeat(np.eye(len(steps), dtype=bool), [count for _, count in steps], axis=1)  # (steps, units)
    units, found = weights.size, []
    for _ in range(runs):
        ours = rng.random(units) < weights
        values = np.where(ours, draw(units, True), draw(units, False))
        sides = under[:, None] & np.array([ours, ~ours])  # (steps, 2, units)
        sums = np.cumsum([sides, sides * values, sides * values**2], axis=-1)  # (3, steps, 2, units)
        found.append(
            alarm(
                range(every - 1, units, every),
                lambda at, sums=sums: mean_guardrail("", *alike(strata(sums[..., at])), limit=limit),
            )
        )
    return alarms(found, units)


def strata(sums: np.ndarray) -> list[tuple[Moments, Moments]]:
    """Of sums (3, steps, 2)."""
    return [(moments(ours), moments(theirs)) for ours, theirs in sums.transpose(1, 2, 0)]


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
