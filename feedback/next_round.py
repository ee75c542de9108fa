"""What a round that starts by itself still waits for."""

from itertools import islice
from typing import Literal

from feedback.records import Record
from feedback.rounds import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger


class NextRound(Record):
    """`judgements` that may train are new, of the `needed` ones that start a round (more are not counted); with any,
    the schedule starts one at `scheduled` (Unix seconds; None without a schedule)."""

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
    said = (item for _, item in ledger.feedback_between(since))
    fresh = list(islice((item for item in said if item.split == "train" and not item.is_check), settings.min_rankings))
    scheduled = None
    if settings.round_every_minutes and fresh:
        newest = next(book.newest_first(), None)
        last = newest.created if newest else fresh[0].created
        scheduled = last + settings.round_every_minutes * 60
    return NextRound(judgements=len(fresh), needed=settings.min_rankings, scheduled=scheduled)
