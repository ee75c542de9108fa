"""`ratchet release start | status | promote …`: a candidate let in step by step, watched, and ended."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from redis import Redis
from rich.live import Live

from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import Mode, Release, ReleaseBook, describe
from feedback.releases.orders import Order, changed, default_mode, found, give, to_replace
from feedback.releases.plan import BadPlan, Plan, load_plan
from feedback.releases.self_test import reset as reset_self_test
from feedback.releases.self_test import self_test_of
from feedback.releases.start import begin_release
from feedback.settings import Settings
from feedback.store import Ledger
from serving.commands.policies import wait_until_served
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, Version, actor, console, installation
from serving.views.release import awaited, in_full, listing, tested, votes_of
from serving.views.release import history as history_table
from serving.views.release_facts import card, facts, line
from serving.views.release_facts import self_test as self_test_facts
from serving.views.release_steps import in_words, steps_of
from serving.views.release_usual import in_lines, usual

POLL_S = 0.5
#: Of `status --watch`, by how the release ended.
EXIT_CODES = {"promoted": 0}
NOT_PROMOTED = 3

app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Let a candidate in step by step, beside what serves.")

Id = Annotated[int | None, typer.Argument(help="The release; default: the open one.")]
Reason = Annotated[str, typer.Option(help="For the history.")]
AuditReason = Annotated[str, typer.Option(help="For the audit.")]
Revision = Annotated[int | None, typer.Option(help="Do nothing if it has changed since this revision.")]


@app.command()
def start(
    version: Version,
    steps: Annotated[str | None, typer.Option(help="Such as 5%,30m,25%,pause,analysis.")] = None,
    plan: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A plan in place of the installation's.")
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="automatic promotes by itself, the others propose (default: RATCHET_RELEASE_MODE, manual for direct)"
        ),
    ] = None,
    reason: Reason = "started by hand",
    expect: Annotated[int | None, typer.Option(help="Replace this release, and no other; 0: none is open.")] = None,
    home: Home = None,
) -> None:
    """Begin to release a version; an open release is replaced."""
    settings, registry = _at(home)
    seen = to_replace(ReleaseBook(registry), named=expect is not None, id=expect or None)
    begun = begin_release(
        Ledger(registry.redis), registry, version, _plan(settings, plan, steps), mode=mode or default_mode(settings),
        actor=actor(), reason=reason, seen=seen,
    )  # fmt: skip
    then = ", ".join(in_words(step) for step in begun.plan.steps)
    instead = "" if seen is None else f" in place of policy-v{seen.candidate}"
    typer.echo(f"release {begun.id}: policy-v{version}{instead}, beside policy-v{begun.stable}; {begun.mode}: {then}")


@app.command()
def status(
    id: Id = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends; Ctrl-C leaves it.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show a release: its steps, votes and guardrails; where none is open, what becomes of the next version, too.

    With --watch exit code 0 if it was promoted, 3 if it was not.
    """
    settings, registry = _at(home)
    book = ReleaseBook(registry)
    if id is None and not watch and not as_json and book.open() is None:
        typer.echo(in_lines(usual(settings, frozen=book.is_frozen())))
    release = _latest(book) if id is None else found(book, id)
    if watch:
        _watch(book, release, as_json=as_json)
    elif as_json:
        console().print_json(data=facts(book.redis, release))
    else:
        console().print(in_full(facts(book.redis, release)))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the releases, newest first."""
    _, registry = _at(home)
    releases = ReleaseBook(registry).latest(limit)
    if as_json:
        console().print_json(data=[facts(registry.redis, release) for release in releases])
    else:
        console().print(listing(releases))


@app.command()
def history(id: Id = None, home: Home = None, as_json: AsJson = False) -> None:
    """Show each change of a release, or of all: when, by whom and why; oldest first."""
    _, registry = _at(home)
    book = ReleaseBook(registry)
    lines = book.history(None if id is None else found(book, id).id)
    if as_json:
        console().print_json(data=[{"release": each.release.id, **line(each)} for each in lines])
    else:
        console().print(history_table(lines))


@app.command()
def promote(
    id: Id = None,
    full: Annotated[bool, typer.Option("--full", help="Leave out all steps to come: it serves at once.")] = False,
    reason: Reason = "promoted by hand",
    revision: Revision = None,
    home: Home = None,
) -> None:
    """Pass the step under way; one that is proposed serves, and this waits until it does."""
    settings, registry = _at(home)
    started = time.monotonic()
    release = _order(registry, "promote", id, reason, revision, full=full)
    if release.state == "promoted":
        wait_until_served(settings, registry, release.candidate, started)


@app.command()
def pause(id: Id = None, reason: Reason = "paused by hand", revision: Revision = None, home: Home = None) -> None:
    """Take no further step; what is worse is still rolled back."""
    registry = _at(home)[1]
    _refuse_if_paused(registry, id, paused=True)
    _order(registry, "pause", id, reason, revision)


@app.command()
def resume(id: Id = None, reason: Reason = "resumed by hand", revision: Revision = None, home: Home = None) -> None:
    """Go on with a paused release."""
    registry = _at(home)[1]
    _refuse_if_paused(registry, id, paused=False)
    _order(registry, "resume", id, reason, revision)


@app.command()
def abort(id: Id = None, reason: Reason = "aborted by hand", revision: Revision = None, home: Home = None) -> None:
    """End a release, nothing decided: the candidate is what it was before."""
    _order(_at(home)[1], "abort", id, reason, revision)


@app.command()
def rollback(
    id: Id = None, reason: Reason = "rolled back by hand", revision: Revision = None, home: Home = None
) -> None:
    """End a release: the candidate counts as worse."""
    _order(_at(home)[1], "rollback", id, reason, revision)


@app.command()
def freeze(reason: AuditReason = "frozen by hand", home: Home = None) -> None:
    """Let nothing be released or promoted by itself; what is worse is still rolled back."""
    ReleaseBook(_at(home)[1]).freeze(True, actor=actor(), reason=reason)
    typer.echo("releases are frozen; `ratchet release start` and `promote` still work")


@app.command()
def unfreeze(reason: AuditReason = "unfrozen by hand", home: Home = None) -> None:
    """Let releases begin and end by themselves again."""
    ReleaseBook(_at(home)[1]).freeze(False, actor=actor(), reason=reason)
    typer.echo("releases go on")


@app.command()
def self_test(
    reset: Annotated[
        bool, typer.Option("--reset", help="The fault is found: only votes from now on count, and the alarm is over.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show whether stable ties with itself in blind votes; while it does not, no vote decides."""
    ledger = Ledger(_at(home)[1].redis)
    if reset:
        reset_self_test(ledger)
    known = self_test_facts(self_test_of(ledger))
    if as_json:
        console().print_json(data=known)
    else:
        typer.echo(tested(known))


def in_a_line(redis: Redis, book: ReleaseBook) -> str | None:
    """The open release for `ratchet status`; None where there is none."""
    release = book.open()
    if release is None:
        return None
    known = facts(redis, release)
    then = awaited(known) or known["forecast"]
    return f"{release.id} ({known['is']})" + (f", {then}" if then else "")


def _at(home: Path | None) -> tuple[Settings, PolicyRegistry]:
    settings, redis = installation(home)
    return settings, PolicyRegistry(redis, settings.policies_dir)


def _plan(settings: Settings, file: Path | None, steps: str | None) -> Plan:
    try:
        asked: dict[str, Any] = {} if file is None else json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise Failure(f"{file} is no plan: {error}") from error
    if not isinstance(asked, dict):
        raise BadPlan(f"{file} is no plan: it must be a JSON object")
    if file is not None:
        _fits(file, asked)
    named = {} if steps is None else {"steps": steps_of(steps)}
    return changed(load_plan(settings.home) if file is None else Plan(), asked | named)


def _fits(file: Path, asked: dict[str, Any]) -> None:
    """Raises BadPlan, which names the file, unless its fields make a plan."""
    try:
        changed(Plan(), asked)
    except BadPlan as error:
        raise BadPlan(f"{file}: {error}") from error


def _latest(book: ReleaseBook) -> Release:
    known = book.open() or next(iter(book.latest(1)), None)
    if known is None:
        raise Failure("there has been no release yet: `ratchet release start VERSION` begins one")
    return known


def _refuse_if_paused(registry: PolicyRegistry, id: int | None, *, paused: bool) -> None:
    """A person who orders what is so already is mistaken about the release; programs over the API may repeat theirs."""
    release = found(ReleaseBook(registry), id)
    if release.is_open and release.paused == paused:
        raise Failure(f"release {release.id} is {'paused already' if paused else 'not paused'}: {describe(release)}")


def _order(
    registry: PolicyRegistry, order: Order, id: int | None, reason: str, revision: int | None, *, full: bool = False
) -> Release:
    book, now = ReleaseBook(registry), time.time()
    release = give(book, order, id, actor=actor(), reason=reason, now=now, revision=revision, full=full)
    typer.echo(f"release {release.id}: {describe(release)}")
    if release.proposed and release.is_open:
        typer.echo(awaited(card(release)))
    return release


def _watch(book: ReleaseBook, release: Release, *, as_json: bool) -> None:
    """Until it ends: a table that moves on a terminal, else a line for each change."""
    try:
        moving = console().is_terminal and not as_json
        release = _follow(book, release) if moving else _follow_in_lines(book, release, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"release {release.id} goes on; see `ratchet release status`", err=as_json)
        raise typer.Exit(130) from None
    raise typer.Exit(EXIT_CODES.get(release.state, NOT_PROMOTED))


def _follow(book: ReleaseBook, release: Release) -> Release:
    with Live(in_full(facts(book.redis, release)), console=console(), refresh_per_second=4) as shown:
        while release.is_open:
            time.sleep(POLL_S)
            release = found(book, release.id)
            shown.update(in_full(facts(book.redis, release)))
    return release


def _follow_in_lines(book: ReleaseBook, release: Release, *, as_json: bool) -> Release:
    """Where it is once for each step; of further votes only how many there are. As JSON all that is known."""
    where = votes = ""
    while True:
        known = facts(book.redis, release)
        counted = votes_of(known)
        moved = known["is"] != where
        news = f"{known['is']}: {known['why'] or counted}" if moved else counted if counted != votes else ""
        if news:
            typer.echo(json.dumps(known) if as_json else f"release {release.id}: {news}")
        where, votes = known["is"], counted
        if not release.is_open:
            return release
        time.sleep(POLL_S)
        release = found(book, release.id)
