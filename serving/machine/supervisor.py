"""Runs the parts of Ratchet on one machine: starts them in order, restarts what dies, ends all together."""

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

from serving.machine.childlog import ChildLog
from serving.machine.children import CannotStart, Child, ChildSpec, Command, start_group
from serving.machine.leash import Leash, signal_group
from serving.machine.terminal import Terminal

TICK_S = 0.1
EVERYTHING = re.compile("")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The operator asked to end."""


class Guest(Protocol):
    """Tends a child that comes and goes, and sees to its failures itself."""

    child: Child | None

    def tend(self) -> None: ...


class Supervisor:
    """Children that live as long as the `with` block, and not longer, however it ends.

    Must be used in the main thread (it handles signals).
    """

    def __init__(self, logs_dir: Path, terminal: Terminal, *, verbose: bool = False) -> None:
        self._logs_dir = logs_dir
        self._terminal = terminal
        self._verbose = verbose
        self._children: list[Child] = []
        self._guest: Guest | None = None
        self._stop = threading.Event()
        self._signals = 0

    def __enter__(self) -> Self:
        self._logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._leash = Leash()
        self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_children()
        self._leash.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def bring_up(self, spec: ChildSpec) -> None:
        """Start a child and return when it is ready. Raises CannotStart or Stopped."""
        child = self.child_of(spec)
        self._children.append(child)
        self.wait_until(lambda: child.is_ready, spec.name)

    def child_of(self, spec: ChildSpec) -> Child:
        """A child that has not been started. Whoever keeps it tends it."""
        log = ChildLog(
            self._logs_dir / f"{spec.name}.log",
            name=spec.name,
            terminal=self._terminal,
            shown=EVERYTHING if self._verbose else spec.shown,
        )
        return Child(spec, leash=self._leash, terminal=self._terminal, log=log)

    def wait_until(self, done: Callable[[], bool], what: str) -> None:
        """Tend the children until `done`. Raises CannotStart or Stopped."""
        started = time.monotonic()
        with self._terminal.waiting(f"{what} …") as status:
            while not done():
                if status is not None:
                    status.update(f"{what} … {time.monotonic() - started:.0f} s")
                self._tick()

    def run(self, name: str, command: Command, hint: str) -> None:
        """Run a process to its end in the foreground. Raises CannotStart when it fails, or Stopped."""
        process = start_group(command, self._leash, foreground=True)
        try:
            while process.poll() is None:
                self._tick()
        finally:
            signal_group(process.pid, signal.SIGKILL)
            self._leash.release(process.pid)
            process.wait()
        if process.returncode:
            raise CannotStart(f"{name} ended with exit code {process.returncode}. {hint}")

    def host(self, guest: Guest) -> None:
        """Tend it from now on, and end its child with the others."""
        self._guest = guest

    def watch(self) -> None:
        """Keep the children running until somebody asks to end. Raises Stopped."""
        while True:
            self._tick()

    def _tick(self) -> None:
        for child in self._children:
            child.tend()
        if self._guest is not None:
            self._guest.tend()
        if self._stop.wait(TICK_S):
            raise Stopped

    def _end_children(self) -> None:
        """Phase by phase, the highest first; what is left after its grace gets SIGKILL, groups and all."""
        guest = None if self._guest is None else self._guest.child
        children = [*self._children, *([] if guest is None else [guest])]
        if children:
            self._terminal.say("ending …")
        for phase in sorted({child.spec.stop_phase for child in children}, reverse=True):
            ending = [child for child in children if child.spec.stop_phase == phase]
            began = time.monotonic()
            for child in reversed(ending):
                child.terminate()
            while left := [child for child in ending if not child.is_gone()]:
                for child in left:
                    if self._signals > 1 or time.monotonic() - began > child.spec.grace_s:
                        child.kill()
                time.sleep(TICK_S / 5)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first asks to end; a second one ends at once."""
        self._signals += 1
        self._stop.set()
