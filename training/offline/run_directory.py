"""A directory of `ratchet rm`, `sft` or `ppo train`: what it was begun with, how it goes on, what it holds in the end.

`run.json` and `checkpoints/` while it trains; then `reward/` (as in a policy version) and `split.json`, or `policy/`;
and `report.json`, which comes last: with it the run is finished and never overwritten.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from feedback.policies.manifest import fsync_directory
from feedback.policies.reward_fit import Fit
from feedback.records import Record
from training.checkpoints import PARTIAL, latest_checkpoint, step_of
from training.config import Stage
from training.workspace import CHECKPOINTS, write_durably

PLAN, SPLIT, REPORT, REJECTED, LOCK = "run.json", "split.json", "report.json", "rejected.jsonl", ".lock"


class Words(NamedTuple):
    """What a stage outside of rounds is called."""

    command: str
    learns_from: str
    makes: str


WORDS: dict[Stage, Words] = {
    "reward": Words("ratchet rm train", "judgements", "reward model"),
    "sft": Words("ratchet sft train", "demonstrations", "policy"),
    "ppo": Words("ratchet ppo train", "prompts", "policy"),
}


class CannotTrain(ValueError):
    """There is too little to learn from, or the directory is not for this run; the message is one line."""


class Plan(Record):
    """What a run was begun with: one that goes on must be the same."""

    schema_version: Literal[1] = 1
    stage: Stage = "reward"
    base: str
    config: dict[str, Any]
    seed: int
    source: str
    watermark: str
    data: str
    given: dict[str, str] = {}  # other models that it needs, each by a digest

    @classmethod
    def kept(cls, out: Path) -> "Plan | None":
        """Of the run that was begun in a directory, if any. Raises CannotTrain."""
        try:
            return cls.model_validate_json((out / PLAN).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise CannotTrain(f"{out / PLAN} cannot be read: remove {out}, or give another --out") from error

    def differences(self, other: "Plan") -> list[str]:
        """What this one has otherwise, in words; the data's digest only where nothing else explains it."""
        if self.stage != other.stage:
            return [f"`{WORDS[self.stage].command}`"]
        mine, others = _flat(self), _flat(other)
        found = [
            f"{name} {mine.get(name, 'none')}, not {others.get(name, 'none')}"
            for name in {**mine, **others}
            if mine.get(name) != others.get(name)
        ]
        data = f"other {WORDS[self.stage].learns_from}, some of which are gone or new by now"
        return found or ([data] if self.data != other.data else [])


class Finished(Record):
    """What a training run came to, and from what."""

    schema_version: Literal[1] = 1
    base: str
    config: dict[str, Any]  # of what was trained; for a reward model of the weights, too
    seed: int
    source: str  # the file, or "ledger"
    watermark: str  # its sha256, or up to where the ledger was read
    data: str  # digest of all that trained and measured
    counts: dict[str, int]
    fitted: dict[str, Any]  # as training ended


class PolicyReport(Finished):
    """Of a policy."""

    stage: Stage
    given: dict[str, str]  # other models that it began with, each by a digest
    history: tuple[dict[str, float], ...] = ()  # PPO's metrics, one entry for each iteration


class Report(Finished):
    """Of a reward model."""

    split: str  # digest of which prompts did what
    held_out: Fit | None  # None where nothing was held out in which somebody preferred an answer


class SplitFile(Record):
    """The digests of a run's prompts by side, and of what they ask."""

    schema_version: Literal[1] = 1
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    trained_questions: tuple[str, ...] = ()
    held_out_questions: tuple[str, ...] = ()


@contextmanager
def begun(out: Path, plan: Plan) -> Iterator[None]:
    """The directory of a run, for this process alone. Raises CannotTrain when it is another's, or finished."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotTrain(f"somebody trains in {out} just now") from None
        kept = Plan.kept(out)
        if (out / REPORT).exists():
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)  # it was killed when all but this was done
            kind = WORDS[kept.stage if kept else plan.stage].makes
            raise CannotTrain(f"{out} holds a finished {kind}, which is never overwritten: give another --out")
        if kept is None:
            if {path.name for path in out.iterdir()} - {LOCK, _beside(out / PLAN).name}:
                raise CannotTrain(f"{out} is not empty, and no training run: give another --out")
            place(out / PLAN, plan)
        elif differences := kept.differences(plan):
            raise CannotTrain(f"{out} was begun with {'; '.join(differences)}: remove it, or give another --out")
        yield


def reached(out: Path) -> int:
    """The step that the run in a directory goes on after; 0 where it has left no checkpoint."""
    path = latest_checkpoint(out / CHECKPOINTS)
    return 0 if path is None else step_of(path)


def place(path: Path, record: Record) -> None:
    """A file that exists whole or not at all."""
    temporary = _beside(path)
    write_durably(temporary, record.model_dump_json(indent=1))
    temporary.replace(path)
    fsync_directory(path.parent)


def clear(out: Path, *names: str) -> None:
    """Make room for what a run leaves: an attempt that was killed may have left some of it, and parts."""
    for path in (*(out / name for name in names), *out.glob(f"{PARTIAL}*")):
        shutil.rmtree(path, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _flat(plan: Plan) -> dict[str, str]:
    """What can be told of a plan. Where a file lies does not matter, what is in it does."""
    fields = {name: value for section in plan.config.values() for name, value in section.items()}
    fields |= {"base": plan.base, "seed": plan.seed, WORDS[plan.stage].learns_from: plan.watermark, **plan.given}
    return {name: json.dumps(value) for name, value in fields.items()}
