"""What befalls conversations, counted in a real Valkey and read back as guardrails."""

import math
from random import Random
from typing import Any

import pytest

from feedback.e_values import Moments
from feedback.releases.observations import (
    LEAST_OF_A_WEIGHT,
    Observations,
    Observed,
    Side,
    Stratum,
    alike,
    guardrails,
    strata_of,
)
from feedback.releases.plan import Limits
from feedback.store import connect


@pytest.fixture
def observations(valkey_url: str) -> Observations:
    return Observations(connect(valkey_url), b"pepper")


def one(conversation: str, arm: Any = "stable", weight: float = 0.1, **facts: Any) -> Observed:
    return Observed(1, "ann", conversation, arm, weight, **({"failed": False} | facts))


def test_the_first_request_of_a_conversation_stands_for_it(observations: Observations) -> None:
    observations.add([one("a", first_token_s=1.0, tokens=10), one("a", failed=True), one("b", failed=True)])
    observations.add([one("b", first_token_s=9.0, tokens=90), one("c", arm="candidate", refused=True, tokens=20)])
    [stratum] = strata_of(observations.redis, 1)
    assert stratum == Stratum(
        0.1,
        candidate=Side(1, 0, 1, length=Moments(1, math.log(20), math.log(20) ** 2)),
        stable=Side(2, 1, 0, Moments(1, 0.0, 0.0), Moments(1, math.log(10), math.log(10) ** 2)),
    )


def test_conversations_of_the_same_name_are_each_persons_own(observations: Observations) -> None:
    observations.add([one("default"), one("default")._replace(rater="bea")])
    assert [stratum.stable.units for stratum in strata_of(observations.redis, 1)] == [2]


def test_a_weight_and_a_release_each_count_apart(observations: Observations) -> None:
    observations.add([one("a"), one("b", weight=0.25), one("c", arm="candidate", weight=0.25)])
    observations.add([one("a")._replace(release=2)])
    units = [(stratum.weight, stratum.candidate.units, stratum.stable.units) for stratum in strata_of(
        observations.redis, 1
    )]  # fmt: skip
    assert units == [(0.1, 0, 1), (0.25, 1, 1)]
    assert [stratum.stable.units for stratum in strata_of(observations.redis, 2)] == [1]
    assert strata_of(observations.redis, 3) == []


def test_no_conversation_can_be_read_from_what_is_kept(observations: Observations) -> None:
    observations.add([one("secret"), one("secret")._replace(release=2)])
    names = observations.redis.smembers("release:1:units") | observations.redis.smembers("release:2:units")
    assert len(names) == 2 and not any("secret" in name for name in names)
    other = Observations(observations.redis, b"salt")
    other.add([one("secret")])
    assert observations.redis.scard("release:1:units") == 2


def test_nothing_seen_is_nothing_known() -> None:
    found = guardrails([], Limits())
    assert [(each.name, each.verdict) for each in found] == [
        (name, "unknown") for name in ("errors", "refusals", "first_token", "length")
    ]


def test_each_guardrail_is_breached_by_its_own_fault(observations: Observations) -> None:
    draw = Random(1)
    faults: dict[str, dict[str, Any]] = {
        "errors": {"failed": True}, "refusals": {"refused": True}, "first_token": {"first_token_s": 4.0},
        "length": {"tokens": 1000},
    }  # fmt: skip
    for release, (name, fault) in enumerate(faults.items(), start=1):
        seen = []
        for number in range(400):
            arm = "candidate" if number % 2 else "stable"
            usual = {"first_token_s": draw.lognormvariate(0, 0.3), "tokens": round(draw.lognormvariate(4, 0.5))}
            facts = usual | (fault if arm == "candidate" and number % 5 else {})
            seen.append(one(f"{number}", arm, 0.5, **facts)._replace(release=release))
        observations.add(seen)
        found = guardrails(strata_of(observations.redis, release), Limits())
        assert [each.name for each in found if each.verdict == "breached"] == [name]


def test_what_is_merely_later_is_not_slower() -> None:
    """Twice as slow for both while the candidate has more: no difference, though the plain means differ."""
    draw = Random(2)

    def moments(units: int, level: float) -> Moments:
        return Moments.of(*(draw.gauss(level, 0.1) for _ in range(units)))

    strata = [(moments(100, 0.0), moments(900, 0.0)), (moments(500, math.log(3)), moments(500, math.log(3)))]
    ours, theirs = alike(strata)
    assert (ours.units, theirs.units) == (600, 1400)
    assert ours.mean == pytest.approx(math.log(3) * 5 / 6, abs=0.02)
    assert ours.mean - theirs.mean == pytest.approx(0.0, abs=0.02)


def test_of_one_stratum_the_moments_are_its_own_and_one_with_few_of_an_arm_says_nothing() -> None:
    ours, theirs = Moments.of(*[1.0, 2.0, 4.0] * 10), Moments.of(*[0.0, 3.0] * 20)
    few = Moments.of(*[9.0] * (LEAST_OF_A_WEIGHT - 1))
    for found, given in zip(alike([(ours, theirs), (few, theirs), (ours, few)]), (ours, theirs), strict=True):
        assert found.units == given.units
        assert found.mean == pytest.approx(given.mean)
        assert found.variance_of_mean == pytest.approx(given.variance_of_mean)
