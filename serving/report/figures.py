"""What a report has, and a reward model's figures as rows of a table, for the terminal and for the page."""

from collections.abc import Iterable
from typing import NamedTuple

from feedback.policies.ppo_curves import Curves
from feedback.policies.reward_fit import MIN_PROMPTS, Bin, Change, Fit, RatingFit, Slice, best_accuracy
from feedback.statistics import Interval

Row = tuple[str, str, str, str]
HEADINGS: Row = ("figure", "value", "interval", "")
BIN_HEADINGS = ("predicted", "observed", "pairs")
LENGTH_HEADINGS = ("preferred one is longer by, tokens", "pairs", "accuracy")
RATER_HEADINGS = ("rater", "pairs", "accuracy")


class Report(NamedTuple):
    """What there is to tell of one reward model, and of the PPO that went by it; or of PPO alone."""

    name: str  # of its policy version, its round, or its directory
    fit: Fit | None  # None where only PPO is told of
    change: Change | None = None
    no_change: str | None = None  # why there is none, where one might be
    curves: Curves | None = None  # None where nothing went by it yet
    ratings: RatingFit | None = None  # None where they were not asked for, or say nothing

    @property
    def title(self) -> str:
        fit = self.fit
        if fit is None:
            return f"PPO of {self.name}"
        few = f"; of fewer than {MIN_PROMPTS} no interval can be trusted" if fit.prompts < MIN_PROMPTS else ""
        return (
            f"reward model of {self.name}: {_count(fit.pairs, 'pair')} and {_count(fit.ties, 'tie')} in "
            f"{_count(fit.rankings, 'ranking')} of {_count(fit.prompts, 'prompt')} that it never saw{few}"
        )

    @property
    def rows(self) -> list[Row]:
        """The figures in order, each with its interval and what to hold it against."""
        own = [*(_own(self.fit) if self.fit else []), *(rating_rows(self.ratings) if self.ratings else [])]
        if self.change is not None:
            return [*own, *_beside(self.change)]
        return [*own, *([("beside the last", "-", "", self.no_change)] if self.no_change else [])]


def bin_rows(bins: Iterable[Bin]) -> list[tuple[str, str, str]]:
    return [(f"{one.predicted:.3f}", f"{one.observed:.3f}", str(one.pairs)) for one in bins]


def slice_rows(slices: Iterable[Slice]) -> list[tuple[str, str, str]]:
    return [(one.name or "not named", str(one.pairs), f"{one.accuracy:.3f}") for one in slices]


def _own(fit: Fit) -> list[Row]:
    agreed = "nobody judged what somebody else did"
    if fit.agreement:
        judged = _count(fit.agreement_pairs, "pair")
        agreed = f"on {judged} that several judged: accuracy can come to {best_accuracy(fit.agreement.mean):.3f}"
    slope = None if fit.length_slope is None else Interval(*(100 * value for value in fit.length_slope))
    return [
        _row("accuracy", fit.accuracy, "share of pairs in the rater's order; a coin has 0.5"),
        _row("agreement of raters", fit.agreement, agreed),
        _row("log-loss", fit.log_loss, "nats per pair; who knows nothing has 0.693"),
        _row(
            "log-loss with ties",
            fit.log_loss_with_ties,
            "nats per pair or tie" if fit.log_loss_with_ties else "no ties",
        ),
        _row("Brier score", fit.brier, "who knows nothing has 0.25"),
        _row("calibration error", fit.ece, "ECE: how far its probabilities are from what happens"),
        _row("Kendall's tau", fit.kendall_tau, "order of rankings, -1 to 1"),
        _row(
            "score per 100 tokens", slope, "of answers to one prompt; people's own taste for length is in it", sign="+"
        ),
    ]


def rating_rows(fit: RatingFit) -> list[Row]:
    """The figures of ratings, each with its interval and what to hold it against."""
    count = f"{_count(fit.ratings, 'rating')} of {_count(fit.prompts, 'prompt')}, {fit.approval:.0%} approval"
    return [
        _row("log-loss of ratings", fit.log_loss, f"nats on {count}; who knows nothing has 0.693"),
        _row("their entropy", fit.entropy, "what even a perfect model would have: people differ on an answer"),
        _row("their Brier score", fit.brier, "of the share of approval; who knows nothing has 0.25"),
    ]


def _beside(change: Change) -> list[Row]:
    prompts = f"on the same {_count(change.prompts, 'prompt')}"
    verdict = "worse" if change.worse else "better" if change.better else "no difference beyond chance"
    name = f"policy-v{change.version}"
    return [
        _row(f"log-loss less {name}'s", change.log_loss, f"{verdict}, {prompts}", sign="+"),
        _row(f"accuracy less {name}'s", change.accuracy, prompts, sign="+"),
    ]


def _row(name: str, interval: Interval | None, note: str, sign: str = "") -> Row:
    if interval is None:
        return name, "-", "", note
    value, low, high = (f"{number:{sign}.3f}" for number in interval)
    return name, value, f"{low} to {high}", note


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
