"""The command `ratchet`."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer
from rich.table import Table

from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.pool import EnginePool, hosting
from feedback.releases.self_test import self_test_of
from feedback.rounds.book import RoundBook
from feedback.rounds.next_round import next_round
from feedback.store import COMPLETIONS, CURRENT, FEEDBACK, Ledger
from serving.commands import (
    demo,
    feedback,
    finetune,
    keys,
    leaderboard,
    policies,
    raters,
    releases,
    report,
    rm,
    rounds,
    users,
    versions,
)
from serving.commands.shared import AsJson, Home, OneLineErrors, console, installation
from serving.commands.training_child import require_training
from serving.machine.installation import environment, settings_of
from serving.machine.probes import WORKER_ALIVE, gateway_url, readiness
from serving.machine.terminal import Terminal
from serving.views.round import ahead, in_a_line

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
    from serving.machine.up import up as run_everything  # whoever rolls back must not wait for all that this one needs

    addresses = {"host": host, "port": port, "workers": workers, "redis_url": redis_url, "redis_port": redis_port}
    engine = {"engine_url": engine_url, "engine_port": engine_port, "base_model": model}
    mode = {"single_user": single_user or None}
    run_everything(settings_of(home, **addresses, **engine, **mode), Terminal(), verbose=verbose)


@model_app.command()
def fetch(model: Model = None, home: Home = None) -> None:
    """Get the base model, unless it is there already."""
    require_training("run --rm base python -m training.base_model fetch")
    settings = settings_of(home, base_model=model)
    argv = [sys.executable, "-m", "training.base_model", "fetch", "--model", settings.base_model]
    done = subprocess.run([*argv, "--home", str(settings.home)], env=environment(settings), check=False)
    raise typer.Exit(done.returncode)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what runs, what serves, and how much feedback there is. Exit code 1 while it cannot chat."""
    settings, redis = installation(home)
    ready, answer = readiness(settings)
    registry = PolicyRegistry(redis, settings.policies_dir)
    round_book, release_book = RoundBook(redis), ReleaseBook(registry)
    facts = {
        "gateway": "ready" if ready else f"not ready: {'; '.join(answer.get('reasons', []))}" if answer else "down",
        "url": gateway_url(settings),
        "worker": "alive" if redis.exists(WORKER_ALIVE) else "down",
        "stable policy": registry.stable(),
        "served policy": answer.get("policy_version"),
        "completions": redis.xlen(COMPLETIONS),
        "judgements": redis.hlen(CURRENT),
        "judgements with revisions": redis.xlen(FEEDBACK),
        "open round": in_a_line(round_book),
        "next round": ahead(next_round(settings, round_book, Ledger(redis))),
        "learning": "frozen" if round_book.is_frozen() else "on",
        "open release": releases.in_a_line(redis, release_book),
        "releases": "frozen" if release_book.is_frozen() else "on",
    }
    # A release that has ended leaves its engine for a while, which then ends by itself.
    if release_book.open() and (candidate := EnginePool(redis, hosting(settings)).describe()):
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
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="user")
app.add_typer(feedback.app, name="feedback")
app.add_typer(raters.app, name="raters")
app.add_typer(rm.app, name="rm")
app.add_typer(releases.app, name="release")
for command in (
    versions.history,
    versions.lineage,
    versions.diff,
    versions.pin,
    versions.unpin,
    versions.retire,
    versions.export,
    versions.import_,
):
    policies.app.command(command.__name__.rstrip("_"))(command)
app.add_typer(policies.app, name="policies")
app.add_typer(finetune.sft, name="sft")
app.add_typer(finetune.ppo, name="ppo")
app.command()(policies.rollback)
app.command()(policies.promote)
app.command()(report.report)
app.command()(leaderboard.leaderboard)
app.command()(rounds.train)
app.add_typer(rounds.app, name="rounds")
app.command()(rounds.freeze)
app.command()(rounds.unfreeze)
app.command()(demo.demo)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
