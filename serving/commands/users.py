"""`ratchet user`: links by which people sign in to the page."""

from typing import Annotated

import typer
from pydantic import ValidationError

from feedback.people.invites import Invites, link
from feedback.people.keys import ROLES, KeyRing
from feedback.people.sessions import Sessions
from feedback.settings import Settings
from serving.commands.keys import day, moment, role_named
from serving.commands.shared import AsJson, Failure, Home, OneLineErrors, actor, console, installation
from serving.machine.probes import gateway_url
from serving.views.listing import Listing

app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Invite people to the page.")

Id = Annotated[str, typer.Argument(help="As `ratchet user list` shows it.")]
Url = Annotated[str | None, typer.Option(help="Under what people reach the gateway, if not by its own host and port.")]


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="Whom it is for; their key gets this name.")],
    role: Annotated[str, typer.Option(help=" | ".join(ROLES))] = "user",
    expires: Annotated[str, typer.Option(help="How long the link works: 90m, 12h, 7d, 8w.")] = "7d",
    url: Url = None,
    home: Home = None,
) -> None:
    """Make a link and show it, once. Who opens it first has a key of that role, and is signed in."""
    until, known_role = moment(expires), role_named(role)
    if until is None:
        raise Failure("a link must expire: write 90m, 12h, 7d or 8w")
    settings, invites = invites_of(home)
    try:
        token, _ = invites.create(name=name, role=known_role, expires=until, actor=actor())
    except ValidationError as error:
        raise Failure(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error
    typer.echo(link((url or gateway_url(settings)).rstrip("/"), token))


@app.command("list")
def list_invites(home: Home = None, as_json: AsJson = False) -> None:
    """Show the links that nobody has used yet; who has used one is in `ratchet keys list`."""
    _, invites = invites_of(home)
    opened = invites.list()
    if as_json:
        console().print_json(data=[each.model_dump() for each in opened])
        return
    table = Listing(
        ("name", "role", "created", "expires", "id"), "no link is open: `ratchet user invite NAME` makes one"
    )
    for each in opened:
        table.add(each.name, each.role, day(each.created), day(each.expires), each.id)
    console().print(table)


@app.command()
def withdraw(id: Id, home: Home = None) -> None:
    """Make a link useless that nobody has used yet."""
    _, invites = invites_of(home)
    if not invites.withdraw(id, actor=actor()):
        raise Failure(f"there is no open invite {id}; `ratchet user list` shows them")
    typer.echo(f"{id} is withdrawn")


def invites_of(home: Home) -> tuple[Settings, Invites]:
    settings, redis = installation(home)
    return settings, Invites(Sessions(KeyRing(redis, settings.secrets().pepper)))
