"""The proof tells new from old and third."""

import math

import pytest

from serving.engine.proof import Proof, Reading, digests_agree, judge, leak
from serving.engine.server import Scores

GOLDEN = ((1, 2, 3, 4, 5),)


def reading(version: int, engine: list[float], trainer: list[float]) -> Reading:
    return Reading(version=version, golden=GOLDEN, engine=(tuple(engine),), trainer=(tuple(trainer),))


# By hand: the engine reads 0.01 to 0.03 off the trainer; the new policy moves by ±0.2.
OLD = reading(1, [-1.01, -2.02, -0.99, -3.03], [-1.0, -2.0, -1.0, -3.0])
NEW_TRAINER = [-0.8, -2.2, -0.8, -3.2]
NEW_ENGINE = [-0.81, -2.21, -0.8, -3.22]


@pytest.mark.parametrize("checksum", [True, None])
def test_the_new_policy_is_recognised_by_its_change(checksum: bool | None) -> None:
    proof = judge(reading(2, NEW_ENGINE, NEW_TRAINER), OLD, checksum)
    assert proof.proven
    assert proof.decided_by == "change"
    # Changes seen +0.20 -0.19 +0.19 -0.19 against told +0.2 -0.2 +0.2 -0.2.
    assert proof.slope == pytest.approx(0.77 / 0.8)
    assert proof.signal == pytest.approx(0.2)
    assert proof.residual == pytest.approx(math.sqrt(3 * 0.01**2 / 4))
    assert proof.tokens == 4


def test_the_old_policy_still_in_the_engine_is_refused() -> None:
    proof = judge(reading(2, list(OLD.engine[0]), NEW_TRAINER), OLD, None)
    assert not proof.proven
    assert proof.slope == 0
    assert "0.00 of the way" in proof.reason


@pytest.mark.parametrize(
    "third",
    [
        pytest.param([-0.61, -2.42, -0.59, -3.43], id="twice as far"),
        pytest.param([-1.21, -1.82, -1.19, -2.83], id="the other way"),
        pytest.param([-0.61, -2.02, -0.99, -3.23], id="elsewhere"),
        pytest.param([-0.91, -2.11, -0.9, -3.12], id="half way"),
    ],
)
def test_a_third_policy_is_refused(third: list[float]) -> None:
    assert not judge(reading(2, third, NEW_TRAINER), OLD, None).proven


def test_a_third_policy_with_the_right_slope_but_other_numbers_is_refused() -> None:
    """Orthogonal to the told change: it adds +d +d -d -d to ±0.2, so the slope stays 1."""
    d = 0.12
    engine = [-0.81 + d, -2.22 + d, -0.79 - d, -3.23 - d]
    proof = judge(reading(2, engine, NEW_TRAINER), OLD, None)
    assert proof.slope == pytest.approx(1.0)
    assert not proof.proven
    assert "residual" in proof.reason


def test_a_change_below_the_noise_is_left_to_the_digests() -> None:
    trainer = [-1.001, -2.001, -0.999, -3.001]
    still_old = reading(2, list(OLD.engine[0]), trainer)
    assert judge(still_old, OLD, True).decided_by == "checksum"
    assert judge(still_old, OLD, True).proven
    assert judge(still_old, OLD, None).decided_by == "nothing"
    assert not judge(still_old, OLD, None).proven
    assert not judge(still_old, OLD, False).proven


def test_the_same_numbers_trained_anew_are_left_to_the_digests() -> None:
    twin = reading(2, list(OLD.engine[0]), list(OLD.trainer[0]))
    assert judge(twin, OLD, True).slope_error is None
    assert judge(twin, OLD, True).proven


def test_without_an_old_policy_the_numbers_count_as_they_are() -> None:
    assert judge(reading(2, NEW_ENGINE, NEW_TRAINER), None, None).decided_by == "absolute"
    assert judge(reading(2, NEW_ENGINE, NEW_TRAINER), None, True).decided_by == "checksum"
    far = judge(reading(2, [score - 0.3 for score in NEW_TRAINER], NEW_TRAINER), None, True)
    assert not far.proven
    assert far.gap == pytest.approx(0.3)


def test_without_an_old_policy_the_parent_is_still_told_from_the_child() -> None:
    """After a gateway's restart, in an engine without digests; all of it is far below the absolute tolerance."""
    parent = (tuple(OLD.trainer[0]),)

    def first_proof(engine: list[float], checksum: bool | None = None) -> Proof:
        return judge(reading(2, engine, NEW_TRAINER).model_copy(update={"parent": parent}), None, checksum)

    assert first_proof(NEW_ENGINE).proven
    still_parent = first_proof(list(OLD.engine[0]))
    assert not still_parent.proven
    assert "trained from" in still_parent.reason
    assert first_proof(list(OLD.engine[0]), checksum=True).proven, "digests see more than noise"


def test_a_parent_within_the_noise_refutes_nothing() -> None:
    trainer = [-1.001, -2.001, -0.999, -3.001]
    near = reading(2, list(OLD.engine[0]), trainer)
    for parent in ((), OLD.trainer, (tuple(trainer),)):
        assert judge(near.model_copy(update={"parent": parent}), None, None).proven


@pytest.mark.parametrize("engine", [[-1.0, -1.0, -1.0], [-1.0, math.nan, -1.0, -1.0], [-1.0, -math.inf, -1.0, -1.0]])
def test_missing_or_broken_numbers_prove_nothing(engine: list[float]) -> None:
    assert not judge(reading(2, engine, NEW_TRAINER), None, True).proven


def test_digests_that_differ_refute_alone_and_no_evidence_proves_nothing() -> None:
    empty = Reading(version=2, golden=(), engine=(), trainer=())
    assert not judge(reading(2, NEW_ENGINE, NEW_TRAINER), OLD, False).proven
    assert not judge(empty, None, None).proven
    assert judge(empty, None, True).proven


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "3"}, False),
        ({"a": "1"}, None),
        ({"a": "9"}, False),
        ({"tp0:a": "4", "tp1:a": "5"}, None),
        ({}, None),
    ],
)
def test_digests_prove_only_what_they_cover(found: dict[str, str], verdict: bool | None) -> None:
    assert digests_agree({"a": "1", "b": "2"}, found) is verdict
    assert digests_agree({}, {}) is None


NOISE = ((0.3, -0.1, 0.02), (-0.25, 0.05))
ALONE = ((-1.0, -2.0, -1.5), (-0.5, -3.0))
ADAPTED = ((-1.6, -1.2, -2.1), (-1.1, -2.2))


def beside(leaks: float, noise: float) -> Scores:
    """Rows without the adapter, of which so much went into them."""
    rows = zip(ALONE, ADAPTED, NOISE, strict=True)
    return tuple(tuple(a + leaks * (b - a) + noise * n for a, b, n in zip(*row, strict=True)) for row in rows)


def test_rounding_by_which_some_tokens_change_a_lot_is_no_leak() -> None:
    assert leak(ALONE, beside(0.0, 1.0), ADAPTED) is None, "up to 0.3, 0.18 on average, to no side"
    assert leak(ALONE, ALONE, ADAPTED) is None
    assert leak((), (), ()) is None


def test_rows_that_move_to_the_adapter_leak() -> None:
    assert leak(ALONE, beside(0.25, 0.1), ADAPTED) is None
    assert "moved 0.3" in str(leak(ALONE, beside(0.35, 0.1), ADAPTED))
    assert "on average" in str(leak(ALONE, ADAPTED, ADAPTED)), "0.68: so far nothing is believed"
    assert "on average" in str(leak(ALONE, beside(0.0, 2.0), ALONE)), "whichever way"
