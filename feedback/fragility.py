"""How few votes the first place hangs on (Huang, Shen, Wei & Broderick 2025, arXiv:2508.11847).

Whose going would move the leader's lead most is read off the votes' influence at the fit; then the model is fitted
without them, so that what is told did happen. The number is therefore an upper bound: fewer may do.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from feedback.bradley_terry import Fitted, Heap, Vote, influence, refit

RIVALS = 3  # the leader's next ones that are tried


class Fall(NamedTuple):
    """Without `dropped` votes of those that were fitted, `rival` is ahead of the `leader`."""

    leader: int
    rival: int
    dropped: int


def fall_of_leader(votes: Heap, fitted: Fitted) -> Fall | None:
    """The fewest votes found; None when half of all are not enough, or nobody else is there."""
    votes = nameless(votes)
    ordered = sorted(fitted.versions, key=fitted.strength, reverse=True)
    leader, rivals = ordered[0], ordered[1 : 1 + RIVALS]
    falls = [fall for rival in rivals if (fall := _fall(votes, fitted, leader, rival))]
    return min(falls, key=lambda fall: fall.dropped, default=None)


def nameless(votes: Heap) -> Heap:
    """The votes without their raters: many become one."""
    counts: Heap = Counter()
    for (left, right, result, _, side, longer), count in votes.items():
        counts[Vote(left, right, result, "", side, longer)] += count
    return counts


def _fall(votes: Heap, fitted: Fitted, leader: int, rival: int) -> Fall | None:
    helpful = helpful_votes(votes, fitted, leader, rival)
    most = min(votes.total() // 2, sum(count for _, count, _ in helpful))

    def ahead(dropped: int) -> bool:
        strengths = refit(fitted, without(votes, helpful, dropped))
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


Helpful = Sequence[tuple[Vote, int, float]]


def helpful_votes(votes: Heap, fitted: Fitted, leader: int, rival: int) -> Helpful:
    """The votes that put the leader further ahead of a rival, the most so first: how many, and by how much each."""
    weights = influence(fitted, votes, leader, rival)
    helpful = [(vote, votes[vote], weight) for vote, weight in weights.items() if weight > 0]
    return sorted(helpful, key=lambda each: (-each[2], each[0]))


def _expected(helpful: Helpful, lead: float) -> int:
    """How many make up for the lead if each takes away what it alone would; at least one."""
    dropped = 0
    for _, count, weight in helpful:
        if weight * count >= lead:
            return max(dropped + int(lead / weight), 1)
        dropped, lead = dropped + count, lead - weight * count
    return max(dropped, 1)


def without(votes: Heap, helpful: Helpful, dropped: int) -> Heap:
    """The votes less the most helpful ones."""
    left = Counter(votes)
    for vote, count, _ in helpful:
        taken = min(count, dropped)
        left[vote] -= taken
        dropped -= taken
        if not dropped:
            break
    return +left
