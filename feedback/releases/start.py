"""How releases begin: an operator asks, or once the round that made the candidate. Who decides is settled then."""

import time
from typing import Literal

from feedback.judgements import Comparison, Ranking
from feedback.people.keys import source_of
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import Mode, Release, ReleaseBook, ReleaseMoved
from feedback.releases.plan import Plan
from feedback.store import Ledger

RECENT_S = 30 * 86400.0
ATTEMPTS = 5


def begin_release(
    ledger: Ledger, registry: PolicyRegistry, candidate: int, plan: Plan, *, mode: Mode, actor: str, reason: str,
    seen: Release | None,
) -> Release:  # fmt: skip
    """Begin to release `candidate` in place of `seen`, the open release if there is one.

    What was said before counts for nothing. Raises what ReleaseBook.start raises.
    """
    whose, since = electorate(ledger, plan), ledger.watermark()
    return ReleaseBook(registry).start(
        candidate, plan, mode=mode, whose=whose, since=since, actor=actor, reason=reason, seen=seen,
        voters=able(ledger, whose),
    )  # fmt: skip


def begin_once(
    ledger: Ledger, registry: PolicyRegistry, candidate: int, plan: Plan, *, mode: Mode, actor: str, reason: str
) -> Release | None:
    """The same for a candidate that never had a release, whatever is open; its release if it has had one.

    None while releases are frozen. Raises UnknownPolicy, NotReleasable, PointerMoved, or ReleaseMoved when others kept
    changing what is open.
    """
    book = ReleaseBook(registry)
    for attempt in range(ATTEMPTS):
        if (known := _release_of(book, candidate)) is not None or book.is_frozen():
            return known
        try:
            return begin_release(
                ledger, registry, candidate, plan, mode=mode, actor=actor, reason=reason, seen=book.open()
            )
        except ReleaseMoved:
            if attempt == ATTEMPTS - 1:
                raise
    return None


def electorate(ledger: Ledger, plan: Plan) -> Literal["evaluation", "all"]:
    """Whose votes decide: "auto" is the evaluation raters' where enough of them compared answers lately."""
    if plan.raters != "auto":
        return plan.raters
    return "evaluation" if len(voters(ledger, "evaluation", time.time())) >= plan.least_evaluators else "all"


def voters(ledger: Ledger, whose: Literal["evaluation", "all"], until: float) -> set[str]:
    """Who compared answers in the month before a time, as far as they may decide."""
    first, last = (f"{max(int(at * 1000), 0)}-0" for at in (until - RECENT_S, until))
    splits = ("eval",) if whose == "evaluation" else ("train", "eval")
    said = {
        item.rater
        for _, item in ledger.feedback_between(first, last)
        if item.split in splits and isinstance(item.judgement, Comparison | Ranking)
    }
    return said - Raters(ledger.redis).quarantined().keys()


def able(ledger: Ledger, whose: Literal["evaluation", "all"]) -> int:
    """How many may vote from now on; 0 where nobody knows.

    Those who compared answers lately. Where nobody has, as after an import, everybody who has chatted: else all the
    votes of a small team would be those of a few strangers, which decide nothing, however bad the candidate.
    """
    known = len(voters(ledger, whose, time.time()))
    return known or (len(_chatters(ledger)) if whose == "all" else 0)


def _chatters(ledger: Ledger) -> set[str]:
    raters = {key.partition(":")[2] for key in ledger.redis.scan_iter("conversations:*", count=1000)}
    return {rater for rater in raters if source_of(rater) != "import"} - Raters(ledger.redis).quarantined().keys()


def _release_of(book: ReleaseBook, candidate: int) -> Release | None:
    """Its last one, be it open or over."""
    lines = [line.release for line in book.history() if line.release.candidate == candidate]
    return book.get(lines[-1].id) if lines else None
