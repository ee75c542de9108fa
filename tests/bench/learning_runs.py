"""One run of the learning benchmark: rankings by the crowd, a reward model of them, PPO against it, gold by the way."""

import math
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from learning_world import Asked, Gold, asked, gold_of, ranking
from ppo_sides import sampler_of, sampling

from training.config import AdapterConfig, PPOConfig, RewardConfig, SFTConfig
from training.losses import kl_estimate
from training.model.roles import Role
from training.model.samples import RankedSamples, Sample, length_bucketed
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Sampled, observe, observed, sample_completions
from training.reward.fit import evaluate
from training.reward.reward import train_reward_model
from training.round.version import stop_tokens
from training.sft.lm_loss import negative_log_likelihoods, per_token
from training.sft.sft import train_sft

Figures = dict[str, Any]
RANK, ALPHA = 16, 32


@dataclass(frozen=True)
class Run:
    """What is different from run to run; its name says all of it."""

    seed: int
    rankings: int
    layers: int | None  # with adapters, from the top; None = all
    kl_coef: float
    ptx_coef: float = 0.0
    sft: bool = False  # PPO starts where SFT ended, and so does its reference
    ppo: bool = True
    live: bool = False  # on completions of the policy that it started from

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items())


class World:
    """What all runs share."""

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        self.asked: Asked = asked(
            arguments.model, arguments.data, arguments.prompts, longest=arguments.prompt_tokens,
            completion=arguments.demonstration_tokens, held_out=arguments.held_out,
            demonstrations=arguments.demonstrations,
        )  # fmt: skip

    def learn(self, run: Run) -> Figures:
        """Figures of the policy by the way, the first before and the last after PPO."""
        return Learner(self, run).figures()


class Learner:
    def __init__(self, world: World, run: Run) -> None:
        self.world, self.run, self.arguments = world, run, world.arguments
        shape = AdapterConfig(lora_rank=RANK, lora_alpha=ALPHA, lora_layers=run.layers)
        self.trunk = Trunk.load(self.arguments.model, shape, seed=run.seed)
        self.shape = {"lora_rank": RANK, "lora_alpha": ALPHA, "lora_layers": run.layers}
        self.eos_ids = stop_tokens(self.trunk)
        self.gold: Gold = gold_of(self.arguments.gold, self.arguments.model, self.eos_ids)
        self.ref: Role | None = "ref" if run.sft else None
        self.curve: list[Figures] = []
        self.config = PPOConfig(
            iterations=self.arguments.iterations, rollouts_per_iteration=self.arguments.rollouts,
            minibatch=min(16, self.arguments.rollouts), microbatch=min(16, self.arguments.rollouts),
            max_new_tokens=self.arguments.completion_tokens, kl_coef=run.kl_coef, ptx_coef=run.ptx_coef,
            ptx_batch=min(16, self.arguments.rollouts), learning_rate=self.arguments.learning_rate,
            value_learning_rate=self.arguments.learning_rate, rollouts="live" if run.live else "fresh",
            collapse_kl=1e9, collapse_entropy=0.0, collapse_length=0.0, checkpoint_every=1_000_000,
            **self.shape, **sampling(self.arguments.sampler),
        )  # fmt: skip

    def figures(self) -> Figures:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            if self.run.sft:
                sft = SFTConfig(**self.shape, epochs=1, max_tokens=1024)
                taught = self.world.asked.demonstrations
                train_sft(sft, self.trunk, taught, checkpoint_dir=Path(directory) / "sft", seed=self.run.seed)
                self.trunk.copy_role("policy", "ref")
            accuracy = self.fit_reward(Path(directory) / "reward")
            self.measure(0)
            if self.run.ppo:
                self.improve(Path(directory) / "ppo")
        found = {"curve": self.curve, "reward_accuracy": accuracy, "lm_loss": self.lm_loss()}
        return {**found, "seconds": time.perf_counter() - started}

    def fit_reward(self, directory: Path) -> float:
        """Of rankings of what the policy now writes; how often it is right on others, which nobody got wrong."""
        asked, config = self.world.asked, RewardConfig(**self.shape, held_out_fraction=0.0)
        train = self.ranked(asked.prompts[: self.run.rankings], self.arguments.noise)
        train_reward_model(config, self.trunk, train, checkpoint_dir=directory, seed=self.run.seed)
        fit = evaluate(Scorer(self.trunk, [], config), self.ranked(asked.held_out, noise=0.0))
        return fit.accuracy.mean if fit is not None else math.nan

    def ranked(self, prompts: Sequence[tuple[int, ...]], noise: float) -> list[RankedSamples]:
        written = self.written([prompt for prompt in prompts for _ in range(self.arguments.k)], self.run.seed)
        groups = [written[i : i + self.arguments.k] for i in range(0, len(written), self.arguments.k)]
        found = [ranking(group, self.gold, noise, self.run.seed) for group in groups]
        return [each for each in found if each is not None]

    def written(self, prompts: Sequence[tuple[int, ...]], seed: int) -> list[Sample]:
        completions = sample_completions(
            self.trunk, prompts, role="policy", eos_ids=self.eos_ids, max_new_tokens=self.config.max_new_tokens,
            seed=seed,
        )  # fmt: skip
        return [Sample(tuple(prompt), own) for prompt, own in zip(prompts, completions, strict=True)]

    def measure(self, iteration: int) -> None:
        """By what the policy writes to held-out prompts, with the same noise each time."""
        samples = self.written(self.world.asked.held_out, seed=97)
        sampled = list(map(Sampled, samples))
        rollouts = observed(self.config, self.trunk, sampled, eos_ids=self.eos_ids, ref=self.ref)
        # k3: unbiased as k1 is, but never negative, so that it has a root.
        kls = [kl_estimate(r.log_probs - r.ref_log_probs, "k3").sum(-1) for r in rollouts]
        kl, gold = float(torch.cat(kls).mean()), self.gold(samples)
        self.curve.append({
            "iteration": iteration,
            "kl": kl,
            "d": math.sqrt(kl),
            "gold": statistics.fmean(gold),
            "gold_se": statistics.stdev(gold) / math.sqrt(len(gold)),
            "proxy": float(torch.cat([r.scores for r in rollouts]).mean()),
            "length": statistics.fmean(len(sample.completion_ids) for sample in samples),
        })  # fmt: skip

    def improve(self, directory: Path) -> None:
        every = self.arguments.every

        def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
            if metrics and (step % every == 0 or step == total):
                self.measure(step)

        prompts = self.world.asked.prompts
        where = {"prompts": prompts, "eos_ids": self.eos_ids, "base": self.arguments.model}
        with sampler_of(self.arguments.sampler, self.trunk, self.config, **where) as sampler:
            train_ppo(
                self.config, self.trunk, prompts, eos_ids=self.eos_ids, checkpoint_dir=directory, progress=progress,
                ref=self.ref, sampler=sampler, live=self.received() if self.run.live else (),
                ptx=self.world.asked.demonstrations if self.run.ptx_coef > 0 else (), seed=self.run.seed,
            )  # fmt: skip

    def received(self) -> list[Sampled]:
        """As many completions of the policy that PPO starts from as all its iterations need, with their log-probs."""
        count, prompts = self.config.iterations * self.config.rollouts_per_iteration, self.world.asked.prompts
        samples = self.written([prompts[i % len(prompts)] for i in range(count)], seed=self.run.seed + 1)
        live: dict[int, Sampled] = {}
        for indices in length_bucketed([len(sample) for sample in samples], self.config.microbatch):
            some = [Sampled(samples[i]) for i in indices]
            rollout = observe(self.trunk, some, eos_ids=self.eos_ids, temperature=1.0, ref=self.ref)
            for i, row, mask in zip(indices, rollout.log_probs, rollout.batch.completion_mask, strict=True):
                live[i] = Sampled(samples[i], tuple(row[mask].tolist()))
        return [live[i] for i in range(count)]

    def lm_loss(self) -> float:
        """Nats per token of held-out demonstrations."""
        measured = self.world.asked.held_out_demonstrations
        return per_token(measured, negative_log_likelihoods(self.trunk, measured, "policy", 2048))
