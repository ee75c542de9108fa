"""What the web page weighs, when it is first seen, and how evenly it moves while a long answer is written.

sizes      of what was built, in kB, as it is and as it is sent: compressed. Fonts come one by one, with formulas
paint      ms to the first contentful paint: the page to sign in, nothing cached; and the chat, signed in, loaded again
frames     ms from frame to frame while an answer of 10,000 tokens is written, by what it is made of

In Chromium, against the gateway as it ships and a scripted engine. A frame comes every 17 ms at best; a task that keeps
the page from answering for more than 50 ms is a long one. Without a part: all. Prints tables, and writes JSON.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from browsing import Site, signed_in, site
from figures import percentile
from page_parts import ANSWERS, PIECE, sizes
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

from serving.pages import DIST

Row = dict[str, Any]
PARTS = {"sizes", "paint", "frames"}
WATCH = """
window.gaps = [];
window.longs = [];
let last = 0;
const frame = (time) => {
  if (last) gaps.push(time - last);
  last = time;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
const watch = (list) => list.getEntries().forEach((entry) => longs.push(entry.duration));
new PerformanceObserver(watch).observe({type: 'longtask'});
"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
console = Console(width=110)


def first_paint(page: Page) -> float:
    return float(page.wait_for_function(PAINTED).json_value())


def cold(there: Site) -> float:
    context = there.browser.new_context(base_url=there.gateway.url)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("API key").wait_for()
    painted = first_paint(page)
    context.close()
    return painted


def again(page: Page) -> float:
    page.reload()
    page.get_by_label("Message").wait_for()
    return first_paint(page)


def paint(there: Site, loads: int) -> list[Row]:
    page = signed_in(there)
    ways: dict[str, Callable[[], float]] = {"sign in, nothing cached": lambda: cold(there), "chat": lambda: again(page)}
    return [{"what": what, **spread([load() for _ in range(loads)])} for what, load in ways.items()]


def spread(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {
        "p50": median(ranked), **{f"p{share}": percentile(ranked, share / 100) for share in (95, 99)}, "max": ranked[-1]
    }  # fmt: skip


def frames(there: Site, tick: float) -> list[Row]:
    page = signed_in(there, WATCH)
    key = {"authorization": f"Bearer {there.engine.key}"}
    settings = {"says": ANSWERS, "tick": tick}
    httpx.post(f"{there.engine.url}/fake/set", json=settings, headers=key, trust_env=False).raise_for_status()
    return [written(page, kind) for kind in ANSWERS]


def written(page: Page, kind: str) -> Row:
    """From the first sign of it to its end."""
    page.goto("/chat")
    page.get_by_label("Message").fill(kind)
    page.get_by_label("Message").press("Enter")
    page.locator("[aria-busy=true]").first.wait_for()
    page.evaluate("gaps.length = longs.length = 0")
    page.get_by_role("button", name="Send", exact=True).wait_for(timeout=600_000)
    gaps, longs = page.evaluate("[gaps, longs]")
    row = {"what": kind, "tokens": len(ANSWERS[kind]) // PIECE, "seconds": sum(gaps) / 1000, **spread(gaps)}
    return {**row, "in long tasks": f"{sum(longs) / sum(gaps):.0%}"}


def show(title: str, rows: Sequence[Row]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.0f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help="one or more of these; default: all")
    parser.add_argument("--loads", type=int, default=20, help="of each page, for paint")
    parser.add_argument("--tick", type=float, default=0.003, help="seconds between two tokens of the engine")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/page.json"), help="default: %(default)s")
    asked = parser.parse_args()
    parts, found = set(asked.parts or PARTS), {}
    if parts - PARTS:
        parser.error(f"there are {', '.join(sorted(PARTS))}")
    if "sizes" in parts:
        found["sizes"] = sizes(DIST)
        show("kB", found["sizes"])
    if parts & {"paint", "frames"}:
        with site() as there:
            if "paint" in parts:
                found["paint"] = paint(there, asked.loads)
                show("ms to the first contentful paint", found["paint"])
            if "frames" in parts:
                found["frames"] = frames(there, asked.tick)
                show("ms from frame to frame", found["frames"])
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
