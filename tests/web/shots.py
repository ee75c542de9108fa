"""What a view looks like: within its width, and in a picture for whoever wants to look at it."""

import os
from typing import Any

FOLDER = os.environ.get("RATCHET_SHOTS")
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll('.c-view .c-cards')]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.getAttribute('aria-label') ?? 'the page')"""


async def too_wide(page: Any) -> list[str]:
    """What scrolls sideways."""
    return list(await page.evaluate(TOO_WIDE))


async def shoot(page: Any, name: str) -> None:
    """The whole view, be it ever so long, with all that it has to draw."""
    if FOLDER is None:
        return
    for plot in await page.locator(".c-drawn").all():
        await plot.locator("svg").wait_for()
    size = page.viewport_size
    height = await page.evaluate("document.querySelector('.console').scrollHeight")
    await page.set_viewport_size({**size, "height": max(size["height"], height)})
    await page.screenshot(path=f"{FOLDER}/{name}.png")
    await page.set_viewport_size(size)
