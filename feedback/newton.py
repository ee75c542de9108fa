"""The maximum of a concave function by Newton's method, in plain Python: the ledger's side has no array library."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Matrix = list[list[float]]

#: Near the maximum each step squares the error, so what is left after one below CLOSE is rounding.
STEPS, HALVINGS, GAIN, CLOSE, ROUNDING = 100, 30, 0.25, 1e-6, 1e-12


class Point(NamedTuple):
    """A function where it was asked: its value, its gradient (p), and minus its second derivatives (p, p)."""

    value: float
    gradient: list[float]
    information: Matrix


def maximise(function: Callable[[list[float]], Point], start: Sequence[float]) -> tuple[list[float], Point]:
    """Where a strictly concave function is largest (p).

    A step that gains less than a quarter of what its slope promises (Armijo 1966), or leads to where the function is
    beyond floating point, is halved: whole ones can go to and fro across the maximum and hardly gain.
    """
    at = list(start)
    here = function(at)
    for _ in range(STEPS):
        step = solve(here.information, here.gradient)
        for _ in range(HALVINGS):
            tried = [value + change for value, change in zip(at, step, strict=True)]
            there = _defined(function, tried)
            promised = sum(slope * change for slope, change in zip(here.gradient, step, strict=True))
            noise = ROUNDING * max(1.0, abs(here.value))
            if there is not None and there.value >= here.value + GAIN * promised - noise:
                break
            step = [change / 2 for change in step]
        else:
            return at, here
        at, here = tried, there
        if max(map(abs, step)) < CLOSE:
            return at, here
    raise ArithmeticError(f"no maximum within {STEPS} steps")


def _defined(function: Callable[[list[float]], Point], at: list[float]) -> Point | None:
    """From where a function is almost flat a whole step may lead to where its exponentials overflow: None there."""
    try:
        return function(at)
    except (OverflowError, ZeroDivisionError):
        return None


def solve(matrix: Matrix, right: Sequence[float]) -> list[float]:
    """x of A x = b for a symmetric positive definite A (p, p), by elimination; zeros cost nothing."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i, row in enumerate(rows):
        for j in range(i + 1, size):
            if rows[j][i]:
                factor = rows[j][i] / row[i]
                rows[j][i:] = [a - factor * b for a, b in zip(rows[j][i:], row[i:], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(a * b for a, b in zip(rows[i][i + 1 : size], solution[i + 1 :], strict=True))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution


def inverse(matrix: Matrix) -> Matrix:
    """Of a symmetric positive definite matrix (p, p), by Gauss and Jordan's elimination."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        rows[i] = chosen = [value / rows[i][i] for value in rows[i]]
        for j in range(size):
            if j != i and rows[j][i]:
                factor = rows[j][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], chosen, strict=True)]
    return [row[size:] for row in rows]
