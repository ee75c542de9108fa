"""Which votes count. Who decides that before it sees how a vote went cannot make chance look like evidence."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Literal, NamedTuple

from feedback.e_values import Balance, balance, log_e_better

MOST_TURNS = 8  # of a search that two or three turns end

Winner = Literal["candidate", "stable", "tie"]


@dataclass(frozen=True)
class Vote:
    """One blind comparison of candidate and stable, judged. Two bad answers are a tie. `time` decides nothing."""

    rater: str
    winner: Winner
    candidate_left: bool
    day: int = 0
    time: float = field(default=0.0, compare=False)

    @property
    def left_won(self) -> bool:
        return (self.winner == "candidate") == self.candidate_left


@dataclass(frozen=True)
class Caps:
    """Of a rater count `per_day` votes a day, in the order they come, ties too.

    How the votes went is no matter: who is cut short for always voting for one side leaves those who are in doubt, and
    what they say is not what all say.
    """

    per_day: int = 50


class Tally(NamedTuple):
    """Decisive votes, by who won."""

    wins: int = 0
    losses: int = 0


def counted(votes: Iterable[Vote], caps: Caps) -> Iterator[tuple[Vote, bool]]:
    """Each vote, in the order of arrival, and whether it counts."""
    said: Counter[tuple[str, int]] = Counter()
    for vote in votes:
        yield vote, said[vote.rater, vote.day] < caps.per_day
        said[vote.rater, vote.day] += 1


def plus(tally: Tally, vote: Vote) -> Tally:
    """With one decisive vote more."""
    won = vote.winner == "candidate"
    return Tally(tally.wins + won, tally.losses + (not won))


def without(tallies: Mapping[str, Tally], plotters: int) -> Tally:
    """What is left of all votes without those up to `plotters` raters whose loss costs the candidate most evidence.

    Whoever was bought, the honest have at least the evidence of these, so what these show holds whatever a plot of so
    many does. The evidence is convex in the votes: where its slope asks to leave out just those who are left out, no
    other choice leaves less, and the search ends. Once in some hundred times it does not, and the least seen may not be
    quite the least.
    """
    left = least = total = _sum(tallies.values())
    for _ in range(MOST_TURNS if plotters else 0):
        win, loss = _slope(left)
        costs = {rater: win * tally.wins + loss * tally.losses for rater, tally in tallies.items()}
        gone = _sum(tallies[rater] for rater in nlargest(plotters, costs, costs.__getitem__) if costs[rater] > 0)
        before, left = left, Tally(total.wins - gone.wins, total.losses - gone.losses)
        least = min(least, left, key=lambda tally: log_e_better(*tally))
        if left == before:
            break
    return least


def clustering(tallies: Iterable[Tally], raters: int = 0) -> float:
    """How many votes say as much as one of a rater who comes once: 1 where raters are alike or were heard alike.

    The variance of the lead over that of independent votes, by the raters' own leads (as in Liang & Zeger 1986): tastes
    differ, so it matters who was heard. Where `raters` may vote it is only by how much more or less than others; where
    nobody knows, those heard are a few of very many.
    """
    each = [(wins + losses, ((wins - losses) / (wins + losses)) ** 2) for wins, losses in tallies]
    votes = sum(said for said, _ in each)
    if not votes:
        return 1.0
    share = votes / max(raters, len(each)) if raters else 0.0
    unheard = max(raters - len(each), 0) * share**2 * sum(lean for _, lean in each) / len(each)
    spread = sum(lean * (said - share) ** 2 + (1 - lean) * said for said, lean in each)
    return max(1.0, (spread + unheard) / votes)


def _slope(tally: Tally) -> tuple[float, float]:
    """What a win more adds to the evidence, and a loss more: central differences."""
    wins, losses = tally
    fewer_wins, fewer_losses = max(wins - 1, 0), max(losses - 1, 0)
    win = (log_e_better(wins + 1, losses) - log_e_better(fewer_wins, losses)) / (wins + 1 - fewer_wins)
    loss = (log_e_better(wins, losses + 1) - log_e_better(wins, fewer_losses)) / (losses + 1 - fewer_losses)
    return win, loss


def _sum(tallies: Iterable[Tally]) -> Tally:
    each = list(tallies)
    return Tally(sum(tally.wins for tally in each), sum(tally.losses for tally in each))


def side_bias(votes: Iterable[Vote], alpha: float = 0.05) -> Balance:
    """How often left wins over all; whether one rater chooses by side is told by `checks`, also outside of releases."""
    decisive = [vote for vote in votes if vote.winner != "tie"]
    left = sum(vote.left_won for vote in decisive)
    return balance(left, len(decisive) - left, alpha)
