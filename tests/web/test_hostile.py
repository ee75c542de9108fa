"""Whatever models and people write is text: no script in it runs, and the browser need not even forbid one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.serving.live import Live
from tests.web.conftest import PATIENCE_MS, sign_in, want
from tests.web.test_page import answered, ask, changed

# Each calls hurt(), which the browser knows, if anything of it ever runs.
MARKUP = [
    "<script>hurt(1)</script>",
    "<img src=x onerror=hurt(2)>",
    "<svg onload=hurt(3)><a xlink:href='javascript:hurt(4)'><text>click</text></a></svg>",
    "<svg><animate onbegin=hurt(5) attributeName=x dur=1s></svg>",
    "<details open ontoggle=hurt(6)>",
    "<iframe srcdoc='<script>parent.hurt(7)</script>'></iframe>",
    "<style>@import url(https://example.invalid/a.css);</style>",
    "<base href=https://example.invalid/>",
    "<form action=javascript:hurt(8)><button formaction=javascript:hurt(9)>go</button></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=hurt(10)>",
    "\"'><img src=x onerror=hurt(11)>",
]
MARKDOWN = [
    "[one](javascript:hurt(20))",
    "[two](  JaVaScRiPt&colon;hurt(21))",
    "[three](java\tscript:hurt(22))",
    "[four](data:text/html;base64,PHNjcmlwdD5wYXJlbnQuaHVydCgyMyk8L3NjcmlwdD4=)",
    "[five](vbscript:hurt(24))",
    "[six][ref]\n\n[ref]: javascript:hurt(25)",
    "<javascript:hurt(26)>",
    "![seven](javascript:hurt(27))",
    "![eight](https://example.invalid/tracker.png)",
    '[nine](https://example.invalid/ "onmouseover=hurt(28)")',
    'https://example.invalid/"onmouseover=hurt(29)',
    "$$\\href{javascript:hurt(30)}{x}$$",
    "$$\\includegraphics{https://example.invalid/tracker.png}\\htmlData{a=b}{y}$$",
    "$$\\text{<img src=x onerror=hurt(31)>}$$",
    "```html\n<img src=x onerror=hurt(32)>\n```",
    '```"onload=hurt(33)\n<script>hurt(34)</script>\n```',
    "| <b onmouseover=hurt(35)>a</b> |\n|---|\n| [x](javascript:hurt(36)) |",
    "[^1]\n\n[^1]: <img src=x onerror=hurt(37)>",
]
EVIL = "\n\n".join([*MARKUP, *MARKDOWN, "the end"])
WATCH = """
window.hurts = [];
window.hurt = (what) => window.hurts.push(what);
window.addEventListener('securitypolicyviolation', (event) => window.hurts.push(event.violatedDirective), true);
"""
FOREIGN = "script:not([src]), iframe, object, embed, base, form[action], .markdown :is(img, form, style, input)"


class Witness:
    """A page and all that it did that a text may not make it do."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.faults = page, []  # type: ignore[var-annotated]
        page.on("request", lambda request: request.url.startswith((url, "data:")) or self.faults.append(request.url))
        page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    async def saw_nothing(self) -> None:
        handlers = "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
        links = "[...document.querySelectorAll('a')].map((a) => a.protocol)"
        assert await self.page.evaluate("window.hurts") == []
        assert [name for name in await self.page.evaluate(handlers) if name.startswith("on")] == []
        assert set(await self.page.evaluate(links)) <= {"http:", "https:", ":", ""}
        assert await self.page.locator(FOREIGN).count() == 0
        assert self.faults == []


@asynccontextmanager
async def witnessed(browser: Any, served: Live, key: str) -> AsyncIterator[Witness]:
    context = await browser.new_context(base_url=served.url)
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    witness = Witness(page, served.url)
    await sign_in(page, key)
    yield witness
    await context.close()


@pytest.fixture
async def witness(browser: Any, served: Live) -> AsyncIterator[Witness]:
    async with witnessed(browser, served, served.user_key) as witness:
        yield witness


async def test_the_witness_notices(browser: Any, served: Live, witness: Witness) -> None:
    """A handler that the policy blocks is a fault too."""
    await witness.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hurt(1)>')")
    with pytest.raises(AssertionError):
        await witness.saw_nothing()


async def test_what_a_model_writes_never_runs(served: Live, witness: Witness) -> None:
    page = witness.page
    served.engine.set(says={"be evil": EVIL}, tick=0)
    await ask(page, "be evil")
    await answered(page, "the end")
    await page.locator(".katex").first.wait_for()
    await witness.saw_nothing()
    for how, last in (("2 side by side", ".r-column"), ("4 to rank", ".r-answer")):
        await want(page, how)
        await ask(page, "be evil")
        await page.locator(last).last.get_by_text("the end").wait_for()
        await (
            page.get_by_role("button", name="Submit ranking")
            .or_(page.get_by_text("The answers are complete."))
            .first.wait_for()
        )
        await witness.saw_nothing()
        await page.get_by_role("button", name="Not now").click()
        await page.locator(".trial").wait_for(state="detached")
    for link in await page.locator(".answer a").all():
        assert await link.get_attribute("target") == "_blank"
    await page.reload()
    await answered(page, "the end")
    await witness.saw_nothing()


async def test_nor_does_what_people_write(served: Live, witness: Witness) -> None:
    page, evil = witness.page, " ".join(MARKUP)
    served.engine.set(says={evil: "Hello."})
    await ask(page, evil)
    await answered(page, "Hello.")
    await witness.saw_nothing()
    assert await page.locator(".question p").inner_text() == evil
    title = MARKUP[1] + MARKUP[0]
    await page.get_by_role("button", name="More for").first.click()
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("Title", exact=True).fill(title)
    async with changed(page):
        await page.keyboard.press("Enter")
    await page.get_by_role("heading", name=title).wait_for()
    assert await page.title() == f"{title} · Ratchet"
    await page.get_by_role("button", name="Bad answer").click()
    await page.get_by_role("textbox", name="Comment").fill(evil)
    await page.keyboard.press("Control+Enter")
    await page.get_by_text("Saved").first.wait_for()
    await page.get_by_role("button", name="Edit into what it should have been").click()
    await page.get_by_label("What the answer should have been").fill(EVIL)
    await page.keyboard.press("Control+Enter")
    await page.get_by_text("Saved").last.wait_for()
    await witness.saw_nothing()


async def test_nor_what_another_client_said(served: Live, witness: Witness) -> None:
    """Reasons, comments and names that the page itself would never send."""
    page = witness.page
    mine = {"authorization": f"Bearer {served.user_key}"}
    answer = await served.chat("hi", key=served.user_key, metadata={"conversation_id": "<img src=x onerror=hurt(40)>"})
    [id] = answer.json()["ratchet"]["completion_ids"]
    said = {"completion_id": id, "reasons": MARKUP[:2], "comment": MARKDOWN[0] + MARKUP[2]}
    for judgement in ({"type": "rating", "value": -1, **said}, {"type": "flag", **said}):
        kept = await served.http.post("/v1/feedback", json=judgement, headers=mine)
        assert kept.status_code == 201, kept.text
    await page.reload()
    await page.get_by_role("link", name="hi").click()
    await page.get_by_role("button", name="Your reasons").click()
    await page.get_by_role("button", name=MARKUP[1]).wait_for()
    await witness.saw_nothing()
    await page.get_by_role("button", name="joe").click()
    await page.get_by_role("button", name="My data").click()
    await page.get_by_text(MARKUP[2]).first.wait_for()
    await witness.saw_nothing()
