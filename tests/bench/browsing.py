"""A browser in front of the gateway as it ships, with a scripted engine and a real Valkey around it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import rig
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import free_port
from tests.web.conftest import CHROMIUM, QUIET

ENGINE = rig.ROOT / "tests/serving/fake_engine.py"


class Site(NamedTuple):
    gateway: rig.Server
    browser: Browser


@contextmanager
def site() -> Iterator[Site]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        rig.valkey(Path(directory)) as redis_url,
        rig.process("engine", [str(ENGINE), str(port)], rig.AROUND, port) as engine,
        rig.gateway(Path(directory) / "home", redis_url, engine) as gateway,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield Site(gateway, browser)
        browser.close()


def signed_in(there: Site, watch: str = "") -> Page:
    """A page with a cache and cookies of its own, in which the script `watch` runs first."""
    page = there.browser.new_page(base_url=there.gateway.url)
    page.add_init_script(watch)
    page.goto("/")
    page.get_by_label("API key").fill(there.gateway.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Message").wait_for()
    return page
