"""Do the weights in the engine equal the weights that were trained? The decision, as a pure function.

In bf16 an engine differs from the trainer by some 0.04 per token, which may be more than what one round of
training moved. So the *change* is compared: the common error of two policies on the same tokens cancels in
(engine new − engine old), which must then equal (trainer new − trainer old).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from feedback.records import Record
from serving.engine.server import Scores

# Root mean square of engine − trainer over all golden tokens beyond which nothing is believed.
ABSOLUTE_TOLERANCE = 0.25
# The unexplained part of the change may be this many times the old, proven policy's own engine − trainer gap:
# two independent errors of that size would give 1.4.
RESIDUAL_FACTOR = 2.0
RESIDUAL_FLOOR = 0.002
# Slope 1 is the new policy, slope 0 the old. Seen only if its standard error is below SLOPE_ERROR, so that
# SLOPE_TOLERANCE keeps the two at least seven standard errors apart.
SLOPE_ERROR = 0.1
SLOPE_TOLERANCE = 0.3

Decider = Literal["checksum", "change", "absolute", "nothing"]


class Reading(Record):
    """One policy's log-probs on the golden sequences, as the engine and as the trainer computed them.

    `parent` is what the trainer computed for the policy it was trained from; empty where that is unknown.
    """

    version: int
    golden: tuple[tuple[int, ...], ...]
    engine: Scores
    trainer: Scores
    parent: Scores = ()


class Proof(Record):
    """The verdict on a load, and the numbers behind it (log-probs in nats, root mean squares over tokens)."""

    proven: bool
    decided_by: Decider
    reason: str
    checksum: bool | None = None
    tokens: int = 0
    gap: float | None = None
    signal: float | None = None
    slope: float | None = None
    slope_error: float | None = None
    residual: float | None = None


def digests_agree(expected: Mapping[str, str], found: Mapping[str, str]) -> bool | None:
    """Whether the engine's weight digests are the expected ones; None when they cannot tell.

    Engines that pack a matrix for the processor drop the plain one (vLLM on a CPU in float32 does): those that are
    left may refute, but prove nothing of the others.
    """
    if any(digest != expected[name] for name, digest in found.items() if name in expected):
        return False
    return True if found and found.keys() == expected.keys() else None


def judge(new: Reading, old: Reading | None, checksum: bool | None) -> Proof:
    """Decide whether the engine holds the policy that `new.trainer` describes.

    `old` is a proven policy of another version measured on the same engine, None when there is none;
    `checksum` says whether the weights' digests agree, None when they cannot be had. Digests that differ refute
    alone. Beyond that the golden numbers must agree; where they cannot see the change (a change too small
    against the engine's noise, or no old policy), the digests decide; with no digests either, an absolute
    agreement is accepted only when there is no old policy to mistake the new one for.
    """
    if checksum is False:
        return Proof(proven=False, decided_by="checksum", reason="weight digests differ", checksum=False)
    if not new.engine and checksum is None:
        return Proof(proven=False, decided_by="nothing", reason="neither digests nor golden sequences to prove by")
    engine, trainer = _flat(new.engine), _flat(new.trainer)
    if len(engine) != len(trainer) or not all(map(math.isfinite, engine)):
        return Proof(proven=False, decided_by="absolute", reason="golden log-probs are incomplete", checksum=checksum)
    gap = _rms([e - t for e, t in zip(engine, trainer, strict=True)])
    facts: dict[str, Any] = {"checksum": checksum, "tokens": len(engine), "gap": gap}
    if gap > ABSOLUTE_TOLERANCE:
        reason = f"golden log-probs are off by {gap:.3f} on average (limit {ABSOLUTE_TOLERANCE})"
        return Proof(proven=False, decided_by="absolute", reason=reason, **facts)
    if old is None or old.version == new.version or old.golden != new.golden or not engine:
        if not checksum and _is_parent(engine, trainer, _flat(new.parent)):
            reason = "golden log-probs are those of the policy it was trained from"
            return Proof(proven=False, decided_by="absolute", reason=reason, **facts)
        decider: Decider = "checksum" if checksum else "absolute"
        return Proof(proven=True, decided_by=decider, reason="no older policy to compare the change with", **facts)
    return _judge_change(engine, trainer, _flat(old.engine), _flat(old.trainer), facts)


def _judge_change(
    engine: list[float],
    trainer: list[float],
    old_engine: list[float],
    old_trainer: list[float],
    facts: dict[str, Any],
) -> Proof:
    seen = [a - b for a, b in zip(engine, old_engine, strict=True)]
    told = [a - b for a, b in zip(trainer, old_trainer, strict=True)]
    old_gap = _rms([a - b for a, b in zip(old_engine, old_trainer, strict=True)])
    limit = max(RESIDUAL_FACTOR * old_gap, RESIDUAL_FLOOR)
    signal = _rms(told)
    residual = _rms([s - t for s, t in zip(seen, told, strict=True)])
    slope, norm = _slope(seen, told)
    # The noise is taken as the limit at worst, never from a wild residual.
    error = min(max(residual, RESIDUAL_FLOOR / 10), limit) / norm if norm else math.inf
    facts |= {"signal": signal, "slope": slope, "residual": residual}
    facts["slope_error"] = error if norm else None  # infinity is no JSON

    def verdict(proven: bool, decider: Decider, reason: str) -> Proof:
        return Proof.model_validate({**facts, "proven": proven, "decided_by": decider, "reason": reason})

    visible = error <= SLOPE_ERROR
    if visible and abs(slope - 1) > SLOPE_TOLERANCE:
        return verdict(False, "change", f"the engine moved {slope:.2f} of the way from the old policy to the new")
    if residual > limit:
        return verdict(False, "change", f"the engine moved elsewhere: residual {residual:.3f} over {limit:.3f}")
    if visible:
        return verdict(True, "change", "the engine's change equals the trainer's")
    if facts["checksum"]:
        return verdict(True, "checksum", "the change is below the engine's noise; the weight digests agree")
    return verdict(False, "nothing", "the change is below the engine's noise and there are no weight digests")


def leak(alone: Scores, beside: Scores, adapted: Scores) -> str | None:
    """Why an engine is not to be believed whose rows without an adapter say `beside` next to rows with it; or None.

    By themselves they say `alone`, the adapter's rows `adapted`, of the same golden tokens. Rounding differs from batch
    to batch, for some tokens by a lot: what counts is how far all of them moved, and whether towards the adapter.
    """
    base = _flat(alone)
    moved = [b - a for b, a in zip(_flat(beside), base, strict=True)]
    told = [b - a for b, a in zip(_flat(adapted), base, strict=True)]
    if (drift := _rms(moved)) > ABSOLUTE_TOLERANCE:
        return f"in a mixed batch rows without the adapter changed by {drift:.3f} on average"
    slope, norm = _slope(moved, told)
    noise = _rms([m - slope * t for m, t in zip(moved, told, strict=True)])
    if norm and noise / norm <= SLOPE_ERROR and slope > SLOPE_TOLERANCE:
        return f"in a mixed batch rows without the adapter moved {slope:.2f} of the way to it"
    return None


def _is_parent(engine: list[float], trainer: list[float], parent: list[float]) -> bool:
    """Whether the engine is nearer to the parent than to the new policy, by more than its noise."""
    if len(parent) != len(trainer):
        return False
    seen = [e - p for e, p in zip(engine, parent, strict=True)]
    told = [t - p for t, p in zip(trainer, parent, strict=True)]
    slope, norm = _slope(seen, told)
    noise = _rms([s - slope * t for s, t in zip(seen, told, strict=True)])
    return norm > 0 and slope < 0.5 and noise / norm <= SLOPE_ERROR


def _slope(seen: list[float], told: list[float]) -> tuple[float, float]:
    """How far along `told` the engine moved, by least squares through the origin; and the length of `told`.

    The slope's standard error is the noise of `seen` over that length. Nothing told: (0, 0).
    """
    power = sum(t * t for t in told)
    slope = sum(s * t for s, t in zip(seen, told, strict=True)) / power if power else 0.0
    return slope, math.sqrt(power)


def _flat(scores: Scores) -> list[float]:
    return [score for row in scores for score in row]


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
