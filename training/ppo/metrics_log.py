"""Every iteration as a line of `metrics.jsonl` and as an event for TensorBoard, in the directory of a stage."""

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from feedback.policies.manifest import fsync_directory
from feedback.policies.ppo_curves import LINES
from training.workspace import write_durably

EVENTS = "tensorboard"


class MetricsLog:
    """Begins with the iterations that the checkpoint knows of: whatever a run that was killed wrote after it is cut,
    and what an attempt before this one wrote elsewhere is here too. A line is on the disk when `append` returns."""

    def __init__(self, directory: Path, known: Iterable[Mapping[str, float]] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        lines = list(known)
        temporary = directory / f".{LINES}"
        write_durably(temporary, "".join(_line(i, metrics) for i, metrics in enumerate(lines, 1)))
        temporary.replace(directory / LINES)
        fsync_directory(directory)
        shutil.rmtree(directory / EVENTS, ignore_errors=True)
        (directory / EVENTS).mkdir()
        self._lines = (directory / LINES).open("a", encoding="utf-8")
        # Not the package's SummaryWriter, whose thread and queue would lose what a killed run has measured.
        self._events = EventsWriter(str(directory / EVENTS / "events"))
        self._count = len(lines)
        for i, metrics in enumerate(lines, 1):
            self._events.write_event(_event(i, metrics))
        self._events.flush()

    def append(self, metrics: Mapping[str, float]) -> None:
        """The next iteration."""
        self._count += 1
        self._lines.write(_line(self._count, metrics))
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._events.write_event(_event(self._count, metrics))
        self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._events.close()


def _line(iteration: int, metrics: Mapping[str, float]) -> str:
    return json.dumps({"iteration": iteration, **metrics}, allow_nan=False) + "\n"


def _event(iteration: int, metrics: Mapping[str, float]) -> Event:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    return Event(wall_time=time.time(), step=iteration, summary=Summary(value=values))
