"""What a round's record says while a stage works."""

from typing import Any, cast

import pytest

from feedback.rounds import RoundBook
from training.progress import Progress


class Book:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, round_id: int, token: int, *, progress: dict[str, Any]) -> None:
        assert (round_id, token) == (3, 7)
        self.written.append(progress)


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
