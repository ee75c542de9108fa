"""Guardrails: by hand, one way and the other, and how often they alarm for nothing."""

import math

import numpy as np
import pytest

from feedback.e_values import Moments
from feedback.releases.guardrails import EXCESSES, Failures, Guardrail, failure_guardrail, mean_guardrail
from tests.bench.releases_runs import failures_alarm, mean_alarm


def test_whose_the_failures_are_by_hand() -> None:
    """At a tenth of the traffic and a tolerance of 1.5, candidate's share of failures is 1/7 at most: 1.5 : 9."""
    found = failure_guardrail("errors", [Failures(0.1, 30, 270, 2, 1)], ratio=1.5)
    shares = [excess * 1.5 / (excess * 1.5 + 9) for excess in EXCESSES]
    evidence = [(share / (1 / 7)) ** 2 * (1 - share) / (6 / 7) for share in shares]
    assert found.log_e == pytest.approx(math.log(sum(evidence) / len(evidence)), abs=1e-9)
    assert found.verdict == "unknown"
    assert found.value == pytest.approx(18.0)  # 2 / 30 over 1 / 270
    assert (found.candidate, found.stable) == (30, 270)


def test_weights_may_change_on_the_way() -> None:
    steps = [Failures(0.05, 50, 950, 1, 9), Failures(0.5, 500, 500, 5, 4)]
    one, other = (failure_guardrail("errors", [step]) for step in steps)
    both = failure_guardrail("errors", steps)
    assert both.log_e < one.log_e + other.log_e + math.log(len(EXCESSES))
    assert (both.candidate, both.stable) == (550, 1450)
    # The same failures at the wrong weight would be evidence of what is not there.
    assert failure_guardrail("errors", [Failures(0.05, 550, 1450, 6, 13)]).log_e > both.log_e


def test_verdicts_on_failures() -> None:
    def verdict(*numbers: int) -> str:
        return failure_guardrail("errors", [Failures(0.5, *numbers)]).verdict

    assert verdict(20, 20, 20, 0) == "breached"
    assert verdict(20, 20, 0, 0) == "unknown"
    assert verdict(2000, 2000, 0, 0) == "ok"  # less than 1% fail, whatever stable's do
    assert verdict(1000, 1000, 100, 300) == "ok"  # a third of stable's
    assert verdict(1000, 1000, 100, 100) == "unknown"
    assert failure_guardrail("errors", []).verdict == "unknown"


def test_verdicts_on_means() -> None:
    stable = Moments.of(*[0.0, 1.0] * 500)

    def judged(shift: float, units: int = 1000) -> Guardrail:
        return mean_guardrail("length", Moments.of(*[shift, 1.0 + shift] * (units // 2)), stable, limit=0.2)

    assert judged(0.5).verdict == "breached"
    assert judged(0.0).verdict == "ok"
    assert judged(0.2).verdict == "unknown"
    few = judged(9.0, units=98)  # too few to trust the asymptotics
    assert (few.verdict, few.interval, few.value) == ("unknown", None, pytest.approx(9.0))
    found = judged(0.5)
    assert found.value == pytest.approx(0.5) and found.interval is not None and found.interval.low > 0.2
    # Above by as much as below is as much evidence.
    assert judged(0.5).log_e == pytest.approx(judged(-0.1).log_e_ok, abs=1e-9)
    assert Guardrail.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_failures_as_tolerated_alarm_no_more_than_promised(weight: float) -> None:
    rng = np.random.default_rng(6)
    tolerated = failures_alarm((0.3, 0.2), weight, runs=200, units=800, rng=rng)
    assert tolerated["breached"] <= 0.01 + 3 * math.sqrt(0.01 / 200)
    worse = failures_alarm((0.8, 0.2), weight, runs=20, units=1500, rng=rng)
    assert worse["breached"] > 0.9


def test_skewed_means_as_tolerated_alarm_no_more_than_promised() -> None:
    rng = np.random.default_rng(7)
    found = mean_alarm(lambda units, ours: rng.lognormal(0, 1, units), [(0.1, 3000)], 0.0, runs=300, every=20, rng=rng)
    assert found["breached"] <= 0.01 + 3 * math.sqrt(0.01 / 300)


def test_the_first_of_another_weight_alarm_no_more_than_promised() -> None:
    """Two units tell by chance that nothing varies: with them one in thirty such runs alarmed."""
    rng = np.random.default_rng(8)
    found = mean_alarm(
        lambda units, ours: rng.normal(0.4 * ours, 1, units), [(0.1, 1100), (0.9, 60)], 0.4, runs=200, every=4, rng=rng
    )
    assert found["breached"] <= 0.01
