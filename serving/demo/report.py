"""What a demo found: the numbers, the verdict, and how both are printed."""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from feedback.statistics import Interval

Verdict = Literal["improved", "unclear", "requests failed", "refused", "failed", "not served", "out of time", "stopped"]

PLAIN_LINE_EVERY_S = 20.0


@dataclass(frozen=True)
class Traffic:
    """The chats that ran in the background all through; gaps are between two tokens of one stream, in seconds."""

    chats: int = 0
    failures: tuple[str, ...] = ()
    longest_first_token_s: float = 0.0
    longest_gap_s: float = 0.0
    chats_during_swap: int = 0
    longest_gap_during_swap_s: float | None = None


@dataclass(frozen=True)
class DemoReport:
    """`before` and `after` are mean hidden preferences per held-out prompt, in the same order, in [0, 1]."""

    preference: str
    seed: int
    verdict: Verdict
    reason: str
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    change: Interval | None = None
    example: Mapping[str, str] = field(default_factory=dict)
    rankings: int = 0
    round: int | None = None
    policies_before: tuple[int, ...] = ()
    policies_after: tuple[int, ...] = ()
    reward_accuracy: float | None = None
    reward_prompts: int = 0  # whose rankings the reward model never saw
    kl: float | None = None  # nats per completion
    swap_pause_s: float | None = None  # the engine stood still
    swap_held_s: float | None = None  # clients saw nothing new
    traffic: Traffic = Traffic()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: better beyond doubt and nothing failed. 1: not so. 3: no new policy came to serve."""
        return {"improved": 0, "unclear": 1, "requests failed": 1, "stopped": 1}.get(self.verdict, 3)


class ProgressLine:
    """One live line on a terminal; elsewhere a plain line as each phase starts, and every 20 s one that says more."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._phase = self._said = ""
        self._printed = 0.0

    def show(self, phase: str, note: str) -> None:
        text = Text(f"{phase}: {note}")
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif text.plain != self._said and (
            phase != self._phase or time.monotonic() - self._printed >= PLAIN_LINE_EVERY_S
        ):
            self._phase, self._said, self._printed = phase, text.plain, time.monotonic()
            self._console.print(text)

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()


def judge(change: Interval, traffic: Traffic) -> tuple[Verdict, str]:
    """Failed chats weigh more than any improvement."""
    if traffic.failures:
        return "requests failed", f"{len(traffic.failures)} background chats failed, first: {traffic.failures[0]}"
    if change.low > 0:
        return "improved", "the 95% interval of the change lies above zero"
    if change.high < 0:
        return "unclear", "the answers got worse by the hidden preference"
    return "unclear", "the 95% interval of the change includes zero"


def write_json(report: DemoReport, path: Path) -> None:
    """Everything in the report, raw values per prompt included."""
    content = dataclasses.asdict(report)
    content["change"] = report.change and report.change._asdict()
    path.write_text(json.dumps({**content, "exit_code": report.exit_code}, indent=1, ensure_ascii=False) + "\n")


def show(report: DemoReport, console: Console) -> None:
    """The table, an example, and the verdict in plain words."""
    table = Table("", "value", title=f"ratchet demo --preference {report.preference} --seed {report.seed}")
    table.columns[1].justify = "right"
    for name, value in _rows(report):
        table.add_row(name, Text(value))
    console.print(table)
    for name, text in report.example.items():
        console.print(Text.assemble((f"{name:>7}  ", "dim"), " ".join(text.split())))
    style = "bold green" if report.exit_code == 0 else "bold red"
    console.print(Text.assemble((report.verdict, style), f": {report.reason}"))


def _rows(report: DemoReport) -> list[tuple[str, str]]:
    traffic = report.traffic
    change = report.change
    interval = "-" if change is None else f"{change.mean:+.3f}  [{change.low:+.3f}, {change.high:+.3f}]"
    return [
        (f"hidden preference before ({len(report.before)} held-out prompts)", _number(_mean(report.before))),
        ("hidden preference after (same prompts and seeds)", _number(_mean(report.after))),
        ("change, paired, with bootstrap 95% CI", interval),
        ("rankings given", str(report.rankings)),
        (
            f"reward-model accuracy on held-out rankings ({report.reward_prompts} prompts)",
            _number(report.reward_accuracy),
        ),
        ("KL to the reference, nats per completion", _number(report.kl)),
        ("policy version", f"{_versions(report.policies_before)} → {_versions(report.policies_after)}"),
        ("swap: the engine stood still", _seconds(report.swap_pause_s)),
        ("swap: clients saw nothing new", _seconds(report.swap_held_s)),
        ("background chats: total / failed", f"{traffic.chats} / {len(traffic.failures)}"),
        ("longest wait for a first token", _seconds(traffic.longest_first_token_s)),
        ("longest gap between two tokens", _seconds(traffic.longest_gap_s)),
        (f"… in the {traffic.chats_during_swap} chats around the swap", _seconds(traffic.longest_gap_during_swap_s)),
        *[(f"time: {phase}", f"{seconds:.1f} s") for phase, seconds in report.seconds.items()],
        ("time: all", f"{sum(report.seconds.values()):.1f} s"),
    ]


def _mean(values: tuple[float, ...]) -> float | None:
    return sum(values) / len(values) if values else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _versions(versions: tuple[int, ...]) -> str:
    return ", ".join(f"v{version}" for version in versions) or "-"
