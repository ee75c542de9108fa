"""`ratchet rm`: reward models outside of rounds. The work is training's, in a child process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from feedback import defaults
from feedback.policies.reward_fit import Fit, RatingFit
from serving.commands.report import table, tell
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, console
from serving.commands.training_child import (
    AUTO,
    Base,
    Child,
    Config,
    File,
    Format,
    Out,
    Seed,
    Strict,
    answer,
    check,
    options,
)
from serving.machine.installation import settings_as_started
from serving.report.figures import HEADINGS, Report, rating_rows

TRAINING = "training.rm"
STDIN = Path("-")

BaseOfModel = Annotated[
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
    out: Out,
    file: File = None,
    format: Format = AUTO,
    base: Base = None,
    config: Config = None,
    epochs: Annotated[
        int | None, typer.Option(help=f"Passes over the judgements (default: {defaults.REWARD_EPOCHS})")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"Adam's (default: {defaults.REWARD_RATE})")] = None,
    held_out: Annotated[
        float | None,
        typer.Option(help=f"Share of prompts that only measure (default: {defaults.HELD_OUT_FRACTION})"),
    ] = None,
    seed: Seed = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help=f"Train all weights of the layers, not a LoRA adapter (learning rate: {defaults.FULL_REWARD_RATE})",
        ),
    ] = False,
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
        "--learning-rate": learning_rate, "--held-out": held_out, "--seed": seed, "--full": full,
        "--classifier": classifier, "--strict": strict,
    })  # fmt: skip
    found = answer(settings_as_started(home), TRAINING, "train", *arguments)
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
    base: BaseOfModel = None,
    strict: Strict = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with a plot to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Measure a reward model on a file, or on the ledger's held-out prompts. What it has learned from is left out.

    Rankings, comparisons and, of a file, edits are measured as pairs; ratings by the chance of approval, in nats.
    """
    check(file, format)
    arguments = options(**{"--from": file, "--format": format, "--base": base, "--strict": strict})
    found = answer(settings_as_started(home), TRAINING, "eval", *arguments, "--", model)
    show(found, html, as_json)
    if not as_json and found["left_out"]:
        typer.echo(f"{found['left_out']} judgements on prompts that it has learned from are left out")


@app.command(
    epilog='One answer: echo \'{"messages": [{"role": "user", "content": "Hi"}], "completion": "Hello!"}\' '
    "| ratchet rm score rm1\n\n"
    "A file: ratchet rm score 3 rankings.jsonl.gz > scored.jsonl\n\n"
    "The ledger: ratchet rm score 3 --ledger > scored.jsonl"
)
def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="JSON lines, gzip or plain; - is standard input.")] = STDIN,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Instead of lines the ledger's judged answers, each by its completion_id.")
    ] = False,
    base: BaseOfModel = None,
    home: Home = None,
) -> None:
    """Add scores to JSON lines of any format, or of {messages or prompt, completion or response}.

    A line with one answer gets a `score`; one with several gets `scores` in the order in which they stand in it: chosen
    before rejected, a before b, a tree's replies from the top, each before those below it. null is an answer that
    cannot be scored. Exit code 1 if there was a line of which none could be.
    """
    if ledger and file != STDIN:
        raise Failure("give a file or --ledger, not both")
    check(None if file == STDIN else file, AUTO)
    arguments = options(**{"--base": base, "--ledger": ledger})
    child = Child(settings_as_started(home), TRAINING, "score", *arguments, "--", model, str(file))
    raise typer.Exit(child.wait())


@app.command(epilog="ratchet rm export 3 classifier3")
def export(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new directory.")],
    base: BaseOfModel = None,
    home: Home = None,
) -> None:
    """Write a reward model for others: transformers, TRL and vLLM's pooling load it as a sequence classifier.

    Its one logit is the score less `score_bias` in its config.json; differences over `score_temperature` are log-odds.
    """
    found = answer(settings_as_started(home), TRAINING, "export", *options(**{"--base": base}), "--", model, str(out))
    typer.echo(
        f"{found['classifier']}: the reward model of {found['name']}, as AutoModelForSequenceClassification loads it"
    )


def show(found: Mapping[str, Any], html: Path | None, as_json: bool) -> None:
    """The report of a model, or why there is none."""
    try:
        ratings = RatingFit.model_validate(found["ratings"]) if found.get("ratings") else None
        fit = Fit.model_validate(found["held_out"]) if found["held_out"] else None
    except ValidationError as error:
        raise Failure(f"{found['name']} has no report: another release of Ratchet made it") from error
    if fit is not None:
        tell(Report(found["name"], fit, ratings=ratings), found, html, as_json)
    elif as_json:
        typer.echo(json.dumps(found))
    else:
        nothing = "no page" if ratings else "no figures"
        if ratings:
            console().print(table(HEADINGS, rating_rows(ratings)))
        if html is not None or not ratings:
            typer.echo(f"{found['name']}: no held-out ranking in which one answer is preferred, hence {nothing}")


def counted(found: Mapping[str, Any]) -> str:
    """What a run learned from, in one line."""
    counts = found["counts"]
    text = f"{counts['rankings']} rankings and {counts['ratings']} ratings of {counts['prompts']} prompts trained"
    text += f", {counts['held_out_rankings']} rankings of {counts['held_out_prompts']} others measured"
    text += f", {found['rejected']} lines refused" if found["rejected"] else ""
    return text + (f", {counts['unencodable']} answers left out" if counts["unencodable"] else "")
