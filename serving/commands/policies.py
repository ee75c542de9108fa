"""`ratchet policies | rollback | promote`: which versions exist, what was asked of them, and which one serves."""

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PolicyRegistry, in_words
from feedback.settings import Settings
from serving.commands.shared import (
    AsJson,
    Expect,
    Failure,
    Home,
    OneLineErrors,
    Version,
    actor,
    console,
    hand_down,
    installation,
    version_number,
)
from serving.machine.probes import served_version
from serving.views.listing import Listing
from serving.views.round_metrics import KL, REWARD_ACCURACY, SCORE_GAIN, SCORE_GAIN_HIGH, SCORE_GAIN_LOW, checks, find

SWAP_DEADLINE_S = 30.0

app = typer.Typer(cls=OneLineErrors, invoke_without_command=True, help="Show policy versions.")


@app.callback()
def policies(ctx: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show all policy versions: state, origin, metrics, and which one the engine serves."""
    if ctx.invoked_subcommand is None:
        list_policies(home, as_json)
    else:
        hand_down(ctx)


@app.command("list")
def list_policies(home: Home = None, as_json: AsJson = False) -> None:
    """Show all policy versions, as `ratchet policies` does."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    pinned = registry.pinned()
    rows = [
        {**describe(registry, version, state), "pinned": version in pinned}
        for version, state in registry.states().items()
    ]
    served = served_version(settings)
    if as_json:
        console().print_json(data={"stable": registry.stable(), "served": served, "policies": rows})
        return
    headings = ("version", "state", "parent", "created", "metrics", "served")
    table = Listing(headings, "there is no policy yet", frozenset({"metrics"}))
    for row in rows:
        mark = "now" if row["version"] == served else ""
        state = in_words(row["state"]) + (", pinned" if row["pinned"] else "")
        table.add(row["name"], state, row["parent"], row["created"], row["summary"], mark)
    console().print(table)


@app.command()
def show(
    version: Version,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show one version in full: what each stage measured, and every check of the gate with its threshold."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    state = registry.states().get(version)
    if state is None:
        raise Failure(f"there is no policy-v{version}")
    row = describe(registry, version, state)
    if as_json:
        console().print_json(data=row)
        return
    facts = Table(row["name"], in_words(row["state"]))
    for name in ("parent", "created", "summary"):
        facts.add_row(name, row[name])
    for stage, metrics in row["metrics"].items():
        facts.add_row(escape(stage), escape(in_short(metrics)))
    console().print(facts)
    asked = Table("the gate asked", "value", "", "threshold", "")
    for check in checks(row["metrics"]):
        name, sign = escape(check.name), escape(check.sign)
        asked.add_row(name, _figure(check.value), sign, _figure(check.threshold), check.verdict)
    if asked.rows:
        console().print(asked)


def rollback(
    version: Annotated[
        int | None,
        typer.Argument(
            parser=version_number, metavar="[VERSION]", help="Where to; default: the version that served before."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="For the audit.")] = "rolled back by hand",
    expect: Expect = None,
    home: Home = None,
) -> None:
    """Return to an earlier policy, and wait until it serves."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    started = time.monotonic()
    target = registry.rollback(to=version, actor=actor(), reason=reason, expected=expect)
    wait_until_served(settings, registry, target, started)


def promote(
    version: Version,
    reason: Annotated[str, typer.Option(help="For the audit.")] = "promoted by hand",
    expect: Expect = None,
    home: Home = None,
) -> None:
    """Make a version serve, and wait until it does."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    started = time.monotonic()
    current = registry.stable()
    if current != version or expect not in (None, current):
        seen = current if expect is None else expect
        registry.point_stable(version, expected=seen, actor=actor(), reason=reason)
    wait_until_served(settings, registry, version, started)


def wait_until_served(settings: Settings, registry: PolicyRegistry, version: int, started: float) -> None:
    """Say how long the gateway took to serve `version`. Raises Failure when it does not within the deadline."""
    while time.monotonic() - started < SWAP_DEADLINE_S:
        if served_version(settings) == version:
            typer.echo(f"policy-v{version} serves after {time.monotonic() - started:.1f} s")
            return
        if registry.stable() != version:
            raise Failure(f"policy-v{version} was not accepted: policy-v{registry.stable()} serves; see gateway.log")
        time.sleep(0.1)
    raise Failure(
        f"policy-v{version} is the stable policy, but the gateway does not report it after {SWAP_DEADLINE_S:.0f} s; "
        "see `ratchet status`"
    )


def describe(registry: PolicyRegistry, version: int, state: str) -> dict[str, Any]:
    """One row; a version whose directory is broken says so instead of its metrics."""
    row: dict[str, Any] = {"version": version, "name": f"policy-v{version}", "state": state}
    try:
        manifest = registry.manifest(version)
    except (BrokenPolicy, OSError) as error:
        return row | {"parent": "", "created": "", "summary": f"broken: {error}", "metrics": {}}
    parent = "" if manifest.parent is None else f"policy-v{manifest.parent}"
    created = f"{datetime.fromtimestamp(manifest.created):%Y-%m-%d %H:%M:%S}"
    return (
        row
        | {"parent": parent, "created": created, "summary": summary(manifest.metrics)}
        | {"metrics": manifest.metrics}
    )


def summary(metrics: dict[str, Any]) -> str:
    """What the gate measured of a version; empty for the base, which nobody trained."""
    gain, low, high = (find(metrics, path) for path in (SCORE_GAIN, SCORE_GAIN_LOW, SCORE_GAIN_HIGH))
    interval = "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"
    kl, accuracy = find(metrics, KL), find(metrics, REWARD_ACCURACY)
    parts = (
        None if gain is None else f"score gain {gain:+.2f}{interval}",
        None if kl is None else f"KL {kl:.2f}",
        None if accuracy is None else f"reward model accuracy {accuracy:.2f}",
    )
    return ", ".join(part for part in parts if part)


def in_short(metrics: dict[str, Any]) -> str:
    """The numbers and texts of a stage; `--json` has also what is nested in it."""
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
    return "  ".join(f"{name} {_figure(value)}" for name, value in plain.items())


def _figure(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "unknown" if value is None else str(value)
