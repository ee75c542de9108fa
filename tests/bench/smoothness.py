"""How smoothly a long answer is shown: what the page's thread works at a time, while the answer streams.

An answer of about `--tokens` tokens of four characters comes at `--rate` tokens a second, one event a token, as the
gateway sends them. It is made in the page itself and the built page is served by the browser's own interception, so
nothing but the page is measured. Each task of its thread is counted by the CPU it took, which other work on the machine
does not lengthen: a task is the least time for which nothing can be painted. `mixed` is what models write; the others
are one block from end to end, of which nothing is settled before the last word. Prints a table, and JSON with --json.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, Route, sync_playwright
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.routes.pages import DIST  # noqa: E402
from tests.web.conftest import CHROMIUM, QUIET  # noqa: E402

ORIGIN = "http://ratchet.test"
WORDS = "light that is scattered by air comes from all sides and so **the sky** looks `blue`, not black; "
LINE = "    total = sum(weights[name] * scores[name] for name in names)  # over all of them\n"
PARTS = [
    "## Why it is so\n\n",
    f"{WORDS * 6}\n\n",
    "".join(f"{at}. {WORDS}\n" for at in range(1, 8)) + "\n",
    f"```python\ndef score(names: list[str]) -> float:\n{LINE * 12}    return total\n```\n\n",
    r"The share is $\frac{a_1}{a_1 + b^2}$ of \(E = h \nu\), so that" + "\n\n$$\n\\sum_{i=1}^n x_i^2 = \\pi\n$$\n\n",
    "| name | what | how much |\n|---|---|---|\n" + "| red | **warm** light | 620 nm |\n" * 8 + "\n",
]
KINDS = {
    "mixed": lambda size: "".join(PARTS) * (size // len("".join(PARTS)) + 1),
    "paragraph": lambda size: WORDS * (size // len(WORDS) + 1),
    "list": lambda size: f"- {WORDS}\n" * (size // len(WORDS) + 1),
    "table": lambda size: PARTS[-1].rstrip() + "\n| red | **warm** light | 620 nm |" * (size // 33),
    "words": lambda size: " ".join(f"word{at}" for at in range(size // 8)),
    "lines": lambda size: "".join(f"Line {at} of it.\n\n" for at in range(size // 16)),
    "code": lambda size: "```python\n" + LINE * (size // len(LINE) + 1),
}
# In place of the gateway's stream; whatever is due at once comes in one piece, as from a socket.
STREAM = """
const fetched = window.fetch;
const event = (id, choice, ratchet) => `id: ${id}\\ndata: ${JSON.stringify({
  id: 'chatcmpl-1', object: 'chat.completion.chunk', model: 'policy-v1', choices: [{index: 0, ...choice}], ratchet,
})}\\n\\n`;
const streamed = ({text, rate}) => new ReadableStream({start(body) {
  const encoder = new TextEncoder(), begun = performance.now(), total = Math.ceil(text.length / 4);
  let at = 0;
  const timer = setInterval(() => {
    let said = '';
    for (const due = Math.min(total, (performance.now() - begun) * rate / 1000); at < due; at++) {
      said += event(at + 1, {delta: {content: text.slice(at * 4, at * 4 + 4)}, finish_reason: null});
    }
    if (at === total) {
      const facts = {conversation_id: 'web-1', completion_ids: ['chatcmpl-1:0'], policy_version: 1, stored: true};
      said += event(total + 1, {delta: {}, finish_reason: 'stop'}, facts) + 'data: [DONE]\\n\\n';
    }
    if (said) body.enqueue(encoder.encode(said));
    if (at === total) clearInterval(timer), body.close();
  }, 4);
}});
window.fetch = (input, init) => init?.method === 'POST' && String(input).endsWith('/v1/chat/completions')
  ? Promise.resolve(new Response(streamed(window.answer), {headers: {'content-type': 'text/event-stream'}}))
  : fetched(input, init);
"""
EMPTY = {"object": "list", "data": [], "has_more": False}
SESSION = {"object": "session", "role": "user", "name": "joe", "rater": "rater_1", "single_user": False, "expires": 9e9}


def served(route: Route) -> None:
    path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
    if path.startswith("/v1/"):
        route.fulfill(json=SESSION if path == "/v1/session" else EMPTY)
    else:
        route.fulfill(path=Path(DIST) / (path[1:] if "." in path else "index.html"))


@contextmanager
def opened() -> Iterator[Page]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.add_init_script(STREAM)
        page.route(f"{ORIGIN}/**", served)
        yield page
        browser.close()


def traced(cdp: CDPSession, do: Any) -> list[dict[str, Any]]:
    """The trace's events while `do` runs."""
    events: list[dict[str, Any]] = []
    ended: list[bool] = []
    cdp.on("Tracing.dataCollected", lambda piece: events.extend(piece["value"]))
    cdp.on("Tracing.tracingComplete", lambda _: ended.append(True))
    cdp.send("Tracing.start", {"traceConfig": {"includedCategories": ["toplevel", "devtools.timeline"]}})
    do()
    cdp.send("Tracing.end")
    deadline = time.monotonic() + 120
    while not ended:
        cdp.send("Runtime.evaluate", {"expression": "0"})
        assert time.monotonic() < deadline, "the trace did not come"
    return events


def tasks_ms(events: list[dict[str, Any]]) -> list[float]:
    """CPU of each task of the page's own thread, shortest first."""
    names = [each for each in events if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"]
    own = {(each["pid"], each["tid"]) for each in names}
    tasks = [each for each in events if each["name"].endswith("RunTask") and (each["pid"], each["tid"]) in own]
    return sorted(each.get("tdur", 0) / 1000 for each in tasks)


def measure(page: Page, kind: str, tokens: int, rate: float) -> dict[str, Any]:
    """One answer on a page of its own."""
    page.goto(f"{ORIGIN}/chat")
    page.get_by_label("Message").fill("go")
    page.evaluate("answer => window.answer = answer", {"text": KINDS[kind](tokens * 4)[: tokens * 4], "rate": rate})

    def whole() -> None:
        page.get_by_label("Message").press("Enter")
        page.get_by_role("article", name="Answer").locator(".actions").wait_for()
        page.wait_for_timeout(500)  # what is done once it is finished counts too

    begun = time.monotonic()
    tasks = tasks_ms(traced(page.context.new_cdp_session(page), whole))
    took = time.monotonic() - begun - 0.5
    return {
        "kind": kind, "tokens": tokens, "asked": rate, "rate": tokens / took, "busy_s": sum(tasks) / 1000,
        "worst_ms": tasks[-1], "over_50_ms": sum(task > 50 for task in tasks),
        "over_100_ms": sum(task > 100 for task in tasks),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rates", type=float, nargs="*", default=[500, 3000], help="tokens a second")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    asked = parser.parse_args()
    with opened() as page:
        rows = [measure(page, kind, asked.tokens, rate) for rate in asked.rates for kind in asked.kinds]
    heads = ("kind", "tokens", "tokens/s asked", "shown", "CPU s", "worst task ms", "tasks over 50 ms", "over 100 ms")
    shown = Table(*heads)
    for row in rows:
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(shown)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
