"""Progress of a stage and the course of its figures, written under the fencing token: losing the round stops it."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from feedback.policies.ppo_curves import thinned
from feedback.rounds.book import CoursePoint, RoundBook

log = logging.getLogger("training.progress")

EVERY_S = 0.5
POINTS = 400  # of a stage's course


class Progress:
    """Call it with (stage, step, total, metrics) as often as you like; it writes about twice a second.

    Raises LeaseLost when another worker has taken the round over or an operator ended it.
    """

    def __init__(
        self,
        book: RoundBook,
        round_id: int,
        token: int,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._book, self._round_id, self._token, self._now, self._clock = book, round_id, token, now, clock
        self._written = -math.inf
        self._stage = ""
        self._start = (0.0, 0)  # (time, step) where this process began the stage: a resumed one starts in the middle
        self._last = (0.0, 0)  # and where it came to its last step
        self._metrics: Mapping[str, Any] = {}  # of that one: they stay to be seen until the next
        self._charted = 0  # the step up to which the course is written
        self._points: dict[int, CoursePoint] = {}  # that are not yet, by step

    def __call__(self, stage: str, step: int, total: int, metrics: Mapping[str, Any]) -> None:
        now, began = self._now(), stage != self._stage
        if began:
            self._stage, self._start, self._last, self._metrics = stage, (now, step), (now, step), {}
            self._charted, self._points = step - bool(metrics), {}
        if step > self._last[1]:
            self._last = (now, step)
        self._metrics = metrics or self._metrics
        if metrics and step in steps_kept(total):
            self._points[step] = CoursePoint(
                stage=stage, step=step, total=total, time=self._clock(), metrics=finite(metrics)
            )
        if not began and now - self._written < EVERY_S and step < total:
            return
        self._written = now
        self._write(stage, step, total, now)

    def _write(self, stage: str, step: int, total: int, now: float) -> None:
        (start, first), (reached, last) = self._start, self._last
        rate = (last - first) / (reached - start) if last > first and reached > start else None
        progress = {
            "stage": stage,
            "step": step,
            "total": total,
            "rate_per_s": None if rate is None else round(rate, 4),
            # A long step's own time runs off, rather than make all steps look slower.
            "eta_s": None if rate is None else round(max((total - last) / rate - (now - reached), 0.0), 1),
            "metrics": finite(self._metrics),
        }
        try:
            self._book.write(self._round_id, self._token, progress=progress)
            self._chart(stage)
        except (RedisConnectionError, RedisTimeoutError) as error:
            # Redis restarts within seconds and training need not wait: the worker's lease decides how long is too long.
            log.warning("progress not written: %s", error)

    def _chart(self, stage: str) -> None:
        points = list(self._points.values())
        self._book.go_on(self._round_id, self._token, stage, after=self._charted, points=points)
        self._charted, self._points = max(self._points, default=self._charted), {}


@lru_cache(maxsize=8)
def steps_kept(total: int) -> frozenset[int]:
    """Which of so many steps, from 1 on, a course keeps: `POINTS`, evenly spread wherever the stage has come to."""
    return frozenset(index + 1 for index in thinned(total, POINTS))


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become None, at any depth."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
