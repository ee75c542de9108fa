"""What a judgement costs whoever gives it: clicks and keys from the answer to "Saved", and the page's own time.

A person is played by Playwright in Chromium, against the gateway as it ships and a scripted engine. The browser itself
counts what it was given: presses of the mouse, keys (one of a chord such as Ctrl+Enter), characters of text. The time
runs from the last of them to "Saved", which the page says once the ledger has it on disk: reading and deciding come on
top, and so do the hands: beside it stands the time from the answer to "Saved" with hands at the pace of the
keystroke-level model (keystrokes.py). Prints a table, and JSON with --json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from browsing import signed_in, site
from keystrokes import hand_s
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

ADDED = " Not boiling."
# Seconds between the last input and the first "Saved" after it; what a hand or a key did, as the browser tells it.
WATCH = """
window.spent = {};
window.begin = () => Object.assign(window.spent, {clicks: 0, keys: 0, typed: 0, last: 0, saved: 0, inputs: []});
begin();
let held = null;
const given = (event, kind) => {
  if (!event.isTrusted) return;
  window.spent[kind] += 1;
  window.spent.last = event.timeStamp;
  window.spent.saved = 0;
};
addEventListener('pointerdown', (event) => {
  given(event, 'clicks');
  held = event;
}, true);
addEventListener('pointerup', (event) => {
  if (!event.isTrusted) return;
  window.spent.last = event.timeStamp;
  const moved = Math.hypot(event.clientX - held.clientX, event.clientY - held.clientY);
  window.spent.inputs.push(moved > 8 ? 'drag' : 'click');
}, true);
addEventListener('keydown', (event) => {
  if (event.isTrusted) window.spent.inputs.push('key');
  if (['Control', 'Shift', 'Alt', 'Meta'].includes(event.key)) return;
  const text = event.target.matches('textarea') && event.key.length === 1 && !event.ctrlKey;
  given(event, text ? 'typed' : 'keys');
}, true);
const look = () => {
  const said = [...document.querySelectorAll('[role=status]')].some((e) => e.textContent.startsWith('Saved'));
  if (said && !window.spent.saved) window.spent.saved = performance.now();
};
new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});
"""


class Act(NamedTuple):
    """A way to judge: how many answers are asked for, what shows that they are there, what the person does."""

    answers: str
    ready: str
    do: Callable[[Page], None]


def keys(*pressed: str) -> Callable[[Page], None]:
    return lambda page: [page.keyboard.press(key) for key in pressed] and None


def press(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_role("button", name=name).click()


def drag_all(page: Page) -> None:
    """Each answer from the shelf to below those that are placed."""
    for placed in range(4):
        handle = page.locator(".r-shelf .r-handle").first
        handle.evaluate("handle => handle.scrollIntoView({block: 'center'})")  # not under the row of buttons
        box = handle.bounding_box()
        page.mouse.move(box["x"] + 8, box["y"] + 8)
        page.mouse.down()
        page.mouse.move(box["x"] + 8, box["y"] - 8)
        gap = page.locator(".r-gap").last.bounding_box()
        page.mouse.move(gap["x"] + 40, gap["y"] + gap["height"] / 2, steps=4)
        page.locator(".r-gap.r-over").wait_for()
        page.mouse.up()
        page.locator(".r-places .r-answer").nth(placed).wait_for()
    page.wait_for_timeout(100)  # no hand is quicker, and dnd-kit takes a click within 50 ms for the end of the drag
    page.get_by_role("button", name="Submit ranking").click()


def edit_by_mouse(page: Page) -> None:
    page.get_by_role("button", name="Edit into what it should have been").click()
    field = page.get_by_label("What the answer should have been")
    box = field.bounding_box()
    field.click(position={"x": box["width"] - 20, "y": box["height"] - 12})
    page.keyboard.type(ADDED)
    page.get_by_role("button", name="Save correction").click()


def edit_by_keys(page: Page) -> None:
    keys("Escape", "e")(page)
    page.get_by_label("What the answer should have been").wait_for()
    page.keyboard.press("Control+End")
    page.keyboard.type(ADDED)
    page.keyboard.press("Control+Enter")


ONE, TWO, FOUR = ("1 answer", ".answer .r-thumbs"), ("2 side by side", ".r-votes"), ("4 to rank", ".r-board")
ACTS = {
    ("thumb", "mouse"): Act(*ONE, press("Good answer")),
    ("thumb", "keyboard"): Act(*ONE, keys("Escape", "+")),
    ("comparison", "mouse"): Act(*TWO, press("B is better")),
    ("comparison", "keyboard"): Act(*TWO, keys("b")),
    ("ranking of four", "mouse"): Act(*FOUR, drag_all),
    ("ranking of four", "keyboard"): Act(*FOUR, keys("2", "1", "4", "3", "Control+Enter")),
    ("edit", "mouse"): Act(*ONE, edit_by_mouse),
    ("edit", "keyboard"): Act(*ONE, edit_by_keys),
}


def measure(page: Page, act: Act) -> dict[str, float]:
    """One judgement in a conversation of its own."""
    page.goto("/chat")
    page.get_by_role("radio", name=act.answers).check()
    page.get_by_label("Message").fill("How is green tea brewed?")
    page.get_by_label("Message").press("Enter")
    page.locator(act.ready).first.wait_for()
    page.locator("[aria-busy=true]").first.wait_for(state="detached")
    page.evaluate("begin()")
    act.do(page)
    page.locator("[role=status]", has_text="Saved").first.wait_for()
    spent: dict[str, Any] = page.evaluate("spent")
    inputs = {name: spent[name] for name in ("clicks", "keys", "typed")}
    return inputs | {"hand_s": hand_s(spent["inputs"]), "ms": spent["saved"] - spent["last"]}


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(
        "judgement", "by", "clicks", "keys", "characters typed", "ms from the last of them to Saved",
        "s from the answer to Saved, hands at the model's pace",
    )  # fmt: skip
    for row in rows:
        counted = (str(row[name]) for name in ("judgement", "by", "clicks", "keys", "typed"))
        shown.add_row(*counted, f"{row['ms']:.0f}", f"{row['s']:.1f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="of each; the time is the median")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    asked = parser.parse_args()
    rows = []
    with site() as there:
        page = signed_in(there, WATCH)
        for (what, by), act in ACTS.items():
            seen = [measure(page, act) for _ in range(asked.times)]
            inputs = {name: seen[0][name] for name in ("clicks", "keys", "typed", "hand_s")}
            assert all(one[name] == inputs[name] for one in seen for name in inputs), f"{what} differs: {seen}"
            ms = median(one["ms"] for one in seen)
            rows.append({"judgement": what, "by": by, **inputs, "ms": ms, "s": inputs["hand_s"] + ms / 1000})
    Console(width=130).print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
