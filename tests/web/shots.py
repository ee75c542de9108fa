"""What a view looks like: within its width, in light and dark, and in a picture for whoever wants to look at it."""

import os
from collections.abc import AsyncIterator
from typing import Any

FOLDER = os.environ.get("RATCHET_SHOTS")
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll('.c-view .c-cards')]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.getAttribute('aria-label') ?? 'the page')"""
# How much of the chat or of the console is out of sight.
HIDDEN = """Math.max(0, ...[...document.querySelectorAll('.console, .chat .scroll')]
  .map((box) => box.scrollHeight - box.clientHeight))"""


async def light_and_dark(page: Any) -> AsyncIterator[str]:
    """The view as it stands in the one, then in the other; nothing fades over."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        yield scheme


async def too_wide(page: Any) -> list[str]:
    """What scrolls sideways."""
    return list(await page.evaluate(TOO_WIDE))


async def shoot(page: Any, name: str) -> None:
    """The whole view, be it ever so long, with all that it has to draw, by scheme and width."""
    if FOLDER is None:
        return
    for plot in await page.locator(".c-drawn").all():
        await plot.locator("svg").wait_for()
    size = page.viewport_size
    await page.set_viewport_size({**size, "height": size["height"] + await page.evaluate(HIDDEN)})
    async for scheme in light_and_dark(page):
        await page.screenshot(path=f"{FOLDER}/{name}-{scheme}-{size['width']}.png")
    await page.set_viewport_size(size)
