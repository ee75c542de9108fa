"""What all stages step by: the learning rate's way up and down."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.optimizing.steps import NonFinite, descend, set_rates, share_of_rate


@pytest.mark.parametrize(
    ("total", "options", "want"),
    [
        (4, {}, ["1", "3/4", "1/2", "1/4"]),
        (6, {"warmup": 0.5}, ["1/4", "1/2", "3/4", "1", "2/3", "1/3"]),
        (5, {"warmup": 0.4, "decay": False}, ["1/3", "2/3", "1", "1", "1"]),
        (4, {"warmup": 0.1}, ["1", "3/4", "1/2", "1/4"]),  # too short for a step of warm-up
        (1, {"warmup": 0.1}, ["1"]),
        (1, {"warmup": 0.9}, ["1/2"]),  # all of it is warm-up
        (3, {"decay": False}, ["1", "1", "1"]),
    ],
)
def test_a_rate_rises_and_falls_in_straight_lines(total: int, options: dict[str, float], want: list[str]) -> None:
    found = [share_of_rate(step, total, **options) for step in range(total)]  # type: ignore[arg-type]  # bool, float
    assert found == pytest.approx([float(Fraction(each)) for each in want], abs=1e-12)


def test_a_fit_of_twenty_steps_warms_up_over_two() -> None:
    found = [share_of_rate(step, 20, warmup=0.1) for step in (0, 1, 2, 3, 19)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 17 / 18, 1 / 18], abs=1e-12)


@given(st.integers(1, 300), st.floats(0, 1, exclude_max=True), st.booleans())
def test_no_step_is_without_a_rate_and_none_above_it(total: int, warmup: float, decay: bool) -> None:
    shares = [share_of_rate(step, total, warmup=warmup, decay=decay) for step in range(total)]
    assert all(0 < share <= 1 for share in shares)
    top = min(round(warmup * total), total - 1)
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


def test_each_group_has_its_own_rate() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weight]} for weight in weights], lr=9.0)
    set_rates(optimizer, 0.5, 0.25)
    for weight in weights:
        weight.grad = torch.ones(1)
    optimizer.step()
    assert [weight.item() for weight in weights] == [-0.5, -0.25]
    with pytest.raises(ValueError, match="argument 2 is"):
        set_rates(optimizer, 0.5)


def test_a_step_is_clipped_over_all_groups_and_none_is_taken_by_what_is_not_finite() -> None:
    """The gradient (3, 4) has norm 5 and is cut to 1."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weight]} for weight in weights], lr=1.0)
    for weight, slope in zip(weights, (3.0, 4.0), strict=True):
        weight.grad = torch.full((1,), slope)
    assert descend(optimizer, 0.5, 1.0, stage="sft", step=0) == 0.5
    moved = [-0.6, -0.8]
    assert [weight.item() for weight in weights] == pytest.approx(moved, abs=1e-5)
    with pytest.raises(NonFinite, match="sft: loss is nan at step 1"):
        descend(optimizer, float("nan"), 1.0, stage="sft", step=1)
    weights[1].grad = torch.full((1,), float("inf"))
    with pytest.raises(NonFinite, match="sft: gradient_norm is inf at step 2"):
        descend(optimizer, 0.5, 1.0, stage="sft", step=2)
    assert [weight.item() for weight in weights] == pytest.approx(moved, abs=1e-5)
