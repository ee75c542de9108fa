"""All of training once on a tiny model: on the CPU, on a GPU in fp32, which must agree, and on the GPU in bf16.

`PYTHONPATH=. python tests/training/on_gpu.py`, on a machine that has a GPU; a line for each thing that ran, failed or
came out otherwise, and exit status 1 if any did. Tests cannot do this: they run where there is none.
"""

import logging
import math
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conftest import write_tiny_base
from transformers.utils.logging import disable_progress_bar

from training.config import AdapterConfig, PPOConfig, RewardConfig, SFTConfig
from training.model.classifier import export_classifier
from training.model.export import export_policy
from training.model.roles import ROLES
from training.model.samples import RankedSamples, RatedSample, Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Sampled, observe, sample_completions
from training.reward.fit import evaluate
from training.reward.reward import train_reward_model
from training.round.contest import divergence
from training.sft.lm_loss import negative_log_likelihoods
from training.sft.sft import train_sft

SHAPE: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8, "lora_layers": 2}
EOS = frozenset(range(2, 100))
PROMPTS = [(5, 6, 7), (10, 11), (12, 3, 4, 5), (20,) * 9]
SAMPLES = [Sample((n % 6 + 3, 7, 8), (*range(20 + n, 22 + n + n % 5), 2)) for n in range(24)]
TIERS = [(0, 1, 0), (0, 1, 1), (2, 1, 0), (0, 1, 2), (1, 0, 1), (0, 0, 1), (1, 2, 0)]
RANKED = [
    RankedSamples(tuple(Sample((n + 3, 9), ids) for ids in ((90 + n, 2), (100, 101 + n), (7,) * (n + 3))), tiers)
    for n, tiers in enumerate(TIERS)
]
RATED = [RatedSample(Sample((110,), (111, 2)), 1.0), RatedSample(Sample((112,), (113, 114, 2)), 0.0)]
SFT = SFTConfig(**SHAPE, epochs=1, batch_size=4, checkpoint_every=1, token_budget=64)
REWARD = RewardConfig(**SHAPE, epochs=1, batch_rankings=3, reward_heads=2, checkpoint_every=1, center_coef=0.1)
PPO = PPOConfig(
    **SHAPE, iterations=2, rollouts_per_iteration=8, minibatch=4, microbatch=2, max_new_tokens=6, collapse_kl=1e9,
    collapse_entropy=0.0, collapse_length=0.0, checkpoint_every=1,
)  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"ema_decay": 0.5, "epochs": 2},
    "average, resumed": {"ema_decay": 0.5, "epochs": 2, "iterations": 3},
    "score after the end": {"score_at": "after_end"},
    "KL in the loss": {"kl_in": "loss", "entropy_coef": 0.01, "kl_estimator": "k1"},
    "whitening": {"whiten_rewards": True, "whitening": "bessel", "score_clip": 1.0, "uncertainty_coef": 0.5},
    "value on the policy": {"value_trunk": "policy"},
    "recomputed": {"gradient_checkpointing": True},
    "temperature": {"temperature": 0.7, "kl_target": 1.0},
    "demonstrations": {"ptx_coef": 1.0, "ptx_batch": 3},
    "live": {"rollouts": "live"},
    "mix": {"rollouts": "mix", "live_share": 0.5},
}


class Everything:
    """Each thing by its name, and a figure that tells how it came out."""

    def __init__(self, base: Path, load: Callable[..., Trunk]) -> None:
        self.base, self.load, self.trunk = base, load, load(reward_heads=2)
        self.directory = Path(tempfile.mkdtemp())

    def things(self) -> Iterator[tuple[str, Callable[[], float]]]:
        for epochs in (1, 2):
            yield f"sft, {epochs} epochs", lambda n=epochs: self.taught(replace(SFT, epochs=n))
        for likelihood, ties in (("pairs", "soft"), ("pairs", "rao_kupper"), ("plackett_luce", "davidson")):
            config = replace(REWARD, likelihood=likelihood, ties=ties)
            yield f"reward, {likelihood}, {ties}", lambda c=config: self.fitted(self.trunk, c)
            yield "resumed", lambda c=config: self.fitted(self.trunk, replace(c, epochs=2))
        full = replace(REWARD, trains="full", gradient_checkpointing=True, learning_rate=1e-4)
        yield "reward, in full", lambda: self.fitted(self.load(reward_heads=2, full_reward=True), full)
        yield "evaluated", lambda: evaluate(Scorer(self.trunk, [], REWARD), RANKED).log_loss.mean
        yield "sampled", lambda: float(sum(i * token for i, own in enumerate(self.sampled()) for token in own))
        for name, options in OPTIONS.items():
            yield f"ppo, {name}", lambda n=name, o=options: self.practised(n, replace(PPO, **o))
        yield "likelihoods", lambda: sum(negative_log_likelihoods(self.trunk, SAMPLES, "policy", 64))
        yield "divergence", lambda: divergence(self.trunk, SAMPLES, None, 1.0)
        for role in ROLES:
            yield f"{role} saved and loaded", lambda r=role: self.round_trip(r)
        yield "classifier", lambda: bool(export_classifier(self.trunk, self.directory / "c", base_directory=self.base))
        yield (
            "policy",
            lambda: export_policy(
                self.trunk, self.directory / "policy", base_directory=self.base, golden=[(5, 6, 7, 8)]
            ).golden_logprobs[0][0],
        )

    def taught(self, config: SFTConfig) -> float:
        how = {"checkpoint_dir": self.directory / "sft", "held_out": SAMPLES[:3]}
        return train_sft(config, self.trunk, SAMPLES, **how).last_loss

    def fitted(self, trunk: Trunk, config: RewardConfig) -> float:
        where = self.directory / f"{config.likelihood} {config.ties} {config.trains}"
        return train_reward_model(config, trunk, RANKED, RATED, checkpoint_dir=where, demonstrations=SAMPLES[:2]).loss

    def sampled(self) -> list[tuple[int, ...]]:
        stop = {"eos_ids": frozenset({2}), "max_new_tokens": 24}
        return sample_completions(self.trunk, PROMPTS * 20, role="policy", **stop)

    def practised(self, name: str, config: PPOConfig) -> float:
        live = self.received() if config.rollouts != "fresh" else ()
        ptx = SAMPLES if config.ptx_coef > 0 else ()
        where = self.directory / name.removesuffix(", resumed")
        report = train_ppo(config, self.trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=where, live=live, ptx=ptx)
        return report.history[0]["ppo/value_loss"]

    def received(self) -> list[Sampled]:
        samples = [Sample(PROMPTS[n % 4], (*range(120, 122 + n % 4), 2)) for n in range(16)]
        seen = [observe(self.trunk, [Sampled(s)], eos_ids=EOS, temperature=1.0, ref=None) for s in samples]
        return [Sampled(s, tuple(r.log_probs[0].tolist())) for s, r in zip(samples, seen, strict=True)]

    def round_trip(self, role: Any) -> float:
        before = self.trunk.state(role)
        self.trunk.save_adapter(role, self.directory / role)
        self.trunk.load_adapter(role, self.directory / role)
        return float(all(tensor.equal(before[name]) for name, tensor in self.trunk.state(role).items()))


def outcome(where: str, name: str, thing: Callable[[], float]) -> float | None:
    """What came out; None where it failed, and then why."""
    started = time.perf_counter()
    try:
        figure = float(thing())
        print(f"ok     {where}: {name} ({time.perf_counter() - started:.2f} s)", flush=True)
        return figure
    except Exception:
        print(f"FAILED {where}: {name}\n{traceback.format_exc()}", flush=True)
        return None


def run(where: str, base: Path, load: Callable[..., Trunk]) -> dict[str, float | None]:
    return {name: outcome(where, name, thing) for name, thing in Everything(base, load).things()}


def on(device: str, dtype: str, base: Path) -> dict[str, float | None]:
    def load(**how: Any) -> Trunk:
        there = patch("torch.cuda.is_available", lambda: device == "gpu")
        with there, patch("training.model.trunk.local_dtype", lambda: dtype):
            return Trunk.load(base, AdapterConfig(**SHAPE), **how)

    return run(f"{device} {dtype}", base, load)


def main() -> int:
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        base = write_tiny_base(Path(directory) / "base")
        want, found, narrow = on("cpu", "float32", base), on("gpu", "float32", base), on("gpu", "bfloat16", base)
    wrong = [name for name, figure in narrow.items() if figure is None]
    for name, figure in want.items():
        other = found[name]
        if figure is None or other is None:
            wrong.append(name)
        elif not math.isclose(figure, other, rel_tol=1e-2, abs_tol=1e-3):
            wrong.append(name)
            print(f"DIFFERS {name}: {figure} on the CPU, {other} on the GPU")
    print("wrong: " + "; ".join(wrong) if wrong else "all ran and agree")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
