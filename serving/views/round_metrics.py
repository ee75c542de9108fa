"""Where a round's metrics keep what people are shown: {stage: {name: value}}, values nested further in places."""

from collections.abc import Mapping
from typing import Any, NamedTuple

REWARD_ACCURACY = ("reward", "held_out", "accuracy", "mean")
REWARD_PROMPTS = ("reward", "held_out", "prompts")
KL = ("gate", "gate/kl")
SCORE_GAIN = ("gate", "gate/score_gain")
SCORE_GAIN_LOW = ("gate", "gate/score_gain_low")
SCORE_GAIN_HIGH = ("gate", "gate/score_gain_high")


class Check(NamedTuple):
    """What the gate asked: whether `value` stands to `threshold` as `sign` says. None is no number at all."""

    name: str
    value: float | None
    sign: str  # empty in manifests that do not tell
    threshold: float | None
    passed: bool

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else "failed"


def checks(metrics: Mapping[str, Any]) -> list[Check]:
    """All that the gate asked; none where it was not reached."""
    asked = metrics.get("gate", {}).get("checks", [])
    return [Check(c["name"], c["value"], c.get("sign", ""), c["threshold"], c["passed"]) for c in asked]


def find(metrics: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """The number at `path`; None where there is none, as when the stage was skipped or not reached."""
    found: Any = metrics
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None
