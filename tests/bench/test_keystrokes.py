"""The keystroke-level model, by hand."""

import pytest

from tests.bench.keystrokes import hand_s, operators


@pytest.mark.parametrize(
    "inputs, done, seconds",
    [
        ([], "", 0.0),
        (["key"] * 2, "KK", 0.4),
        (["click"], "HPK", 1.7),
        (["drag"] * 2 + ["click"], "HPKPKPKPKPK", 0.4 + 2 * 2.6 + 1.3),
        (["click", "key", "key", "key", "click"], "HPKHKKKHPK", 3 * 0.4 + 2 * 1.3 + 0.6),
    ],
)
def test_hands_go_to_the_mouse_and_back(inputs: list[str], done: str, seconds: float) -> None:
    assert operators(inputs) == done
    assert hand_s(inputs) == pytest.approx(seconds, abs=1e-9)
