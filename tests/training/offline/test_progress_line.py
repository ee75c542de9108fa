"""The line that tells on a terminal how far a command is."""

import fcntl
import os
import pty
import struct
import termios

import pytest

from training.offline.progress_line import ProgressLine, described

METRICS = {
    "objective/score": -0.123, "objective/kl": 1.234, "objective/entropy": 2.345, "completion/length": 30.125,
}  # fmt: skip
LINE = "ppo 12/20, score -0.123, kl 1.234, entropy 2.345, length 30.125, 20 s each, 2:40 to go"


def test_a_slow_step_is_told_in_seconds() -> None:
    assert described("ppo", 12, 20, METRICS, elapsed_s=240, first=0) == LINE
    assert described("ppo", 12, 20, {}, elapsed_s=24, first=0) == "ppo 12/20, 0.50/s, 0:16 to go"


def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 columns, which stderr is; stdout is none."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        line = ProgressLine()
        line.show(LINE)
        line.show("gate 1/2")
        line.end()
        written = b""
        while written.count(b"\r") < 4:  # the kernel passes on what was written in its own time
            written += os.read(ours, 4096)
    os.close(ours)
    assert written.decode().split("\r") == ["", LINE[:59], "gate 1/2".ljust(59), " " * 8, ""]


def test_a_log_has_each_step_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not 20 s later; what only lives in between is told now and then, and so are steps of which a second has many."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    line = ProgressLine()

    def told(after_s: float, step: int) -> str:
        clock.now += after_s
        line("ppo", step, 9, {})
        return capsys.readouterr().err.partition(",")[0].strip()

    begun = [told(0, 0), told(2, 0), told(2, 1), told(2, 1), told(18, 1)]
    assert begun == ["ppo 0/9", "", "ppo 1/9", "", "ppo 1/9"]
    fast = [told(1.5, 2), told(0.1, 3), told(1, 3), told(0.1, 9), told(2, 9)]
    assert fast == ["ppo 2/9", "", "ppo 3/9", "ppo 9/9", ""]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now
