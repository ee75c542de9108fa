"""Checkpoints that exist whole or not at all: safetensors and JSON in a directory that appears by one rename.

A process killed at any instant leaves the former checkpoint as it was, and a partial directory that nobody reads.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PARTIAL = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a stage needs to go on after `step` steps as if it had never stopped."""

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]  # what JSON can hold

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix/`, without it."""
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary directory to write into, which becomes `path` when the block ends well: fsync, rename, fsync.

    FileExistsError when `path` is there already. When the block raises, nothing of it stays.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists and is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for entry in sorted(partial.rglob("*"), reverse=True):  # files before the directory that lists them
            _sync(entry)
        _sync(partial)
        partial.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _checkpoints(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), key=step_of)


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(path.name.removeprefix("step-"))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: in the middle of shutil.rmtree it becomes EBADF, a fault of the disk."""
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


@_undisturbed()
def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write `checkpoint` below `directory` and return its path. The one before it is kept, older ones go.

    Ctrl-C takes effect when all of that is done.
    """
    path = directory / f"step-{checkpoint.step:08d}"
    with atomic_directory(path) as partial:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        save_file(tensors, partial / "tensors.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": checkpoint.step, "state": dict(checkpoint.state)}))
    for old in _checkpoints(directory)[:-2]:
        doomed = old.with_name(f"{PARTIAL}{old.name}")  # half a removal must not look like a checkpoint
        old.rename(doomed)
    for partial in directory.glob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)
    return path


def latest_checkpoint(directory: Path) -> Path | None:
    """The path of the furthest complete checkpoint below `directory`, or None."""
    found = _checkpoints(directory)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, tensors on the CPU."""
    record = json.loads((path / "state.json").read_text())
    return Checkpoint(record["step"], load_file(path / "tensors.safetensors"), record["state"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's step counts and moments, named by the position of their parameter; reverse: `load_optimizer`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": tensor for index, entry in state.items() for name, tensor in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the optimizer must hold the same parameters in the same order."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
