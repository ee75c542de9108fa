"""The leaderboard of policy versions: how strong people find each, with intervals, and how much hangs on few votes."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable

from feedback.leaderboard.bradley_terry import Estimate, Fitted, Heap, Vote, bootstrap, fit, reached
from feedback.leaderboard.davidson import LONGER, SIDE
from feedback.leaderboard.fragility import fall_of_leader
from feedback.leaderboard.standings import Figure, Fragility, Leaderboard, Standing, Status

CONFIDENCE = 0.95
ELO, ELO_BASE = 400 / math.log(10), 1000.0


def leaderboard(
    votes: Iterable[Vote], *, versions: Collection[int] = (), anchor: int = 0, stable: int | None = None, draws: int = 0
) -> Leaderboard:
    """From votes; `versions` are listed also without any. With `draws` strengths get intervals from a bootstrap."""
    heap = Counter(votes)
    fitted = fit(heap, anchor)
    leads = fitted.leads(anchor, confidence=CONFIDENCE) if len(fitted.versions) > 1 else {}
    if draws and leads:
        drawn = bootstrap(fitted, confidence=CONFIDENCE, draws=draws)
        leads = {v: Estimate(lead.value, lead.interval and drawn[v]) for v, lead in leads.items()}
    over_stable = fitted.leads(stable, confidence=CONFIDENCE) if stable is not None and stable in leads else {}
    shares = {v: _figure(lead, lambda theta: win_share(theta, fitted.nu)) for v, lead in over_stable.items()}
    statuses, said = _statuses(heap, fitted), tallies(heap)
    rows = [
        _standing(v, statuses.get(v, "no_votes"), said.get(v, Tally()), leads.get(v), shares.get(v))
        for v in {*versions, *said}
    ]
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


class Tally:
    """What was said of one version."""

    def __init__(self) -> None:
        self.results: Counter[float] = Counter()
        self.raters: set[str] = set()

    def add(self, result: float, rater: str, count: int) -> None:
        self.results[result] += count
        self.raters.add(rater)


def tallies(heap: Heap) -> dict[int, Tally]:
    found: dict[int, Tally] = defaultdict(Tally)
    for vote, count in heap.items():
        found[vote.left].add(vote.result, vote.rater, count)
        found[vote.right].add(1 - vote.result, vote.rater, count)
    return found


def _standing(version: int, status: Status, tally: Tally, lead: Estimate | None, share: Figure | None) -> Standing:
    results = tally.results
    return Standing(
        version=version, status=status,
        strength=lead and _figure(lead, lambda theta: theta),
        elo=lead and _figure(lead, lambda theta: ELO_BASE + ELO * theta),
        against_stable=share,
        votes=results.total(), wins=results[1.0], ties=results[0.5], losses=results[0.0], raters=len(tally.raters),
    )  # fmt: skip


def _statuses(heap: Heap, fitted: Fitted) -> dict[int, Status]:
    """Of all versions with votes: ranked, or why not."""
    met: dict[int, set[int]] = defaultdict(set)
    for vote in heap:
        met[vote.left].add(vote.right)
        met[vote.right].add(vote.left)
    near, ranked = reached(met, fitted.anchor), fitted.versions if len(fitted.versions) > 1 else ()
    return {v: "ranked" if v in ranked else "one_sided" if v in near else "unlinked" for v in met}


def win_share(theta: float, nu: float) -> float:
    """P(win) + P(tie) / 2 of a version that is stronger by `theta`, shown on either side at equal length."""
    up = math.exp(theta / 2)
    return (up + nu / 2) / (up + 1 / up + nu)


def _fragility(heap: Heap, fitted: Fitted) -> Fragility | None:
    if len(fitted.versions) < 2:
        return None
    fall = fall_of_leader(fitted, heap.total() // 2)
    leader = max(fitted.versions, key=fitted.strength)
    return Fragility(leader=leader, rival=fall and fall.rival, dropped=fall and fall.dropped)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _figure(estimate: Estimate, scale: Callable[[float], float]) -> Figure:
    """On another, growing scale."""
    bounds = estimate.interval
    return Figure(value=scale(estimate.value), low=bounds and scale(bounds.low), high=bounds and scale(bounds.high))
