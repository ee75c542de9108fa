"""What a candidate policy must show before it is published."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from feedback.statistics import bootstrap_mean
from training.config import GateConfig, RewardConfig
from training.data import RankedSamples, Sample, collate, length_bucketed
from training.models import Role, Trunk
from training.optimization import OnProgress, silent
from training.reward import Scorer, evaluate
from training.rollout import sample_completions

NGRAM = 4


@dataclass(frozen=True)
class Check:
    """One question to the candidate. `passed` holds `value` against `threshold` (from below or above, see `name`)."""

    name: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class GateReport:
    """All checks, passed or not, and what else was measured."""

    passed: bool
    checks: tuple[Check, ...]
    metrics: dict[str, float]

    @property
    def failures(self) -> str:
        """The failed checks in words; empty when it passed."""
        failed = [check for check in self.checks if not check.passed]
        return "; ".join(f"{c.name} is {c.value:.3g}, threshold {c.threshold:.3g}" for c in failed)


def repetition(completion: Sequence[int], n: int = NGRAM) -> float:
    """Share of the n-grams that have occurred before in the completion; 0 when it is shorter than n + 1."""
    grams = [tuple(completion[i : i + n]) for i in range(len(completion) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


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

    def answer(role: Role | None, step: int) -> list[Sample]:
        alive: Callable[[], None] = lambda: progress("gate", step, 4, {})  # noqa: E731
        completions = sample_completions(
            trunk, chosen, role=role, eos_ids=eos_ids, max_new_tokens=max_new_tokens, temperature=temperature,
            seed=seed, alive=alive,
        )  # fmt: skip
        return [Sample(p, c) for p, c in zip(chosen, completions, strict=True)]

    candidate, incumbent = answer("policy", 0), answer(stable, 1)
    scores, stable_scores = scorer.all(candidate), scorer.all(incumbent)
    progress("gate", 2, 4, {})
    gain = bootstrap_mean(
        [a - b for a, b in zip(scores, stable_scores, strict=True)],
        confidence=config.confidence,
        draws=config.bootstrap_samples,
        seed=seed,
    )
    kl = divergence(trunk, candidate, ref, temperature)
    progress("gate", 3, 4, {})
    fit = evaluate(scorer, held_out, confidence=config.confidence)
    length, stable_length = (_mean([len(s.completion_ids) for s in x]) for x in (candidate, incumbent))
    bad = float(sum(int((~tensor.isfinite()).sum()) for tensor in trunk.state("policy").values()))
    checks = (
        _above("score gain, lower bound", gain.low, config.min_score_gain_ci),
        _at_most("KL to the reference", kl, config.max_kl),
        _at_most("length ratio, upper", length / stable_length, config.max_length_ratio),
        _at_least("length ratio, lower", length / stable_length, config.min_length_ratio),
        _at_most("repetition", _mean([repetition(s.completion_ids) for s in candidate]), config.max_repetition),
        _at_most("weights that are not finite", bad, 0.0),
        _at_least("reward model accuracy", fit.accuracy.mean if fit else math.nan, config.min_held_out_accuracy),
    )
    metrics = {
        "gate/score": _mean(scores),
        "gate/stable_score": _mean(stable_scores),
        "gate/score_gain": gain.mean,
        "gate/score_gain_low": gain.low,
        "gate/score_gain_high": gain.high,
        "gate/kl": kl,
        "gate/length": length,
        "gate/stable_length": stable_length,
    }
    passed = all(check.passed for check in checks)
    progress("gate", 4, 4, metrics)
    return GateReport(passed, checks, metrics)
