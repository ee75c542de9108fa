"""What to do with a candidate, and every figure that says so."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from feedback.e_values import Balance, log_e, log_e_better, still_needed, win_rate
from feedback.records import Record
from feedback.releases.guardrails import Guardrail
from feedback.releases.votes import Caps, Tally, Vote, clustering, counted, plus, side_bias, without
from feedback.statistics import Interval

Outcome = Literal["promote", "roll back", "inconclusive", "undecided"]


@dataclass(frozen=True)
class Rules:
    """How a release is decided, fixed before its first vote.

    Of candidates that are no better at most alpha / 2 are ever promoted; of those no worse as few are rolled back,
    guardrails aside: exactly where votes are independent, and about so where raters' tastes differ, as `clustering`
    has it. A plot of a share of the raters who voted, `plot`, rounded, cannot break that, whatever they vote. It costs
    votes, fewer where each rater votes more often; 0 trusts that nobody is bought.
    """

    alpha: float = 0.05
    max_votes: int = 4000
    caps: Caps = field(default_factory=Caps)
    plot: float = 0.05
    raters: int = 0  # how many may vote, where known: of the first who do, a plot may be a larger share


class Decision(Record):
    """The first one that the votes allowed, in the order they came; votes after it are counted nowhere.

    `wins` and `losses` are decisive votes for candidate and stable that counted, `capped` all that did not. E-values
    are logarithms; `log_e_standing` is what a plot could not have made, for whoever is ahead, and decides at
    `log_threshold`. `win_rate` holds at all times together; `thumbs` is the difference of the shares of thumbs up.
    """

    outcome: Outcome
    reason: str
    wins: int
    losses: int
    ties: int
    capped: int
    log_e_better: float
    log_e_worse: float
    log_e_standing: float
    log_threshold: float
    win_rate: Interval
    thumbs: Interval | None
    still_needed: int | None
    sides: Balance
    guardrails: tuple[Guardrail, ...]
    raters: int | None = None  # who gave these votes; None of decisions from before that was kept

    @property
    def votes(self) -> int:
        """Decisive ones."""
        return self.wins + self.losses


class Count:
    """The votes of one release as they come, up to its decision."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.log_threshold = math.log(2 / rules.alpha)
        self.outcome: Outcome = "undecided"
        self.total = Tally()
        self.ties = self.capped = 0
        self._raters: defaultdict[str, Tally] = defaultdict(Tally)

    def add(self, vote: Vote) -> None:
        """One that counts."""
        if vote.winner == "tie":
            self.ties += 1
            return
        self.total = plus(self.total, vote)
        self._raters[vote.rater] = plus(self._raters[vote.rater], vote)
        self.outcome = self._outcome()

    def standing(self) -> Tally:
        """What a plot could not have made of the votes, as so many independent ones, for whoever is ahead."""
        return self._independent(self.unplotted())

    def clustering(self) -> float:
        return clustering(self._raters.values(), self.rules.raters)

    def win_rate(self) -> Interval:
        """Of as many independent votes as these are worth, so it is as sure as the decision."""
        each = self.clustering()
        return win_rate(self.total.wins / each, self.total.losses / each, self.rules.alpha)

    def unplotted(self) -> Tally:
        """What a plot could not have made of the votes."""
        behind = self.total.wins < self.total.losses
        tallies = {rater: Tally(*reversed(tally)) for rater, tally in self._raters.items()} if behind else self._raters
        return without(tallies, round(self.rules.plot * max(len(tallies), self.rules.raters)))

    def _independent(self, tally: Tally) -> Tally:
        each = self.clustering()
        return Tally(math.floor(tally.wins / each), math.ceil(tally.losses / each))

    def _decides(self) -> bool:
        """What is quickly computed comes first: neither way has more than twice the mean of both."""
        enough = self.log_threshold
        if log_e(*self.total) + math.log(2) < enough:
            return False
        ahead = self._independent(Tally(max(self.total), min(self.total)))
        return log_e_better(*ahead) >= enough and log_e_better(*self.standing()) >= enough

    def _outcome(self) -> Outcome:
        wins, losses = self.total
        if self._decides():
            return "promote" if wins > losses else "roll back"
        return "inconclusive" if wins + losses >= self.rules.max_votes else "undecided"


def decide(
    votes: Iterable[Vote],
    guardrails: Sequence[Guardrail] = (),
    rules: Rules | None = None,
    *,
    thumbs: Interval | None = None,
) -> Decision:
    """From all votes of a release in the order of arrival, one for each rater and comparison.

    A breached guardrail rolls back whatever the votes say; one that is not yet known holds nothing up.
    """
    count = Count(rules or Rules())
    seen = [vote for vote, _ in counting(votes, count)]
    return _decision(count, seen, tuple(guardrails), thumbs)


def counting(votes: Iterable[Vote], count: Count) -> Iterator[tuple[Vote, bool]]:
    """Each vote up to the decision, once `count` has seen it, and whether it counted."""
    for vote, counts in counted(votes, count.rules.caps):
        if counts:
            count.add(vote)
        else:
            count.capped += 1
        yield vote, counts
        if count.outcome != "undecided":
            return


def _decision(
    count: Count, seen: Sequence[Vote], guardrails: tuple[Guardrail, ...], thumbs: Interval | None
) -> Decision:
    rules, (wins, losses) = count.rules, count.total
    rate = count.win_rate()
    needed = _needed(count) if count.outcome == "undecided" else None
    breached = [guardrail.name for guardrail in guardrails if guardrail.verdict == "breached"]
    return Decision(
        outcome="roll back" if breached else count.outcome,
        reason=_breach(breached) if breached else _reason(count, rate, needed),
        wins=wins, losses=losses, ties=count.ties, capped=count.capped,
        log_e_better=log_e_better(wins, losses), log_e_worse=log_e_better(losses, wins),
        log_e_standing=log_e_better(*count.standing()), log_threshold=count.log_threshold, win_rate=rate,
        thumbs=thumbs, still_needed=needed, sides=side_bias(seen, rules.alpha), guardrails=guardrails,
        raters=len({vote.rater for vote in seen}),
    )  # fmt: skip


def _needed(count: Count) -> int | None:
    wins, losses = count.standing()
    each, left_out = count.clustering(), sum(count.total) - sum(count.unplotted())
    if wins <= losses:
        return None
    more = still_needed(wins, losses, count.rules.alpha, int((count.rules.max_votes - left_out) / each))
    return None if more is None else math.ceil(each * more)


def _breach(names: Sequence[str]) -> str:
    return f"The candidate breaks {'a guardrail' if len(names) == 1 else 'guardrails'}: {', '.join(names)}."


def _reason(count: Count, rate: Interval, needed: int | None) -> str:
    wins, losses = count.total
    votes = f"{wins} of {wins + losses} decisive votes"
    between = f"between {rate.low:.1%} and {rate.high:.1%}"
    if count.outcome == "promote":
        return f"The candidate is better: it won {votes}, its win rate is {between}."
    if count.outcome == "roll back":
        return f"The candidate is worse: it won {votes}, its win rate is {between}."
    if count.outcome == "inconclusive":
        return f"No difference was found by {wins + losses} decisive votes: the win rate is {between}."
    more = "there is no telling yet how many more are needed" if needed is None else f"about {needed} more are needed"
    return f"The candidate won {votes}, which decides nothing: {more}."
