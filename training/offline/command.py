"""What the commands that train outside of rounds share: the installation around them, config, lines, faults.

Progress and what is wrong with lines go to stderr; stdout holds a JSON object, or the scored lines.
"""

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from feedback.exchange.reading import Rejected
from feedback.policies.manifest import BrokenPolicy, version_number
from feedback.policies.registry import PolicyRegistry, UnknownPolicy
from feedback.records import Record
from feedback.settings import Settings, is_loopback
from feedback.store import Ledger, connect
from training.base_model import BaseModelError, check_model_files
from training.config import RoundConfig, Stage, shaped_by
from training.offline.datafile import AUTO
from training.offline.progress_line import ProgressLine
from training.offline.reward_models import RewardModel, in_directory, of_version
from training.offline.run_directory import REJECTED, Plan, reached
from training.ppo.collapse import Collapsed
from training.ppo.pushed import PushFailed
from training.ppo.update import StalePolicy
from training.register import base_directory
from training.round.stages import OVERRIDES, die_with_parent

STOPPED = 130
REJECTED_SHOWN = 20
LEDGER = "ledger"

Command = Callable[[argparse.Namespace], int]


class Here:
    """The installation that the environment names, if there is one: with a file and a base model none is needed."""

    def __init__(self, base: Path | None) -> None:
        self.settings = Settings()
        self._base = base

    def redis(self) -> Redis:
        """Raises ValueError when there is no installation."""
        if not (self.settings.home / "secrets.json").exists():
            raise ValueError(
                f"there is no installation in {self.settings.home}: start one with `ratchet up`, or give --home"
            )
        return connect(self.settings.resolved_redis_url())

    def base(self) -> Path:
        """The base model's directory as given, or the installation's. Raises ValueError or BaseModelError."""
        found = self._base or base_directory(self.settings)
        if not found.is_dir():
            missing = f"{found} is no directory" if self._base else f"there is no base model in {found}"
            raise ValueError(f"{missing}: give --base DIR, or get one with `ratchet model fetch`")
        check_model_files(found)
        return found.absolute()

    def base_of_ledger(self) -> Path:
        """Of what the ledger's tokens are."""
        registered = Path(PolicyRegistry(self.redis(), self.settings.policies_dir).manifest(0).model_path)
        if self._base is not None and self._base.resolve() != registered.resolve():
            raise ValueError(f"the ledger holds tokens of {registered}, not of --base {self._base}")
        return registered

    def serves(self) -> bool:
        """Whether something listens on this host where the installation's engine would: it needs cores, too."""
        engine = urlsplit(self.settings.resolved_engine_url())
        if not is_loopback(engine.hostname or ""):
            return False
        try:
            with socket.create_connection((engine.hostname, engine.port or 80), timeout=1.0):
                return True
        except OSError:
            return False

    def watermark(self, out: Path) -> str:
        """Up to where a run in `out` reads the ledger: to the end, as it was when the run was begun."""
        plan = Plan.kept(out)
        return Ledger(self.redis()).watermark() if plan is None else plan.watermark

    def overrides(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """The config file that was given; for the ledger the installation's. Raises ValueError or OSError."""
        path: Path = arguments.config or self.settings.home / OVERRIDES
        if arguments.config is None and (arguments.file is not None or not path.exists()):
            return {}
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} is not a JSON object")
        return found

    def model(self, name: str) -> RewardModel:
        """A directory, or a version's reward model. Raises NoRewardModel, UnknownPolicy, BrokenPolicy or ValueError."""
        if Path(name).is_dir():
            return in_directory(Path(name), self._base)
        try:
            version = version_number(name)
        except ValueError:
            raise ValueError(f"{name} is neither a directory of `ratchet rm train` nor a version, such as 3") from None
        return of_version(self.settings, self.redis(), version, self._base)


class Lines:
    """What became of the lines of a file."""

    def __init__(self, path: Path | None, progress: ProgressLine) -> None:
        self.progress = progress
        self._path, self._bad = path, list[Rejected]()

    def __call__(self, number: int, rejected: tuple[Rejected, ...]) -> None:
        for item in rejected[: max(0, REJECTED_SHOWN - len(self._bad))]:
            self.progress.tell(f"{self._path}, line {item.line}: {item.reason}")
        self._bad += rejected
        self.progress.show(f"reading {self._path}: line {number}, {len(self._bad)} refused")

    @property
    def rejected(self) -> int:
        return len(self._bad)

    def keep(self, path: Path) -> None:
        """All of them in a file, as an import leaves it."""
        if self._bad:
            path.write_text("".join(json.dumps(item._asdict()) + "\n" for item in self._bad))


def configured(
    stage: Stage,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    seed: int | None = None,
    *,
    shape: Stage | None = None,
) -> RoundConfig:
    """A round's config with what the command line says of a stage; of the stages that one alone matters.

    `shape` is the stage whose lora fields count, if it is another.
    """
    try:
        said = {name: each for name, each in given.items() if each is not None}
        own = {**overrides.get(stage, {}), **said}
        drawn = overrides.get("seed", 0) if seed is None else seed
        return RoundConfig.from_dict(shaped_by(shape or stage, {**overrides, stage: own, "seed": drawn}))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"config: {problems}") from error
    except TypeError as error:
        raise ValueError("config: sft, reward and ppo must be JSON objects") from error


def source(arguments: argparse.Namespace) -> str:
    """What is trained on, as a report names it."""
    return str(arguments.file.absolute()) if arguments.file else LEDGER


def told(out: Path, lines: Lines, report: Record) -> int:
    """The report on stdout, and the lines that were refused in a file."""
    lines.keep(out / REJECTED)
    print(json.dumps({"name": str(out), "rejected": lines.rejected, **report.model_dump(mode="json")}))
    return 0


class Stopped(Exception):
    """Ctrl-C in the middle of training; how to go on has been said."""


@contextmanager
def resumable(progress: ProgressLine, out: Path) -> Iterator[None]:
    """Training in a directory that may be stopped. Raises Stopped."""
    try:
        yield
    except KeyboardInterrupt:
        progress.tell(_stopped(progress.where, out))
        raise Stopped from None


def _stopped(where: str | None, out: Path) -> str:
    """How a run stands: by its steps `where` it has told any, else by its last checkpoint, which may be an
    earlier process's or written just now."""
    if where is None:
        step = reached(out)
        where = f"after step {step}" if step else "before the first step"
    return f"stopped {where}; the same command goes on from the last checkpoint"


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a module, to which its commands are added."""
    root = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    root.add_argument("--parent", type=int, help="die with this process")
    return root


def reads_file(command: argparse.ArgumentParser, name: str = "--from", what: str = "judgements") -> None:
    """The options of a command that reads lines."""
    command.add_argument(name, dest="file", type=Path, help=f"a file of {what}; without it the ledger")
    command.add_argument("--format", default=AUTO)
    command.add_argument("--strict", action="store_true", help="a line that cannot be used ends it")


def trains(command: argparse.ArgumentParser) -> None:
    """The options of a command that trains."""
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--config", type=Path, help="JSON such as round.json")
    command.add_argument("--learning-rate", type=float)
    command.add_argument("--seed", type=int)


def _obey_parent() -> None:
    """It passes on as SIGINT what is to end us: once, though a service manager sends SIGTERM to us as well, and where
    Ctrl-C is ignored, too, as it is in the background of a script. It had us wait for the imports."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def run(root: argparse.ArgumentParser, commands: Mapping[str, Command]) -> int:
    """The exit code of the command that the arguments name; a fault is one line on stderr."""
    arguments = root.parse_args()
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    try:
        if arguments.parent is not None:
            _obey_parent()
        return commands[arguments.command](arguments)
    except Stopped:
        return STOPPED
    except KeyboardInterrupt:
        begun = "out" in arguments and reached(arguments.out) > 0
        print(_stopped(None, arguments.out) if begun else "stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read the scores has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RedisError as error:
        print(f"ratchet: Redis does not answer ({error}): is `ratchet up` running?", file=sys.stderr)
    except FileNotFoundError as error:
        print(f"ratchet: {error.filename}: no such file", file=sys.stderr)
    except UnknownPolicy as error:
        print(f"ratchet: {error.args[0]}", file=sys.stderr)
    except (
        ValueError,
        OSError,
        ArithmeticError,
        BaseModelError,
        BrokenPolicy,
        Collapsed,
        PushFailed,
        StalePolicy,
    ) as error:
        print(f"ratchet: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
