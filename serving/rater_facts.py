"""A rater as the command line and the API tell of one: what stands of theirs, what it weighs, how their checks went."""

from typing import Any

from redis import Redis

from feedback.archive import Archive
from feedback.checks import Checked, checked, suspects
from feedback.keys import source_of
from feedback.raters import RaterLine, Raters, RaterWeight
from feedback.store import Ledger


def described(redis: Redis) -> list[dict[str, Any]]:
    """One row for each rater of whom a judgement stands, who is aside, or who trained in the last round.

    Most judgements first; checks are none.
    """
    ledger, raters = Ledger(redis), Raters(redis)
    weights, aside = raters.weights(), raters.quarantined()
    counts: dict[str, int] = dict.fromkeys([*weights, *aside], 0)
    splits: dict[str, str] = {}
    standing = ledger.standing(ledger.watermark())
    for item in standing:
        counts[item.rater] = counts.get(item.rater, 0) + (not item.is_check)
        splits[item.rater] = item.split
    checks = checked(standing, Archive(ledger))
    suspected = suspects(checks)
    return [
        {
            "rater": rater,
            "source": source_of(rater),
            "split": splits.get(rater, ""),
            "judgements": count,
            **_weighed(weights.get(rater)),
            **_checked(checks.get(rater, Checked())),
            "suspected": suspected.get(rater, []),
            "quarantined": _aside(aside.get(rater)),
        }
        for rater, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def described_one(redis: Redis, rater: str) -> dict[str, Any]:
    """The row of one who is known, though nothing of theirs may stand."""
    rows = (row for row in described(redis) if row["rater"] == rater)
    return next(rows, None) or {
        "rater": rater, "source": source_of(rater), "split": "", "judgements": 0, **_weighed(None),
        **_checked(Checked()), "suspected": [], "quarantined": None,
    }  # fmt: skip


def _weighed(weight: RaterWeight | None) -> dict[str, Any]:
    names = ("agreement", "reliability", "share")
    return {name: getattr(weight, name, None) for name in names} | {"capped": weight is not None and weight.capped}


def _checked(checks: Checked) -> dict[str, Any]:
    """`side` is the share of left among those whom they preferred of what was laid blind."""
    chosen = checks.left + checks.right
    return {"checks": checks.told, "side": checks.left / chosen if chosen else None}


def _aside(line: RaterLine | None) -> dict[str, Any] | None:
    return None if line is None else line.model_dump()
