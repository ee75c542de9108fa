"""`ratchet keys`: who may use the service, how much, and until when."""

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from feedback.people.keys import ROLES, ApiKey, KeyChange, KeyRing, Limits, Role, UnknownKey
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, actor, console, installation
from serving.views.listing import Listing

if TYPE_CHECKING:
    from serving.http.quotas import Usage

HEADINGS = ("name", "role", "created", "expires", "limits", "used today", "id")
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Create, limit, rotate and revoke API keys.")

Id = Annotated[str, typer.Argument(help="As `ratchet keys list` shows it.")]
Expires = Annotated[str | None, typer.Option(help="How long it works: 90m, 12h, 30d, 8w; or never.")]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", min=0, help="0 = no limit")]
Tokens = Annotated[int | None, typer.Option("--tokens-per-day", min=0, help="prompts and answers; 0 = no limit")]
Streams = Annotated[int | None, typer.Option("--streams", min=0, help="answers written at once; 0 = no limit")]
Feedback = Annotated[int | None, typer.Option("--feedback-per-day", min=0, help="0 = no limit")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    role: Annotated[str, typer.Option(help=" | ".join(ROLES))] = "user",
    expires: Expires = None,
    requests_per_minute: Requests = None,
    tokens_per_day: Tokens = None,
    streams: Streams = None,
    feedback_per_day: Feedback = None,
    home: Home = None,
) -> None:
    """Make a key and show it, once."""
    limits = limits_of(requests_per_minute, tokens_per_day, streams, feedback_per_day)
    until, known_role = moment(expires), role_named(role)
    try:
        plain = ring_of(home).create(name=name, role=known_role, expires=until, limits=limits, actor=actor())
    except ValidationError as error:
        raise Failure(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error
    typer.echo(plain)


@app.command("list")
def list_keys(home: Home = None, as_json: AsJson = False) -> None:
    """Show the keys that exist, and what those with limits used today (UTC); the keys themselves are not kept."""
    from serving.http.quotas import Quotas  # it belongs to the gateway, with all that this one needs

    ring = ring_of(home)
    keys = ring.list()
    usage = Quotas(ring.redis).usage(*keys)
    if as_json:
        used = {id: today.model_dump() for id, today in usage.items()}
        console().print_json(data=[key.model_dump() | {"usage": used.get(key.id)} for key in keys])
        return
    table = Listing(HEADINGS, "there is no key: make one with `ratchet keys create NAME`", frozenset(HEADINGS[4:6]))
    for key in keys:
        table.add(
            key.name, key.role, day(key.created), expiry(key, ring.clock()), limits_text(key.limits),
            usage_text(usage.get(key.id)), key.id,
        )  # fmt: skip
    console().print(table)


@app.command()
def revoke(id: Id, home: Home = None) -> None:
    """Make a key useless within seconds."""
    ring = ring_of(home)
    if not ring.revoke(id, actor=actor()):
        raise unknown(id)
    typer.echo(f"revoked {id}")
    if not any(key.role == "admin" and key.living(ring.clock()) for key in ring.list()):
        typer.echo("no admin key is left: make one with `ratchet keys create NAME --role admin`", err=True)


@app.command()
def rotate(id: Id, home: Home = None) -> None:
    """Replace a key by a new one, shown once, which is the same person; the old one is useless within seconds."""
    try:
        typer.echo(ring_of(home).rotate(id, actor=actor()))
    except UnknownKey:
        raise unknown(id) from None


@app.command()
def limit(
    id: Id,
    expires: Expires = None,
    requests_per_minute: Requests = None,
    tokens_per_day: Tokens = None,
    streams: Streams = None,
    feedback_per_day: Feedback = None,
    home: Home = None,
) -> None:
    """Change how much a key may do, or until when; what is not given stays."""
    limits = limits_of(requests_per_minute, tokens_per_day, streams, feedback_per_day)
    change = KeyChange(limits=limits) if expires is None else KeyChange(limits=limits, expires=moment(expires))
    if expires is None and not limits.model_fields_set:
        raise Failure("nothing to change: give --expires or a limit")
    ring = ring_of(home)
    try:
        key = ring.update(id, change, actor=actor())
    except UnknownKey:
        raise unknown(id) from None
    typer.echo(f"{key.id} expires: {expiry(key, ring.clock())}, limits: {limits_text(key.limits)}")


def ring_of(home: Home) -> KeyRing:
    settings, redis = installation(home)
    return KeyRing(redis, settings.secrets().pepper)


def unknown(id: str) -> Failure:
    return Failure(f"there is no key {id}; `ratchet keys list` shows them")


def role_named(name: str) -> Role:
    for role in ROLES:
        if role == name:
            return role
    raise Failure(f"there is no role {name}: choose from {', '.join(ROLES)}")


def moment(text: str | None) -> float | None:
    """Unix seconds after the given time from now; None for never."""
    if text is None or text == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if found is None:
        raise Failure(f"--expires {text} is no time: write 90m, 12h, 30d, 8w or never")
    return time.time() + int(found[1]) * UNITS[found[2]]


def limits_of(requests: int | None, tokens: int | None, streams: int | None, feedback: int | None) -> Limits:
    """The limits that were given; 0 lifts one."""
    given = zip(Limits.model_fields, (requests, tokens, streams, feedback), strict=True)
    try:
        return Limits(**{name: value or None for name, value in given if value is not None})
    except ValidationError as error:
        raise Failure(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error


def limits_text(limits: Limits) -> str:
    short = zip(("requests/min", "tokens/day", "streams", "feedback/day"), dict(limits).values(), strict=True)
    return ", ".join(f"{value:,} {name}" for name, value in short if value is not None) or "none"


def usage_text(usage: "Usage | None") -> str:
    if usage is None:
        return "not counted"
    return f"{usage.requests:,} requests, {usage.tokens:,} tokens, {usage.feedback:,} feedback"


def expiry(key: ApiKey, now: float) -> str:
    if key.expires is None:
        return "never"
    return day(key.expires) if key.living(now) else "expired"


def day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M}"
