"""Policies outside of rounds: fine-tuned on demonstrations, and improved by PPO against a reward model, from files or
the ledger.

The same training as a round's, to the same weights; what is left is a PEFT adapter, and by wish a whole model.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from redis import Redis

from feedback.archive import Archive
from feedback.exchange.lines import digest_of
from feedback.records import Record, digest
from feedback.settings import Settings
from feedback.store import Ledger
from training.checkpoints import atomic_directory
from training.config import SHAPE, PPOConfig, RoundConfig
from training.lessons.answers import Ids
from training.model.export import MERGED, export_merged
from training.model.roles import Role
from training.model.trunk import Trunk
from training.offline import promptfile
from training.offline.datafile import OnLines, unheard
from training.offline.demonstrations import Demonstrations
from training.offline.reward import of_ledger
from training.offline.reward_models import RewardModel
from training.offline.run_directory import REPORT, WORDS, CannotTrain, Plan, PolicyReport, begun, clear, place
from training.optimizing.steps import OnProgress, silent
from training.ppo.ppo import outcome, train_ppo
from training.ppo.samplers import chosen_sampler
from training.ppo.vllm_needed import vllm_missing
from training.round.inherited import bare_trunk
from training.round.processes import in_processes, process_count
from training.round.stages import TextEncoder
from training.round.version import stop_tokens
from training.sft.sft import train_sft
from training.workspace import CHECKPOINTS

POLICY, PROMPTS = "policy", "prompts.json"


class Practice(NamedTuple):
    """What PPO practises on, and where it came from."""

    prompts: tuple[Ids, ...]
    watermark: str
    counts: Mapping[str, int]
    weights: tuple[float, ...] = ()  # how often each is practised on beside the others; empty = all alike
    responses: tuple[str, ...] = ()  # of the ledger, which it was read from


def prompts_of_file(
    path: Path, format: str, *, base: Path, config: RoundConfig, on_lines: OnLines = unheard, strict: bool = False
) -> Practice:
    """All in a file that may train and leave room for an answer. Raises what `read_prompts` raises."""
    longest = config.reward.max_tokens - config.ppo.max_new_tokens  # beyond, the reward model has never seen any
    found = promptfile.read_prompts(
        path, format, TextEncoder(base).prompt, max_tokens=longest, on_lines=on_lines, strict=strict
    )
    counts = {"prompts": len(found.ids), **found._asdict()}
    del counts["ids"]
    return Practice(found.ids, f"sha256:{digest_of(path)}", counts)


def prompts_of_ledger(settings: Settings, redis: Redis, *, base: Path, config: RoundConfig, watermark: str) -> Practice:
    """What a round would practise on, had the ledger ended at `watermark`."""
    data = of_ledger(settings, redis, base=base, config=config, watermark=watermark)
    counts = {"prompts": len(data.prompts)}
    return Practice(data.prompts, watermark, counts, data.prompt_weights, data.responses)


class Kept(Record):
    """What a run practises on, while it does: the ledger has newer prompts every hour."""

    schema_version: Literal[1] = 1
    prompts: tuple[Ids, ...]
    watermark: str
    counts: dict[str, int]
    weights: tuple[float, ...] = ()
    responses: tuple[str, ...] = ()


def prompts_kept(out: Path) -> Practice | None:
    """Those of the run that was begun in a directory, if any."""
    path = out / CHECKPOINTS / PROMPTS
    if not path.exists():
        return None
    kept = Kept.model_validate_json(path.read_text())
    return Practice(kept.prompts, kept.watermark, kept.counts, kept.weights, kept.responses)


def keep_prompts(out: Path, data: Practice) -> None:
    """For `prompts_kept`; those of the run that goes on stay as they are."""
    if prompts_kept(out) is None:
        (out / CHECKPOINTS).mkdir(exist_ok=True)
        place(out / CHECKPOINTS / PROMPTS, Kept(**data._asdict()))


def require_unerased(data: Practice, redis: Redis, out: Path) -> None:
    """Raises CannotTrain when something was erased that the run in `out` was begun with."""
    if Archive(Ledger(redis)).any_erased(data.responses):
        raise CannotTrain(f"{out} was begun with prompts of which some were erased: remove it, or give another --out")


def sft_on(
    data: Demonstrations,
    *,
    config: RoundConfig,
    source: str,
    base: Path,
    out: Path,
    merged: bool = False,
    processes: int | None = None,
    progress: OnProgress = silent,
) -> PolicyReport:
    """Fine-tune the base model on demonstrations and leave the policy in `out`; goes on where it was stopped.

    The report has the loss of what is held out, before and after. `processes`: see `process_count`. Raises CannotTrain
    before anything is trained.
    """
    if not data.samples:
        raise CannotTrain(f"there is no demonstration to learn from{_why(data.counts)}")
    ids = [[sample.prompt_ids, sample.completion_ids] for sample in (*data.samples, *data.held_out)]
    plan = Plan(
        stage="sft", base=str(base), config={"sft": config.sft.to_dict()}, seed=config.seed, source=source,
        watermark=data.watermark, data=digest(ids),
    )  # fmt: skip
    with begun(out, plan):
        trunk = Trunk.load(base, config.sft, seed=config.seed)
        fitted = in_processes(
            process_count(processes, config.sft.batch_size),
            partial(Trunk.load, base, config.sft),
            train_sft,
            config.sft,
            trunk,
            data.samples,
            checkpoint_dir=out / CHECKPOINTS,
            held_out=data.held_out,
            progress=progress,
            seed=config.seed,
        )
        report = PolicyReport(**plan.model_dump(), counts=dict(data.counts), fitted=asdict(fitted))
        _leave(out, trunk, report, base if merged else None)
    return report


def ppo_on(
    data: Practice,
    *,
    model: RewardModel,
    policy: Path | None,
    config: RoundConfig,
    source: str,
    out: Path,
    merged: bool = False,
    processes: int | None = None,
    progress: OnProgress = silent,
) -> PolicyReport:
    """Improve a policy on prompts against a reward model and leave it in `out`; goes on where it was stopped.

    It begins as the adapter in `policy`, None = the base model, and that is what KL is measured from. `processes`: see
    `process_count`. Raises CannotTrain before anything is trained, and Collapsed when the policy is past saving.
    """
    if not data.prompts:
        raise CannotTrain(f"there is no prompt to practise on{_why(data.counts)}")
    count = process_count(processes, config.ppo.microbatch)
    _require_possible(config.ppo, count)
    given = {WORDS["reward"].makes: _digest_of(model.directory)}
    if policy is not None:
        given[WORDS["sft"].makes] = _digest_of(policy)
    plan = Plan(
        stage="ppo", base=str(model.base), config={"ppo": config.ppo.to_dict()}, seed=config.seed, source=source,
        watermark=data.watermark, data=digest(data.prompts), given=given,
    )  # fmt: skip
    with begun(out, plan):
        keep_prompts(out, data)
        trunk = opposed(model, policy, config)
        history, left = _improved(
            config, trunk, data, base=model.base, ref="ref" if policy else None, out=out, processes=count,
            progress=progress,
        )  # fmt: skip
        fitted = history[-1] | left
        report = PolicyReport(**plan.model_dump(), counts=dict(data.counts), fitted=fitted, history=history)
        _leave(out, trunk, report, model.base if merged else None)
    return report


def _improved(
    config: RoundConfig,
    trunk: Trunk,
    data: Practice,
    *,
    base: Path,
    ref: Role | None,
    out: Path,
    processes: int,
    progress: OnProgress,
) -> tuple[tuple[dict[str, float], ...], dict[str, float]]:
    """PPO's iterations, and what the policy does that they have left, written by the same sampler. Raises Collapsed."""
    ppo, eos_ids = config.ppo, stop_tokens(trunk)
    with chosen_sampler(ppo, trunk, data.prompts, eos_ids=eos_ids, base_directory=base, processes=processes) as sampler:
        options: dict[str, Any] = {
            "eos_ids": eos_ids, "ref": ref, "sampler": sampler, "weights": data.weights, "seed": config.seed,
        }  # fmt: skip
        found = in_processes(
            processes,
            partial(bare_trunk, base, config),
            train_ppo,
            ppo,
            trunk,
            data.prompts,
            checkpoint_dir=out / CHECKPOINTS,
            metrics_dir=out,
            progress=progress,
            **options,
        )
        alive = partial(progress, "ppo", ppo.iterations, ppo.iterations, {})
        return found.history, outcome(ppo, trunk, data.prompts, found.history, alive=alive, **options)


def _require_possible(config: PPOConfig, processes: int) -> None:
    """Raises CannotTrain when it wants what only a round has, or a vLLM that cannot be had.

    An option that is passed over would be a false report.
    """
    if config.rollouts != "fresh":
        raise CannotTrain(f'ppo.rollouts is "{config.rollouts}": only rounds learn from what people received')
    if config.ptx_coef > 0:
        raise CannotTrain(f"ppo.ptx_coef is {config.ptx_coef:g}: only rounds have demonstrations beside the prompts")
    if (reason := vllm_missing(config, processes)) is not None:
        raise CannotTrain(reason)


def opposed(model: RewardModel, policy: Path | None, config: RoundConfig) -> Trunk:
    """Policy, reference and reward model on one trunk. Raises CannotTrain when they do not fit on one."""
    trunk = bare_trunk(model.base, config)
    model.load_into(trunk)
    if policy is not None:
        try:
            trunk.load_adapter("policy", policy)
        except (OSError, ValueError) as error:
            shape = ", ".join(f"{name} {getattr(config.ppo, name)}" for name in SHAPE)
            raise CannotTrain(f"{policy}: {error}; the reward model has {shape}") from error
        trunk.copy_role("policy", "ref")
    return trunk


def policy_in(directory: Path, base: Path | None = None) -> Path:
    """The adapter that `ratchet sft train` or `ratchet ppo train` left in a directory, to be used on `base`.

    Raises CannotTrain when there is none, or one of another base model than the one that is given.
    """
    if not (directory / REPORT).exists() or not (directory / POLICY).is_dir():
        raise CannotTrain(f"{directory} holds no finished policy: `ratchet sft train --out {directory}` makes one")
    made_on = json.loads((directory / REPORT).read_text())["base"]
    if base is not None and Path(made_on).resolve() != base.resolve():
        raise CannotTrain(f"{directory} is a policy of {made_on}, not of {base}")
    return directory / POLICY


def _leave(out: Path, trunk: Trunk, report: PolicyReport, base: Path | None) -> None:
    """The report comes last: what is there without one is made again."""
    clear(out, POLICY, MERGED)
    with atomic_directory(out / POLICY) as directory:
        trunk.save_adapter("policy", directory)
    if base is not None:
        with atomic_directory(out / MERGED) as directory:
            export_merged(trunk, directory, base_directory=base)
    place(out / REPORT, report)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def _digest_of(adapter: Path) -> str:
    """Of an adapter's weights, and its head's if it has one."""
    return digest([digest_of(path) for path in sorted(adapter.glob("*.safetensors"))])[:12]


def _why(counts: Mapping[str, int]) -> str:
    missing = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items() if count)
    return f" ({missing})" if missing else ""
