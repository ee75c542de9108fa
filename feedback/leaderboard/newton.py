"""The maximum of a concave function by Newton's method."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Near the maximum each step squares the error, so what is left after one below CLOSE is rounding.
STEPS, HALVINGS, GAIN, CLOSE, ROUNDING = 100, 30, 0.25, 1e-6, 1e-12


class Point(NamedTuple):
    """A function where it was asked: its value, its gradient (p), and minus its second derivatives (p, p)."""

    value: float
    gradient: Floats
    information: Floats


def maximise(function: Callable[[Floats], Point], start: Sequence[float]) -> tuple[Floats, Point]:
    """Where a strictly concave function is largest (p).

    A step that gains less than a quarter of what its slope promises (Armijo 1966), or leads to where the function is
    beyond floating point (its value is NaN or -inf there), is halved: whole ones can go to and fro across the maximum
    and hardly gain.
    """
    at = np.array(start, dtype=np.float64)
    here = function(at)
    for _ in range(STEPS):
        step = np.linalg.solve(here.information, here.gradient)
        for _ in range(HALVINGS):
            there = function(at + step)
            enough = GAIN * float(here.gradient @ step) - ROUNDING * max(1.0, abs(here.value))
            if there.value >= here.value + enough:
                break
            step = step / 2
        else:
            return at, here
        at, here = at + step, there
        if np.abs(step).max() < CLOSE:
            return at, here
    raise ArithmeticError(f"no maximum within {STEPS} steps")
