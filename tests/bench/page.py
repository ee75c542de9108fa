"""What the web page weighs, and when it is first seen.

sizes      of what was built, in kB, as it is and as it is sent: compressed. Fonts come one by one, with formulas
paint      ms to the first contentful paint: the page to sign in, nothing cached; and the chat, signed in, loaded again

In Chromium, against the gateway as it ships and a scripted engine. How it moves while an answer is written is told by
smoothness.py. Without a part: all. Prints tables, and writes JSON.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from browsing import Site, signed_in, site
from figures import percentile
from page_parts import sizes
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

from serving.routes.pages import DIST

Row = dict[str, Any]
PARTS = {"sizes", "paint"}
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


def show(title: str, rows: Sequence[Row]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.0f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help="one or more of these; default: all")
    parser.add_argument("--loads", type=int, default=20, help="of each page, for paint")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/page.json"), help="default: %(default)s")
    asked = parser.parse_args()
    parts, found = set(asked.parts or PARTS), {}
    if parts - PARTS:
        parser.error(f"there are {', '.join(sorted(PARTS))}")
    if "sizes" in parts:
        found["sizes"] = sizes(DIST)
        show("kB", found["sizes"])
    if "paint" in parts:
        with site() as there:
            found["paint"] = paint(there, asked.loads)
        show("ms to the first contentful paint", found["paint"])
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
