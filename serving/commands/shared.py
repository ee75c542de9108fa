"""What the `ratchet` commands share: options, access to an installation, one line for each error."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console

from feedback.durability import LedgerNotDurable
from feedback.policies import manifest
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PointerMoved, UnknownPolicy
from feedback.releases.book import NotReleasable, ReleaseMoved
from feedback.releases.orders import UnknownRelease
from feedback.releases.plan import BadPlan
from feedback.retention import StillNeeded
from feedback.rounds.cancelling import NotCancellable
from feedback.settings import BrokenSecrets, Settings
from feedback.store import connect
from serving.machine.children import CannotStart
from serving.machine.installation import settings_as_started

WIDE = 200

Home = Annotated[Path | None, typer.Option("--home", help="Data directory (env: RATCHET_HOME; default: .ratchet)")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def version_number(text: str | int) -> int:
    """The version that an argument names. Raises BadParameter."""
    try:
        return manifest.version_number(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


#: A version as an argument, or as an option.
Version = Annotated[
    int, typer.Argument(parser=version_number, metavar="VERSION", help="The version, such as 3 or policy-v3.")
]
Expect = Annotated[
    int | None,
    typer.Option(parser=version_number, metavar="VERSION", help="Do nothing unless this version serves now."),
]


class Failure(RuntimeError):
    """A command could not do what was asked; the message is one line."""


#: What an order may be refused with; the message says all.
KNOWN = (
    Failure, BrokenPolicy, PointerMoved, StillNeeded, LedgerNotDurable, UnknownRelease, ReleaseMoved, NotReleasable,
    BadPlan, NotCancellable, BrokenSecrets,
)  # fmt: skip


class OneLineErrors(typer.core.TyperGroup):
    """Known faults end a command with one line on stderr and an exit code, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CannotStart as error:
            code, text = 2, str(error)
        except RedisError as error:
            code, text = 1, f"Redis does not answer ({error}): is `ratchet up` running?"
        except UnknownPolicy as error:
            code, text = 1, str(error.args[0])
        except KNOWN as error:
            code, text = 1, str(error)
        typer.echo(f"ratchet: {text}", err=True)
        raise typer.Exit(code)


def hand_down(ctx: typer.Context) -> None:
    """Options before a command's word are the command's. Raises BadParameter where it has no such option."""
    group, word = ctx.command, str(ctx.invoked_subcommand)
    assert isinstance(group, OneLineErrors)
    given = {name: value for name, value in ctx.params.items() if value}
    taken = {option.name for option in group.commands[word].params}
    for option in group.params:
        if option.name in given.keys() - taken:
            raise typer.BadParameter(f"`{word}` has no option {option.opts[0]}")
    ctx.default_map = {word: given}


def installation(home: Path | None) -> tuple[Settings, Redis]:
    """Settings and Redis of an installation. Raises Failure when there is none at `home`."""
    settings = settings_as_started(home)
    if not (settings.home / "secrets.json").exists():
        raise Failure(f"there is no installation in {settings.home}: start one with `ratchet up`, or give --home")
    redis = connect(settings.resolved_redis_url())
    redis.ping()
    return settings, redis


def actor() -> str:
    """Who gives orders on this machine, for the audit."""
    return f"cli:{getpass.getuser()}"


def console() -> Console:
    """As wide as the terminal; for pipes and files as wide as any table is, so that nothing is cut off there."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
