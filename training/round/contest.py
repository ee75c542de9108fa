"""A candidate beside the stable policy, in figures: everything that the gate's checks ask for.

On what trained nobody: both answer the same prompts under the same noise, and both are asked how likely they think what
people wrote and ranked.

Letters: N samples, K reward heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import torch

from feedback.statistics import Interval, t_mean
from training.config import RoundConfig
from training.model.roles import Role
from training.model.samples import RankedSamples, Sample, collate, length_bucketed
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.optimizing.steps import OnProgress, silent
from training.ppo.advantages import certain_scores
from training.ppo.rollout import sample_completions
from training.ppo.telemetry import repetition
from training.reward.fit import evaluate
from training.sft.lm_loss import negative_log_likelihoods, per_token, rise

STEPS = 6  # of `measure`


@dataclass(frozen=True)
class HeldOut:
    """What trained neither the candidate nor the reward model that judges it."""

    prompts: Sequence[Sequence[int]]
    rankings: Sequence[RankedSamples]
    demonstrations: Sequence[Sample] = ()


@dataclass(frozen=True)
class Answers:
    """What one policy said, an answer per prompt, and what it is worth to PPO: less where the reward heads disagree."""

    samples: Sequence[Sample]
    scores: Sequence[float]
    uncertainties: Sequence[float]  # standard deviation over the heads; 0 with one
    nats: Sequence[float]  # -log-prob of each answer, by the policy itself, as it was sampled

    @property
    def score(self) -> float:
        return fmean(self.scores)

    @property
    def uncertainty(self) -> float:
        return fmean(self.uncertainties)

    @property
    def length(self) -> float:
        """Tokens per answer."""
        return fmean([len(sample.completion_ids) for sample in self.samples])

    @property
    def entropy(self) -> float:
        """Sampled estimate, nats per token."""
        return per_token(self.samples, self.nats)

    @property
    def repetition(self) -> float:
        return fmean([repetition(sample.completion_ids) for sample in self.samples])


@dataclass(frozen=True)
class Imitation:
    """Language-model loss of demonstrations, in nats per completion token. Its rise is the alignment tax."""

    demonstrations: int
    prompts: int
    candidate: float
    stable: float
    rise: Interval  # paired, drawn by prompt

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "gate/demonstrations": self.demonstrations,
            "gate/lm_loss": self.candidate,
            "gate/stable_lm_loss": self.stable,
            **_in_parts("gate/lm_loss_rise", self.rise),
        }


@dataclass(frozen=True)
class Measured:
    """All figures of a candidate."""

    candidate: Answers
    stable: Answers
    gain: Interval  # of the score, paired by prompt
    kl: float  # nats per completion
    accuracy: Interval | None  # of the reward model on rankings; None without any
    imitation: Imitation | None  # None without demonstrations
    agreement: Interval | None  # of what the candidate has come to prefer with the rankings; None without any
    bad_weights: int  # of the candidate: NaN or infinite

    @property
    def metrics(self) -> dict[str, float]:
        parts = {"gate/reward_accuracy": self.accuracy, "gate/implied_accuracy": self.agreement}
        return {
            "gate/score": self.candidate.score,
            "gate/stable_score": self.stable.score,
            **_in_parts("gate/score_gain", self.gain),
            "gate/uncertainty": self.candidate.uncertainty,
            "gate/stable_uncertainty": self.stable.uncertainty,
            "gate/kl": self.kl,
            "gate/entropy": self.candidate.entropy,
            "gate/stable_entropy": self.stable.entropy,
            "gate/length": self.candidate.length,
            "gate/stable_length": self.stable.length,
            "gate/repetition": self.candidate.repetition,
            "gate/stable_repetition": self.stable.repetition,
            **{part: x for name, i in parts.items() if i is not None for part, x in _in_parts(name, i).items()},
            **(self.imitation.metrics if self.imitation else {"gate/demonstrations": 0}),
        }


def _in_parts(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


@dataclass(frozen=True)
class Contest:
    """Who is compared and how: the policy adapter as the candidate, and `stable`, where None is the base model."""

    config: RoundConfig
    trunk: Trunk
    eos_ids: frozenset[int]
    stable: Role | None = None
    ref: Role | None = None

    def answers(self, role: Role | None, prompts: Sequence[Sequence[int]], alive: Callable[[], None]) -> Answers:
        """One of `role` to each prompt. Prompt i meets the same noise whoever answers it."""
        ppo = self.config.ppo
        completions = sample_completions(
            self.trunk, prompts, role=role, eos_ids=self.eos_ids, max_new_tokens=ppo.max_new_tokens,
            temperature=ppo.temperature, seed=self.config.seed, alive=alive,
        )  # fmt: skip
        samples = [Sample(tuple(p), c) for p, c in zip(prompts, completions, strict=True)]
        by_head = Scorer(self.trunk, [], self.config.reward).all_by_head(samples)  # (N, K)
        uncertainty = by_head.std(-1, correction=0)  # (N,)
        scores = certain_scores(by_head.mean(-1), uncertainty, ppo.uncertainty_coef)
        nats = negative_log_likelihoods(
            self.trunk, samples, role, self.config.reward.token_budget, temperature=ppo.temperature, alive=alive
        )
        return Answers(samples, scores.tolist(), uncertainty.tolist(), nats)

    def gain(self, candidate: Answers, stable: Answers) -> Interval:
        """Student's, since a small round holds two prompts out: both are up by chance in a quarter of the cases."""
        differences = [a - b for a, b in zip(candidate.scores, stable.scores, strict=True)]
        return t_mean(differences, confidence=self.config.gate.confidence)

    def imitation(self, demonstrations: Sequence[Sample], alive: Callable[[], None]) -> Imitation | None:
        if not demonstrations:
            return None
        gate, sft = self.config.gate, self.config.sft
        cut = [demonstration.truncated(sft.max_tokens) for demonstration in demonstrations]
        roles: tuple[Role | None, ...] = ("policy", self.stable)
        own, other = (negative_log_likelihoods(self.trunk, cut, r, sft.token_budget, alive=alive) for r in roles)
        return Imitation(
            demonstrations=len(cut),
            prompts=len({sample.prompt_ids for sample in cut}),
            candidate=per_token(cut, own),
            stable=per_token(cut, other),
            rise=rise(cut, own, other, confidence=gate.confidence, draws=gate.bootstrap_samples, seed=self.config.seed),
        )

    def log_odds(self, samples: Sequence[Sample]) -> list[float]:
        """log(candidate / stable) of each completion: the candidate's own preferences (Rafailov et al. 2023, eq. 5)."""
        reward = self.config.reward
        cut = [sample.truncated(reward.max_tokens) for sample in samples]
        roles: tuple[Role | None, ...] = ("policy", self.stable)
        own, other = (negative_log_likelihoods(self.trunk, cut, role, reward.token_budget) for role in roles)
        return [b - a for a, b in zip(own, other, strict=True)]

    def bad_weights(self) -> int:
        """Of the candidate: NaN or infinite."""
        return sum(int((~tensor.isfinite()).sum()) for tensor in self.trunk.state("policy").values())


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


def measure(contest: Contest, held_out: HeldOut, progress: OnProgress = silent) -> Measured:
    """The first `gate.prompts` of the prompts are answered, and all else that is held out is read."""
    config = contest.config
    prompts = held_out.prompts[: config.gate.prompts]

    def alive(step: int) -> Callable[[], None]:
        progress("gate", step, STEPS, {})
        return partial(progress, "gate", step, STEPS, {})

    candidate = contest.answers("policy", prompts, alive(0))
    stable = contest.answers(contest.stable, prompts, alive(1))
    alive(2)
    kl = divergence(contest.trunk, candidate.samples, contest.ref, config.ppo.temperature)
    alive(3)
    scorer, confidence = Scorer(contest.trunk, [], config.reward), config.gate.confidence
    fit = evaluate(scorer, held_out.rankings, confidence=confidence)
    imitation = contest.imitation(held_out.demonstrations, alive(4))
    alive(5)
    implied = evaluate(contest, held_out.rankings, confidence=confidence)
    return Measured(
        candidate=candidate,
        stable=stable,
        gain=contest.gain(candidate, stable),
        kl=kl,
        accuracy=fit.accuracy if fit else None,
        imitation=imitation,
        agreement=implied.accuracy if implied else None,
        bad_weights=contest.bad_weights(),
    )
