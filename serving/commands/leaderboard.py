"""`ratchet leaderboard`: which policy versions people prefer, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from feedback.leaderboard.standings import Whose
from feedback.policies.registry import PolicyRegistry
from feedback.store import Ledger
from serving.commands.report import write
from serving.commands.shared import AsJson, Home, console, installation, version_number
from serving.views.leaderboard import HEADINGS, plot, remarks, rows


def leaderboard(
    raters: Annotated[Whose, typer.Option(help="Whose votes; evaluation: those who never train.")] = "all",
    blind: Annotated[bool, typer.Option("--blind", help="Only votes on answers laid side by side blind.")] = False,
    anchor: Annotated[int, typer.Option(parser=version_number, metavar="VERSION", help="The version at Elo 1000.")] = 0,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=10_000, help="Intervals of Elo from so many draws of whole raters.")
    ] = 0,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write a plot with intervals to this file.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show policy versions by what people prefer, side and length apart, with intervals."""
    # Whoever asks for another command must not wait for what reckons this.
    from feedback.leaderboard.ballots import board_of

    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    board = board_of(Ledger(redis), registry, whose=raters, blind=blind, anchor=anchor, draws=bootstrap)
    if svg is not None:
        write(svg, plot(board).encode())
    if as_json:
        console().print_json(data=board.model_dump(mode="json"))
        return
    table = Table(*HEADINGS)
    for row in rows(board):
        table.add_row(*map(Text, row))
    if table.rows:
        console().print(table)
    for line in remarks(board):
        typer.echo(line)
    if svg is not None:
        typer.echo(f"plot written to {svg}")
