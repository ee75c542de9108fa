"""Results of a benchmark by name, on the disk as soon as they are known: one that was broken off goes on."""

import gc
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

console = Console(width=130)
Jobs = Mapping[str, Callable[[], Any]]


class Cells:
    """What is known is never run twice; another file is another benchmark."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str, run: Callable[[], Any]) -> Any:
        """What `run` gives, as JSON has it."""
        if name not in self.known:
            console.print(f"running {name}")
            self.keep(name, run())
        return self.known[name]

    def fill(self, jobs: Jobs, at_once: int) -> None:
        """Run what is missing, `at_once` of them in processes of their own, in this order: the longest should be first.

        More than one at once must be picklable. Where some fail, the first error is raised when the rest are known.
        """
        missing = {name: run for name, run in jobs.items() if name not in self.known}
        errors = []
        with _outcomes(missing, at_once) as outcomes:
            for left, (name, outcome) in zip(range(len(missing) - 1, -1, -1), outcomes, strict=True):
                try:
                    self.keep(name, outcome())
                    console.print(f"known: {name}; {left} to go")
                except Exception as error:
                    console.print(f"failed: {name}: {error!r}; {left} to go", markup=False)
                    errors.append(error)
        if errors:
            raise errors[0]

    def keep(self, name: str, value: Any) -> None:
        self.known[name] = json.loads(json.dumps(value))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.known, indent=1) + "\n")
        beside.replace(self.path)


@contextmanager
def _outcomes(jobs: Jobs, at_once: int) -> Iterator[Iterator[tuple[str, Callable[[], Any]]]]:
    """What gives each result or raises its error, as they come; however this ends, no process is left."""
    if at_once == 1 or len(jobs) < 2:
        yield iter(jobs.items())
        return
    pool = ProcessPoolExecutor(at_once, get_context("spawn"), _begin, (torch.get_num_threads(),))
    try:
        names = {pool.submit(_run, run): name for name, run in jobs.items()}
        yield ((names[future], future.result) for future in as_completed(names))
    except BaseException:
        for child in active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """What each process does first; `sys.path` is the parent's by itself. Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed could not end its children."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(run: Callable[[], Any]) -> Any:
    """What the GPU's allocator keeps for a next time is missing to the others."""
    try:
        return run()
    finally:
        gc.collect()
        torch.cuda.empty_cache()
