"""The page in a real browser, against the gateway between a scripted engine and a real Valkey."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from serving.routes.pages import DIST
from tests.serving.conftest import (  # noqa: F401  fixtures
    engine_process,
    eventually,
    fake_engine,
    settings,
    shelf,
    start,
)
from tests.serving.live import Live

CHROMIUM = os.environ.get("RATCHET_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# No word to anybody from a browser that tests run.
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 30_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser is many processes, and people wait for it in seconds: its tests run where nothing else does."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def find_chromium() -> None:
    """Skips the test where there is none, except in CI."""
    if CHROMIUM is None:
        assert "CI" not in os.environ, "CI has a browser: .ci/run installs it"
        pytest.skip("no Chromium on this machine")


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    find_chromium()
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


@pytest.fixture
def stocked() -> None:
    """For tests to override: what is there before the gateway starts."""


@pytest.fixture
async def served(start: Callable[..., Awaitable[Live]], stocked: None) -> Live:  # noqa: F811
    assert (Path(DIST) / "index.html").is_file(), "the page is not built: .ci/web builds it"
    return await start()


@pytest.fixture
def undriven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases stay as they are left, and no engine is started for one."""
    monkeypatch.setattr("serving.release.controller.Controller.tick", lambda self: None)
    monkeypatch.setattr("feedback.releases.pool.EnginePool.want", lambda self, wish: None)


async def want(page: Any, how: str) -> None:
    """So many answers to the next question: by the words that one sees, which stand still before they are clicked."""
    mode = page.get_by_role("radiogroup", name="How many answers").locator("label", has_text=how)
    await mode.click()
    await mode.locator("input:checked").wait_for(state="attached")


async def sign_in(page: Any, key: str) -> None:
    await page.goto("/")
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Message").wait_for()


@asynccontextmanager
async def signed_in(browser: Any, served: Live, key: str) -> AsyncIterator[Any]:
    """A page in a browser of its own; whatever the page complains of fails the test."""
    context = await browser.new_context(base_url=served.url)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    await sign_in(page, key)
    yield page
    await context.close()
    assert complaints == []


@pytest.fixture
async def page(browser: Any, served: Live) -> AsyncIterator[Any]:
    """As a user."""
    async with signed_in(browser, served, served.user_key) as page:
        yield page


@pytest.fixture
async def console(browser: Any, served: Live) -> AsyncIterator[Any]:
    """As an admin."""
    async with signed_in(browser, served, served.admin_key) as page:
        yield page
