"""A rater as the command line and the API tell of one: what stands of theirs, what it weighs, how their checks went."""

import threading
from collections import Counter
from typing import Any

from feedback.archive import Archive
from feedback.people.checks import Checked, checked, suspects
from feedback.people.keys import source_of
from feedback.people.raters import RaterLine, Raters, RaterWeight
from feedback.store import FEEDBACK_IDS, Ledger


class RaterFacts:
    """What stands is read once for each state of the ledger: a gateway that parses all of it is slow to everybody."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._raters = ledger, Raters(ledger.redis)
        self._lock = threading.Lock()
        self._seen: tuple[str, int] | None = None
        self._said: dict[str, dict[str, Any]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One for each rater of whom a judgement stands, who is aside, or who trained in the last round.

        Most judgements first; checks are none.
        """
        said, weights, aside = self._standing(), self._raters.weights(), self._raters.quarantined()
        rows = [
            _row(rater, said.get(rater), weights.get(rater), aside.get(rater)) for rater in {**weights, **aside, **said}
        ]
        return sorted(rows, key=lambda row: (-row["judgements"], row["rater"]))

    def row(self, rater: str) -> dict[str, Any]:
        """Of one who is known, though nothing of theirs may stand."""
        rows = (row for row in self.rows() if row["rater"] == rater)
        return next(rows, None) or _row(rater, None, None, None)

    def _standing(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            # Every word, also one that was taken back, moves the first; what is erased, the second.
            seen = self._ledger.watermark(), int(self._ledger.redis.zcard(FEEDBACK_IDS))
            if seen != self._seen:
                self._said = _said(self._ledger, seen[0])
                self._seen = seen
            return self._said


def _said(ledger: Ledger, until: str) -> dict[str, dict[str, Any]]:
    """By rater what follows from the judgements that stand."""
    standing = ledger.standing(until)
    splits = {item.rater: item.split for item in standing}
    counts = Counter(item.rater for item in standing if not item.is_check)
    checks = checked(standing, Archive(ledger))
    suspected = suspects(checks)
    return {
        rater: {
            "split": split,
            "judgements": counts[rater],
            **_checked(checks.get(rater, Checked())),
            "suspected": suspected.get(rater, []),
        }
        for rater, split in splits.items()
    }


def _row(
    rater: str, said: dict[str, Any] | None, weight: RaterWeight | None, aside: RaterLine | None
) -> dict[str, Any]:
    nothing = {"split": "", "judgements": 0, **_checked(Checked()), "suspected": []}
    return {
        "rater": rater, "source": source_of(rater), **(said or nothing), **_weighed(weight),
        "quarantined": None if aside is None else aside.model_dump(),
    }  # fmt: skip


def _weighed(weight: RaterWeight | None) -> dict[str, Any]:
    names = ("agreement", "reliability", "share")
    return {name: getattr(weight, name, None) for name in names} | {"capped": weight is not None and weight.capped}


def _checked(checks: Checked) -> dict[str, Any]:
    """`side` is the share of left among those whom they preferred of what was laid blind."""
    chosen = checks.left + checks.right
    return {"checks": checks.told, "side": checks.left / chosen if chosen else None}
