"""Cells are kept as they become known, whatever becomes of the others and wherever they are run."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench.cells import Cells
from tests.bench.reward_data import split
from tests.conftest import wait_for
from training.model.samples import RankedSamples, Sample

HERE = Path(__file__).parent


def never() -> Any:
    raise AssertionError("run although it was known")


def fails(why: str) -> Any:
    raise ValueError(why)


def where() -> list[int]:
    return [os.getpid(), torch.get_num_threads()]


def on_disk(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("at_once", [1, 2])
def test_errors_lose_nothing_and_what_is_known_is_not_run_again(tmp_path: Path, at_once: int) -> None:
    path = tmp_path / "cells.json"
    Cells(path).keep("old", 7)
    jobs: dict[str, Callable[[], Any]] = {"old": never, "bad": partial(fails, "the only one"), "new": partial(int, "3")}
    with pytest.raises(ValueError, match="the only one"):
        Cells(path).fill(jobs, at_once)
    assert on_disk(path) == {"old": 7, "new": 3}
    Cells(path).fill({"old": never, "new": never, "bad": partial(tuple, "ok")}, at_once)
    assert on_disk(path) == {"old": 7, "new": 3, "bad": ["o", "k"]}


def test_one_at_once_is_run_here_in_order_and_kept_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    cells = Cells(path)
    cells.fill({"a": where, "b": lambda: sorted(on_disk(path)), "c": lambda: sorted(on_disk(path))}, at_once=1)
    assert cells.known == {"a": where(), "b": ["a"], "c": ["a", "b"]}
    assert cells.of("a", never) == where()


def test_more_are_run_at_the_same_time_in_other_processes_and_each_is_kept_at_once(tmp_path: Path) -> None:
    path, one, other = tmp_path / "cells.json", tmp_path / "one", tmp_path / "other"
    cells = Cells(path)
    cells.fill({"last": partial(after, path, one, other), "first": partial(meet, other, one)}, at_once=2)
    (pid, threads), seen = cells.known["first"], cells.known["last"]
    assert seen == {"first": [pid, threads]}
    assert pid != os.getpid() and threads == torch.get_num_threads()


def meet(mine: Path, yours: Path) -> list[int]:
    """Only returns while the other one is run as well."""
    mine.touch()
    wait_for(yours.exists, seconds=120, what="the other")
    return where()


def after(path: Path, mine: Path, yours: Path) -> Any:
    meet(mine, yours)
    wait_for(path.exists, seconds=120, what="the other's result")
    return on_disk(path)


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path: Path, way: signal.Signals) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    command = [sys.executable, str(script), str(HERE), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pids = [tmp_path / f"{name}.pid" for name in "ab"]
    try:
        wait_for(lambda: all(pid.exists() for pid in pids), seconds=200, what="the start")
        children = [int(pid.read_text()) for pid in pids]
        parent.send_signal(way)
        assert parent.wait(timeout=60) == -way
        wait_for(lambda: not any(map(runs, children)), seconds=60, what="the end of the children")
    finally:
        parent.kill()
        parent.wait()


ENDLESS = """
import os, signal, sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cells import Cells
def endless(path):
    beside = path.with_suffix(".new")
    beside.write_text(str(os.getpid()))
    beside.rename(path)
    signal.pause()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    here = Path(sys.argv[2])
    Cells(here / "cells.json").fill({name: partial(endless, here / f"{name}.pid") for name in "abc"}, at_once=2)
"""


def runs(pid: int) -> bool:
    """False of one that has ended and that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_split_is_by_prompt_in_the_order_of_its_seed() -> None:
    rankings = [ranking(prompt, n) for n in range(2) for prompt in range(6)]
    order = list(range(6))
    random.Random("split/5").shuffle(order)
    drawn = [ranking(prompt, n) for prompt in order for n in range(2)]
    assert split(rankings, train=5, held_out=3, seed=5) == (drawn[4:9], drawn[:4])


def ranking(prompt: int, n: int) -> RankedSamples:
    return RankedSamples((Sample((prompt,), (n, 1)), Sample((prompt,), (n, 2))), (0, 1))
