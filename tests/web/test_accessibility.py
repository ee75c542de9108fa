"""What axe has to say of each view, in light and dark, wide and narrow: nothing serious."""

from pathlib import Path
from typing import Any

import pytest

from serving.chat import checks
from tests.serving.live import Live
from tests.web.conftest import sign_in
from tests.web.shots import light_and_dark, shoot
from tests.web.test_interruptions import HELD, shown, try_several
from tests.web.test_page import answered, ask
from tests.web.test_rating import given

AXE = Path(__file__).parents[2] / "serving/web/node_modules/axe-core/axe.min.js"
GRAVE = ("serious", "critical")
ANSWER = (
    "# Tea\n\nUse **fresh** water, `x`, $x^2$:\n\n```python\nprint(1)\n```\n\n"
    "| a | b |\n|---|---|\n| 1 | [2](https://example.org) |"
)

# What four say, in turn, to one question.
MILK = [
    "**Milk first.** The tea cools as it meets it, so the cup never cracks, and you see by the colour when to stop.",
    "Tea first: you see how strong it is, and add just as much milk as it can bear.",
    "To the taste it makes no difference.",
    "Neither. Good tea needs no milk.\n\n- Green: 80 °C, two minutes\n- Black: boiling, four minutes",
]


async def complaints(page: Any) -> list[str]:
    """By rule and element, in light and in dark."""
    await page.evaluate(AXE.read_text())
    said = []
    async for scheme in light_and_dark(page):
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        grave = [rule for rule in found["violations"] if rule["impact"] in GRAVE]
        said += [f"{rule['id']}, {scheme}: {node['html'][:200]}" for rule in grave for node in rule["nodes"]]
    return said


async def test_axe_notices_what_is_wrong(page: Any) -> None:
    await page.evaluate("document.body.append(document.createElement('button'))")
    assert [said.partition(":")[0] for said in await complaints(page)] == ["button-name, light", "button-name, dark"]


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


@pytest.mark.parametrize("width", [1280, 390])
async def test_each_view_is_for_everybody(page: Any, served: Live, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 844})
    served.engine.set(says={"tea?": ANSWER, "milk?": MILK}, hold_at=HELD)
    seen = {"empty": await complaints(page)}
    await ask(page, "tea?")
    await page.locator(".answer .markdown").get_by_text("Tea").wait_for()
    seen["streaming"] = await complaints(page)
    served.engine.set(hold_at=None)
    await answered(page, "Tea")
    await page.locator(".katex").first.wait_for()
    seen["chat"] = await complaints(page)
    await page.locator(".question").hover()
    await page.get_by_role("button", name="Edit and send again").click()
    await page.get_by_label("Your question in other words").wait_for()
    seen["edit question"] = await complaints(page)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Bad answer").click()
    await page.get_by_text("Saved").first.wait_for()
    seen["reasons"] = await complaints(page)
    await shoot(page, "chat")
    assert {view: said for view, said in seen.items() if said} == {}


@pytest.mark.parametrize("width", [1280, 390])
async def test_what_is_judged_is_for_everybody(page: Any, served: Live, width: int) -> None:
    """While it is written, while it is judged, and once it is."""
    await page.set_viewport_size({"width": width, "height": 844})
    await page.get_by_label("Message").click()  # it stands where it is going to
    served.engine.set(says={"milk?": MILK}, hold_at=HELD)
    await try_several(page, "2 side by side", "milk?")
    await shown(page, 2)
    seen = {"two written": await complaints(page)}
    served.engine.set(hold_at=None)
    await page.get_by_text("The answers are complete.").wait_for()
    seen["side by side"] = await complaints(page)
    await shoot(page, "side-by-side")
    await page.get_by_role("button", name="B is better").click()
    await page.get_by_text("policy-v0").first.wait_for()
    seen["reveal"] = await complaints(page)
    served.engine.set(says={"milk?": MILK}, hold_at=HELD)
    await try_several(page, "4 to rank", "milk?")
    await shown(page, 4)
    seen["four written"] = await complaints(page)
    served.engine.set(hold_at=None)
    await page.get_by_role("button", name="Submit").wait_for()
    seen["ranking"] = await complaints(page)
    await page.get_by_label("Place of Answer B").select_option("place 1")
    handle = page.get_by_role("button", name="Answer A,")
    await handle.press("Space")
    await page.locator(".r-lifted").wait_for()
    seen["half ranked"] = await complaints(page)
    await shoot(page, "ranking")
    await handle.press("Space")
    await page.get_by_role("button", name="Submit ranking").click()
    await page.get_by_role("button", name="Undo").wait_for()
    seen["ranked"] = await complaints(page)
    assert {view: said for view, said in seen.items() if said} == {}


@pytest.mark.parametrize("width", [1280, 390])
async def test_one_more_pair_is_for_everybody(
    page: Any, served: Live, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:  # fmt: skip
    monkeypatch.setattr(checks, "REPEAT_AFTER_S", -1.0)  # what was chosen this moment may come again
    await page.set_viewport_size({"width": width, "height": 844})
    served.engine.set(says={"milk?": MILK})
    await try_several(page, "2 side by side", "milk?")
    await page.get_by_text("The answers are complete.").wait_for()
    await page.evaluate("Math.random = () => 0")
    async with given(page):
        await page.keyboard.press("a")
    await page.get_by_role("button", name="Close").click()
    await page.get_by_role("dialog").get_by_role("button", name="A is better").wait_for()
    assert await complaints(page) == []


@pytest.mark.parametrize("width", [1280, 390])
async def test_what_one_does_with_chats_is_for_everybody(page: Any, served: Live, width: int) -> None:
    """Renames and deletes one, has one that is kept nowhere, and asks for what is not there or not for them."""
    await page.set_viewport_size({"width": width, "height": 844})
    served.engine.set(says={"tea?": ANSWER, "milk?": "No."})
    await ask(page, "tea?")
    await answered(page, "fresh")
    if width < 768:
        await page.get_by_role("button", name="Conversations", exact=True).click()
    menu = page.get_by_role("button", name="More for tea?")
    await menu.click()
    seen = {"menu": await complaints(page)}
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("Title", exact=True).wait_for()
    seen["rename"] = await complaints(page)
    await page.keyboard.press("Escape")
    await menu.click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("dialog").get_by_text("goes with all its branches").wait_for()
    seen["delete"] = await complaints(page)
    await page.goto("/chat")
    await page.get_by_role("switch", name="Temporary").check(force=True)
    await ask(page, "milk?")
    await answered(page, "No.")
    seen["temporary"] = await complaints(page)
    for path, told in {
        "/chat/web-none": "There is no such conversation", "/console/rounds": "This is for operators",
        "/nowhere": "There is no such page here.",
    }.items():  # fmt: skip
        await page.goto(path)
        await page.get_by_text(told).wait_for()
        seen[path] = await complaints(page)
    assert await page.evaluate("getComputedStyle(document.body).display") == "grid", "its own style counts"
    assert {view: said for view, said in seen.items() if said} == {}


@pytest.mark.parametrize("width", [1280, 390])
async def test_what_is_opened_and_who_comes_in_is_for_everybody(browser: Any, served: Live, width: int) -> None:
    """Sign in, an invitation that is none, sheets, menus, forms, and what went wrong."""
    context = await browser.new_context(base_url=served.url)
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
