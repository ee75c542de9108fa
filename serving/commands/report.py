"""`ratchet report`: how well a version's reward model fits what people said, and how PPO went, in a round or alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedback.policies.ppo_curves import LINES, Curves, curves
from feedback.policies.registry import PolicyRegistry
from feedback.policies.reward_fit import Change, Fit
from feedback.rounds.book import RoundBook
from serving.commands.shared import AsJson, Failure, Home, console, installation, version_number
from serving.report.curves import CURVE_HEADINGS, curve_rows
from serving.report.figures import BIN_HEADINGS, HEADINGS, LENGTH_HEADINGS, RATER_HEADINGS, Report, bin_rows, slice_rows
from serving.report.page import page

RATERS_SHOWN = 10
LATEST = "latest"


def report(
    version: Annotated[str, typer.Argument(help="A version's number, or the newest.")] = LATEST,
    round_id: Annotated[
        int | None, typer.Option("--round", metavar="ID", help="Of this round instead, published or refused.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of PPO alone instead, as far as it has come: `ppo train`'s --out, or a round's rounds/ID/ppo/TOKEN.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots to this file.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write the plots alone to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show a version's reward model, beside the version before, and the course of PPO by it; or that of a run alone."""
    if sum([version != LATEST, round_id is not None, run is not None]) > 1:
        raise Failure("give a version, a round or a run, not several")
    if run is not None:  # needs no installation
        found = of_run(run)
        return tell(found, {"run": str(run), **as_kept(found)}, html, as_json, png)
    settings, redis = installation(home)
    if round_id is not None:
        found = of_round(RoundBook(redis), round_id)
        return tell(found, {"round": round_id, **as_kept(found)}, html, as_json, png)
    registry = PolicyRegistry(redis, settings.policies_dir)
    number = chosen(registry, version)
    found = of_version(registry, number)
    return tell(found, {"version": number, **as_kept(found)}, html, as_json, png)


def tell(
    found: Report, as_data: Mapping[str, object], html: Path | None, as_json: bool, png: Path | None = None
) -> None:
    """As a page, as a picture, as JSON, or as tables. Raises Failure when a file cannot be written."""
    if html is not None:
        write(html, page(found).encode())
    if png is not None:
        from serving.report.image import png as picture  # few commands draw

        write(png, picture(found))
    if as_json:
        console().print_json(data=as_data)
    elif html is None and png is None:
        show(found, console())
    else:
        typer.echo(f"written to {' and '.join(str(each) for each in (html, png) if each is not None)}")


def chosen(registry: PolicyRegistry, version: str) -> int:
    """The number that `version` names. Raises Failure when it names none."""
    if version == LATEST:
        known = registry.states()
        if not known:
            raise Failure("there is no policy yet")
        return max(known)
    try:
        return version_number(version)
    except typer.BadParameter:
        raise Failure(f"{version} is no version: give a number, such as 3, or `latest`") from None


def of_version(registry: PolicyRegistry, version: int) -> Report:
    """From the version's manifest. Raises Failure when that has no report, UnknownPolicy or BrokenPolicy."""
    manifest = registry.manifest(version)
    if manifest.kind == "base":
        hint = "`ratchet report --round ID` shows a refused round's"
        raise Failure(f"{manifest.name} is the base model: it has no reward model yet; {hint}")
    return read(manifest.name, manifest.metrics)


def of_round(book: RoundBook, id: int) -> Report:
    """From the round's record. Raises Failure when there is no report in it."""
    record = book.get(id)
    if record is None:
        raise Failure(f"there is no round {id}")
    if "reward" not in record.metrics:
        raise Failure(f"round {id} has no reward model: it is {record.state} in its stage {record.stage}")
    return read(f"round {id}", record.metrics)


def read(name: str, metrics: Mapping[str, Any]) -> Report:
    """From what the stages measured. Raises Failure when that makes no report."""
    kept, curves = metrics.get("reward", {}), metrics.get("ppo", {}).get("curves")
    if kept.get("held_out") is None:
        raise Failure(f"{name}: its reward model was held against no ranking that it had not seen")
    try:
        fit = Fit.model_validate(kept["held_out"])
        change = None if kept.get("change") is None else Change.model_validate(kept["change"])
        course = None if curves is None else Curves.model_validate(curves)
    except ValidationError as error:
        raise Failure(f"{name} has no report: another release of Ratchet trained it") from error
    return Report(name, fit, change, kept.get("no_change"), course)


def of_run(directory: Path) -> Report:
    """PPO as far as it has come in a directory of `ratchet ppo train`, or of a round's stage. Raises Failure."""
    try:
        history = whole_lines(directory / LINES)
        if not history:
            raise Failure(f"{directory} has no iteration yet: its {LINES} is empty")
        done = f"{len(history)} of {planned}" if (planned := iterations_planned(directory)) else f"{len(history)}"
        return Report(f"{directory}, iterations: {done}", fit=None, curves=curves(history))
    except (FileNotFoundError, NotADirectoryError):
        where = "`ratchet ppo train` leaves it in --out, and a round in rounds/ID/ppo/TOKEN, once PPO begins"
        raise Failure(f"there is no {directory / LINES}: {where}") from None
    except OSError as error:
        raise Failure(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"{directory} has no report: it is damaged, or another release of Ratchet trained it") from error


def whole_lines(path: Path) -> list[dict[str, float]]:
    """What follows the last line break is one that is being written, or that a killed run never finished."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def iterations_planned(directory: Path) -> int | None:
    """None in a round, whose directories of stages do not tell."""
    plan = directory / "run.json"
    return int(json.loads(plan.read_text())["config"]["ppo"]["iterations"]) if plan.exists() else None


def as_kept(found: Report) -> dict[str, object]:
    """As in the manifest."""
    change = None if found.change is None else found.change.model_dump(mode="json")
    curves = None if found.curves is None else found.curves.model_dump(mode="json")
    fit = None if found.fit is None else found.fit.model_dump(mode="json")
    return {"held_out": fit, "change": change, "no_change": found.no_change, "curves": curves}


def write(path: Path, content: bytes) -> None:
    """Raises Failure when the file cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error


def show(found: Report, screen: Console) -> None:
    """Tables: the reward model's, where one is told of, and PPO by iteration."""
    screen.print(Text(found.title))
    if found.fit is not None:
        screen.print(table(HEADINGS, found.rows))
        show_fit(found.fit, screen)
    if found.curves is not None:
        screen.print(table(CURVE_HEADINGS, curve_rows(found.curves)))


def show_fit(fit: Fit, screen: Console) -> None:
    """How sure and how right, by length, and by rater."""
    screen.print(table(BIN_HEADINGS, bin_rows(fit.bins)))
    screen.print(table(LENGTH_HEADINGS, slice_rows(fit.lengths)))
    screen.print(table(RATER_HEADINGS, slice_rows(fit.raters[:RATERS_SHOWN])))
    if len(fit.raters) > RATERS_SHOWN:
        screen.print(Text(f"and {len(fit.raters) - RATERS_SHOWN} more raters: --html or --json shows all"))


def table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
