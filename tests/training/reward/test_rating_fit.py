"""The figures of ratings by hand, and how often their intervals hold the truth."""

import math
import random

import pytest

from training.model.samples import RatedSample, Sample
from training.reward.rating_fit import measure_ratings


def rating(prompt: int, answer: int, label: float) -> RatedSample:
    return RatedSample(Sample((prompt,), (answer,)), label)


def test_every_figure_by_hand() -> None:
    """Scores 1.5 and -0.5 at a threshold of 0.5 are log-odds of 1 and -1: P(up) = .731059 and .268941."""
    ratings = [rating(1, 10, 1.0), rating(1, 10, 0.0), rating(2, 11, 0.0), rating(2, 12, 0.75)]
    found = measure_ratings(ratings, [1.5, 1.5, -0.5, 1.5], 0.5)
    assert found is not None
    assert (found.ratings, found.prompts, found.confidence) == (4, 2, 0.95)
    assert found.approval == pytest.approx(1.75 / 4)
    # -log .731059 = .313262 and -log .268941 = 1.313262; a quarter down costs a quarter of the latter.
    shared = 0.75 * 0.313262 + 0.25 * 1.313262
    assert found.log_loss.mean == pytest.approx((0.313262 + 1.313262 + 0.313262 + shared) / 4, abs=1e-6)
    squares = [0.268941**2, 0.731059**2, 0.268941**2, 0.018941**2]
    assert found.brier.mean == pytest.approx(sum(squares) / 4, abs=1e-6)
    # Two raters differ on the first answer: ln 2 each. Of the last three of four approve: .562335.
    assert found.entropy.mean == pytest.approx((2 * math.log(2) + 0.562335) / 4, abs=1e-6)
    # Either prompt may be drawn twice: the intervals' ends are the means of one.
    assert found.log_loss.low == pytest.approx((0.313262 + shared) / 2, abs=1e-6)
    assert found.log_loss.high == pytest.approx((0.313262 + 1.313262) / 2, abs=1e-6)


def test_of_nothing_nothing_is_known_and_far_off_is_no_overflow() -> None:
    assert measure_ratings([], [], 0.0) is None
    found = measure_ratings([rating(1, 1, 0.0), rating(1, 2, 1.0)], [900.0, 900.0], 0.0)
    assert found is not None
    assert (found.log_loss.mean, found.brier.mean, found.entropy.mean) == (450.0, 0.5, 0.0)


def test_no_scores_do_better_than_the_entropy() -> None:
    draw = random.Random(3)
    ratings = [rating(n % 5, n % 10, float(draw.random() < 0.3 + 0.05 * (n % 10))) for n in range(200)]
    shares = {n: sum(r.label for r in ratings[n::10]) / 20 for n in range(10)}
    best = measure_ratings(ratings, [math.log(p / (1 - p)) for p in (shares[n % 10] for n in range(200))], 0.0, draws=9)
    other = measure_ratings(ratings, [draw.gauss(0, 1) for _ in ratings], 0.0, draws=9)
    assert best is not None and other is not None
    assert best.log_loss.mean == pytest.approx(best.entropy.mean, abs=1e-6)
    assert other.log_loss.mean > other.entropy.mean == best.entropy.mean


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """A model that says 0.7 of what people approve of with 0.7: its loss is that coin's entropy."""
    draw, truth, held = random.Random(5), 0.610864, 0
    for trial in range(200):
        ratings = []
        for prompt in range(30):
            alike = draw.random() < 0.7  # all raters of a prompt agree, so that three are no more than one
            ratings += [rating(prompt, 0, float(alike))] * 3
        found = measure_ratings(ratings, [math.log(0.7 / 0.3)] * 90, 0.0, confidence=0.9, draws=200, seed=trial)
        assert found is not None
        held += found.log_loss.low <= truth <= found.log_loss.high
    assert 0.8 <= held / 200 <= 0.97
