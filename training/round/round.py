"""One turn of the loop: claim the round, run its stages one after another in child processes, end it.

The round book decides who may work; a worker that is killed anywhere leaves only what its successor can go on from.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from feedback.hardware import TRAINING_ENVIRONMENT
from feedback.policies.registry import PolicyRegistry
from feedback.retention import Retention
from feedback.rounds.book import MAX_ATTEMPTS, STAGES, LeaseLost, RoundBook, RoundRecord
from feedback.settings import Settings
from feedback.store import Ledger
from training.round.cancelled import clear
from training.round.publish import discard
from training.workspace import Outcome, Workspace

log = logging.getLogger("training.round")

LEASE_S = 15.0
RENEW_S = 4.0
POLL_S = 0.2
#: Before the second attempt; twice as long before each one after it.
PAUSE_S = 0.5


class Stopped(RuntimeError):
    """The worker was told to stop; the round waits for the next one."""


class StageCrashed(RuntimeError):
    """A stage's process died without an outcome."""


def run_round(
    settings: Settings, redis: Redis, round_id: int, *, owner: str, stopping: threading.Event | None = None
) -> RoundRecord | None:
    """Work on a round until it ends, is lost, or `stopping` is set; None when it was not free in the first place.

    A crashed stage is tried again from its checkpoint, `MAX_ATTEMPTS` times in all, after ever longer pauses.
    """
    book = RoundBook(redis)
    worked = False
    while (token := book.claim(round_id, owner=owner, lease_s=LEASE_S)) is not None:
        worked = True
        try:
            _attempt(Turn(settings, book, round_id, token, stopping or threading.Event()))
        except LeaseLost as error:
            log.warning("%s", error)  # and if nobody has it now, it starts again here
    record = book.get(round_id) if worked else None
    if record is not None and record.state == "cancelled":
        log.info("round %d: %s", round_id, record.reason)
        clear(settings, redis, record)
    return record


def _attempt(turn: "Turn") -> None:
    """Run the round under a lease, and give the lease back when it did not come to its end."""
    try:
        with Lease(turn.book, turn.round_id, turn.token) as lease:
            turn.run(lease)
    except StageCrashed as error:
        log.warning("round %d: %s", turn.round_id, error)
        turn.write(lease_s=0.0, reason=str(error))
    except (Stopped, KeyboardInterrupt):
        turn.write(lease_s=0.0, attempts=0)  # stopping is not failing
        raise


class Lease:
    """Renews the lease in a thread; `lost` is set once the round may belong to somebody else."""

    def __init__(self, book: RoundBook, round_id: int, token: int) -> None:
        self._book, self._round_id, self._token = book, round_id, token
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{round_id}", daemon=True)
        self.lost = threading.Event()

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._done.wait(RENEW_S):
            try:
                self._book.write(self._round_id, self._token, lease_s=LEASE_S)
                renewed = time.monotonic()
            except LeaseLost:
                break
            except RedisError:  # also of a server that is there but takes no writes, as on a full disk
                if time.monotonic() - renewed > LEASE_S:
                    break
        else:
            return
        self.lost.set()


@dataclass(frozen=True)
class Turn:
    """A round as the holder of one token works on it."""

    settings: Settings
    book: RoundBook
    round_id: int
    token: int
    stopping: threading.Event

    def run(self, lease: Lease) -> None:
        """Run what has not ended yet; raises StageCrashed, LeaseLost or Stopped."""
        record = self._record()
        self._forget(record)
        if record.attempts > MAX_ATTEMPTS:
            last = record.reason or "the worker died"
            return self._finish("failed", f"{record.stage} given up after {MAX_ATTEMPTS} attempts; last: {last}")
        self._pause(record.attempts, lease)
        if record.watermark is None:
            self.write(watermark=Ledger(self.book.redis).watermark())
        metrics: dict[str, Any] = {}
        for stage in STAGES:
            known = self._workspace.outcome(stage)
            outcome = known or self._stage(stage, lease)
            metrics[stage] = outcome.metrics
            # The next stage's first attempt; a stage that ended in an earlier one gives no new ones.
            self.write(metrics=metrics, **({} if known else {"attempts": 1}))
            if outcome.state != "done":
                return self._finish(outcome.state, outcome.reason)
        return self._finish("published", outcome.metrics["note"])

    def _forget(self, record: RoundRecord) -> None:
        """Nothing is left of what was trained on erased data, be it finished or half written."""
        self._workspace.forget()
        if record.abandoned is not None:
            discard(PolicyRegistry(self.book.redis, self.settings.policies_dir), record.abandoned)

    def _pause(self, attempts: int, lease: Lease) -> None:
        """What killed an attempt may pass, such as a lack of memory; trying again at once would not let it."""
        end = time.monotonic() + (PAUSE_S * 2 ** (attempts - 2) if attempts > 1 else 0.0)
        while time.monotonic() < end:
            self._check(lease)
            time.sleep(POLL_S)

    def _stage(self, stage: str, lease: Lease) -> Outcome:
        """The outcome of a stage, from a child process run now."""
        self.write(stage=stage, progress={"stage": stage, "step": 0, "total": 0})
        code = watch(self._spawn(stage), partial(self._check, lease))
        outcome = self._workspace.outcome(stage)
        if outcome is None:
            raise StageCrashed(self._cause(stage, code))
        return outcome

    def _spawn(self, stage: str) -> subprocess.Popen[bytes]:
        return start_child(self.settings, "stage", stage, "--round", str(self.round_id), "--token", str(self.token))

    def _check(self, lease: Lease) -> None:
        """Raises LeaseLost or Stopped when this worker may not go on."""
        if lease.lost.is_set():
            raise LeaseLost(f"round {self.round_id}: token {self.token} lost its lease")
        if self.stopping.is_set():
            raise Stopped(f"round {self.round_id} waits for the next worker")

    def _cause(self, stage: str, code: int) -> str:
        if code < 0:
            return f"{stage} was killed by {signal.Signals(-code).name}"
        return f"{stage}: {self._workspace.error(stage, self.token) or f'exit status {code}'}"

    def _finish(self, state: Any, reason: str) -> None:
        """What people said goes first: nobody looks at a round that has ended, and one still open is taken up again."""
        self.write()  # raises LeaseLost: whoever has the round now may need the files
        self._workspace.tidy()
        self.book.finish(self.round_id, self.token, state, reason=reason)
        log.info("round %d %s: %s", self.round_id, state, reason)
        Retention(PolicyRegistry(self.book.redis, self.settings.policies_dir)).sweep(self.settings.keep_policies)

    def _record(self) -> RoundRecord:
        record = self.book.get(self.round_id)
        assert record is not None  # it was claimed
        return record

    def write(self, **fields: Any) -> None:
        self.book.write(self.round_id, self.token, **fields)

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace(self.settings.rounds_dir, self.round_id, self._record().restarts)


def start_child(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """A process of training that dies with this one.

    In a session of its own, so that Ctrl-C reaches the worker alone, which then ends the child.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments, "--parent", str(os.getpid())],
        env={**TRAINING_ENVIRONMENT, **os.environ, **environment(settings)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(child: subprocess.Popen[bytes], check: Callable[[], None]) -> int:
    """The child's exit code; `check` raises when it is to end before.

    However this ends, the child has ended too. SIGKILL is safe: every write is atomic.
    """
    try:
        while (code := _wait(child, POLL_S)) is None:
            check()
        return code
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def environment(settings: Settings) -> Mapping[str, str]:
    """The settings as the environment of a child process."""
    values = settings.model_dump(mode="json", exclude_none=True) | {"home": str(settings.home.absolute())}
    return {f"RATCHET_{name.upper()}": str(value) for name, value in values.items()}


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
