"""One supervised process: how it is started, whether it answers, how it ends."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.machine.childlog import ChildLog
from serving.machine.leash import Leash, signal_group
from serving.machine.terminal import Terminal

WARNINGS = re.compile(r"\b(WARNING|ERROR|CRITICAL|FATAL)\b", re.IGNORECASE)
ATTEMPTS = 3
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_S = 60.0
CHECK_EVERY_S = 5.0


class CannotStart(RuntimeError):
    """Nothing more can be done without the operator; the message is one line with the next step."""


class NotYet(RuntimeError):
    """The command cannot be built now, for a cause that may pass."""


@dataclass(frozen=True)
class Command:
    """A process to start; `env` is added to the supervisor's own environment."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to supervise.

    `command` is asked before every start (the policy to load may have changed) and may raise NotYet. `ready` must
    answer within about two seconds. Children of a higher `stop_phase` end first, and get `grace_s` between SIGTERM
    and SIGKILL. A child that was ready and then does not answer for `unresponsive_s` is killed and restarted.
    """

    name: str
    command: Callable[[], Command]
    ready: Callable[[], bool]
    ready_timeout_s: float
    hint: str
    stop_phase: int = 2
    grace_s: float = 9.0
    nice: int = 0
    shown: re.Pattern[str] = WARNINGS
    unresponsive_s: float | None = None


class Child:
    """Keeps one process running. All methods belong to the supervisor's thread."""

    def __init__(self, spec: ChildSpec, *, leash: Leash, terminal: Terminal, log: ChildLog) -> None:
        self.spec = spec
        self.log = log
        self.is_ready = False
        self._leash = leash
        self._terminal = terminal
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False
        self._failures = 0
        self._start_at = 0.0
        self._started = 0.0
        self._ready_since = 0.0
        self._answered = 0.0
        self._asked = 0.0

    def tend(self) -> None:
        """Look once, and do what is due: start, notice readiness, silence or an exit. Raises CannotStart."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._start()
        elif (code := self._reap(self._process)) is not None:
            self._failed(f"ended with exit code {code}")
        elif not self.is_ready:
            self._await_readiness()
        elif self.spec.unresponsive_s is not None:
            self._await_answer(self.spec.unresponsive_s)

    def terminate(self) -> None:
        """Ask it to end."""
        self.log.muted = True
        if self._process is not None and self._reap(self._process) is None:
            self._process.terminate()

    def is_gone(self) -> bool:
        return self._process is None or self._reap(self._process) is not None

    def kill(self) -> None:
        """End the whole process group now."""
        if self._process is not None and self._process.returncode is None:
            signal_group(self._process.pid, signal.SIGKILL)
            self._reap(self._process, block=True)

    def _start(self) -> None:
        self._started = time.monotonic()
        try:
            command = self.spec.command()
        except NotYet as error:
            self._failed(f"cannot start: {error}")
            return
        self._process = start_group(command, self._leash)
        if self.spec.nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, self.spec.nice)
        assert self._process.stdout is not None
        self.log.follow(self._process.stdout)

    def _await_readiness(self) -> None:
        now = time.monotonic()
        if self.spec.ready():
            self._terminal.ready(self.spec.name, now - self._started, "again" if self._was_ready else "")
            self.is_ready = self._was_ready = True
            self._ready_since = self._answered = now
        elif now - self._started > self.spec.ready_timeout_s:
            self.kill()
            self._failed(f"not ready within {self.spec.ready_timeout_s:.0f} s", last=True)

    def _await_answer(self, limit_s: float) -> None:
        now = time.monotonic()
        if now - self._asked < CHECK_EVERY_S:
            return
        self._asked = now
        if self.spec.ready():
            self._answered = now
        elif now - self._answered > limit_s:
            self.kill()
            self._failed(f"did not answer for {limit_s:.0f} s")

    def _failed(self, what: str, *, last: bool = False) -> None:
        """Plan the restart, later after each failure in a row; give up on what has never been ready."""
        now = time.monotonic()
        recovered = self.is_ready and now - self._ready_since > HEALTHY_S
        self._failures = 1 if recovered else self._failures + 1
        self._process, self.is_ready = None, False
        if not self._was_ready and (last or self._failures >= ATTEMPTS):
            cause = self.log.cause()
            said = f" (it said: {cause})" if cause else ""
            raise CannotStart(f"{self.spec.name} {what}{said}. {self.spec.hint} Log: {self.log.path}")
        delay_s = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
        self._start_at = now + delay_s
        self._terminal.trouble(self.spec.name, f"{what}; again in {delay_s:.0f} s; log: {self.log.path}")

    def _reap(self, process: "subprocess.Popen[bytes]", *, block: bool = False) -> int | None:
        """The exit code, once it has ended. The rest of its group ends before it is reaped: until then its
        number cannot belong to anybody else."""
        if process.returncode is None:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG)) is None:
                return None
            signal_group(process.pid, signal.SIGKILL)
            self._leash.release(process.pid)
        return process.wait()


def start_group(command: Command, leash: Leash, *, foreground: bool = False) -> "subprocess.Popen[bytes]":
    """Start a process as the leader of its own group: Ctrl-C does not reach it, SIGKILL reaches all of it.

    In the foreground it writes to our own terminal, else to a pipe.
    """
    process = subprocess.Popen(
        command.argv,
        env=os.environ | command.env,
        stdin=subprocess.DEVNULL,
        stdout=None if foreground else subprocess.PIPE,
        stderr=None if foreground else subprocess.STDOUT,
        start_new_session=True,
        umask=0o077,
    )
    leash.hold(process.pid)
    return process
