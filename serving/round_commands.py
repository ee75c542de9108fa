"""`ratchet train | rounds | freeze | unfreeze`: the learning side."""

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from feedback.rounds import STAGES, RoundBook, RoundRecord
from serving.commands import AsJson, Failure, Home, actor, console, installation

POLL_S = 0.5
EXIT_CODES = {"published": 0, "refused": 3, "failed": 1, "cancelled": 1}


def train(
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", "--now", help="Follow the round to its end, or only ask for it.")
    ] = True,
    home: Home = None,
) -> None:
    """Start a training round now. Exit code: 0 published, 3 refused, by the gate or for want of data, 1 failed."""
    _, redis = installation(home)
    book = RoundBook(redis)
    id, opened = book.request(trigger="operator", actor=actor())
    try:
        typer.echo(f"round {id} " + ("is asked for" if opened else "is open already"))
        record = follow(book, id) if wait else None
    except KeyboardInterrupt:
        typer.echo(f"round {id} goes on; see `ratchet rounds {id}`")
        raise typer.Exit(130) from None
    if record is not None:
        typer.echo(f"round {id} {record.state}" + (f": {record.reason}" if record.reason else ""))
        raise typer.Exit(EXIT_CODES[record.state])


def rounds(
    id: Annotated[int | None, typer.Argument(help="Show this one in full.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the training rounds, newest first, or one in full."""
    _, redis = installation(home)
    book = RoundBook(redis)
    found = book.list() if id is None else [record] if (record := book.get(id)) else []
    if id is not None and not found:
        raise Failure(f"there is no round {id}")
    if as_json:
        console().print_json(data=[record.model_dump() for record in found])
    elif id is not None:
        console().print(in_full(found[0]))
    else:
        console().print(listing(found))


def freeze(home: Home = None) -> None:
    """Let no round start by count or by schedule."""
    set_frozen(home, True)


def unfreeze(home: Home = None) -> None:
    """Let rounds start by count and by schedule again."""
    set_frozen(home, False)


def set_frozen(home: Home, frozen: bool) -> None:
    _, redis = installation(home)
    RoundBook(redis).freeze(frozen)
    typer.echo("learning is frozen; `ratchet train` still works" if frozen else "learning goes on")


def follow(book: RoundBook, id: int) -> RoundRecord:
    """Show a round's progress until it ends: a live table on a terminal, else a line for each stage."""
    screen = console()
    record = _require(book, id)
    if not screen.is_terminal:
        return _follow_in_lines(book, record)
    with Live(in_full(record), console=screen, refresh_per_second=4) as live:
        while record.is_open:
            time.sleep(POLL_S)
            record = _require(book, id)
            live.update(in_full(record))
    return record


def _follow_in_lines(book: RoundBook, record: RoundRecord) -> RoundRecord:
    said = ""
    while True:
        if record.state != "queued" and record.stage != said:
            said = record.stage
            typer.echo(f"  {said}")
        if not record.is_open:
            return record
        time.sleep(POLL_S)
        record = _require(book, record.id)


def _require(book: RoundBook, id: int) -> RoundRecord:
    record = book.get(id)
    if record is None:
        raise Failure(f"there is no round {id}")
    return record


def listing(records: list[RoundRecord]) -> Table:
    table = Table("round", "state", "stage", "started", "took", "policy", "trigger", "reason")
    for record in records:
        policy = "" if record.policy_version is None else f"policy-v{record.policy_version}"
        started = f"{datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S}"
        row = (str(record.id), record.state, record.stage, started, _took(record), policy, record.trigger)
        table.add_row(*row, record.reason or "")
    return table


def in_full(record: RoundRecord) -> Table:
    """Everything known of a round; the progress of the stage it is in comes last."""
    table = Table("round", str(record.id), title=None)
    done = STAGES.index(record.stage) if record.stage in STAGES else 0
    table.add_row("state", record.state)
    table.add_row("stage", f"{record.stage} ({done + 1} of {len(STAGES)})")
    table.add_row("time", _took(record))
    table.add_row("attempts", str(record.attempts))
    for name, value in (record.metrics | record.progress).items():
        table.add_row(name, _show(value))
    if record.reason:
        table.add_row("reason", record.reason)
    return table


def _took(record: RoundRecord) -> str:
    seconds = (record.finished or time.time()) - record.created
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_show(item)}" for name, item in value.items())
    if isinstance(value, list):
        return f"({len(value)})"  # such as a figure for each rater; `--json` shows them
    return str(value)
