"""The leaderboard of policy versions: how strong people find each, with intervals, and how much hangs on few votes."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from feedback.bradley_terry import LONGER, SIDE, Estimate, Fitted, Heap, Vote, bootstrap, fit, reached
from feedback.fragility import fall_of_leader
from feedback.records import Record

CONFIDENCE = 0.95
ELO, ELO_BASE = 400 / math.log(10), 1000.0

#: `one_sided`: its votes link it with the anchor in one direction only, as when it won every one of them. Then no
#: strength is the most likely. `unlinked`: not compared with anything that was compared with the anchor, and so on.
Status = Literal["ranked", "one_sided", "unlinked", "no_votes"]


class Figure(Record):
    """A value with its interval; without bounds where fewer than two raters stand behind it."""

    value: float
    low: float | None
    high: float | None


class Standing(Record):
    """One version. `strength` is in log-odds above the anchor, which has 0; `elo` the same around 1000."""

    version: int
    status: Status
    strength: Figure | None
    elo: Figure | None
    against_stable: Figure | None  # share of wins over the stable policy, ties counting half, side and length apart
    votes: int
    wins: int
    ties: int
    losses: int
    raters: int


class Fragility(Record):
    """Without `dropped` certain votes `rival` would be ahead of `leader`; fewer may do. Both None: half are too few."""

    leader: int
    rival: int | None
    dropped: int | None


class Leaderboard(Record):
    """Versions that can be ranked by strength, then the others. Votes are on pairs of answers by different versions."""

    anchor: int
    stable: int | None
    confidence: float
    votes: int
    ties: int
    raters: int
    standings: tuple[Standing, ...]
    left_wins: Figure | None  # of two equally strong and long answers: how often the left one is preferred
    longer_wins: Figure | None  # of two equally strong ones: how often the one that is twice as long is
    fragility: Fragility | None


def leaderboard(
    votes: Iterable[Vote], *, versions: Collection[int] = (), anchor: int = 0, stable: int | None = None, draws: int = 0
) -> Leaderboard:
    """From votes; `versions` are listed also without any. With `draws` strengths get intervals from a bootstrap."""
    heap = Counter(votes)
    fitted = fit(heap, anchor)
    leads = fitted.leads(anchor, confidence=CONFIDENCE)
    if draws:
        drawn = bootstrap(heap, fitted, confidence=CONFIDENCE, draws=draws)
        leads = {v: Estimate(lead.value, lead.interval and drawn[v]) for v, lead in leads.items()}
    over_stable = fitted.leads(stable, confidence=CONFIDENCE) if stable in fitted.versions else {}
    listed = {*versions, *(v.left for v in heap), *(v.right for v in heap)}
    rows = [_standing(version, heap, fitted, leads, over_stable) for version in listed]
    twice = fitted.effect(LONGER, confidence=CONFIDENCE)
    side = fitted.effect(SIDE, confidence=CONFIDENCE)
    return Leaderboard(
        anchor=anchor, stable=stable, confidence=CONFIDENCE, votes=heap.total(),
        ties=sum(n for v, n in heap.items() if v.result == 0.5), raters=len({v.rater for v in heap}),
        standings=tuple(sorted(rows, key=lambda row: (-row.strength.value if row.strength else math.inf, row.version))),
        left_wins=side and _figure(side, _sigmoid),
        longer_wins=twice and _figure(twice, lambda gamma: _sigmoid(gamma * math.log(2))),
        fragility=_fragility(heap, fitted),
    )  # fmt: skip


def _standing(
    version: int, heap: Heap, fitted: Fitted, leads: dict[int, Estimate], over_stable: dict[int, Estimate]
) -> Standing:
    results: Counter[float] = Counter()
    raters = set()
    for vote, count in heap.items():
        if version in (vote.left, vote.right):
            results[vote.result if version == vote.left else 1 - vote.result] += count
            raters.add(vote.rater)
    lead, over = leads.get(version), over_stable.get(version)
    if lead is not None and not results:
        lead = None  # the anchor alone
    return Standing(
        version=version, status="ranked" if lead else _status(version, heap, fitted.anchor),
        strength=lead and _figure(lead, lambda theta: theta),
        elo=lead and _figure(lead, lambda theta: ELO_BASE + ELO * theta),
        against_stable=lead and over and _figure(over, lambda theta: win_share(theta, fitted.nu)),
        votes=results.total(), wins=results[1.0], ties=results[0.5], losses=results[0.0], raters=len(raters),
    )  # fmt: skip


def _status(version: int, heap: Heap, anchor: int) -> Status:
    """Why a version has no strength."""
    met: dict[int, set[int]] = {}
    for vote in heap:
        met.setdefault(vote.left, set()).add(vote.right)
        met.setdefault(vote.right, set()).add(vote.left)
    if version not in met:
        return "no_votes"
    return "one_sided" if version in reached(met, anchor) else "unlinked"


def win_share(theta: float, nu: float) -> float:
    """P(win) + P(tie) / 2 of a version that is stronger by `theta`, shown on either side at equal length."""
    up = math.exp(theta / 2)
    return (up + nu / 2) / (up + 1 / up + nu)


def _fragility(heap: Heap, fitted: Fitted) -> Fragility | None:
    if len(fitted.versions) < 2:
        return None
    fall = fall_of_leader(heap, fitted)
    leader = max(fitted.versions, key=fitted.strength)
    return Fragility(leader=leader, rival=fall and fall.rival, dropped=fall and fall.dropped)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _figure(estimate: Estimate, scale: Callable[[float], float]) -> Figure:
    """On another, growing scale."""
    bounds = estimate.interval
    return Figure(value=scale(estimate.value), low=bounds and scale(bounds.low), high=bounds and scale(bounds.high))
