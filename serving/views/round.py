"""A training round on the screen: a list of rounds, one in full, one that runs, and lines for where nothing moves."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.table import Table

from feedback.rounds.book import STAGES, RoundBook, RoundRecord
from feedback.rounds.next_round import NextRound
from serving.views.listing import Listing

#: Of a stage that tells much, such as PPO, these: where a policy gains, what it pays, and how it would collapse.
SHOWN = {
    "objective/score": "score",
    "objective/kl": "KL",
    "objective/entropy": "entropy",
    "completion/length": "length",
}


def listing(records: list[RoundRecord]) -> Listing:
    headings = ("round", "state", "stage", "started", "took", "policy", "trigger", "reason")
    table = Listing(headings, "there has been no round yet: `ratchet train` starts one", frozenset({"reason"}))
    for record in records:
        policy = "" if record.policy_version is None else f"policy-v{record.policy_version}"
        started = f"{datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S}"
        row = (str(record.id), record.state, record.stage, started, _took(record), policy, record.trigger)
        table.add(*row, record.reason or "")
    return table


def in_full(record: RoundRecord) -> Table:
    """Everything known of a round."""
    table = live(record)
    for name, value in record.metrics.items():
        table.add_row(name, _show(value))
    return table


def live(record: RoundRecord) -> Table:
    """A round while it runs, in a line for each thing that moves."""
    table = Table("round", str(record.id))
    done = STAGES.index(record.stage) if record.stage in STAGES else 0
    table.add_row("state", record.state)
    table.add_row("stage", f"{record.stage} ({done + 1} of {len(STAGES)})")
    table.add_row("time", _took(record))
    if record.attempts > 1:
        table.add_row("attempts", str(record.attempts))
    if record.progress.get("total"):
        table.add_row("step", ", ".join(_steps(record.progress)))
        for name, value in figures(record.progress.get("metrics", {})).items():
            table.add_row(name, value)
    if record.reason:
        table.add_row("reason", record.reason)
    return table


def in_a_line(book: RoundBook) -> str | None:
    """The open round for `ratchet status`, with how far it is; None where there is none."""
    record = book.open_round()
    if record is None:
        return None
    far = line(record.progress)
    return f"{record.id} ({record.state}, {record.stage}{f' {far}' if far else ''})"


def ahead(next: NextRound) -> str:
    """`16 of 48 new judgements, or 2026-11-27 22:40 by schedule`: what the next round that starts by itself awaits."""
    scheduled = (
        "" if next.scheduled is None else f", or {datetime.fromtimestamp(next.scheduled):%Y-%m-%d %H:%M} by schedule"
    )
    return f"{next.judgements} of {next.needed} new judgements{scheduled}"


def line(progress: Mapping[str, Any]) -> str:
    """`3/6, 0:42 to go, score 0.512, KL 1.24, entropy 1.31, length 22.4`; empty before there are steps."""
    if not progress.get("total"):
        return ""
    told = [f"{name} {value}" for name, value in figures(progress.get("metrics", {})).items()]
    return ", ".join([*_steps(progress), *told])


def figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The main ones of a step by name: those of PPO, or all of a stage that has none of them."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    main = {label: numbers[name] for name, label in SHOWN.items() if name in numbers}
    return {name.rpartition("/")[2]: f"{value:.3g}" for name, value in (main or numbers).items()}


def _steps(progress: Mapping[str, Any]) -> list[str]:
    left = progress.get("eta_s") or 0.0  # after the last step nobody knows how long measuring takes
    return [f"{progress['step']}/{progress['total']}", *([f"{clock(left)} to go"] if left >= 1 else [])]


def _took(record: RoundRecord) -> str:
    return clock((record.finished or time.time()) - record.created)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_show(item)}" for name, item in value.items())
    if isinstance(value, list):
        return f"({len(value)})"  # such as a figure for each rater; `--json` shows them
    return str(value)
