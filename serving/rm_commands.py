"""`ratchet rm`: reward models outside of rounds. The work is training's, in a child process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from feedback.exchange.formats import FORMATS, UnknownFormat
from feedback.fit import Fit
from feedback.settings import Settings
from serving.commands import AsJson, Failure, Home, OneLineErrors
from serving.installation import environment, settings_as_started
from serving.report_command import tell
from serving.report_figures import Report

AUTO = "auto"
#: Threads that wait for work by spinning take the cores from each other.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}

File = Annotated[
    Path | None, typer.Option("--from", help="JSON lines, gzip or plain (default: the installation's ledger)")
]
Format = Annotated[str, typer.Option(help="Of --from: auto | " + " | ".join(sorted(FORMATS)))]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first line that cannot be used.")]
Base = Annotated[
    Path | None, typer.Option("--base", help="Directory of the base model (default: what the model was trained on)")
]
Model = Annotated[str, typer.Argument(metavar="DIR|VERSION", help="What `rm train` left, or a policy version.")]

app = typer.Typer(
    cls=OneLineErrors, no_args_is_help=True, help="Train, measure and ask reward models, outside of rounds."
)


@app.command(
    epilog="On a file: ratchet rm train --from pairs.jsonl.gz --out rm1\n\n"
    "On the ledger: ratchet rm train --out rm2 --epochs 1\n\n"
    "Without an installation: ratchet rm train --from rankings.jsonl --base models/mine --out rm3 --classifier"
)
def train(
    out: Annotated[Path, typer.Option(help="Directory for the model, new or of a run that was stopped.")],
    file: File = None,
    format: Format = AUTO,
    base: Annotated[Path | None, typer.Option(help="Directory of the base model (default: the installation's)")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON like round.json (default: the defaults; for the ledger its round.json)")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the judgements.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of prompts that only measure (default: 0.2)")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order and of the weights to begin with.")] = None,
    classifier: Annotated[bool, typer.Option("--classifier", help="Also write DIR/classifier, for others.")] = False,
    strict: Strict = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as a page to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fit a reward model to a file of judgements, or to the ledger. Stopped, the same command goes on."""
    check(file, format)
    arguments = options(**{
        "--out": out, "--from": file, "--format": format, "--base": base, "--config": config, "--epochs": epochs,
        "--learning-rate": learning_rate, "--held-out": held_out, "--seed": seed, "--classifier": classifier,
        "--strict": strict,
    })  # fmt: skip
    found = answer(settings_as_started(home), "train", *arguments)
    show(found, html, as_json)
    if not as_json:
        typer.echo(f"{out}: {counted(found)}")


@app.command(
    "eval",
    epilog="On a file: ratchet rm eval rm1 --from test.jsonl\n\n"
    "A version, on the ledger: ratchet rm eval 3 --html report.html",
)
def evaluate(
    model: Model,
    file: File = None,
    format: Format = AUTO,
    base: Base = None,
    strict: Strict = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with a plot to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Measure a reward model on a file, or on the ledger's held-out prompts. What it has learned from is left out."""
    check(file, format)
    arguments = options(**{"--from": file, "--format": format, "--base": base, "--strict": strict})
    found = answer(settings_as_started(home), "eval", *arguments, "--", model)
    show(found, html, as_json)
    if not as_json and found["left_out"]:
        typer.echo(f"{found['left_out']} rankings of prompts that it has learned from are left out")


@app.command(
    epilog='One answer: echo \'{"messages": [{"role": "user", "content": "Hi"}], "completion": "Hello!"}\' '
    "| ratchet rm score rm1\n\n"
    "A file: ratchet rm score 3 answers.jsonl.gz > scored.jsonl"
)
def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="JSON lines, gzip or plain; - is standard input.")] = Path("-"),
    base: Base = None,
    home: Home = None,
) -> None:
    """Add a score to JSON lines of {messages or prompt, completion or response}. Exit code 1 if one could have none."""
    check(None if file == Path("-") else file, AUTO)
    child = Child(settings_as_started(home), "score", *options(**{"--base": base}), "--", model, str(file))
    raise typer.Exit(child.wait())


def check(file: Path | None, format: str) -> None:
    """Raises Failure at once for what would be found out only after training has been loaded."""
    if format != AUTO and format not in FORMATS:
        raise Failure(str(UnknownFormat((AUTO, *FORMATS))))
    if file is not None and not file.is_file():
        raise Failure(f"{file}: no such file")


def options(**given: Any) -> list[str]:
    """The command line of what was given."""
    words: list[str] = []
    for name, value in given.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f"{name}={value}")
    return words


class Child:
    """A process of training's. Ctrl-C is passed on once and awaited, so that it can say how to go on."""

    def __init__(self, settings: Settings, *arguments: str, capture: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.rm", f"--parent={os.getpid()}", *arguments],
            env={**QUIET_THREADS, **os.environ, **environment(settings)},
            stdout=subprocess.PIPE if capture else None,
            text=True,
            start_new_session=True,  # the terminal would interrupt it a second time
        )

    def wait(self) -> int:
        """Its exit code."""
        return self.output()[0]

    def output(self) -> tuple[int, str]:
        """Its exit code, and what it wrote if that was to be kept."""
        try:
            try:
                written, _ = self._process.communicate()
            except KeyboardInterrupt:
                self._process.send_signal(signal.SIGINT)
                written, _ = self._process.communicate()
        finally:
            self._process.kill()  # a second Ctrl-C
            self._process.wait()
        code = self._process.returncode
        return (128 - code if code < 0 else code), written or ""


def answer(settings: Settings, *arguments: str) -> Mapping[str, Any]:
    """What training answers. It has said why where it does not."""
    code, written = Child(settings, *arguments, capture=True).output()
    if code:
        raise typer.Exit(code)
    found: dict[str, Any] = json.loads(written)
    return found


def show(found: Mapping[str, Any], html: Path | None, as_json: bool) -> None:
    """The report of a model, or why there is none."""
    if found["held_out"] is None:
        if as_json:
            typer.echo(json.dumps(found))
        else:
            typer.echo(f"{found['name']}: no held-out ranking in which one answer is preferred, hence no figures")
        return
    try:
        report = Report(found["name"], Fit.model_validate(found["held_out"]))
    except ValidationError as error:
        raise Failure(f"{found['name']} has no report: another release of Ratchet made it") from error
    tell(report, found, html, as_json)


def counted(found: Mapping[str, Any]) -> str:
    """What a run learned from, in one line."""
    counts = found["counts"]
    text = f"{counts['rankings']} rankings and {counts['ratings']} ratings of {counts['prompts']} prompts trained"
    text += f", {counts['held_out_rankings']} rankings of {counts['held_out_prompts']} others measured"
    text += f", {found['rejected']} lines refused" if found["rejected"] else ""
    return text + (f", {counts['unencodable']} answers left out" if counts["unencodable"] else "")
