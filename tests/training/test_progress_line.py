"""The line that tells on a terminal how far a command is."""

import fcntl
import os
import pty
import struct
import termios

import pytest

from training.progress_line import ProgressLine, described

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
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        line = ProgressLine()
        line.show(LINE)
        line.show("gate 1/2")
        line.end()
        written = os.read(ours, 4096).decode().split("\r")
    os.close(ours)
    assert written == ["", LINE[:59], "gate 1/2".ljust(59), " " * 8, ""]
