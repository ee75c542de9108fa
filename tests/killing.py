"""A process that dies between any two changes of the world: a Redis command, an fsync, a rename, a deletion."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Killer:
    """Kills before or after the n-th change of the world."""

    def __init__(self) -> None:
        self.kill_at, self.after, self.steps = 0, False, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            if self.steps == self.kill_at and not self.after:
                raise Killed
            result = function(*args, **kwargs)
            if self.steps == self.kill_at and self.after:
                raise Killed
            return result

        return step


@contextmanager
def killing(at: int, after: bool) -> Iterator[Killer]:
    killer = Killer()
    killer.kill_at, killer.after = at, after
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Redis, "execute_command", killer.wrap(Redis.execute_command))
        patch.setattr(os, "fsync", killer.wrap(os.fsync))
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, killer.wrap(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", killer.wrap(shutil.rmtree))
        yield killer
