"""`ratchet report`: how well a version's reward model fits what people said of prompts that it never saw."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedback.fit import Change, Fit
from feedback.registry import PolicyRegistry
from serving.commands import AsJson, Failure, Home, console, installation
from serving.report_figures import BIN_HEADINGS, HEADINGS, LENGTH_HEADINGS, RATER_HEADINGS, Report, bin_rows, slice_rows
from serving.report_page import page

RATERS_SHOWN = 10


def report(
    version: Annotated[str, typer.Argument(help="A version's number, or the newest.")] = "latest",
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with a plot to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show a version's reward model: accuracy, calibration, agreement of raters, and the version before."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    number = chosen(registry, version)
    found = read(registry, number)
    tell(found, {"version": number, **as_kept(found)}, html, as_json)


def tell(found: Report, as_data: Mapping[str, object], html: Path | None, as_json: bool) -> None:
    """As a page, as JSON, or as tables. Raises Failure when the file cannot be written."""
    if html is not None:
        write(html, page(found))
    if as_json:
        console().print_json(data=as_data)
    elif html is None:
        show(found, console())
    else:
        typer.echo(f"written to {html}")


def chosen(registry: PolicyRegistry, version: str) -> int:
    """The number that `version` names. Raises Failure when it names none."""
    if version == "latest":
        known = registry.states()
        if not known:
            raise Failure("there is no policy yet")
        return max(known)
    number = version.removeprefix("policy-").removeprefix("v")
    if not (number.isascii() and number.isdigit()):
        raise Failure(f"{version} is no version: give a number, such as 3, or `latest`")
    return int(number)


def read(registry: PolicyRegistry, version: int) -> Report:
    """From the version's manifest. Raises Failure when that has no report, UnknownPolicy or BrokenPolicy."""
    manifest = registry.manifest(version)
    if manifest.kind == "base":
        hint = "`ratchet rounds ID` shows a refused round's"
        raise Failure(f"{manifest.name} is the base model: it has no reward model yet; {hint}")
    kept = manifest.metrics.get("reward", {})
    if kept.get("held_out") is None:
        raise Failure(f"{manifest.name}: its reward model was held against no ranking that it had not seen")
    try:
        fit = Fit.model_validate(kept["held_out"])
        change = None if kept.get("change") is None else Change.model_validate(kept["change"])
    except ValidationError as error:
        raise Failure(f"{manifest.name} has no report: another release of Ratchet trained it") from error
    return Report(manifest.name, fit, change, kept.get("no_change"))


def as_kept(found: Report) -> dict[str, object]:
    """As in the manifest."""
    change = None if found.change is None else found.change.model_dump(mode="json")
    return {"held_out": found.fit.model_dump(mode="json"), "change": change, "no_change": found.no_change}


def write(path: Path, text: str) -> None:
    """Raises Failure when the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error


def show(found: Report, screen: Console) -> None:
    """Tables: the figures, how sure and how right, by length, by rater."""
    fit = found.fit
    screen.print(Text(found.title))
    screen.print(_table(HEADINGS, found.rows))
    screen.print(_table(BIN_HEADINGS, bin_rows(fit.bins)))
    screen.print(_table(LENGTH_HEADINGS, slice_rows(fit.lengths)))
    screen.print(_table(RATER_HEADINGS, slice_rows(fit.raters[:RATERS_SHOWN])))
    if len(fit.raters) > RATERS_SHOWN:
        screen.print(Text(f"and {len(fit.raters) - RATERS_SHOWN} more raters: --html or --json shows all"))


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
