"""How far a command is, on stderr: one line that changes on a terminal, elsewhere one for each step or now and then."""

import os
import sys
import time
from types import TracebackType
from typing import Self

EVERY_S = 0.2
PLAIN_LINE_EVERY_S = 20.0  # while no step is done
PLAIN_STEP_EVERY_S = 1.0  # what follows a log sees each step when it is done, unless there are many in a second
USUAL_COLUMNS = 80
#: Of a stage that tells much, such as PPO, the line has room for these.
SHOWN = ("objective/score", "objective/kl", "objective/entropy", "completion/length")


class ProgressLine:
    """Call it with (stage, step, total, metrics) as often as you like, or show what is done before there are steps."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown, self._phase, self._width = 0.0, "", 0
        self._told = ("", 0)  # the stage and its step that a line was written of last
        self._stage, self._start = "", (0.0, 0)  # (time, step) where this process began it: a run may go on midway
        self._metrics: dict[str, float] = {}  # of the last step: they stay to be seen until the next
        self.where: str | None = None  # a run stands, once it has told of a step that is done

    def __call__(self, stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if stage != self._stage:
            # The first step is told when it is done, and what came before it is no measure of its time.
            self._stage, self._start, self._metrics = stage, (now, step), {}
        self._metrics = metrics or self._metrics
        if step:
            self.where = f"after step {step} of {total} ({stage})"
        text = described(stage, step, total, self._metrics, elapsed_s=now - self._start[0], first=self._start[1])
        done = (stage, step) != self._told
        if self._line(text, 0.0 if done and step == total else self._pause(done)):
            self._told = (stage, step)

    def show(self, text: str) -> None:
        """What is done now; the first word is its phase."""
        self._line(text, self._pause())

    def _pause(self, done: bool = False) -> float:
        """Seconds between two lines of a phase; shorter when a step is done that none has told of."""
        if self._terminal:
            return EVERY_S
        return PLAIN_STEP_EVERY_S if done else PLAIN_LINE_EVERY_S

    def _line(self, text: str, pause: float) -> bool:
        """Whether it was written: the last one of its phase was so long ago."""
        now, phase = time.monotonic(), text.split()[0]
        if phase == self._phase and now - self._shown < pause:
            return False
        self._phase, self._shown = phase, now
        if self._terminal:
            room = _columns() - 1
            text = text[:room]  # of a line that wraps, only the end would be replaced
            sys.stderr.write(f"\r{text.ljust(min(self._width, room))}")
            self._width = len(text)
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        return True

    def tell(self, text: str) -> None:
        """Something that stays to be read."""
        self.end()
        sys.stderr.write(f"{text}\n")

    def end(self) -> None:
        """Leave the line, so that something else can be written."""
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
            self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def described(stage: str, step: int, total: int, metrics: dict[str, float], *, elapsed_s: float, first: int) -> str:
    """`reward 12/48, loss 0.612, 1.32/s, 0:27 to go`; of slow steps `20 s each`, of the first no rate."""
    parts = [f"{stage} {step}/{total}"]
    shown = {name: metrics[name] for name in SHOWN if name in metrics} or metrics
    parts += [f"{name.rpartition('/')[2]} {value:.3f}" for name, value in shown.items()]
    if step > first and elapsed_s > 0:
        rate = (step - first) / elapsed_s
        left = round((total - step) / rate)
        pace = f"{rate:.2f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each"
        parts += [pace, f"{left // 60}:{left % 60:02d} to go"]
    return ", ".join(parts)


def _columns() -> int:
    """Of the terminal that stderr is; stdout may be a file."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    except OSError:
        return USUAL_COLUMNS
