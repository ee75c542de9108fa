"""`ratchet raters`: whose judgements train, what they weigh, how their checks went, and who is put aside."""

from datetime import datetime
from typing import Annotated, Any

import typer
from redis import Redis

from feedback.archive import Archive
from feedback.erasure import Eraser, forget, traces
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry
from feedback.store import Ledger
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, actor, console, hand_down, installation
from serving.views.listing import Listing
from serving.views.rater_facts import RaterFacts

app = typer.Typer(cls=OneLineErrors, invoke_without_command=True, help="Show who judges; put them aside or erase them.")

HEADINGS = (
    "source", "split", "judgements", "agreement", "reliability", "share", "gold", "repeat", "left", "quarantine",
    "rater",
)  # fmt: skip

Rater = Annotated[str, typer.Argument(help="The pseudonym, as `ratchet raters` shows it.")]
Reason = Annotated[str, typer.Option(help="For the audit.")]


@app.callback()
def raters(ctx: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show all raters: what stands of them now, and what the last round made of it; most judgements first.

    `gold` are the decoys that they passed over, of all; `repeat` the pairs that they judged alike when these came again
    with sides swapped; `left` how often they preferred the left one.
    """
    if ctx.invoked_subcommand is None:
        list_raters(home, as_json)
    else:
        hand_down(ctx)


@app.command("list")
def list_raters(home: Home = None, as_json: AsJson = False) -> None:
    """Show all raters, as `ratchet raters` does."""
    _, redis = installation(home)
    rows = RaterFacts(Ledger(redis)).rows()
    if as_json:
        console().print_json(data=rows)
        return
    table = Listing(HEADINGS, "nobody has judged anything yet", frozenset({"quarantine"}))
    for row in rows:
        weighed = (_figure(row["agreement"]), _reliability(row), _figure(row["share"]) + " (capped)" * row["capped"])
        cells = (row["source"], row["split"], f"{row['judgements']:,}", *weighed, *_checks(row))
        table.add(*cells, _quarantine(row), row["rater"])
    console().print(table)


@app.command()
def quarantine(rater: Rater, reason: Reason = "put aside by hand", home: Home = None) -> None:
    """Put a rater aside: the next rounds train and prove without them, and without what they asked."""
    settings, redis = installation(home)
    if not known(redis, rater).quarantine(rater, actor=actor(), reason=reason):
        raise Failure(f"{rater} is in quarantine already")
    typer.echo(f"{rater} is in quarantine")
    learned = traces(PolicyRegistry(redis, settings.policies_dir), rater, ()).policies
    if learned:
        typer.echo(
            f"learned from them: {', '.join(learned)}; the next round's reward model does not go on from these, its "
            "policy goes on from the stable one: see `ratchet rollback`"
        )


@app.command()
def release(rater: Rater, reason: Reason = "released by hand", home: Home = None) -> None:
    """Let a rater train again, from the next round on."""
    _, redis = installation(home)
    if not Raters(redis).release(rater, actor=actor(), reason=reason):
        raise Failure(f"{rater} is not in quarantine")
    typer.echo(f"{rater} trains again")


@app.command()
def erase(
    rater: Rater,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    home: Home = None,
) -> None:
    """Erase for good all that somebody asked, was answered and said, also of a key that is gone."""
    settings, redis = installation(home)
    known(redis, rater)
    if not yes and not typer.confirm(f"Erase all of {rater}? Nothing brings it back."):
        raise Failure("nothing was erased")
    registry = PolicyRegistry(redis, settings.policies_dir)
    erased, learned = forget(Eraser(Archive(Ledger(redis))), registry, rater)
    gone = (
        f"{erased.conversations:,} conversations, {erased.completions:,} answers, {len(erased.feedback):,} judgements"
    )
    typer.echo(f"{rater} is erased: {gone}")
    if which := [*(f"round {id}" for id in learned.rounds), *learned.policies]:
        typer.echo(f"learned from them, and stay: {', '.join(which)}")
    if erased.restarted:
        typer.echo(f"collect again without them: {', '.join(f'round {id}' for id in erased.restarted)}")


def known(redis: Redis, rater: str) -> Raters:
    """Raises Failure where nobody is called so."""
    raters = Raters(redis)
    if not raters.knows(rater):
        raise Failure(f"nobody is called {rater}; `ratchet raters` shows them")
    return raters


def _checks(row: dict[str, Any]) -> tuple[str, str, str]:
    """Decoys passed over, pairs judged alike again, and how often left was preferred; nothing where there are none."""
    told = row["checks"]
    decoys, again = told["passed"] + told["failed"], told["same"] + told["other"]
    return (
        f"{told['passed']}/{decoys}" if decoys else "",
        f"{told['same']}/{again}" if again else "",
        "" if row["side"] is None else f"{row['side']:.0%}",
    )


def _quarantine(row: dict[str, Any]) -> str:
    """Since when and why a rater is aside, or else why to put them there."""
    if aside := row["quarantined"]:
        return f"{datetime.fromtimestamp(aside['time']):%Y-%m-%d %H:%M} by {aside['actor']}: {aside['reason']}"
    return f"propose quarantine: {'; '.join(row['suspected'])}" if row["suspected"] else ""


def _reliability(row: dict[str, Any]) -> str:
    """Of somebody whom nobody can be compared with nothing is known, whatever weight the round gave."""
    return "unknown" if row["reliability"] is not None and row["agreement"] is None else _figure(row["reliability"])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
