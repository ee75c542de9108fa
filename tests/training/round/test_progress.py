"""What a round's record says while a stage works, and the course of its figures."""

from collections.abc import Sequence
from itertools import count
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from feedback.rounds.book import CoursePoint, RoundBook
from training.round.progress import POINTS, Progress, steps_kept


class Book:
    """Keeps what is written, the course as Redis would; `away` is how often it cannot be reached."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.course: list[CoursePoint] = []
        self.away = 0

    def write(self, round_id: int, token: int, *, progress: dict[str, Any]) -> None:
        assert (round_id, token) == (3, 7)
        self.written.append(progress)

    def go_on(self, round_id: int, token: int, stage: str, *, after: int, points: Sequence[CoursePoint]) -> None:
        assert (round_id, token) == (3, 7)
        if self.away:
            self.away -= 1
            raise RedisConnectionError
        before = [point for point in self.course if point.stage != stage or point.step <= after]
        self.course = [*before, *points]

    def losses(self) -> list[tuple[str, int, float | None]]:
        return [(point.stage, point.step, point.metrics["loss"]) for point in self.course]


def test_time_left_runs_off_within_a_step_and_figures_stay() -> None:
    """Four steps of 10 s and, at last, one of 20 s of which 15 are over; seen twice a second at most."""
    times = iter([100.0, 100.1, 110.0, 110.2, 114.0, 120.0, 135.0, 140.0, 141.0])
    book = Book()
    progress = Progress(cast(RoundBook, book), 3, 7, now=lambda: next(times))
    progress("ppo", 0, 5, {})
    progress("ppo", 0, 5, {})  # too soon
    progress("ppo", 1, 5, {"kl": 0.5})
    progress("ppo", 1, 5, {})  # too soon
    progress("ppo", 1, 5, {})
    progress("ppo", 2, 5, {"kl": float("nan")})
    progress("ppo", 2, 5, {})
    progress("ppo", 5, 5, {"kl": 0.75})
    progress("gate", 0, 4, {})
    seen = [(w["stage"], w["step"], w["rate_per_s"], w["eta_s"], w["metrics"]) for w in book.written]
    assert seen == [
        ("ppo", 0, None, None, {}),
        ("ppo", 1, 0.1, 40.0, {"kl": 0.5}),
        ("ppo", 1, 0.1, 36.0, {"kl": 0.5}),
        ("ppo", 2, 0.1, 30.0, {"kl": None}),
        ("ppo", 2, 0.1, 15.0, {"kl": None}),
        ("ppo", 5, 0.125, 0.0, {"kl": 0.75}),
        ("gate", 0, None, None, {}),
    ]


def test_a_resumed_stage_is_as_fast_as_the_steps_it_made_itself() -> None:
    times = iter([0.0, 10.0])
    book = Book()
    progress = Progress(cast(RoundBook, book), 3, 7, now=lambda: next(times))
    progress("ppo", 90, 100, {})
    progress("ppo", 92, 100, {})
    assert book.written[-1]["eta_s"] == pytest.approx(40.0)


def test_every_step_is_on_the_course_however_seldom_it_is_written() -> None:
    """Steps of 0.1 s, and a Redis that is away for the two writes in the middle."""
    times = count()
    book = Book()
    progress = Progress(cast(RoundBook, book), 3, 7, now=lambda: next(times) / 10, clock=lambda: 5.0)
    progress("sft", 0, 20, {})
    for step in range(1, 21):
        book.away += 1 if step in (8, 13) else 0
        progress("sft", step, 20, {"loss": 1 / step})
        progress("sft", step, 20, {})
    assert len(book.written) < 12
    assert book.losses() == [("sft", step, 1 / step) for step in range(1, 21)]
    assert {(point.total, point.time) for point in book.course} == {(20, 5.0)}
    progress("gate", 6, 6, {"loss": float("inf")})
    assert book.losses()[-1] == ("gate", 6, None)


@pytest.mark.parametrize("speaks", [True, False])
def test_steps_that_are_made_again_take_the_place_of_those_that_were_lost(speaks: bool) -> None:
    """A stage dies after its 5th step and goes on from its 3rd; some stages say so before their next, some do not."""
    book = Book()
    for first, loss in ((0, 1.0), (3, 2.0)):
        progress = Progress(cast(RoundBook, book), 3, 7, now=iter(range(9)).__next__)
        if speaks:
            progress("ppo", first, 6, {})
            assert [step for _, step, _ in book.losses()] == list(range(1, first + 1))
        for step in range(first + 1, first + 3 if first else 6):
            progress("ppo", step, 6, {"loss": loss})
    assert book.losses() == [("ppo", 1, 1.0), ("ppo", 2, 1.0), ("ppo", 3, 1.0), ("ppo", 4, 2.0), ("ppo", 5, 2.0)]


@given(st.integers(1, 5 * POINTS))
def test_a_course_has_at_most_so_many_points_evenly_spread(total: int) -> None:
    kept = sorted(steps_kept(total))
    gaps = {b - a for a, b in zip(kept, kept[1:], strict=False)}
    assert len(kept) == min(total, POINTS) and (kept[0], kept[-1]) == (1, total)
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
