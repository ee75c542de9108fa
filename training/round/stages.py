"""One stage of a round, in a process of its own: memory returns to the system, and a crash stays inside.

Torch-free until a stage needs it, so that collecting and skipping cost nothing.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis

from feedback.people.keys import KeyRing
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry
from feedback.records import Message
from feedback.rounds.book import LeaseLost, RoundBook, RoundRecord
from feedback.rounds.sides import Sides
from feedback.rounds.sources import note_sources
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.config import RoundConfig
from training.lessons.answers import Ids
from training.lessons.collect import Refused, TrainingData, collect
from training.lessons.weights import in_short
from training.ppo.vllm_needed import vllm_missing
from training.round.origin import line_of, reward_origin
from training.round.progress import Progress, finite
from training.workspace import DATA, ERROR, Outcome, Workspace, write_durably

OVERRIDES = "round.json"
COLLECTED_AGAIN = 5

LOST = 75


class StageFailed(RuntimeError):
    """Trying again cannot help; the message is the one-line reason."""


@dataclass(frozen=True)
class Job:
    """What a stage gets to see. `directory` is its own; whatever it leaves there is its output."""

    settings: Settings
    redis: Redis
    record: RoundRecord
    stage: str
    token: int
    workspace: Workspace
    directory: Path
    progress: Progress

    @property
    def registry(self) -> PolicyRegistry:
        return PolicyRegistry(self.redis, self.settings.policies_dir)

    @property
    def base_directory(self) -> Path:
        """The base model that all policies descend from."""
        return Path(self.registry.manifest(0).model_path)

    @cached_property
    def data(self) -> TrainingData:
        """What the stage collect saved."""
        return TrainingData.model_validate_json((self.workspace.output("collect") / DATA).read_text())

    @cached_property
    def config(self) -> RoundConfig:
        """As the stage collect found it; changes since then are for the next round."""
        return RoundConfig.from_dict(self.data.config)


Stage = Callable[[Job], dict[str, Any]]


def run_stage(settings: Settings, stage: str, round_id: int, token: int) -> int:
    """Run a stage to its outcome; returns the exit status. An outcome of any kind is 0."""
    redis = connect(settings.resolved_redis_url(), timeout_s=10.0)
    book = RoundBook(redis)
    record = book.get(round_id)
    if record is None:
        raise ValueError(f"round {round_id} does not exist")
    workspace = Workspace(settings.rounds_dir, round_id, record.restarts)
    directory = workspace.attempt(stage, token)
    progress = Progress(book, round_id, token)
    job = Job(settings, redis, record, stage, token, workspace, directory, progress)
    try:
        outcome = _outcome(job)
        book.write(round_id, token)  # raises LeaseLost: an outcome by an older token must not count
        workspace.settle(stage, outcome)
    except LeaseLost as error:
        print(error, file=sys.stderr)
        return LOST
    except Exception as error:
        write_durably(directory / ERROR, one_line(error))
        raise
    return 0


def _outcome(job: Job) -> Outcome:
    try:
        return Outcome(state="done", token=job.token, metrics=finite(_run(job)))
    except Refused as error:
        return Outcome(state="refused", token=job.token, reason=one_line(error), metrics=error.metrics)
    except StageFailed as error:
        return Outcome(state="failed", token=job.token, reason=one_line(error))


def one_line(error: BaseException) -> str:
    """An error as a reason that fits into a table."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, Refused | StageFailed) else f"{type(error).__name__}: {text}")[:300]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, and leave at once if it has died already."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(LOST)


def load_config(settings: Settings) -> RoundConfig:
    """The defaults with what `home/round.json` overrides; raises StageFailed naming a field that is wrong."""
    path = settings.home / OVERRIDES
    if not path.exists():
        return RoundConfig()
    try:
        return RoundConfig.from_dict(json.loads(path.read_text()))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StageFailed(f"{path}: {problems}") from error
    except ValueError as error:
        raise StageFailed(f"{path}: {error}") from error


class TextEncoder:
    """Encodes answers that came as text; the tokenizer is loaded when there is one."""

    def __init__(self, base_directory: Path) -> None:
        self._directory = base_directory

    def encode(self, messages: Sequence[Message], text: str) -> tuple[Ids, Ids]:
        """Prompt and completion ids by the base model's chat template. Raises ValueError where it cannot say them."""
        from training.model.samples import encode_demonstration

        sample = encode_demonstration(self._tokenizer, [message.plain for message in messages], text)
        return sample.prompt_ids, sample.completion_ids

    def prompt(self, messages: Sequence[Message]) -> Ids:
        """Ids of a prompt, up to where the answer begins. Raises ValueError as `encode` does."""
        from training.model.samples import encode_chat

        return tuple(encode_chat(self._tokenizer, [message.plain for message in messages], True))

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._directory)


def collect_stage(job: Job) -> dict[str, Any]:
    """Save the round's data, config and parent, so that all later stages see the same."""
    config = load_config(job.settings)
    if (reason := vllm_missing(config.ppo)) is not None:
        raise StageFailed(reason)
    config = replace(config, seed=config.seed + job.record.id)
    parent = job.registry.stable()
    if parent is None:
        raise StageFailed("no policy serves yet: register the base model first")
    if job.record.watermark is None:
        raise StageFailed("the round has no watermark")
    # What a round saw that was refused, or had too few of, is still new: the parent has learned nothing of it.
    lineage = job.registry.manifest(parent).lineage
    since = lineage.get("taught", lineage.get("watermark", "0"))
    ledger, raters, sides = Ledger(job.redis), Raters(job.redis), _sides(job.settings, job.redis)
    quarantined, watermark = raters.quarantined(), job.record.watermark

    def collected() -> TrainingData:
        return collect_from(
            job.settings,
            job.redis,
            job.base_directory,
            watermark=watermark,
            since=since,
            parent=parent,
            config=config,
            quarantined=quarantined,
            writers=line_of(job.registry, parent, config.ppo.max_staleness),
        )

    data = _none_of_it_erased(job, collected)
    origin = reward_origin(job.registry, parent, quarantined=quarantined, gone=ledger.gone)
    data = data.model_copy(update={"reward_origin": origin})
    write_durably(job.directory / DATA, data.model_dump_json())
    raters.keep_weights(data.weights)
    data.refuse_if_too_little()
    # From here on the round trains: what it holds out stays so, even if this very round comes to nothing.
    sides.fix((*data.held_out, *data.held_out_questions), "held_out")
    sides.fix((*data.trained, *data.trained_questions), "train")
    known = {"parent": parent, "reward_origin": origin, "watermark": data.watermark, "seed": data.seed}
    return {**data.counts, **known, "raters": {"quarantined": data.quarantined, **in_short(data.weights)}}


def collect_from(
    settings: Settings,
    redis: Redis,
    base_directory: Path,
    *,
    watermark: str,
    since: str,
    parent: int,
    config: RoundConfig,
    quarantined: Collection[str] | None = None,
    writers: Sequence[int] = (),
) -> TrainingData:
    """`collect` on an installation's ledger, by its keys, its sides and its quarantine, or by that which is given."""
    keys = KeyRing(redis, settings.secrets().pepper)
    return collect(
        Ledger(redis),
        watermark=watermark,
        since=since,
        parent=parent,
        seed=config.seed,
        config=config,
        is_held_out=lambda rater: keys.split(rater, settings.evaluation_share) == "eval",
        encode=TextEncoder(base_directory).encode,
        sides_of=_sides(settings, redis).of,
        quarantined=Raters(redis).quarantined() if quarantined is None else quarantined,
        writers=writers,
    )


def _sides(settings: Settings, redis: Redis) -> Sides:
    return Sides(redis, KeyRing(redis, settings.secrets().pepper).salt("sides"))


def _none_of_it_erased(job: Job, collected: Callable[[], TrainingData]) -> TrainingData:
    """The data, of which nothing was erased up to here; whatever is from now on starts the round again."""
    for _ in range(COLLECTED_AGAIN):
        data = collected()
        if note_sources(job.redis, job.record.id, job.token, responses=data.responses, feedback=data.judged_ids):
            return data
    raise StageFailed("what is collected is erased faster than it can be read")


def _skips(job: Job) -> str | None:
    """Why a stage has nothing to do in this round; None when it has."""
    return job.data.too_few_demonstrations if job.stage == "sft" else None


def _run(job: Job) -> dict[str, Any]:
    """The work of a stage: its metrics; raises Refused or StageFailed."""
    if job.stage == "collect":
        return collect_stage(job)
    if (reason := _skips(job)) is not None:
        return {"skipped": reason}
    from training.round import torch_stages  # they import torch

    return torch_stages.run(job.stage, job)
