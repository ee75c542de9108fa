"""How the evidence on a release came to be: what its votes proved after each one that counted."""

from collections.abc import Sequence

from feedback.e_values import log_e_better
from feedback.policies.ppo_curves import thinned
from feedback.records import Record
from feedback.releases.ballots import votes_of_release
from feedback.releases.book import Release
from feedback.releases.decisions import Count, Rules, counting
from feedback.releases.judge import rules_of
from feedback.releases.votes import Vote
from feedback.statistics import Interval
from feedback.store import Ledger

MOST = 500


class EvidencePoint(Record):
    """After `vote` votes that counted, ties too: as `Decision` tells it, with `log_e` what a plot could not make."""

    vote: int
    time: float
    wins: int
    losses: int
    ties: int
    log_e: float
    log_e_better: float
    log_e_worse: float
    win_rate: Interval


def evidence_of(ledger: Ledger, release: Release, most: int = MOST) -> list[EvidencePoint]:
    """By the ledger as it is now, up to the decision or the end. What was erased since is in none of it."""
    votes = votes_of_release(ledger, release)
    if release.ended is not None:
        votes = [vote for vote in votes if vote.time <= release.ended]
    return course(votes, rules_of(ledger, release), most)


def course(votes: Sequence[Vote], rules: Rules, most: int = MOST) -> list[EvidencePoint]:
    """At most so many points, evenly spread, the first and the last always."""
    last = sum(counts for _, counts in counting(votes, Count(rules)))
    kept, count, points = {1 + index for index in thinned(last, most)}, Count(rules), []
    number = 0
    for vote, counts in counting(votes, count):
        number += counts
        if counts and number in kept:
            points.append(_point(number, vote, count))
    return points


def _point(number: int, vote: Vote, count: Count) -> EvidencePoint:
    wins, losses = count.total
    return EvidencePoint(
        vote=number, time=vote.time, wins=wins, losses=losses, ties=count.ties,
        log_e=log_e_better(*count.standing()), log_e_better=log_e_better(wins, losses),
        log_e_worse=log_e_better(losses, wins), win_rate=count.win_rate(),
    )  # fmt: skip
