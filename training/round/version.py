"""What a policy version holds: the policy's adapter and merged weights, and what the next round starts from."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from feedback.hardware import Dtype
from feedback.policies.fixed_answers import FixedAnswers, write_answers
from feedback.policies.manifest import Manifest, describe_files, sha256_of
from feedback.rounds.book import STAGES, RoundBook
from feedback.store import Ledger
from training.config import AdapterConfig
from training.model.export import export_policy, golden_log_probs, weight_digests
from training.model.own_layers import weights_file
from training.model.samples import encode_demonstration
from training.model.trunk import Trunk
from training.ppo.live import learnt_from, weights_of
from training.round.fixed_answers import MAX_TOKENS, answers_of
from training.round.publish import let_in, publish_round
from training.round.stages import Job

log = logging.getLogger("training.version")

POLICY, REWARD, REF = "adapter", "reward", "ref"

Golden = tuple[tuple[int, ...], ...]
LogProbs = tuple[tuple[float, ...], ...]


def publish(job: Job, trunk: Trunk, *, has_ref: bool) -> dict[str, Any]:
    """Publish the policy adapter in `trunk`; `has_ref` says whether its reference policy is other than the base."""
    base = job.registry.manifest(0)

    def build(directory: Path, version: int) -> Manifest:
        exported = export_policy(trunk, directory, base_directory=job.base_directory, golden=base.golden)
        trunk.save_adapter("reward", directory / REWARD)
        if has_ref:
            trunk.save_adapter("ref", directory / REF)
        write_answers(directory, answers_of(trunk, "policy", job.base_directory, stop_tokens(trunk), writing(job)))
        return Manifest(
            version=version,
            parent=job.data.parent,
            kind="trained",
            base_model=base.base_model,
            dtype=base.dtype,
            model_path=exported.model_path,
            adapter_path=exported.adapter_path,
            created=time.time(),
            files=describe_files(directory),
            weights=exported.weights,
            golden=base.golden,
            golden_logprobs=exported.golden_logprobs,
            config=job.data.config,
            metrics=_metrics(job),
            lineage=_lineage(job, directory),
        )

    version = publish_round(job.registry, RoundBook(job.redis), round_id=job.record.id, token=job.token, build=build)
    note = let_in(
        job.settings,
        Ledger(job.redis),
        job.registry,
        version=version,
        parent=job.data.parent,
        round_id=job.record.id,
    )
    return {"version": version, "note": note}


def writing(job: Job) -> Callable[[int], None]:
    """Tells of each token that a new version writes to the fixed prompts."""
    return lambda token: job.progress("publish", token, MAX_TOKENS, {})


def stop_tokens(trunk: Trunk) -> frozenset[int]:
    """The ids that end a completion, from the model's generation config."""
    ids = trunk.model.generation_config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or ())


def describe_base(
    directory: Path, chats: Sequence[tuple[str, str]], dtype: Dtype
) -> tuple[Golden, LogProbs, dict[str, str]]:
    """(golden sequences, the base model's log-probs of them, digests of its weights in `dtype`)."""
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    samples = [encode_demonstration(tokenizer, [{"role": "user", "content": q}], a) for q, a in chats]
    golden = tuple(sample.prompt_ids + sample.completion_ids for sample in samples)
    stored = getattr(torch, dtype)
    logprobs = golden_log_probs(directory, golden, stored)
    weights = {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}
    if AutoConfig.from_pretrained(directory).tie_word_embeddings:
        weights.pop("lm_head.weight", None)  # engines hold it once, under the embedding's name
    return golden, logprobs, weight_digests({n: w.to(stored) for n, w in weights.items()})


def base_answers(directory: Path) -> FixedAnswers | None:
    """What the base model says to the fixed prompts.

    On the CPU: an engine may fill the GPU already, and a first start must not depend on what is left of it. None of a
    model that cannot be trained: it may serve all the same, and nothing descends from it to hold against it.
    """
    try:
        trunk = Trunk.load(directory, AdapterConfig(), device="cpu")
    except ValueError as error:  # UnsupportedModel among them
        log.warning("the base model's answers to the fixed prompts are left out: %s", error)
        return None
    return answers_of(trunk, None, directory, stop_tokens(trunk), lambda _: None)


def _metrics(job: Job) -> dict[str, Any]:
    outcomes = {stage: job.workspace.outcome(stage) for stage in STAGES}
    return {stage: outcome.metrics for stage, outcome in outcomes.items() if outcome is not None}


def _lineage(job: Job, directory: Path) -> dict[str, Any]:
    return {
        "round": job.record.id,
        "trigger": job.record.trigger,
        "watermark": job.data.watermark,
        "since": job.data.since,
        "taught": _taught(job),
        "seed": job.data.seed,
        "feedback": job.data.counts,
        "feedback_ids": job.data.feedback_ids,
        "raters": list(job.data.raters),
        "live": _live(job),
        "reward_origin": job.data.reward_origin,
        "reward_model": sha256_of(weights_file(directory / REWARD)),
    }


def _taught(job: Job) -> str:
    """The watermark of the newest demonstrations that SFT has seen, be it in this round or in one before it."""
    outcome = job.workspace.outcome("sft")
    return job.data.since if outcome is None or "skipped" in outcome.metrics else job.data.watermark


def _live(job: Job) -> list[str]:
    """The responses that people received and PPO learnt from."""
    data = job.data
    weights = weights_of((each.prompt_ids for each in data.live), data.prompts, data.prompt_weights)
    used = learnt_from(job.config.ppo, data.live, weights, job.config.seed)
    return sorted({each.response_id for each in used})
