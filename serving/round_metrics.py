"""Where a round's metrics keep what people are shown: {stage: {name: value}}, values nested further in places."""

from collections.abc import Mapping
from typing import Any

REWARD_ACCURACY = ("reward", "held_out", "accuracy", "mean")
REWARD_PROMPTS = ("reward", "held_out", "prompts")
KL = ("gate", "gate/kl")
SCORE_GAIN = ("gate", "gate/score_gain")
SCORE_GAIN_LOW = ("gate", "gate/score_gain_low")
SCORE_GAIN_HIGH = ("gate", "gate/score_gain_high")


def find(metrics: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """The number at `path`; None where there is none, as when the stage was skipped or not reached."""
    found: Any = metrics
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None
