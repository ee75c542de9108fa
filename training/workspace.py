"""A round on disk: `rounds/000003/ppo/0002/` is what token 2 wrote in the stage ppo, `ppo/done.json` how it ended.

Every path holds the fencing token of its writer, so a worker that lost the round and does not know it yet writes
where nobody reads. The first outcome of a stage counts for good: a finished stage is never run again. A round that
starts again, since some of its data was erased, does so in `rounds/000003.1`. A number that is on the disk is never
another round's, whatever became of Redis.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from feedback.policies.manifest import fsync_directory
from feedback.records import Record

DONE = "done.json"
ERROR = "error.txt"
DATA = "data.json"
CHECKPOINTS = "checkpoints"


class Outcome(Record):
    """How a stage ended: `done`, or the round's end with a one-line reason. `token` names the directory that counts."""

    state: Literal["done", "refused", "failed"]
    token: int
    reason: str = ""
    metrics: dict[str, Any] = {}


class Workspace:
    """The files of one round since its last restart."""

    def __init__(self, rounds_dir: Path, round_id: int, restarts: int = 0) -> None:
        name = f"{round_id:06d}"
        earlier = [name, *(f"{name}.{restart}" for restart in range(1, restarts))]
        self.root = rounds_dir / (f"{name}.{restarts}" if restarts else name)
        self._given_up = [rounds_dir / each for each in earlier] if restarts else []

    def attempt(self, stage: str, token: int) -> Path:
        """This token's own directory."""
        own = self._attempt(stage, token)
        own.mkdir(parents=True, exist_ok=True)
        return own

    def attempts(self, stage: str) -> list[Path]:
        """The directories of all tokens that have worked on the stage, oldest first."""
        return sorted(path for path in (self.root / stage).iterdir() if path.name.isdigit())

    def outcome(self, stage: str) -> Outcome | None:
        """How the stage ended, or None while it has not."""
        path = self.root / stage / DONE
        return Outcome.model_validate_json(path.read_text()) if path.exists() else None

    def settle(self, stage: str, outcome: Outcome) -> Outcome:
        """Write the outcome durably unless there is one; returns the one that counts."""
        directory = self.root / stage
        temporary = directory / f".{outcome.token:04d}.{DONE}"
        write_durably(temporary, outcome.model_dump_json(indent=1))
        try:
            os.link(temporary, directory / DONE)  # unlike a rename it fails when another token was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        fsync_directory(directory)
        settled = self.outcome(stage)
        assert settled is not None
        return settled

    def output(self, stage: str) -> Path:
        """The directory that the stage's outcome names."""
        outcome = self.outcome(stage)
        if outcome is None:
            raise FileNotFoundError(f"{self.root}: stage {stage} has not ended")
        return self._attempt(stage, outcome.token)

    def error(self, stage: str, token: int) -> str:
        """The last line that a crashed attempt left; empty when it could not leave any."""
        path = self._attempt(stage, token) / ERROR
        return path.read_text().strip() if path.exists() else ""

    def forget(self) -> None:
        """Drop what the round had before it started again."""
        for root in self._given_up:
            if root.exists():
                shutil.rmtree(root)

    def tidy(self) -> None:
        """Drop the checkpoints of a round at its end, and what people said: erasing does not reach it here."""
        for data in self.root.glob(f"*/*/{DATA}"):
            data.unlink()
        for checkpoints in self.root.glob(f"*/*/{CHECKPOINTS}"):
            shutil.rmtree(checkpoints)

    def _attempt(self, stage: str, token: int) -> Path:
        return self.root / stage / f"{token:04d}"


def write_durably(path: Path, text: str) -> None:
    """Write and fsync; the name itself is durable after `fsync_directory`."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
