"""What a child writes: all of it in its log file, what matters also on the terminal."""

import collections
import re
import threading
from pathlib import Path
from typing import IO

from serving.machine.terminal import Terminal

LOG_BYTES = 10_000_000
CAUSE = re.compile(r"error|fatal|cannot|can't|failed|denied|refused", re.IGNORECASE)


class ChildLog:
    """The log of one child over all its restarts; one older file is kept."""

    def __init__(self, path: Path, *, name: str, terminal: Terminal, shown: re.Pattern[str]) -> None:
        self.path = path
        self.muted = False
        self._name = name
        self._terminal = terminal
        self._shown = shown
        self._tail: collections.deque[str] = collections.deque(maxlen=200)

    def follow(self, stream: IO[bytes]) -> None:
        """Copy lines in the background until the last writer is gone."""
        threading.Thread(target=self._copy, args=(stream,), daemon=True).start()

    def cause(self) -> str:
        """The last line that looks like the cause of a death; empty if none does."""
        causes = [line for line in list(self._tail) if CAUSE.search(line)]
        return causes[-1][:200] if causes else ""

    def _copy(self, stream: IO[bytes]) -> None:
        file = self.path.open("ab", buffering=0)
        with stream:
            for raw in stream:
                if file.tell() > LOG_BYTES:
                    file.close()
                    self.path.replace(self.path.with_suffix(".log.1"))
                    file = self.path.open("ab", buffering=0)
                file.write(raw)
                self._notice(raw.decode(errors="replace").strip())
        file.close()

    def _notice(self, line: str) -> None:
        self._tail.append(line)
        if line and not self.muted and self._shown.search(line):
            self._terminal.relay(self._name, line)
