"""`ratchet ppo train` killed (SIGKILL) in every phase, between any two writes of a checkpoint and at random moments:
the same command comes to the very weights, optimizer and metrics of a run that nobody disturbed.

Phases are told by what can be seen from outside: the lines that a run writes, and its calls of the file system, which
CPython reports to audit hooks. Attempts are forked from a process that has imported torch, so that each costs little.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import write_tiny_base
from tests.training.people import SHAPE, file_of, planted
from training import finetune, offline, progress_line
from training.config import RoundConfig
from training.run_directory import REPORT

ITERATIONS = 16
SAMPLED, OBSERVED, UPDATES = 1, 2, 4  # what an iteration tells of: batches, microbatches, optimizer steps
PPO = {
    **SHAPE, "iterations": ITERATIONS, "rollouts_per_iteration": 8, "minibatch": 4, "microbatch": 4, "epochs": 2,
    "max_new_tokens": 6, "max_kl_step": 100.0, "kl_target": 1.0, "checkpoint_every": 1,
}  # fmt: skip
RANDOM_KILLS = 6
WATCHED = ("open", "os.mkdir", "os.rename", "shutil.rmtree")
LIMIT_S = 120  # for one attempt


@dataclass(frozen=True)
class Fuse:
    """Burns down at the `count`th moment of a run, beginning with the first that starts with `first`; never at 0."""

    first: str = ""
    count: int = 0


class Moments:
    """Counts what a run lets be seen, tells it, and kills the run before the moment that the fuse names can be over."""

    def __init__(self, out: Path, fuse: Fuse, told: Connection) -> None:
        self._out, self._fuse, self._told = str(out), fuse, told
        self._count, self._busy = 0, False

    def write(self, text: str) -> int:
        """As stderr: a line is a moment."""
        if text.strip():
            self._add(text.strip())
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """As an audit hook: so is what is about to be done with a file of the run."""
        if event in WATCHED and str(arguments[0]).startswith(self._out) and not self._busy:
            self._add(f"{event} {str(arguments[0]).removeprefix(self._out + '/')}")

    def _add(self, moment: str) -> None:
        self._busy = True
        self._told.send(moment)
        if self._count or moment.startswith(self._fuse.first):
            self._count += 1
        if self._count and self._count == self._fuse.count:
            os.kill(os.getpid(), signal.SIGKILL)
        self._busy = False


def attempt(arguments: list[str], out: Path, fuse: Fuse, told: Connection) -> None:
    """The command, in a process of its own."""
    moments = Moments(out, fuse, told)
    progress_line.PLAIN_LINE_EVERY_S = 0.0
    sys.argv, sys.stderr, sys.stdout = ["finetune", *arguments], moments, open(os.devnull, "w")  # type: ignore[assignment]
    sys.addaudithook(moments.audit)
    sys.exit(finetune.main())


@dataclass
class Run:
    """A run in a directory, over all its attempts."""

    arguments: list[str]
    out: Path
    kills: int = 0
    code: int | None = None
    moments: list[str] = field(default_factory=list)  # of the last attempt

    def go(self, fuse: Fuse = Fuse(), lines: int = 0) -> "Run":  # noqa: B008
        """Until the fuse burns down, or until it has written so many lines about PPO and is killed from here."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["training.finetune"])
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=attempt, args=(self.arguments, self.out, fuse, theirs))
        process.start()
        theirs.close()
        guard = threading.Timer(LIMIT_S, process.kill)
        guard.start()
        self.moments = []
        for moment in heard(ours):
            self.moments.append(moment)
            if lines and sum(each.startswith("ppo") for each in self.moments) == lines:
                process.kill()
        process.join()
        guard.cancel()
        self.code = process.exitcode
        self.kills += self.code == -signal.SIGKILL
        return self

    @property
    def checkpoint(self) -> Path:
        return max(self.out.glob("checkpoints/step-*"))

    @property
    def step(self) -> int:
        return max((int(path.name[5:]) for path in self.out.glob("checkpoints/step-*")), default=0)

    @property
    def is_finished(self) -> bool:
        return (self.out / REPORT).exists()


def heard(pipe: Connection) -> Iterator[str]:
    """Until the other end is gone."""
    try:
        while True:
            yield pipe.recv()
    except (EOFError, ConnectionResetError):
        return


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """PPO on a tiny base with a reward model of its own."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    base = write_tiny_base(tmp_path / "base")
    rankings = file_of(tmp_path / "rankings.jsonl", planted(20))
    config = RoundConfig.from_dict({"reward": {**SHAPE, "epochs": 1}, "sft": SHAPE, "ppo": PPO})
    data = offline.of_file(rankings, "auto", base=base, config=config)
    offline.train_on(data, source="planted", base=base, out=tmp_path / "rm")
    (tmp_path / "config.json").write_text(json.dumps({"ppo": PPO}))
    given = {"--prompts": rankings, "--reward": tmp_path / "rm", "--config": tmp_path / "config.json"}
    return ["ppo", *(f"{name}={value}" for name, value in given.items())]


def left_by(run: Run) -> dict[str, Any]:
    """Everything that a finished run leaves, and the checkpoint that it would drop last: bits, not numbers."""
    state = json.loads((run.checkpoint / "state.json").read_text())
    files = [*sorted((run.out / "policy").iterdir()), run.out / REPORT, run.checkpoint / "tensors.safetensors"]
    del state["state"]["history"]  # stands in the report
    state["state"].pop("timings", None)
    return {str(path.relative_to(run.out)): path.read_bytes() for path in files} | {"state": state}


def test_wherever_ppo_is_killed_the_same_command_comes_to_the_same_bits(arguments: list[str], tmp_path: Path) -> None:
    def run(name: str) -> Run:
        return Run([*arguments, f"--out={tmp_path / name}"], tmp_path / name)

    # It dies when all is done but the removal of its checkpoints, in which value and optimizer are to be seen.
    whole = run("whole").go(Fuse("os.rename .report.json", 2))
    assert whole.is_finished and whole.kills == 1, whole.moments
    broken = run("broken")

    # At each moment of an iteration: in sampling, observing, each update, and around each write of its checkpoint.
    count, before = 0, 0
    import time
    while not broken.moments or not broken.moments[-1].startswith(f"ppo {before + 1}/"):
        count, before = count + 1, broken.step
        t=time.time()
        broken.go(Fuse("ppo", count))
        seen = broken.moments[next(i for i, each in enumerate(broken.moments) if each.startswith("ppo")) :]
        print(count, before, broken.step, seen[-1], time.time()-t)
        if count > 40: break
    print("TOTAL", broken.kills)
