"""`python -m training.rm train|eval|score`: reward models outside of rounds. What `ratchet rm` starts.

Progress and what is wrong with lines go to stderr; stdout holds a JSON object, or the scored lines.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from feedback.exchange.lines import MAX_LINE, encode, read_lines
from feedback.exchange.reading import Rejected
from feedback.manifest import BrokenPolicy
from feedback.registry import PolicyRegistry, UnknownPolicy
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training import offline
from training.base_model import BaseModelError, check_model_files
from training.collect import TrainingData
from training.config import RoundConfig, shaped_by_reward
from training.datafile import AUTO
from training.learning import prepare
from training.progress_line import ProgressLine
from training.register import base_directory
from training.reward_models import RewardModel, in_directory, of_version
from training.run_directory import REJECTED, Plan
from training.stages import OVERRIDES, die_with_parent

STOPPED = 130
REJECTED_SHOWN = 20
LEDGER = "ledger"


def train(arguments: argparse.Namespace) -> int:
    """Fit a reward model and leave it in a directory; the same again goes on where it was stopped."""
    here = Here(arguments.base)
    config = configured(arguments, here.overrides(arguments))
    base = here.base() if arguments.file else here.base_of_ledger()
    prepare(config.seed)
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        data = lessons(arguments, here, base, config, lines)
        source = str(arguments.file.absolute()) if arguments.file else LEDGER
        progress.show("preparing: the base model runs over everything once")
        try:
            report = offline.train_on(
                data, source=source, base=base, out=arguments.out, classifier=arguments.classifier, progress=progress
            )
        except KeyboardInterrupt:
            progress.tell(f"stopped {progress.where}; the same command goes on from the last checkpoint")
            return STOPPED
    lines.keep(arguments.out / REJECTED)
    print(json.dumps({"name": str(arguments.out), "rejected": lines.rejected, **report.model_dump(mode="json")}))
    return 0


def lessons(
    arguments: argparse.Namespace, here: "Here", base: Path, config: RoundConfig, lines: "Lines"
) -> TrainingData:
    """Of the file; or of the ledger, as it was when the run was begun."""
    if arguments.file:
        return offline.of_file(
            arguments.file, arguments.format, base=base, config=config, on_lines=lines, strict=arguments.strict
        )
    lines.progress.show("reading the ledger")
    plan = Plan.kept(arguments.out)
    watermark = Ledger(here.redis()).watermark() if plan is None else plan.watermark
    return offline.of_ledger(here.settings, here.redis(), base=base, config=config, watermark=watermark)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a reward model by judgements on prompts that it has not learned from."""
    here = Here(arguments.base)
    model = here.model(arguments.model)
    prepare(0)
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        if arguments.file is None:
            rankings = offline.held_out_of_ledger(here.settings, here.redis(), model, here.base_of_ledger())
        else:
            rankings = offline.rankings_of_file(
                arguments.file, arguments.format, base=model.base, on_lines=lines, strict=arguments.strict
            )
        fit, left_out = offline.evaluate_on(model, rankings, progress=progress)
    held_out = None if fit is None else fit.model_dump(mode="json")
    print(json.dumps({"name": model.name, "rejected": lines.rejected, "left_out": left_out, "held_out": held_out}))
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Put a score on each line; 1 when there was one that could have none."""
    model = Here(arguments.base).model(arguments.model)
    prepare(0)
    source = from_stdin() if str(arguments.file) == "-" else from_file(arguments.file)
    bad = 0
    for item in offline.score_lines(model, source):
        if isinstance(item, Rejected):
            bad += 1
            print(f"line {item.line}: {item.reason}", file=sys.stderr)
        else:
            sys.stdout.buffer.write(encode(item))
            sys.stdout.buffer.flush()
    return 1 if bad else 0


def from_file(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, gzip or plain."""
    return ((raw.number, raw.text) for raw in read_lines(path))


def from_stdin() -> Iterator[tuple[int, bytes]]:
    """Numbered lines as they come; an overlong one is cut, and refused where it is read."""
    number, begins = 0, True
    while text := sys.stdin.buffer.readline(MAX_LINE + 1):
        number += begins
        if begins and text.strip():
            yield number, text
        begins = text.endswith(b"\n")


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
        number = name.removeprefix("policy-").removeprefix("v")
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"{name} is neither a directory of `ratchet rm train` nor a version, such as 3")
        return of_version(self.settings, self.redis(), int(number), self._base)


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


def configured(arguments: argparse.Namespace, overrides: dict[str, Any]) -> RoundConfig:
    """A round's config with what the command line says; of its stages the reward model alone matters."""
    fields = {
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "held_out_fraction": arguments.held_out,
    }
    try:
        reward = {**overrides.get("reward", {}), **{name: each for name, each in fields.items() if each is not None}}
        seed = overrides.get("seed", 0) if arguments.seed is None else arguments.seed
        return RoundConfig.from_dict(shaped_by_reward({**overrides, "reward": reward, "seed": seed}))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"config: {problems}") from error
    except TypeError as error:
        raise ValueError("config: sft, reward and ppo must be JSON objects") from error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m training.rm", description=__doc__)
    root.add_argument("--parent", type=int, help="die with this process")
    commands = root.add_subparsers(dest="command", required=True)
    fit, measure, rate = (commands.add_parser(name, help=command.__doc__) for name, command in COMMANDS.items())
    for each in (fit, measure):
        each.add_argument("--from", dest="file", type=Path, help="a file of judgements; without it the ledger")
        each.add_argument("--format", default=AUTO)
        each.add_argument("--strict", action="store_true", help="a line that cannot be used ends it")
    for each in (measure, rate):
        each.add_argument("model", help="a directory, or a version")
    for each in (fit, measure, rate):
        each.add_argument("--base", type=Path, help="directory of the base model")
    fit.add_argument("--out", type=Path, required=True)
    fit.add_argument("--config", type=Path, help="JSON such as round.json")
    fit.add_argument("--epochs", type=int)
    fit.add_argument("--learning-rate", type=float)
    fit.add_argument("--held-out", type=float)
    fit.add_argument("--seed", type=int)
    fit.add_argument("--classifier", action="store_true")
    rate.add_argument("file", type=Path, nargs="?", default=Path("-"))
    return root


COMMANDS = {"train": train, "eval": evaluate, "score": score}


def main() -> int:
    arguments = parser().parse_args()
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    try:
        return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
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
    except (ValueError, OSError, ArithmeticError, BaseModelError, BrokenPolicy) as error:
        print(f"ratchet: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
