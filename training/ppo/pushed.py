"""Whether an engine computes with the weights that it was given last, judged by log-probs of a fixed probe.

In bf16 an engine differs from the trainer by some 0.04 per token, often more than one update moves the policy. So
changes are compared: the error that two readings of the same tokens share cancels in their difference.
"""

import math
from dataclasses import dataclass

from torch import Tensor

# Of the gap between engine and trainer over the base model's, which nothing was pushed for: 1.00 to 1.15 was measured.
GAP_FACTOR = 2.0
GAP_FLOOR = 0.01  # in fp32 the base model's gap is next to nothing, and that of merged weights is not
# A change is seen when it is so many times the base model's gap. The trainer's own rounding is in the change that it
# tells, with 0.8 of the gap's square, and makes the slope so much flatter: to 0.64 here.
VISIBLE = 1.5
SLOPE_TOLERANCE = 0.6  # slope 1 = the new weights, 0 = the old


class PushFailed(RuntimeError):
    """The engine does not hold the policy that it was given, and whatever it writes is somebody else's."""


@dataclass(frozen=True)
class Reading:
    """Log-probs (N,) of the probe's tokens under one policy, as the engine and as the trainer compute them."""

    engine: Tensor
    trainer: Tensor

    @property
    def gap(self) -> float:
        return _rms(self.engine - self.trainer)


def require_pushed(new: Reading, base: Reading, last: Reading, *, changed: bool) -> None:
    """Hold the reading after a push against that of the base model and that after the last push.

    `changed` says whether the weights differ from those pushed last, to the bit. Raises PushFailed.
    """
    if not new.engine.isfinite().all():
        raise PushFailed("the engine's log-probs are not finite")
    if changed and new.engine.equal(last.engine):
        raise PushFailed("the engine computes with the weights it had before")
    limit = max(GAP_FACTOR * base.gap, GAP_FLOOR)
    if new.gap > limit:
        raise PushFailed(f"the engine's log-probs are {new.gap:.3f} off the trainer's, limit {limit:.3f}")
    for old in (last, base):
        _require_moved(new, old, base.gap)


def _require_moved(new: Reading, old: Reading, noise: float) -> None:
    told = new.trainer - old.trainer
    if _rms(told) <= max(VISIBLE * noise, GAP_FLOOR):
        return
    slope = float((new.engine - old.engine) @ told / (told @ told))  # least squares through the origin
    if abs(slope - 1) > SLOPE_TOLERANCE:
        raise PushFailed(f"the engine moved {slope:.2f} of the way from the former policy to the new one")


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.double().square().mean()))
