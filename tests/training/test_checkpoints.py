import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoints import (
    Checkpoint,
    atomic_directory,
    latest_checkpoint,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    tensors = {"policy/a": torch.randn(3, 4), "policy/b": torch.arange(3), "optimizer/0/step": torch.tensor(7.0)}
    state = {"kl_coef": 0.1 + 0.2, "history": [{"x": 1.5}], "none": None}
    save_checkpoint(tmp_path, Checkpoint(7, tensors, state))
    path = latest_checkpoint(tmp_path)
    assert path is not None
    found = load_checkpoint(path)
    assert found.step == 7
    assert found.state == state
    assert {n: t.dtype for n, t in found.tensors.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(torch.equal(t, tensors[n]) for n, t in found.tensors.items())
    assert set(found.section("policy")) == {"a", "b"}


def test_nothing_is_the_latest_of_nothing(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_the_furthest_counts_and_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 11):
        save_checkpoint(tmp_path, Checkpoint(step, {"x": torch.tensor(step)}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    path = latest_checkpoint(tmp_path)
    assert path is not None and load_checkpoint(path).step == 11


def test_files_are_safetensors_and_json(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(1, {"x": torch.ones(1)}, {}))
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "tensors.safetensors"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_directory(tmp_path / "x") as partial:
            (partial / "half").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "x"):
        pass


def test_partial_directories_are_not_checkpoints_and_go_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".partial-1-step-00000099").mkdir()
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, Checkpoint(1, {"x": torch.ones(1)}, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


WRITER = """
import sys, itertools, pathlib, torch
from training.checkpoints import Checkpoint, save_checkpoint
for step in itertools.count(int(sys.argv[2])):
    tensors = {str(i): torch.full((300,), float(step)) for i in range(20)}
    save_checkpoint(pathlib.Path(sys.argv[1]), Checkpoint(step, tensors, {"echo": step}))
    print(step, flush=True)
"""


def test_sigkill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """A writer is killed again and again at its work: what is found is whole, and nothing acked is lost."""
    done = 0
    for delay_s in (0.0, 0.0007, 0.0031):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(done + 1)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acked = [int(writer.stdout.readline()) for _ in range(3)][-1]
        deadline = time.perf_counter() + delay_s
        while time.perf_counter() < deadline:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        acked = max([acked, *map(int, writer.stdout.read().split())])
        writer.wait()
        path = latest_checkpoint(tmp_path)
        assert path is not None
        found = load_checkpoint(path)
        assert found.step >= acked
        assert found.state["echo"] == found.step
        assert len(found.tensors) == 20
        assert all((tensor == found.step).all() for tensor in found.tensors.values())
        done = found.step


def test_an_optimizer_goes_on_bit_for_bit() -> None:
    def step(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, n: int) -> None:
        optimizer.zero_grad()
        sum(((p - n) ** 2).sum() for p in parameters).backward()
        optimizer.step()

    def new() -> tuple[list[torch.nn.Parameter], torch.optim.Adam]:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(2, 2))]
        groups = [{"params": [parameters[0]], "lr": 0.1}, {"params": [parameters[1]], "lr": 0.01}]
        return parameters, torch.optim.Adam(groups)

    straight, optimizer = new()
    for n in range(6):
        step(straight, optimizer, n)
    first, optimizer = new()
    for n in range(3):
        step(first, optimizer, n)
    resumed, other = new()
    for parameter, saved in zip(resumed, first, strict=True):
        parameter.data.copy_(saved.data)
    load_optimizer(other, optimizer_tensors(optimizer))
    for n in range(3, 6):
        step(resumed, other, n)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_ctrl_c_in_the_middle_takes_effect_when_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, Checkpoint(step, {}, {}))
    remove = shutil.rmtree

    def interrupted(path: Path, **given: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(path, **given)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, Checkpoint(3, {}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
