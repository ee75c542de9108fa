"""What a candidate policy must show before it is published."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from feedback.policies.reward_fit import MIN_PROMPTS, Change
from feedback.statistics import Interval
from training.config import GateConfig, RoundConfig
from training.model.roles import Role
from training.model.trunk import Trunk
from training.optimizing.steps import OnProgress, silent
from training.round.contest import STEPS, Contest, HeldOut, Imitation, Measured, measure


@dataclass(frozen=True)
class Check:
    """One question to the candidate: whether `value` stands to `threshold` as `sign` says."""

    name: str
    value: float
    sign: Literal["<=", ">=", ">"]
    threshold: float
    passed: bool

    @property
    def in_words(self) -> str:
        value = "unknown" if math.isnan(self.value) else f"{self.value:.3g}"
        return f"{self.name} is {value}, threshold {self.threshold:.3g}"


@dataclass(frozen=True)
class GateReport:
    """All checks, passed or not, and what else was measured."""

    passed: bool
    checks: tuple[Check, ...]
    metrics: dict[str, float]

    @property
    def failures(self) -> str:
        """The failed checks in words; empty when it passed."""
        return failed(self.checks)


def failed(checks: Sequence[Check]) -> str:
    """Those that did not pass, in words; empty when all did."""
    return "; ".join(check.in_words for check in checks if not check.passed)


def _at_least(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, ">=", threshold, math.isfinite(value) and value >= threshold)


def _at_most(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, "<=", threshold, math.isfinite(value) and value <= threshold)


def _above(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, ">", threshold, math.isfinite(value) and value > threshold)


def checks_of(config: RoundConfig, measured: Measured) -> tuple[Check, ...]:
    """All that can be asked. What the candidate has come to prefer is told only: few rankings say little of it."""
    gate, candidate, stable = config.gate, measured.candidate, measured.stable
    length_ratio, repetition_rise = candidate.length / stable.length, candidate.repetition - stable.repetition
    return (
        _above("score gain, lower bound", measured.gain.low, gate.min_score_gain_ci),
        _at_most("KL to the reference", measured.kl, gate.max_kl),
        _at_most("length ratio, upper", length_ratio, gate.max_length_ratio),
        _at_least("length ratio, lower", length_ratio, gate.min_length_ratio),
        _at_least("entropy", candidate.entropy, config.ppo.collapse_entropy * stable.entropy),
        _at_most("repetition", candidate.repetition, gate.max_repetition),
        _at_most("repetition over the stable policy's", repetition_rise, gate.max_repetition_rise),
        _at_most("weights that are not finite", float(measured.bad_weights), 0.0),
        right_enough(gate, measured.accuracy),
        *_tax(gate, measured.imitation),
    )


def _tax(config: GateConfig, imitation: Imitation | None) -> tuple[Check, ...]:
    """Nothing where demonstrations are of too few prompts to tell a rise from chance."""
    if imitation is None or imitation.prompts < MIN_PROMPTS:
        return ()
    name = "LM loss of held-out demonstrations over the stable policy's, lower bound"
    return (_at_most(name, imitation.rise.low, config.max_lm_loss_rise),)


def right_enough(config: GateConfig, accuracy: Interval | None) -> Check:
    """Whether a reward model is right often enough about what it never saw; one of which that is not known is not."""
    found = math.nan if accuracy is None else accuracy.mean
    return _at_least("reward model accuracy", found, config.min_held_out_accuracy)


def not_worse(config: GateConfig, change: Change) -> Check:
    """Whether a reward model may take its predecessor's place: not when it is worse by more than chance explains."""
    name = f"log-loss over that of policy-v{change.version}'s reward model, lower bound"
    return _at_most(name, change.log_loss.low, config.max_log_loss_rise)


def judge(
    config: RoundConfig,
    trunk: Trunk,
    held_out: HeldOut,
    *,
    eos_ids: frozenset[int],
    stable: Role | None = None,
    ref: Role | None = None,
    progress: OnProgress = silent,
) -> GateReport:
    """Hold the policy adapter against `stable` (None = the base model) on what trained nobody.

    Without rankings that the reward model never saw its accuracy is NaN and the gate refuses: scores of an unproven
    judge prove nothing.
    """
    measured = measure(Contest(config, trunk, eos_ids, stable, ref), held_out, progress)
    checks = checks_of(config, measured)
    progress("gate", STEPS, STEPS, measured.metrics)
    return GateReport(all(check.passed for check in checks), checks, measured.metrics)
