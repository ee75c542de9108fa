"""By keyboard alone: every control is reached and seen to be, and the keys do what the help sheet says of them."""

from typing import Any

from playwright.async_api import expect

from feedback.judgements import Demonstration, Ranking
from tests.serving.live import Live
from tests.web.conftest import PATIENCE_MS, want
from tests.web.test_interruptions import SIDES
from tests.web.test_page import LONG, answered, ask
from tests.web.test_ranking import slots
from tests.web.test_rating import saved, standing

expect.set_options(timeout=PATIENCE_MS)

# What Tab has to reach, and what each looks like while it is not reached: a ring may be drawn around what it stands in.
OUTSET = """() => {
  const top = document.createElement('i');
  top.tabIndex = -1;
  document.body.prepend(top);
  top.focus();
  top.remove();  // Tab begins there
  const reached = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
  const passed = each => each.disabled || each.tabIndex < 0 || (each.type === 'radio' && !each.checked);
  window.stops = [...document.querySelectorAll(reached)].filter(each => each.checkVisibility() && !passed(each));
  window.look = stop => [stop, stop.nextElementSibling, stop.parentElement].filter(each => each).map(each => {
    const { outlineStyle, outlineWidth, boxShadow, borderColor } = getComputedStyle(each);
    return [outlineStyle === 'none' ? '' : outlineStyle + outlineWidth, boxShadow, borderColor].join();
  }).join(';');
  window.unreached = new Map(stops.map(stop => [stop, look(stop)]));
  return stops.map(stop => stop.outerHTML.slice(0, 120));
}"""
HERE = """() => {
  const here = document.activeElement;
  return [stops.indexOf(here), here === document.body ? '' : here.outerHTML.slice(0, 120)];
}"""
SEEN = "() => look(document.activeElement) !== unreached.get(document.activeElement)"


async def walk(page: Any) -> None:
    """From Tab to Tab through all of the view: each control is come to once, in its order, and is seen to be."""
    await page.emulate_media(reduced_motion="reduce")
    stops = await page.evaluate(OUTSET)
    come_to: list[int] = []
    at, what = -1, ""
    for _ in range(2 * len(stops)):
        await page.keyboard.press("Tab")
        at, what = await page.evaluate(HERE)
        if not what or at in come_to:
            break
        if at >= 0:  # what scrolls is come to as well
            await page.wait_for_function(SEEN)
            come_to.append(at)
    assert not what or at == come_to[0], f"there is no way on from {what}"
    assert [stops[at] for at in come_to] == stops


async def test_tab_reaches_all_of_a_chat(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "So:\n\n```python\nprint(1)\n```\n\nSee [there](https://example.org)."})
    await ask(page, "tea?")
    await answered(page, "So:")
    await page.get_by_role("button", name="Bad answer").click()
    await saved(page)
    await walk(page)


async def test_tab_stays_in_the_list_while_it_lies_over_a_narrow_page(page: Any, served: Live) -> None:
    served.engine.set(says={"go on": LONG}, hold_at=200)
    await page.set_viewport_size({"width": 390, "height": 844})
    await ask(page, "go on")
    await page.get_by_text("Line 1 of it.").wait_for()
    opener = page.get_by_role("button", name="Conversations", exact=True)
    await opener.press("Enter")
    await focused(page, "Close")
    for _ in range(12):
        await page.keyboard.press("Tab")
        assert await page.evaluate("!document.activeElement.closest('main, .skip')")
    await page.keyboard.press("Escape")
    await expect(opener).to_be_focused()
    assert await page.get_by_role("button", name="Stop (Esc)").is_visible()
    await opener.press("Enter")
    await page.get_by_role("button", name="Close", exact=True).press("Enter")
    await expect(opener).to_be_focused()
    await page.keyboard.press("Control+k")
    await focused(page, "Search conversations by title")
    await page.set_viewport_size({"width": 1280, "height": 844})
    await page.get_by_label("Message").click()
    await focused(page, "Message")


async def test_tab_reaches_all_of_a_ranking(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "Green."})
    await want(page, "4 to rank")
    await ask(page, "tea?")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    await page.keyboard.press("1")
    await walk(page)


async def test_tab_reaches_all_of_the_console(console: Any, served: Live) -> None:
    await console.goto("/console/overview")
    await console.get_by_role("button", name="Freeze learning").wait_for()
    await walk(console)


async def test_four_answers_are_asked_for_and_ranked_by_keyboard_alone(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": SIDES})
    for key in ("Tab", "ArrowRight", "ArrowRight", "Shift+Tab"):
        await page.keyboard.press(key)
    await page.keyboard.type("tea?")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    summary = page.locator(".r-summary")
    for keys, said in (
        ("2 1 2 3", "B > A = C > D"),
        ("Space ArrowUp Escape", "B > A = C > D"),
        ("Space ArrowUp ArrowUp ArrowUp ArrowUp Space", "D > B > A = C"),
        ("ArrowDown =", "B = D > A = C"),
        ("ArrowDown ArrowDown 0", "B = D > C; not ranked: A"),
    ):
        for key in keys.split():
            await page.keyboard.press(key)
        await expect(summary).to_contain_text(said)
    await page.keyboard.press("Control+Enter")
    await saved(page)
    [given] = standing(served)
    assert isinstance(given.judgement, Ranking)
    _, b, c, d = slots(served, given.judgement)
    assert [set(group) for group in given.judgement.ranking] == [{b, d}, {c}]
    assert given.judgement.partial


async def focused(page: Any, name: str) -> None:
    await expect(page.get_by_label(name)).to_be_focused()


async def test_the_keys_do_what_the_help_sheet_says(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": ["Green.", "Black."], "tea? Now!": "Strong."})
    await ask(page, "tea?")
    await answered(page, "Green.")
    for key in ("Escape", "r"):
        await page.keyboard.press(key)
    await page.get_by_text("2/2").wait_for()
    await answered(page, "Black.")
    await page.keyboard.press("e")
    await focused(page, "What the answer should have been")
    await page.keyboard.type("Red. ")
    await page.keyboard.press("Control+Enter")
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Demonstration) and said.judgement.content.startswith("Red. ")
    for key in ("Escape", "/", "ArrowUp"):
        await page.keyboard.press(key)
    await focused(page, "Your question in other words")
    await page.keyboard.type(" Now!")
    await page.keyboard.press("Enter")
    await answered(page, "Strong.")
    await page.keyboard.press("Control+k")
    await focused(page, "Search conversations by title")
    await page.keyboard.type("coffee")
    await page.get_by_text("No title has these words.").wait_for()
    await page.keyboard.press("Control+Shift+O")
    await page.get_by_text("What would you like to know?").wait_for()
    await focused(page, "Message")
    for key in ("a", "Shift+Enter", "b"):
        await page.keyboard.press(key)
    assert await page.get_by_label("Message").input_value() == "a\nb"
