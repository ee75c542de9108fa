"""What a candidate policy must show before it is published."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from feedback.fit import Change
from feedback.statistics import Interval, bootstrap_mean
from training.config import GateConfig, RewardConfig
from training.data import RankedSamples, Sample, collate, length_bucketed
from training.fit import evaluate
from training.models import Role, Trunk
from training.optimization import OnProgress, silent
from training.rollout import sample_completions
from training.scoring import Scorer
from training.telemetry import repetition


@dataclass(frozen=True)
class Check:
    """One question to the candidate. `passed` holds `value` against `threshold` (from below or above, see `name`)."""

    name: str
    value: float
    threshold: float
    passed: bool

    @property
    def in_words(self) -> str:
        return f"{self.name} is {self.value:.3g}, threshold {self.threshold:.3g}"


@dataclass(frozen=True)
class GateReport:
    """All checks, passed or not, and what else was measured."""

    passed: bool
    checks: tuple[Check, ...]
    metrics: dict[str, float]

    @property
    def failures(self) -> str:
        """The failed checks in words; empty when it passed."""
        return "; ".join(check.in_words for check in self.checks if not check.passed)


def _at_least(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, threshold, math.isfinite(value) and value >= threshold)


def _at_most(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, threshold, math.isfinite(value) and value <= threshold)


def _above(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, threshold, math.isfinite(value) and value > threshold)


@torch.no_grad()
def divergence(
    trunk: Trunk, samples: Sequence[Sample], ref: Role | None, temperature: float, microbatch: int = 16
) -> float:
    """KL(policy || ref) in nats per completion, estimated on the policy's own samples (k1)."""
    total = 0.0
    for indices in length_bucketed([len(s) for s in samples], microbatch):
        batch = collate([samples[i] for i in indices], trunk.pad_id, trunk.device)
        hidden = trunk.lower(batch.input_ids, batch.attention_mask)
        own, _ = trunk.log_probs(hidden, batch, "policy", temperature)
        reference, _ = trunk.log_probs(hidden, batch, ref, temperature)
        total += float((own - reference).sum())
    return total / len(samples)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Answers:
    """What one policy said, an answer per prompt, and how the reward model scores it."""

    samples: Sequence[Sample]
    scores: Sequence[float]

    @property
    def score(self) -> float:
        return _mean(self.scores)

    @property
    def length(self) -> float:
        """Tokens per answer."""
        return _mean([len(sample.completion_ids) for sample in self.samples])

    @property
    def repetition(self) -> float:
        return _mean([repetition(sample.completion_ids) for sample in self.samples])


@dataclass(frozen=True)
class Measured:
    """Candidate and stable policy on the same prompts under the same noise, and what else the checks ask for."""

    candidate: Answers
    stable: Answers
    gain: Interval  # of the score, paired by prompt
    kl: float  # nats per completion
    accuracy: float  # of the reward model on rankings it never saw; NaN without any
    bad_weights: int  # of the candidate: NaN or infinite

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "gate/score": self.candidate.score,
            "gate/stable_score": self.stable.score,
            "gate/score_gain": self.gain.mean,
            "gate/score_gain_low": self.gain.low,
            "gate/score_gain_high": self.gain.high,
            "gate/kl": self.kl,
            "gate/length": self.candidate.length,
            "gate/stable_length": self.stable.length,
        }


def _checks(config: GateConfig, measured: Measured) -> tuple[Check, ...]:
    length_ratio = measured.candidate.length / measured.stable.length
    return (
        _above("score gain, lower bound", measured.gain.low, config.min_score_gain_ci),
        _at_most("KL to the reference", measured.kl, config.max_kl),
        _at_most("length ratio, upper", length_ratio, config.max_length_ratio),
        _at_least("length ratio, lower", length_ratio, config.min_length_ratio),
        _at_most("repetition", measured.candidate.repetition, config.max_repetition),
        _at_most("weights that are not finite", float(measured.bad_weights), 0.0),
        _at_least("reward model accuracy", measured.accuracy, config.min_held_out_accuracy),
    )


def not_worse(config: GateConfig, change: Change) -> Check:
    """Whether a reward model may take its predecessor's place: not when it is worse by more than chance explains."""
    name = f"log-loss over that of policy-v{change.version}'s reward model, lower bound"
    return _at_most(name, change.log_loss.low, config.max_log_loss_rise)


def judge(
    config: GateConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    held_out: Sequence[RankedSamples],
    *,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    stable: Role | None = None,
    ref: Role | None = None,
    reward: RewardConfig | None = None,
    progress: OnProgress = silent,
    seed: int = 0,
) -> GateReport:
    """Hold the policy adapter against `stable` (None = the base model) on prompts that trained nobody.

    Both answer every prompt with the same noise. `held_out` are rankings that the reward model never saw; without
    them its accuracy is NaN and the gate refuses: scores of an unproven judge prove nothing.
    """
    chosen = [tuple(prompt) for prompt in prompts[: config.prompts]]
    scorer = Scorer(trunk, [], reward or RewardConfig())

    def answers(role: Role | None, step: int) -> Answers:
        completions = sample_completions(
            trunk, chosen, role=role, eos_ids=eos_ids, max_new_tokens=max_new_tokens, temperature=temperature,
            seed=seed, alive=lambda: progress("gate", step, 4, {}),
        )  # fmt: skip
        samples = [Sample(p, c) for p, c in zip(chosen, completions, strict=True)]
        return Answers(samples, scorer.all(samples))

    candidate, incumbent = answers("policy", 0), answers(stable, 1)
    progress("gate", 2, 4, {})
    kl = divergence(trunk, candidate.samples, ref, temperature)
    progress("gate", 3, 4, {})
    fit = evaluate(scorer, held_out, confidence=config.confidence)
    measured = Measured(
        candidate=candidate,
        stable=incumbent,
        gain=_gain(config, candidate, incumbent, seed),
        kl=kl,
        accuracy=fit.accuracy.mean if fit else math.nan,
        bad_weights=sum(int((~tensor.isfinite()).sum()) for tensor in trunk.state("policy").values()),
    )
    checks = _checks(config, measured)
    progress("gate", 4, 4, measured.metrics)
    return GateReport(all(check.passed for check in checks), checks, measured.metrics)


def _gain(config: GateConfig, candidate: Answers, stable: Answers, seed: int) -> Interval:
    differences = [a - b for a, b in zip(candidate.scores, stable.scores, strict=True)]
    return bootstrap_mean(differences, confidence=config.confidence, draws=config.bootstrap_samples, seed=seed)
