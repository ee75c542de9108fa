"""`ratchet train | rounds | rounds list | rounds cancel | freeze | unfreeze`: the learning side."""

import math
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from redis import Redis
from rich.live import Live

from feedback.rounds.book import RoundBook, RoundRecord, last_on_disk
from feedback.rounds.cancelling import cancel as cancel_round
from feedback.rounds.next_round import next_round
from feedback.store import Ledger
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, actor, console, hand_down, installation
from serving.machine.probes import WORKER_ALIVE
from serving.views.round import ahead, in_full, line, listing, live

POLL_S = 0.5
#: Where lines stay, as in a log file.
LINE_EVERY_S = 20.0
#: A worker that has just been started takes some to announce itself.
WITHOUT_WORKER_S = 8.0
EXIT_CODES = {"published": 0, "refused": 3, "failed": 1, "cancelled": 1}

Reason = Annotated[str, typer.Option(help="For the audit.")]


def train(
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", "--now", help="Follow the round to its end, which --now says too, or only ask for it."
        ),
    ] = True,
    home: Home = None,
) -> None:
    """Start a training round now. Exit code: 0 published, 3 refused, by the gate or for want of data, 1 failed or
    was cancelled."""
    settings, redis = installation(home)
    book = RoundBook(redis)
    id, opened = book.request(trigger="operator", actor=actor(), beyond=last_on_disk(settings.rounds_dir))
    try:
        typer.echo(f"round {id} " + ("is asked for" if opened else "is open already"))
        record = follow(book, id) if wait else None
    except KeyboardInterrupt:
        typer.echo(f"round {id} goes on; see `ratchet rounds {id}`")
        raise typer.Exit(130) from None
    if record is not None:
        typer.echo(f"round {id} {record.state}" + (f": {record.reason}" if record.reason else ""))
        raise typer.Exit(EXIT_CODES[record.state])


class RoundsOrCommand(OneLineErrors):
    """`ratchet rounds 3` shows a round; other words are commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, words, _ = self.make_parser(ctx).parse_args(args=list(args))
        if words and words[0].isdigit():
            args = [*args[: len(args) - len(words)], "show", *words]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RoundsOrCommand,
    invoke_without_command=True,
    help="Show the training rounds, newest first, or one in full by its number; cancel one.",
)

Id = Annotated[int, typer.Argument(help="The round.")]


@app.callback()
def rounds(ctx: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show the training rounds, newest first; `ratchet rounds 3` shows one in full."""
    if ctx.invoked_subcommand is None:
        list_rounds(home, as_json)
    else:
        hand_down(ctx)


@app.command("list")
def list_rounds(home: Home = None, as_json: AsJson = False) -> None:
    """Show the training rounds, newest first, as `ratchet rounds` does."""
    settings, redis = installation(home)
    book = RoundBook(redis)
    found = book.list()
    if as_json:
        console().print_json(data=[record.model_dump() for record in found])
        return
    console().print(listing(found))
    typer.echo(f"next one by itself: {ahead(next_round(settings, book, Ledger(redis)))}")


@app.command()
def show(id: Id, home: Home = None, as_json: AsJson = False) -> None:
    """Show one round in full, as `ratchet rounds 3` does."""
    record = _require(RoundBook(installation(home)[1]), id)
    if as_json:
        console().print_json(data=[record.model_dump()])
    else:
        console().print(in_full(record))


@app.command()
def cancel(
    id: Id,
    reason: Reason = "cancelled by hand",
    home: Home = None,
) -> None:
    """End a round that is queued or running: its worker stops within seconds, and nothing is published."""
    _, redis = installation(home)
    _require(RoundBook(redis), id)
    cancel_round(redis, id, actor=actor(), reason=reason)
    typer.echo(
        f"round {id} is cancelled; the next one learns from what was said, too; by itself it awaits new judgements"
    )


def freeze(reason: Reason = "frozen by hand", home: Home = None) -> None:
    """Let no round start by count or by schedule."""
    set_frozen(home, True, reason)


def unfreeze(reason: Reason = "unfrozen by hand", home: Home = None) -> None:
    """Let rounds start by count and by schedule again."""
    set_frozen(home, False, reason)


def set_frozen(home: Home, frozen: bool, reason: str) -> None:
    _, redis = installation(home)
    RoundBook(redis).freeze(frozen, actor=actor(), reason=reason)
    typer.echo("learning is frozen; `ratchet train` still works" if frozen else "learning goes on")


class WorkerWatch:
    """Says once that no worker is alive, if that has been so for some seconds: a round waits for one without end."""

    def __init__(self, redis: Redis, say: Callable[[str], None]) -> None:
        self._redis, self._say = redis, say
        self._seen, self._told = time.monotonic(), False

    def look(self) -> None:
        if self._told or self._redis.exists(WORKER_ALIVE):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen >= WITHOUT_WORKER_S:
            self._told = True
            self._say("no worker is alive: see `ratchet status`")


def follow(book: RoundBook, id: int) -> RoundRecord:
    """Show a round's progress until it ends: a live table on a terminal, else lines."""
    screen = console()
    watch = WorkerWatch(book.redis, screen.print)
    record = _require(book, id)
    if not screen.is_terminal:
        return _follow_in_lines(book, record, watch)
    with Live(live(record), console=screen, refresh_per_second=4) as shown:
        while record.is_open:
            watch.look()
            time.sleep(POLL_S)
            record = _require(book, id)
            shown.update(live(record))
    return record


def _follow_in_lines(book: RoundBook, record: RoundRecord, watch: WorkerWatch) -> RoundRecord:
    """A line for each stage, and now and then where it is and what it measures."""
    said, step, spoke, restarts = "", 0, -math.inf, record.restarts
    while True:
        if record.restarts > restarts:
            said, restarts = "", record.restarts
            typer.echo(f"  {record.reason}")
        if record.state != "queued" and record.stage != said:
            said, step, spoke = record.stage, 0, -math.inf
            typer.echo(f"  {said}")
        at = record.progress
        rested = time.monotonic() - spoke > LINE_EVERY_S
        if at.get("metrics") and at["step"] > step and (rested or at["step"] == at["total"]):
            step, spoke = at["step"], time.monotonic()
            typer.echo(f"  {said} {line(at)}")
        if not record.is_open:
            return record
        watch.look()
        time.sleep(POLL_S)
        record = _require(book, record.id)


def _require(book: RoundBook, id: int) -> RoundRecord:
    record = book.get(id)
    if record is None:
        raise Failure(f"there is no round {id}")
    return record
