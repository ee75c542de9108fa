"""What a round that starts by itself still waits for."""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Literal

from feedback.judgements import Feedback, teaches
from feedback.people.raters import Raters
from feedback.records import Record
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger

BATCH = 100


class NextRound(Record):
    """`judgements` that stand and may train are new, of the `needed` ones that start a round (more are not counted);
    with any, the schedule starts one at `scheduled` (Unix seconds; None without a schedule)."""

    judgements: int
    needed: int
    scheduled: float | None = None

    def due(self, now: float) -> Literal["count", "schedule"] | None:
        """Why a round should start now."""
        if self.judgements >= self.needed:
            return "count"
        return "schedule" if self.scheduled is not None and now >= self.scheduled else None


def next_round(settings: Settings, book: RoundBook, ledger: Ledger) -> NextRound:
    """New is what was said since the newest round that looked, whatever became of it: a round that failed is not
    repeated by itself on the very same feedback. Before any round the schedule runs from the first judgement."""
    since = next((round.watermark for round in book.newest_first() if round.watermark), "0")
    fresh = list(islice(_standing(ledger, since, Raters(ledger.redis).quarantined()), settings.min_rankings))
    scheduled = None
    if settings.round_every_minutes and fresh:
        newest = next(book.newest_first(), None)
        last = newest.created if newest else fresh[0].created
        scheduled = last + settings.round_every_minutes * 60
    return NextRound(judgements=len(fresh), needed=settings.min_rankings, scheduled=scheduled)


def _standing(ledger: Ledger, since: str, aside: Collection[str]) -> Iterator[Feedback]:
    """What may train of what was said after a cursor, in that order: neither revised nor taken back by now."""
    said = (item for _, item in ledger.feedback_between(since) if item.rater not in aside)
    may_train = (item.id for item in said if item.split == "train" and not item.is_check and teaches(item.judgement))
    while batch := list(islice(may_train, BATCH)):
        yield from (each.feedback for each in ledger.kept(batch) if each.stands)
