"""What axe has to say of each view, in light and dark, wide and narrow: nothing serious."""

from pathlib import Path
from typing import Any

import pytest

from tests.serving.live import Live
from tests.web.conftest import sign_in
from tests.web.test_page import answered, ask

AXE = Path(__file__).parents[2] / "serving/web/node_modules/axe-core/axe.min.js"
GRAVE = ("serious", "critical")
ANSWER = (
    "# Tea\n\nUse **fresh** water, `x`, $x^2$:\n\n```python\nprint(1)\n```\n\n"
    "| a | b |\n|---|---|\n| 1 | [2](https://example.org) |"
)


async def complaints(page: Any) -> list[str]:
    """By rule and element."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [rule for rule in found["violations"] if rule["impact"] in GRAVE]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in grave for node in rule["nodes"]]


async def test_axe_notices_what_is_wrong(page: Any) -> None:
    await page.evaluate("document.body.append(document.createElement('button'))")
    assert [said.partition(":")[0] for said in await complaints(page)] == ["button-name"]


async def test_the_theme_is_the_systems_unless_one_is_chosen(page: Any) -> None:
    async def ground(scheme: str) -> str:
        await page.emulate_media(color_scheme=scheme)
        return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(252, 251, 249)", "rgb(25, 26, 28)"
    assert [await ground("light"), await ground("dark")] == [light, dark]
    await page.get_by_role("button", name="joe").click()
    for name, colour in (("Light", light), ("Dark", dark)):
        await page.get_by_role("group", name="Theme").get_by_role("button", name=name).click()
        assert [await ground("light"), await ground("dark")] == [colour, colour]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
async def test_each_view_is_for_everybody(page: Any, served: Live, scheme: str, width: int) -> None:
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.set_viewport_size({"width": width, "height": 844})
    served.engine.set(says={"tea?": ANSWER, "milk?": "No."})
    seen = {"empty": await complaints(page)}
    await ask(page, "tea?")
    await answered(page, "Tea")
    await page.locator(".katex").first.wait_for()
    seen["chat"] = await complaints(page)
    await page.get_by_role("button", name="Bad answer").click()
    await page.get_by_text("Saved").first.wait_for()
    seen["reasons"] = await complaints(page)
    await page.get_by_role("radio", name="2 side by side").check(force=True)
    await ask(page, "milk?")
    await page.get_by_text("No.").nth(1).wait_for()
    seen["side by side"] = await complaints(page)
    await page.get_by_role("button", name="B is better").click()
    await page.get_by_text("policy-v0").first.wait_for()
    seen["reveal"] = await complaints(page)
    await page.get_by_role("radio", name="4 to rank").check(force=True)
    await ask(page, "milk?")
    await page.get_by_role("button", name="Submit").wait_for()
    seen["ranking"] = await complaints(page)
    assert {view: said for view, said in seen.items() if said} == {}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_what_is_opened_and_who_comes_in_is_for_everybody(
    browser: Any, served: Live, scheme: Any, width: int
) -> None:
    """Sign in, an invitation that is none, sheets, menus, forms, and what went wrong."""
    context = await browser.new_context(base_url=served.url, color_scheme=scheme, reduced_motion="reduce")
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 844})
    await page.goto("/join#inv_none")
    await page.get_by_role("alert").first.wait_for()
    seen = {"join": await complaints(page)}
    await page.goto("/")
    await page.get_by_label("API key").wait_for()
    seen["sign in"] = await complaints(page)
    await sign_in(page, served.user_key)
    served.engine.set(says={"tea?": ANSWER})
    await ask(page, "tea?")
    await answered(page, "Tea")
    await page.get_by_role("button", name="Edit into what it should have been").click()
    await page.get_by_label("What the answer should have been").fill("Green.")
    seen["edit"] = await complaints(page)
    await page.keyboard.press("Control+Enter")
    await page.get_by_text("Saved").first.wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Report this answer").click()
    seen["report"] = await complaints(page)
    await page.keyboard.press("Escape")
    for view in ("Keyboard shortcuts", "My data"):
        if width < 768:
            await page.get_by_role("button", name="Conversations", exact=True).click()
            seen["phone menu"] = await complaints(page)
        await page.get_by_role("button", name="joe").click()
        seen["settings"] = await complaints(page)
        await page.get_by_role("button", name=view).click()
        await page.get_by_role("heading", name=view, exact=True).first.wait_for()
        seen[view] = await complaints(page)
        await page.keyboard.press("Escape")
        if width < 768:
            await page.keyboard.press("Escape")
            await page.locator(".drawer-open").wait_for(state="detached")
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    await ask(page, "milk?")
    await page.get_by_role("alert").first.wait_for()
    seen["failure"] = await complaints(page)
    await context.close()
    assert {view: said for view, said in seen.items() if said} == {}
