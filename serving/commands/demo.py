"""`ratchet demo`: a crowd with a hidden taste turns the loop once, over the public API."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from feedback.people.keys import KeyRing
from serving.commands.shared import Failure, Home, actor, console, installation
from serving.demo.demo import DemoOptions, run_demo
from serving.demo.preferences import PREFERENCES
from serving.machine.probes import gateway_url


def demo(
    preference: Annotated[str, typer.Option(help="What the crowd likes: " + ", ".join(PREFERENCES))] = "brevity",
    seed: Annotated[int, typer.Option(help="Shuffles prompts and raters.")] = 0,
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts are ranked.")] = DemoOptions.prompts,
    url: Annotated[str | None, typer.Option(help="A gateway (default: this installation's)")] = None,
    key: Annotated[str | None, typer.Option(help="Its admin key (default: one that ends with the demo)")] = None,
    save: Annotated[Path | None, typer.Option("--json", help="Write the report to this file, too.")] = None,
    home: Home = None,
) -> None:
    """Rank answers by a hidden taste, train a round, and measure whether the new policy is liked better."""
    if url is not None and key is None:
        raise Failure("give --key with --url")
    if save is not None and (save.is_dir() or not os.access(save.parent, os.W_OK)):
        raise Failure(f"--json {save} is no file that can be written")
    with access(home, url, key) as (address, api_key):
        try:
            options = DemoOptions(
                url=address, key=api_key, preference=preference, seed=seed, prompts=prompts, json_path=save
            )
            report = asyncio.run(run_demo(options, console()))
        except ValueError as error:
            raise Failure(str(error)) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Failure(f"nothing answers at {address} ({error}): is `ratchet up` running?") from error
    raise typer.Exit(report.exit_code)


@contextmanager
def access(home: Path | None, url: str | None, key: str | None) -> Iterator[tuple[str, str]]:
    """(URL, key): as given, else this installation's, with a key that is revoked afterwards."""
    if key is not None:
        yield url or gateway_url(installation(home)[0]), key
        return
    settings, redis = installation(home)
    ring = KeyRing(redis, settings.secrets().pepper)
    temporary = ring.create(name="demo", role="admin", actor=actor())
    try:
        yield gateway_url(settings), temporary
    finally:
        if (record := ring.find(temporary)) is not None:
            ring.revoke(record.id, actor=actor())
