"""`python -m training.rm train|eval|score|export`: reward models outside of rounds. What `ratchet rm` starts."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from feedback.exchange.judged import Line
from feedback.exchange.lines import MAX_LINE, encode, read_lines
from feedback.exchange.reading import Rejected
from training.config import RoundConfig
from training.lessons.collect import TrainingData
from training.model.classifier import export_classifier
from training.offline import command
from training.offline import reward as offline_reward
from training.offline import scores as offline_scores
from training.offline.command import Here, Lines, configured, resumable, told
from training.offline.progress_line import ProgressLine
from training.offline.reward_models import RewardModel
from training.round.torch_stages import prepare


def train(arguments: argparse.Namespace) -> int:
    """Fit a reward model and leave it in a directory; the same again goes on where it was stopped."""
    here = Here(arguments.base)
    given = {name: getattr(arguments, name) for name in ("epochs", "learning_rate", "held_out_fraction")}
    given["trains"] = "full" if arguments.full else None
    config = configured("reward", given, here.overrides(arguments), arguments.seed)
    base = here.base() if arguments.file else here.base_of_ledger()
    prepare(config.seed, beside_engine=here.serves())
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        data = lessons(arguments, here, base, config, lines)
        progress.show("preparing: the base model runs over everything once")
        with resumable(progress, arguments.out):
            report = offline_reward.train_on(
                data,
                source=command.source(arguments),
                base=base,
                out=arguments.out,
                classifier=arguments.classifier,
                processes=here.settings.training_processes,
                progress=progress,
            )
    return told(arguments.out, lines, report)


def lessons(arguments: argparse.Namespace, here: Here, base: Path, config: RoundConfig, lines: Lines) -> TrainingData:
    """Of the file; or of the ledger, as it was when the run was begun."""
    if arguments.file:
        return offline_reward.of_file(
            arguments.file, arguments.format, base=base, config=config, on_lines=lines, strict=arguments.strict
        )
    lines.progress.show("reading the ledger")
    watermark = here.watermark(arguments.out)
    return offline_reward.of_ledger(here.settings, here.redis(), base=base, config=config, watermark=watermark)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a reward model by judgements on prompts that it has not learned from."""
    here = Here(arguments.base)
    model = here.model(arguments.model)
    prepare(0, beside_engine=here.serves())
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        if arguments.file is None:
            evidence = offline_reward.held_out_of_ledger(here.settings, here.redis(), model, here.base_of_ledger())
        else:
            evidence = offline_reward.evidence_of_file(
                arguments.file, arguments.format, base=model.base, on_lines=lines, strict=arguments.strict
            )
        found = offline_reward.evaluate_on(model, evidence, progress=progress)
        if evidence.ratings and model.threshold is None:
            progress.tell(f"{model.name} learned from no rating: its scores know no approval, so ratings say nothing")
    figures = {
        name: fit and fit.model_dump(mode="json")
        for name, fit in (("held_out", found.held_out), ("ratings", found.ratings))
    }
    print(json.dumps({"name": model.name, "rejected": lines.rejected, "left_out": found.left_out, **figures}))
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Put scores on each line, or on the judged answers of the ledger; 1 when there was a line that could have none."""
    here = Here(arguments.base)
    model = here.model(arguments.model)
    prepare(0, beside_engine=here.serves())
    bad = 0
    for item in scored(arguments, here, model):
        if isinstance(item, Rejected):
            bad += 1
            print(f"line {item.line}: {item.reason}", file=sys.stderr)
        else:
            sys.stdout.buffer.write(encode(item))
            sys.stdout.buffer.flush()
    return 1 if bad else 0


def export(arguments: argparse.Namespace) -> int:
    """Write a reward model as a sequence classifier for others."""
    here = Here(arguments.base)
    model = here.model(arguments.model)
    prepare(0, beside_engine=here.serves())
    export_classifier(model.trunk(), arguments.out, base_directory=model.base)
    print(json.dumps({"name": model.name, "classifier": str(arguments.out)}))
    return 0


def scored(arguments: argparse.Namespace, here: Here, model: RewardModel) -> Iterator[Line | Rejected]:
    """Of the ledger, of a file, or of standard input."""
    if arguments.ledger:
        return offline_scores.score_ledger(here.redis(), model, here.base_of_ledger())
    source = from_stdin() if str(arguments.file) == "-" else from_file(arguments.file)
    return offline_scores.score_lines(model, source)


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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = command.parser("training.rm", __doc__)
    commands = root.add_subparsers(dest="command", required=True)
    fit, measure, rate, write = (commands.add_parser(name, help=each.__doc__) for name, each in COMMANDS.items())
    for each in (fit, measure):
        command.reads_file(each)
    for each in (measure, rate, write):
        each.add_argument("model", help="a directory, or a version")
    for each in (fit, measure, rate, write):
        each.add_argument("--base", type=Path, help="directory of the base model")
    command.trains(fit)
    fit.add_argument("--epochs", type=int)
    fit.add_argument("--held-out", dest="held_out_fraction", type=float)
    fit.add_argument("--full", action="store_true", help="train all weights of the layers, and no adapter")
    fit.add_argument("--classifier", action="store_true")
    rate.add_argument("file", type=Path, nargs="?", default=Path("-"))
    write.add_argument("out", type=Path)
    rate.add_argument("--ledger", action="store_true", help="the judged answers of the ledger")
    return root


COMMANDS = {"train": train, "eval": evaluate, "score": score, "export": export}


def main() -> int:
    return command.run(parser(), COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
