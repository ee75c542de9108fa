"""The proof tells the weights pushed from those before, and from any third."""

import math

import pytest
import torch
from torch import Tensor

from training.ppo.pushed import PushFailed, Reading, require_pushed

# By hand: the engine is 0.02 off the trainer everywhere, and two pushes move the trainer by ±0.2 each.
ROUNDING = torch.tensor([0.02, -0.02, -0.02, 0.02])
BASE = torch.tensor([-1.0, -2.0, -1.0, -3.0])
FIRST = BASE + torch.tensor([0.2, -0.2, 0.2, -0.2])
SECOND = FIRST + torch.tensor([0.2, 0.2, -0.2, -0.2])


def reading(trainer: Tensor, engine: Tensor | None = None) -> Reading:
    return Reading((trainer if engine is None else engine) + ROUNDING, trainer)


def test_the_gap_is_a_root_mean_square() -> None:
    assert Reading(torch.tensor([-1.0, -2.0]), torch.tensor([-1.3, -1.6])).gap == pytest.approx(math.sqrt(0.125))


def test_what_was_pushed_passes() -> None:
    require_pushed(reading(FIRST), reading(BASE), reading(BASE), changed=True)
    require_pushed(reading(SECOND), reading(BASE), reading(FIRST), changed=True)


def test_an_engine_that_computes_as_before_is_refused_however_small_the_change() -> None:
    hair = FIRST + 1e-6
    with pytest.raises(PushFailed, match="weights it had before"):
        require_pushed(reading(hair, engine=FIRST), reading(BASE), reading(FIRST), changed=True)
    require_pushed(reading(FIRST), reading(BASE), reading(FIRST), changed=False)


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        pytest.param(BASE, "off the trainer's", id="the base model"),
        pytest.param(FIRST + 1e-4, "off the trainer's", id="the former push"),
        pytest.param(2 * SECOND - FIRST, "off the trainer's", id="twice as far"),
        pytest.param(SECOND * torch.tensor([1.0, 1.0, math.nan, 1.0]), "not finite", id="nan"),
    ],
)
def test_another_policy_is_refused(engine: Tensor, complaint: str) -> None:
    with pytest.raises(PushFailed, match=complaint):
        require_pushed(reading(SECOND, engine), reading(BASE), reading(FIRST), changed=True)


def test_a_policy_within_the_gap_is_refused_by_the_way_it_has_moved() -> None:
    """Rounding of ±0.12 allows a gap of 0.24, and a push that moved by 0.2 hides in it: but its slope is 0."""
    rough = torch.tensor([0.12, 0.12, 0.12, 0.12])

    def rounded(trainer: Tensor, engine: Tensor) -> Reading:
        return Reading(engine + rough, trainer)

    base, last = rounded(BASE, BASE), rounded(FIRST, FIRST)
    require_pushed(rounded(SECOND, SECOND), base, last, changed=True)
    with pytest.raises(PushFailed, match=r"moved -?0\.00 of the way"):
        require_pushed(rounded(SECOND, FIRST + 1e-4), base, last, changed=True)
    with pytest.raises(PushFailed, match=r"moved 0\.30 of the way"):
        require_pushed(rounded(SECOND, FIRST + 0.3 * (SECOND - FIRST)), base, last, changed=True)
    require_pushed(rounded(SECOND, FIRST + 0.7 * (SECOND - FIRST)), base, last, changed=True)
    require_pushed(Reading(BASE + rough + 1e-3, BASE + 0.1), base, base, changed=True)  # too small to be seen
