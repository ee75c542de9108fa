"""Training in several processes of this host: one more starts the others, tells them all, and takes them with it.

They see nothing but what it tells them: no ledger, no round, no file but the base model and the run's checkpoints.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers.utils import logging

from training.model.roles import ROLES, Role
from training.model.trunk import Trunk
from training.optimizing.parallel import joined
from training.optimizing.steps import OnProgress, silent
from training.round.stages import die_with_parent

Report = TypeVar("Report")

GRACE_S = 20.0


@dataclass(frozen=True)
class Task:
    """What another process does, as it travels: `train` by its name, the trunk by how it is made, and its weights."""

    train: Callable[..., Any]
    config: Any
    bare: Callable[[], Trunk]
    states: Mapping[Role, Mapping[str, Tensor]]
    temperature: float
    data: Sequence[Any]
    options: Mapping[str, Any]
    threads: int

    def run(self) -> None:
        trunk = self.bare()
        for role, state in self.states.items():
            trunk.load_state(role, state)
        trunk.temperature = self.temperature
        self.train(self.config, trunk, *self.data, **self.options)


def process_count(wanted: int | None, most: int) -> int:
    """How many processes train: those wanted, else one per GPU; never more than `most`, nor than there are GPUs."""
    gpus = torch.cuda.device_count()
    return max(1, min(wanted or gpus, most, gpus or most))


def in_processes(
    count: int,
    bare: Callable[[], Trunk],
    train: Callable[..., Report],
    config: Any,
    trunk: Trunk,
    *data: Any,
    progress: OnProgress = silent,
    **options: Any,
) -> Report:
    """`train(config, trunk, *data, progress=progress, **options)`, here and in `count` - 1 processes that have joined.

    `bare` makes another trunk like this one, whatever its weights; it, `train` and the rest must be picklable.
    """
    if count == 1:
        return train(config, trunk, *data, progress=progress, **options)
    states = {role: trunk.state(role) for role in ROLES}
    task = Task(train, config, bare, states, trunk.temperature, data, options, torch.get_num_threads())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with _others(count, directory, task), joined(0, count, directory):
            return train(config, trunk, *data, progress=progress, **options)


@contextmanager
def _others(count: int, directory: Path, task: Task) -> Iterator[None]:
    """The other processes; however this ends, they have ended too."""
    over, letter = threading.Event(), pickle.dumps(task)
    others = [_started(rank, count, directory) for rank in range(1, count)]
    try:
        for other in others:
            threading.Thread(target=_miss, args=(other, over), daemon=True).start()
        for other in others:
            assert other.stdin is not None
            with other.stdin as ear:
                ear.write(letter)
        yield
    finally:
        over.set()
        for other in others:
            other.kill()
            other.wait()


def _started(rank: int, count: int, directory: Path) -> subprocess.Popen[bytes]:
    """A session of its own: Ctrl-C is for the process that leads."""
    arguments = [str(rank), str(count), str(directory), str(os.getpid())]
    command = [sys.executable, "-m", "training.round.processes", *arguments]
    environment = {**os.environ, **_gpu(rank)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


def _gpu(rank: int) -> dict[str, str]:
    """The one GPU that a process gets to see, of those that this one sees and begins with; nothing without any."""
    if not torch.cuda.is_available():
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[rank] if seen else str(rank)}


def _miss(other: subprocess.Popen[bytes], over: threading.Event) -> None:
    """Where another process has failed, this one would wait for it; it ends, and may be started again.

    Unless it ends by itself: most errors come to all of them, and this one has to tell of them.
    """
    if other.wait() and not over.wait(GRACE_S):
        print(f"training process {other.pid} ended with {other.returncode}", file=sys.stderr, flush=True)
        os._exit(1)


def main() -> int:
    """Another process: it gets its task on stdin."""
    rank, count, parent = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
    die_with_parent(parent)
    task: Task = pickle.load(sys.stdin.buffer)
    logging.disable_progress_bar()
    torch.set_num_threads(task.threads)
    with joined(rank, count, Path(sys.argv[3])):
        task.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
