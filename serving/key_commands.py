"""`ratchet keys`: who may use the service."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from feedback.keys import ROLES, KeyRing, Role
from serving.commands import AsJson, Failure, Home, OneLineErrors, console, installation

app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Create, list and revoke API keys.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    role: Annotated[str, typer.Option(help=" | ".join(ROLES))] = "user",
    home: Home = None,
) -> None:
    """Make a key and show it, once."""
    typer.echo(ring_of(home).create(name=name, role=role_named(role)))


@app.command("list")
def list_keys(home: Home = None, as_json: AsJson = False) -> None:
    """Show the keys that exist; the keys themselves are not kept."""
    keys = ring_of(home).list()
    if as_json:
        console().print_json(data=[key.model_dump() for key in keys])
        return
    table = Table("id", "name", "role", "created")
    for key in keys:
        table.add_row(key.id, key.name, key.role, f"{datetime.fromtimestamp(key.created):%Y-%m-%d %H:%M}")
    console().print(table)


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="As `ratchet keys list` shows it.")], home: Home = None) -> None:
    """Make a key useless at once."""
    if not ring_of(home).revoke(id):
        raise Failure(f"there is no key {id}; `ratchet keys list` shows them")
    typer.echo(f"revoked {id}")


def ring_of(home: Home) -> KeyRing:
    settings, redis = installation(home)
    return KeyRing(redis, settings.secrets().pepper)


def role_named(name: str) -> Role:
    for role in ROLES:
        if role == name:
            return role
    raise Failure(f"there is no role {name}: choose from {', '.join(ROLES)}")
