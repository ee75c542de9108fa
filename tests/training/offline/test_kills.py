"""PPO outside of rounds, killed (SIGKILL) in every phase, between the writes of a checkpoint and at random moments:
the same command comes to the very weights, optimizer and metrics of a run that nobody disturbed.

Where a run is can be seen from outside: by the lines that it writes, and by what it does with its files, of which
CPython tells audit hooks. It waits there until it may go on or is killed, so no moment is missed on a busy machine.
Attempts are forked from a process that has imported torch: each is a process of its own, and costs little.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import write_tiny_base
from tests.training.people import SHAPE, file_of, planted
from training import finetune
from training.config import RoundConfig
from training.offline import progress_line
from training.offline import reward as offline_reward

PPO = {
    **SHAPE, "iterations": 16, "rollouts_per_iteration": 4, "minibatch": 2, "microbatch": 2, "epochs": 1,
    "max_new_tokens": 4, "max_kl_step": 100.0, "kl_target": 1.0, "learning_rate": 1e-2, "value_learning_rate": 1e-2,
}  # fmt: skip
LINES = 6  # that an iteration writes: when it has sampled, observed two microbatches, made two steps, and is done
RANDOM_KILLS = 6
SEED = 5
PATIENCE_S = 200  # for the next moment; the first comes after torch has been imported
WATCHED = ("open", "os.mkdir", "os.rename", "shutil.rmtree")


@dataclass(frozen=True)
class Kill:
    """At the `count`th moment that fits `pattern`: before what it tells of is done, or so much after that begins."""

    pattern: str
    count: int = 1
    later_s: float | None = None


PARTIAL = "checkpoints/.partial-*-step-*"
IN_AN_ITERATION = [
    *(Kill("ppo *", count) for count in range(1, LINES)),
    Kill(f"os.mkdir {PARTIAL}"),
    Kill(f"open {PARTIAL}/state.json", 1),  # the tensors are there already
    Kill(f"open {PARTIAL}/state.json", 2),  # to be synced
    Kill(f"os.rename {PARTIAL}"),
    Kill("open checkpoints"),  # it is in place, but the directory is not synced
    Kill("os.rename checkpoints/step-*"),  # the oldest is to go
    Kill("shutil.rmtree checkpoints/.partial-step-*"),
    Kill("ppo *", LINES),
]
AT_THE_END = [
    Kill("os.mkdir .partial-*-policy"),
    Kill("os.rename .partial-*-policy"),
    Kill("open .report.json"),
    Kill("os.rename .report.json"),
    Kill("shutil.rmtree checkpoints"),  # nothing else is left to do
]


class Told:
    """A run's stderr and audit hook: whatever it is about to do it tells first, and waits until it may."""

    def __init__(self, out: Path, ear: Connection) -> None:
        self._out, self._ear, self._telling = out, ear, False

    def write(self, text: str) -> int:
        if text.strip():
            self._tell(text.strip())
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and not self._telling and isinstance(arguments[0], str | Path):
            path = Path(arguments[0])
            if path.is_relative_to(self._out):
                self._tell(f"{event} {path.relative_to(self._out)}")

    def _tell(self, moment: str) -> None:
        self._telling = True
        self._ear.send(moment)
        self._ear.recv()
        self._telling = False


def attempt(arguments: Sequence[str], out: Path, ear: Connection) -> None:
    """The command, in a process of its own."""
    told = Told(out, ear)
    progress_line.PLAIN_LINE_EVERY_S = progress_line.PLAIN_STEP_EVERY_S = 0.0
    with open(os.devnull, "w") as nowhere:
        sys.argv, sys.stderr, sys.stdout = ["finetune", *arguments], told, nowhere  # type: ignore[assignment]
        sys.addaudithook(told.hear)
        sys.exit(finetune.main())


@dataclass
class Run:
    """A run in a directory, over all its attempts."""

    arguments: Sequence[str]
    out: Path
    moments: list[str] = field(default_factory=list)  # of the last attempt

    def go(self, kill: Kill | None = None) -> int | None:
        """One attempt, to its end or until it is killed; its exit code."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        ours, theirs = context.Pipe()
        process = context.Process(target=attempt, args=([*self.arguments, f"--out={self.out}"], self.out, theirs))
        process.start()
        theirs.close()
        try:
            self._follow(ours, process, kill)
        finally:
            process.kill()
            process.join()
        return process.exitcode

    def _follow(self, ear: Connection, process: Any, kill: Kill | None) -> None:
        self.moments, left = [], kill.count if kill else 0
        while (moment := heard(ear)) is not None:
            self.moments.append(moment)
            left -= kill is not None and fnmatch(moment, kill.pattern)
            if kill is None or left:
                ear.send(None)
                continue
            if kill.later_s is not None:
                ear.send(None)
                process.join(kill.later_s)
            return
        process.join()


def heard(ear: Connection) -> str | None:
    """The next moment; None when the process has ended."""
    try:
        assert ear.poll(PATIENCE_S), "nothing happens"
        moment: str = ear.recv()
    except (EOFError, ConnectionResetError):
        return None
    return moment


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """PPO on a tiny base with a reward model of its own."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    base = write_tiny_base(tmp_path / "base")
    rankings = file_of(tmp_path / "rankings.jsonl", planted(20))
    config = RoundConfig.from_dict({"reward": {**SHAPE, "epochs": 1}, "sft": SHAPE, "ppo": PPO})
    data = offline_reward.of_file(rankings, "auto", base=base, config=config)
    offline_reward.train_on(data, source="planted", base=base, out=tmp_path / "rm")
    (tmp_path / "config.json").write_text(json.dumps({"ppo": PPO}))
    given = {"--prompts": rankings, "--reward": tmp_path / "rm", "--config": tmp_path / "config.json"}
    return ["ppo", *(f"{name}={value}" for name, value in given.items())]


def left_by(run: Run) -> dict[str, Any]:
    """What a run leaves that has ended but for its last checkpoint, in which value and optimizer are to be seen."""
    last = max(run.out.glob("checkpoints/step-*"))
    state = json.loads((last / "state.json").read_text())
    state["state"].pop("timings", None)
    files = [*(run.out / "policy").iterdir(), run.out / "report.json", last / "tensors.safetensors"]
    return {str(path.relative_to(run.out)): path.read_bytes() for path in files} | {"state": state}


@pytest.mark.timeout(600)
def test_wherever_ppo_is_killed_the_same_command_comes_to_the_same_bits(arguments: list[str], tmp_path: Path) -> None:
    whole, broken = Run(arguments, tmp_path / "whole"), Run(arguments, tmp_path / "broken")
    assert whole.go(AT_THE_END[-1]) == -signal.SIGKILL, whole.moments
    assert sum(moment.startswith("ppo 0/") for moment in whole.moments) == LINES - 1, "phases come or go unseen"
    draw = random.Random(SEED)
    at_random = [Kill("ppo *", draw.randint(1, LINES), draw.uniform(0, 0.1)) for _ in range(RANDOM_KILLS)]
    print(f"seed {SEED}: {at_random}")
    kills = [*IN_AN_ITERATION, *at_random, *AT_THE_END]
    assert len(kills) > 20
    for kill in kills:
        assert broken.go(kill) == -signal.SIGKILL, (kill, broken.moments)
    assert left_by(broken) == left_by(whole)
    assert broken.go() == 2  # what is finished is not begun again, but tidied up
    left = {path.name for path in broken.out.iterdir()}
    assert left == {".lock", "policy", "report.json", "run.json", "metrics.jsonl", "tensorboard"}
