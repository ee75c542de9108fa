"""How few votes the first place hangs on (Huang, Shen, Wei & Broderick 2025, arXiv:2508.11847).

Whose going would move the leader's lead most is read off the votes' influence at the fit; then the model is fitted
without them, so that what is told did happen. The number is therefore an upper bound: fewer may do.
"""

from typing import NamedTuple

import numpy as np

from feedback.leaderboard.bradley_terry import Fitted, influence, nameless, refit, weighted
from feedback.leaderboard.davidson import Cells, Ints
from feedback.leaderboard.newton import Floats

RIVALS = 3  # the leader's next ones that are tried


class Fall(NamedTuple):
    """Without `dropped` votes of those that were fitted, `rival` is ahead of the `leader`."""

    leader: int
    rival: int
    dropped: int


class Helpful(NamedTuple):
    """The votes that put the leader further ahead of a rival, the most so first (h)."""

    cell: Ints  # where each is among all
    votes: Floats
    weight: Floats  # by how much each of them does
    before: Floats  # how many go before it


def fall_of_leader(fitted: Fitted, most: int) -> Fall | None:
    """The fewest votes found; None when `most` are not enough, or nobody else is there."""
    cells = nameless(fitted.cells)
    ordered = sorted(fitted.versions, key=fitted.strength, reverse=True)
    leader, rivals = ordered[0], ordered[1 : 1 + RIVALS]
    falls = [fall for rival in rivals if (fall := _fall(cells, fitted, leader, rival, most))]
    return min(falls, key=lambda fall: fall.dropped, default=None)


def _fall(cells: Cells, fitted: Fitted, leader: int, rival: int, most: int) -> Fall | None:
    helpful = helpful_votes(cells, fitted, leader, rival)
    most = min(most, int(helpful.votes.sum()))

    def ahead(dropped: int) -> bool:
        strengths = refit(fitted, without(cells, helpful, dropped))
        return strengths[rival] > strengths[leader] + 1e-9

    enough = min(most, _expected(helpful, fitted.strength(leader) - fitted.strength(rival)))
    too_few = 0
    while not ahead(enough):
        if enough >= most:
            return None
        too_few, enough = enough, min(most, 2 * enough)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if ahead(middle) else (middle, enough)
    return Fall(leader, rival, enough)


def helpful_votes(cells: Cells, fitted: Fitted, leader: int, rival: int) -> Helpful:
    weights = influence(fitted, cells, leader, rival)
    order = np.argsort(-weights, kind="stable")
    order = order[weights[order] > 0]
    votes = cells.votes[order]
    return Helpful(order, votes, weights[order], votes.cumsum() - votes)


def _expected(helpful: Helpful, lead: float) -> int:
    """How many make up for the lead if each takes away what it alone would; at least one."""
    gained = np.cumsum(helpful.weight * helpful.votes)
    last = int(np.searchsorted(gained, lead))
    if last == len(gained):
        return max(int(helpful.votes.sum()), 1)
    missing = lead - (gained[last - 1] if last else 0.0)
    return max(int(helpful.before[last] + missing / helpful.weight[last]), 1)


def without(cells: Cells, helpful: Helpful, dropped: int) -> Cells:
    """The votes less the most helpful ones."""
    votes = cells.votes.copy()
    votes[helpful.cell] -= np.clip(dropped - helpful.before, 0, helpful.votes)
    return weighted(cells, votes)
