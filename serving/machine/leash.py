"""A process that outlives the supervisor by seconds, to end what the supervisor can no longer end.

The supervisor may get SIGKILL, and vLLM's EngineCore survives the death of its own API server. So a child's
whole process group is named to this process; when the pipe to the supervisor breaks, the groups still named end.
Run as a script, with nothing of the project imported, so that it starts in milliseconds and cannot fail with us.
"""

import os
import signal
import subprocess
import sys
import time

GRACE_S = 5.0


class Leash:
    """Holds process groups until they are released; `close` lets go of all that is left, killing it."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._process = self._start()

    def hold(self, group: int) -> None:
        self._held.add(group)
        self._send(f"+{group}\n")

    def release(self, group: int) -> None:
        self._held.discard(group)
        self._send(f"-{group}\n")

    def close(self) -> None:
        """End the process; groups still held get SIGTERM, then SIGKILL."""
        self._process.communicate()

    def _start(self) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)

    def _send(self, line: str) -> None:
        try:
            self._write(line)
        except BrokenPipeError:  # somebody killed it: a new one learns everything again
            self._process.wait()
            self._process = self._start()
            self._write("".join(f"+{group}\n" for group in self._held))

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()


def signal_group(group: int, number: int) -> bool:
    """False when no process of the group is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _watch() -> None:
    held: set[int] = set()
    for line in sys.stdin.buffer:
        (held.add if line.startswith(b"+") else held.discard)(int(line[1:]))
    left = {group for group in held if signal_group(group, signal.SIGTERM)}
    deadline = time.monotonic() + GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = {group for group in left if signal_group(group, 0)}
    for group in left:
        signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    _watch()
