"""`ratchet feedback`: what people said, out of the ledger and into it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, BinaryIO, Literal, cast

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feedback.erasure import traces
from feedback.exchange.exporting import NAMES, Wanted, export, installation_of, seconds
from feedback.exchange.formats import EXPORTED, FORMATS, UnknownFormat
from feedback.exchange.importing import Importer, Tally
from feedback.exchange.judged import Origin
from feedback.exchange.lines import BrokenFile, encode
from feedback.exchange.reading import recognise
from feedback.people.keys import KeyRing
from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from feedback.store import Ledger
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, console, installation

INTERRUPTED = 130
PROGRESS_EVERY = 1000

app = typer.Typer(
    cls=OneLineErrors, no_args_is_help=True, help="Export and import what people said, and see what learned from it."
)


@app.command("export")
def export_feedback(
    format: Annotated[str, typer.Option(help=" | ".join(EXPORTED))],
    out: Annotated[Path, typer.Option(help="The new file to write; - is standard output.")] = Path("-"),
    since: Annotated[str | None, typer.Option(help="ISO 8601 or seconds since 1970; UTC without a zone.")] = None,
    until: Annotated[str | None, typer.Option(help="As things stood then.")] = None,
    split: Annotated[Literal["train", "eval", "all"], typer.Option(help="By the raters who said it.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Judgements, or trees; a ranking is never cut.")] = None,
    include_private: Annotated[bool, typer.Option(help="Also completions whose people did not consent.")] = False,
    home: Home = None,
) -> None:
    """Write what people said as JSON lines of a training format; raters get other names."""
    settings, redis = installation(home)
    try:
        wanted = Wanted(format, moment(since), moment(until), split, limit, include_private)
    except UnknownFormat as error:
        raise Failure(str(error)) from error
    lines = export(Ledger(redis), wanted, KeyRing(redis, settings.secrets().pepper).salt(NAMES))
    written = 0
    with _opened(out) as file, _bar() as bar:
        task = bar.add_task(f"export {format}", total=None, lines="")
        for line in lines:
            file.write(encode(line))
            written += 1
            if written % PROGRESS_EVERY == 0:
                bar.update(task, lines=f"{written} lines")
    typer.echo(f"{written} lines" + ("" if out == Path("-") else f" in {out}"), err=True)


@app.command("import")
def import_feedback(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="JSON lines, gzip or plain.")],
    format: Annotated[str, typer.Option(help="auto | " + " | ".join(sorted(FORMATS)))] = "auto",
    rater: Annotated[str | None, typer.Option(help="Who judged where a line does not say (default: file name)")] = None,
    split: Annotated[
        Literal["train", "eval", "hashed"],
        typer.Option(help="hashed: as a line says, else a fixed share of raters, or of prompts without one, is eval."),
    ] = "hashed",
    reports: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where FILE.rejected.jsonl goes (default: beside FILE)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and report, store nothing.")] = False,
    home: Home = None,
) -> None:
    """Bring files of human feedback into the ledger. Interrupted, the same command goes on where it was."""
    settings, redis = installation(home)
    if format != "auto" and format not in FORMATS:
        raise Failure(str(UnknownFormat(("auto", *FORMATS))))
    keys = KeyRing(redis, settings.secrets().pepper)
    ledger = Ledger(redis)
    for file in files:
        name = rater or file.name.split(".")[0]
        importer = Importer(redis, ledger, origin(name, split, keys, settings))
        report = (reports or file.parent) / f"{file.name}.rejected.jsonl"
        try:
            kind = recognise(file) if format == "auto" else format
            _import(importer, file, kind, report, dry_run)
        except UnknownFormat as error:
            raise Failure(f"{file}: not recognised; with --format, {error}") from error
        except (BrokenFile, OSError) as error:
            raise Failure(f"{error}; what was read before is kept, and the same command goes on") from error


@app.command()
def used(
    id: Annotated[str, typer.Argument(help="Of the judgement, as its acknowledgement told it.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the rounds that trained on a judgement, and their policies with all that went on from these."""
    settings, redis = installation(home)
    found = traces(PolicyRegistry(redis, settings.policies_dir), "", [id])
    if not found.rounds and not Ledger(redis).kept([id]):
        raise Failure(f"there is no judgement {id}, and no round knows it")
    if as_json:
        console().print_json(data={"id": id, **found.model_dump(mode="json")})
        return
    rounds = ", ".join(map(str, found.rounds))
    typer.echo(f"trained rounds {rounds}: {', '.join(found.policies)}" if rounds else "no policy has trained on it")


def origin(name: str, split: Literal["train", "eval", "hashed"], keys: KeyRing, settings: Settings) -> Origin:
    """Imported raters of one name, on the side of the split that was asked for."""
    return Origin(
        name=name,
        pseudonym=keys.imported,
        assign=lambda key: keys.split(key, settings.evaluation_share),
        split=None if split == "hashed" else split,
        created=time.time(),
        installation=installation_of(keys.salt(NAMES)),
    )


def _import(importer: Importer, file: Path, format: str, report: Path, dry_run: bool) -> None:
    tally, started, first = Tally(), time.monotonic(), 0
    try:
        with _bar() as bar, _ctrl_c() as pressed:
            task = bar.add_task(f"{file.name} ({format})", total=None, lines="")
            for number, progress in enumerate(importer.run(file, format, report, dry=dry_run)):
                tally = progress.tally
                first = tally.line if number == 0 else first
                rate = (tally.line - first) / max(time.monotonic() - started, 1e-9)
                lines = f"{tally.line} lines, {rate:.0f}/s"
                bar.update(task, completed=progress.read, total=progress.size, lines=lines)
                if pressed:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        typer.echo(f"{file}: stopped after line {tally.line}; run the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(summary(file, format, tally, report, dry_run, resumed=first))


def summary(file: Path, format: str, tally: Tally, report: Path, dry_run: bool, *, resumed: int) -> str:
    """What became of a file, in one line."""
    done = "would be new" if dry_run else "new"
    text = f"{file} ({format}): {tally.line} lines, {tally.new} judgements {done}, {tally.known} known"
    text += f", {tally.rejected} lines rejected" + (f" (see {report})" if tally.rejected else "")
    return text + (f"; lines up to {resumed} were read before" if resumed else "")


def moment(text: str | None) -> float | None:
    """Seconds since 1970. Raises Failure for what is no time."""
    try:
        return seconds(TypeAdapter(datetime | None).validate_python(text))
    except ValidationError as error:
        raise Failure(f"{text} is no time: give one like 2026-11-24T09:30 or seconds since 1970") from error


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Fills when it is pressed; pressed again it acts at once. An exception could come in a `__del__`, and be lost."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, _: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _opened(out: Path) -> Iterator[BinaryIO]:
    """A new file that exists whole or not at all, or standard output. Raises Failure, at once, where there is one."""
    if out == Path("-"):
        yield cast(BinaryIO, sys.stdout.buffer)
        return
    temporary = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        if out.exists():
            raise FileExistsError
        try:
            with temporary.open("xb") as file:  # never what another export wrote, or left under both names
                yield file
            _named(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise Failure(f"{out} exists: nothing is overwritten") from error
    except OSError as error:
        raise Failure(f"{out} cannot be written: {error.strerror}") from error


def _named(whole: Path, out: Path) -> None:
    """Unlike a rename it raises FileExistsError where another file has come meanwhile."""
    try:
        out.hardlink_to(whole)
    except FileExistsError:
        raise
    except OSError:  # some file systems know no second names
        out.touch(exist_ok=False)
        whole.replace(out)


def _bar() -> Progress:
    """Shown on a terminal only."""
    screen = Console(stderr=True)  # standard output may be the export
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[lines]}"))
    return Progress(*columns, TimeRemainingColumn(), console=screen, transient=True, disable=not screen.is_terminal)
