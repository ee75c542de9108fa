"""The stages that need torch. Each loads the base model with the adapters it starts from, works, and saves its own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers.utils import logging

from feedback.policies.ppo_curves import curves
from feedback.policies.reward_fit import MIN_PROMPTS, Change
from feedback.records import Record
from training.config import STAGES as TRAINED
from training.lessons.as_samples import ranked_samples, rated_samples, written_samples
from training.lessons.collect import Refused
from training.model.samples import RankedSamples, Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.optimizing.steps import NonFinite
from training.ppo.collapse import Collapsed
from training.ppo.live import live_sampled
from training.ppo.ppo import train_ppo
from training.ppo.pushed import PushFailed
from training.ppo.samplers import chosen_sampler
from training.ppo.update import StalePolicy
from training.ppo.vllm_needed import vllm_missing
from training.reward.fit import compare, evaluate, score
from training.reward.likelihoods import Labels, fitted_labels
from training.reward.reward import train_reward_model
from training.round.contest import HeldOut
from training.round.gate import failed, judge, not_worse, right_enough
from training.round.inherited import adapter_of, bare_trunk, checkpoints, if_adapted, load_trunk, save_adapter
from training.round.processes import in_processes, process_count
from training.round.stages import Job, Stage, StageFailed
from training.round.version import POLICY, REWARD, publish, stop_tokens
from training.sft.sft import train_sft, with_replay

FEW_CORES = 4


def run(name: str, job: Job) -> dict[str, Any]:
    """One stage; errors that trying again cannot mend become StageFailed."""
    prepare(job.config.seed)
    if name in TRAINED and (reason := _cannot_sample(job)) is not None:  # what comes before PPO would be for nothing
        raise StageFailed(reason)
    try:
        return STAGES[name](job)
    except (NonFinite, PushFailed, StalePolicy) as error:
        raise StageFailed(str(error)) from error


def prepare(seed: int, *, beside_engine: bool = True) -> None:
    """This process for training."""
    logging.disable_progress_bar()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads_beside_engine(cores) if beside_engine else cores)
    torch.manual_seed(seed)


def threads_beside_engine(cores: int) -> int:
    """Half the cores of a small machine, all of a large one.

    The engine works on the same cores, and a thread that waits at a barrier for one that was preempted makes two
    slower than one.
    """
    return max(1, cores // 2) if cores <= FEW_CORES else cores


def sft(job: Job) -> dict[str, Any]:
    """Fit the stable policy to the new demonstrations and to some of the old."""
    trunk, config = load_trunk(job, "policy"), job.config
    new, old = ([d for d in job.data.demonstrations if d.new == wanted] for wanted in (True, False))
    chosen = with_replay(new, old, config.sft.replay, config.seed)
    samples, unusable = written_samples(chosen, job.base_directory)
    if not samples:
        raise Refused("no demonstration can be written in the model's chat template")
    report = in_processes(
        *_processes(job, config.sft.batch_size),
        train_sft,
        config.sft,
        trunk,
        samples,
        checkpoint_dir=checkpoints(job),
        held_out=held_out_demonstrations(job),
        progress=job.progress,
        seed=config.seed,
    )
    save_adapter(job, trunk, "policy", POLICY)
    replayed = len(chosen) - len(new)
    return {**asdict(report), "demonstrations": len(samples), "replayed": replayed, "unusable": unusable}


def reward(job: Job) -> dict[str, Any]:
    """Fit the reward model, from the last one on, to what people said; raises Refused when it got worse."""
    trunk = load_trunk(job, "reward")
    predecessor = Predecessor.of(job, Scorer(trunk, [], job.config.reward))
    demonstrations, _ = _demonstrations(job)
    # The round has held out already, and for every round the same.
    report = in_processes(
        *_processes(job, job.config.reward.batch_rankings),
        train_reward_model,
        replace(job.config.reward, held_out_fraction=0.0),
        trunk,
        ranked_samples(job.data.rankings),
        rated_samples(job.data.ratings),
        checkpoint_dir=checkpoints(job),
        demonstrations=demonstrations,
        successor=predecessor.version is not None,
        progress=job.progress,
        seed=job.config.seed,
    )
    labels = fitted_labels(job.config.reward.ties, report.tie_width)
    scorer = Scorer(trunk, [], job.config.reward)
    fit = evaluate(scorer, ranked_samples(job.data.held_out_rankings), labels)
    change = predecessor.change(scorer, labels, job.config.gate.confidence)
    save_adapter(job, trunk, "reward", REWARD)
    numbers = {name: value for name, value in vars(report).items() if name != "held_out"}
    metrics = {**numbers, "held_out": _json(fit), "change": _json(change), "no_change": predecessor.missing(change)}
    # Asked here and not only in the stage gate, because PPO against such a judge would be for nothing.
    checks = [right_enough(job.config.gate, None if fit is None else fit.accuracy)]
    checks += [not_worse(job.config.gate, change)] if change is not None else []
    if failures := failed(checks):
        raise Refused(f"reward: {failures}", metrics)
    return metrics


@dataclass(frozen=True)
class Predecessor:
    """The reward model that the round goes on from, on held-out rankings: of prompts that never trained.

    Without one `none` says why.
    """

    version: int | None
    rankings: list[RankedSamples]
    scores: list[list[float]]
    labels: Labels | None = None
    none: str = ""

    @classmethod
    def of(cls, job: Job, scorer: Scorer) -> "Predecessor":
        """`scorer` must still be as the round found it."""
        saved = adapter_of(job, "reward")
        if saved is None:
            last = job.registry.directory(job.data.parent) / REWARD
            anew = "some of what the last reward model learned from counts no more: this one begins anew"
            return cls(None, [], [], none=anew if last.exists() else "there is no reward model to go on from")
        rankings, version = ranked_samples(job.data.held_out_rankings), int(saved.parent.name)
        manifest = job.registry.manifest(version)
        ties, fitted = manifest.config.get("reward", {}).get("ties", "soft"), manifest.metrics.get("reward", {})
        return cls(version, rankings, score(scorer, rankings), fitted_labels(ties, fitted.get("tie_width")))

    def change(self, scorer: Scorer, labels: Labels | None, confidence: float) -> Change | None:
        """`scorer`, with its `labels`, beside it on the same rankings."""
        if self.version is None:
            return None
        return compare(
            self.rankings, score(scorer, self.rankings), self.scores, version=self.version, labels=labels,
            old_labels=self.labels, confidence=confidence,
        )  # fmt: skip

    def missing(self, change: Change | None) -> str | None:
        """Why there is no `change`, if there is none."""
        if change is not None:
            return None
        if self.version is None:
            return self.none
        return f"fewer than {MIN_PROMPTS} prompts to compare it with policy-v{self.version}'s reward model on"


def ppo(job: Job) -> dict[str, Any]:
    """Improve the policy against the reward model; raises Refused when it collapses."""
    trunk = load_trunk(job, "policy", "ref", "reward")
    config, prompts, eos_ids = job.config.ppo, job.data.prompts, stop_tokens(trunk)
    demonstrations = _demonstrations(job)[0] if config.ptx_coef > 0 else []
    try:
        count, bare = _processes(job, config.microbatch)
        with chosen_sampler(
            config, trunk, prompts, eos_ids=eos_ids, base_directory=job.base_directory, processes=count
        ) as sampler:
            report = in_processes(
                count,
                bare,
                train_ppo,
                config,
                trunk,
                prompts,
                eos_ids=eos_ids,
                checkpoint_dir=checkpoints(job),
                metrics_dir=job.directory,
                progress=job.progress,
                ref=if_adapted(job, "ref"),
                sampler=sampler,
                weights=job.data.prompt_weights,
                live=live_sampled(job.data.live),
                ptx=[sample.truncated(job.config.sft.max_tokens) for sample in demonstrations],
                seed=job.config.seed,
            )
    except Collapsed as error:
        raise Refused(f"ppo: {error}", course(error.history)) from error
    save_adapter(job, trunk, "policy", POLICY)
    return {**course(report.history), "ptx_demonstrations": len(demonstrations)}


def course(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A run of PPO as the manifest and the round keep it; `metrics.jsonl` in the stage's directory has all of it."""
    kept = curves(history).model_dump(mode="json")
    return {"iterations": len(history), "first": history[0], "last": history[-1], "curves": kept}


def gate(job: Job) -> dict[str, Any]:
    """Hold the candidate against the stable policy on what nobody trained on; raises Refused."""
    trunk = load_trunk(job, "stable", "ref", "reward")
    trunk.load_adapter("policy", job.workspace.output("ppo") / POLICY)
    held_out = HeldOut(
        job.data.held_out_prompts, ranked_samples(job.data.held_out_rankings), held_out_demonstrations(job)
    )
    report = judge(
        job.config,
        trunk,
        held_out,
        eos_ids=stop_tokens(trunk),
        stable=if_adapted(job, "stable"),
        ref=if_adapted(job, "ref"),
        progress=job.progress,
    )
    metrics = {**report.metrics, "checks": [asdict(check) for check in report.checks]}
    if not report.passed:
        raise Refused(f"gate: {report.failures}", metrics)
    return metrics


def publish_stage(job: Job) -> dict[str, Any]:
    """Make the candidate a version."""
    trunk = load_trunk(job, "ref", "reward")
    trunk.load_adapter("policy", job.workspace.output("ppo") / POLICY)
    return publish(job, trunk, has_ref=if_adapted(job, "ref") is not None)


STAGES: dict[str, Stage] = {"sft": sft, "reward": reward, "ppo": ppo, "gate": gate, "publish": publish_stage}


def _processes(job: Job, most: int) -> tuple[int, Callable[[], Trunk]]:
    """How many a stage trains in, where one more than `most` would have nothing to do, and what each begins with."""
    return process_count(job.settings.training_processes, most), partial(bare_trunk, job.base_directory, job.config)


def _cannot_sample(job: Job) -> str | None:
    return vllm_missing(job.config.ppo, _processes(job, job.config.ppo.microbatch)[0])


def _demonstrations(job: Job) -> tuple[list[Sample], int]:
    return written_samples(job.data.demonstrations, job.base_directory)


def held_out_demonstrations(job: Job) -> list[Sample]:
    """Those that the loss is measured by, the same for SFT and gate."""
    chosen = job.data.held_out_demonstrations[: job.config.gate.demonstrations]
    return written_samples(chosen, job.base_directory)[0]


def _json(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else record.model_dump(mode="json")
