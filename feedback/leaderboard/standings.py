"""What a leaderboard says. Apart from what reckons it, which loads an array library that most commands do without."""

from typing import Literal

from feedback.records import Record

#: Whose votes count; evaluation: those of raters who never train.
Whose = Literal["all", "evaluation", "training"]

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
