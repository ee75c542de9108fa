"""The command `ratchet`."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer
from rich.table import Table

from feedback.next_round import next_round
from feedback.registry import PolicyRegistry
from feedback.releases import ReleaseBook
from feedback.rounds import RoundBook
from feedback.self_test import self_test_of
from feedback.store import COMPLETIONS, CURRENT, FEEDBACK, Ledger
from serving import (
    demo_command,
    feedback_commands,
    finetune_commands,
    key_commands,
    leaderboard_command,
    policy_commands,
    rater_commands,
    release_commands,
    report_command,
    rm_commands,
    round_commands,
    round_view,
    user_commands,
    version_commands,
)
from serving.commands import AsJson, Home, OneLineErrors, console, installation
from serving.installation import environment, settings_of
from serving.pool import EnginePool, hosting
from serving.probes import WORKER_ALIVE, gateway_url, readiness
from serving.terminal import Terminal

Model = Annotated[str | None, typer.Option("--model", help="Hugging Face id or directory of the base model.")]

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="A self-hosted chat service whose model learns from the people who use it.",
)
model_app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="The base model.")


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"ratchet {distribution_version('ratchet')}")
    except PackageNotFoundError:
        typer.echo("ratchet, from a source tree that is not installed")
    raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def up(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Where the gateway listens (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="The gateway's port (default: 8000)")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes behind it (default: 1)")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Use this Redis instead of an embedded one.")] = None,
    redis_port: Annotated[int | None, typer.Option(help="Port of the embedded one (default: 7379)")] = None,
    engine_url: Annotated[str | None, typer.Option(help="Use this vLLM server instead of starting one.")] = None,
    engine_port: Annotated[int | None, typer.Option(help="Port of the one started here (default: 8001)")] = None,
    model: Model = None,
    single_user: Annotated[
        bool, typer.Option("--single-user", help="The page opens signed in, as admin; only on this machine.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show all that the parts write.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    from serving.up import up as run_everything  # whoever rolls back must not wait for all that this one needs

    addresses = {"host": host, "port": port, "workers": workers, "redis_url": redis_url, "redis_port": redis_port}
    engine = {"engine_url": engine_url, "engine_port": engine_port, "base_model": model}
    mode = {"single_user": single_user or None}
    run_everything(settings_of(home, **addresses, **engine, **mode), Terminal(), verbose=verbose)


@model_app.command()
def fetch(model: Model = None, home: Home = None) -> None:
    """Get the base model, unless it is there already."""
    settings = settings_of(home, base_model=model)
    argv = [sys.executable, "-m", "training.base_model", "fetch", "--model", settings.base_model]
    done = subprocess.run([*argv, "--home", str(settings.home)], env=environment(settings), check=False)
    raise typer.Exit(done.returncode)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what runs, what serves, and how much feedback there is. Exit code 1 while it cannot chat."""
    settings, redis = installation(home)
    ready, report = readiness(settings)
    registry = PolicyRegistry(redis, settings.policies_dir)
    book, releases = RoundBook(redis), ReleaseBook(registry)
    facts = {
        "gateway": "ready" if ready else f"not ready: {'; '.join(report.get('reasons', []))}" if report else "down",
        "url": gateway_url(settings),
        "worker": "alive" if redis.exists(WORKER_ALIVE) else "down",
        "stable policy": registry.stable(),
        "served policy": report.get("policy_version"),
        "completions": redis.xlen(COMPLETIONS),
        "judgements": redis.hlen(CURRENT),
        "judgements with revisions": redis.xlen(FEEDBACK),
        "open round": round_view.in_a_line(book),
        "next round": round_view.ahead(next_round(settings, book, Ledger(redis))),
        "learning": "frozen" if book.is_frozen() else "on",
        "open release": release_commands.in_a_line(redis, releases),
        "releases": "frozen" if releases.is_frozen() else "on",
    }
    # A release that has ended leaves its engine for a while, which then ends by itself.
    if releases.open() and (candidate := EnginePool(redis, hosting(settings)).describe()):
        facts["candidate's engine"] = candidate
    if (test := self_test_of(Ledger(redis))).alarm:
        facts["self-test"] = f"ALARM: {test.says}"
    if as_json:
        console().print_json(data=facts)
    else:
        table = Table(show_header=False)
        for name, value in facts.items():
            table.add_row(name, _told(name, value))
        console().print(table)
    raise typer.Exit(0 if ready else 1)


def _told(name: str, value: object) -> str:
    """A fact for people: versions by their names, as everywhere."""
    if value is None:
        return "none"
    return f"policy-v{value}" if name in ("stable policy", "served policy") else str(value)


app.add_typer(model_app, name="model")
app.add_typer(key_commands.app, name="keys")
app.add_typer(user_commands.app, name="user")
app.add_typer(feedback_commands.app, name="feedback")
app.add_typer(rater_commands.app, name="raters")
app.add_typer(rm_commands.app, name="rm")
app.add_typer(release_commands.app, name="release")
for command in (
    version_commands.history,
    version_commands.lineage,
    version_commands.diff,
    version_commands.pin,
    version_commands.unpin,
    version_commands.retire,
    version_commands.export,
    version_commands.import_,
):
    policy_commands.app.command(command.__name__.rstrip("_"))(command)
app.add_typer(policy_commands.app, name="policies")
app.add_typer(finetune_commands.sft, name="sft")
app.add_typer(finetune_commands.ppo, name="ppo")
app.command()(policy_commands.rollback)
app.command()(policy_commands.promote)
app.command()(report_command.report)
app.command()(leaderboard_command.leaderboard)
app.command()(round_commands.train)
app.add_typer(round_commands.app, name="rounds")
app.command()(round_commands.freeze)
app.command()(round_commands.unfreeze)
app.command()(demo_command.demo)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
