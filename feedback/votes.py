"""Which votes count. Who decides that before it sees how a vote went cannot make chance look like evidence."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from feedback.evidence import Balance, balance, flagged, log_e, log_e_better

Winner = Literal["candidate", "stable", "tie"]


@dataclass(frozen=True)
class Vote:
    """One blind comparison of candidate and stable, judged. Two bad answers are a tie."""

    rater: str
    winner: Winner
    candidate_left: bool
    day: int = 0

    @property
    def left_won(self) -> bool:
        return (self.winner == "candidate") == self.candidate_left


@dataclass(frozen=True)
class Caps:
    """How much one rater may say: a rule of what was before, so evidence keeps its guarantee.

    A rater counts for `per_day` votes a day in the order they come, ties too; and until the votes that counted, taken
    alone, would be evidence at `alpha`. Of raters who see no difference 19 in 20 are heard to the end; of somebody who
    always votes for the candidate 8 votes count.
    """

    per_day: int = 50
    alpha: float = 0.05


class Tally(NamedTuple):
    """Decisive votes of one rater that counted, by who won."""

    wins: int = 0
    losses: int = 0


def counted(votes: Iterable[Vote], caps: Caps) -> Iterator[tuple[Vote, bool]]:
    """Each vote, in the order of arrival, and whether it counts."""
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    said: Counter[tuple[str, int]] = Counter()
    heard: set[str] = set()
    for vote in votes:
        counts = vote.rater not in heard and said[vote.rater, vote.day] < caps.per_day
        yield vote, counts
        said[vote.rater, vote.day] += 1
        if counts and vote.winner != "tie":
            tally = tallies[vote.rater] = plus(tallies[vote.rater], vote)
            if log_e(*tally) >= -math.log(caps.alpha):
                heard.add(vote.rater)


def plus(tally: Tally, vote: Vote) -> Tally:
    """With one decisive vote more."""
    won = vote.winner == "candidate"
    return Tally(tally.wins + won, tally.losses + (not won))


def withstands(tallies: Mapping[str, Tally], colluders: float, log_threshold: float) -> bool:
    """Whether the candidate stays better however that share of the raters was bought.

    All that those who voted for it most said for it is struck out, and what they said against it stays: less than any
    choice of honest raters has, so the guarantee is theirs whatever the others do.
    """
    bought = math.floor(colluders * len(tallies))
    wins = sorted(tally.wins for tally in tallies.values())
    losses = sum(tally.losses for tally in tallies.values())
    return log_e_better(sum(wins[: len(wins) - bought]), losses) >= log_threshold


def side_bias(votes: Iterable[Vote], alpha: float = 0.05) -> tuple[Balance, list[str]]:
    """How often left wins over all, and the raters who seem to choose by side."""
    left: defaultdict[str, Tally] = defaultdict(Tally)
    for vote in votes:
        if vote.winner != "tie":
            first, second = left[vote.rater]
            left[vote.rater] = Tally(first + vote.left_won, second + (not vote.left_won))
    over_all = balance(sum(t.wins for t in left.values()), sum(t.losses for t in left.values()), alpha)
    return over_all, flagged({rater: log_e(*tally) for rater, tally in left.items()}, alpha)
