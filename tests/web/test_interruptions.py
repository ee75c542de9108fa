"""Refreshed in the middle of it, cut off in the middle of it: what was there is there again, and nothing twice."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from feedback.settings import Settings
from tests.serving.live import Live, running_gateway
from tests.web.cable import Cable, cable_to
from tests.web.conftest import PATIENCE_MS, sign_in, want
from tests.web.test_page import LONG, answered, ask, feedback

# Four characters a token; the two sides, and those of four in turn, say different things.
SIDES = ["Green, and brewed at eighty degrees.", "Black, and brewed as soon as it boils."]

HELD = 3

# How many things this tab keeps, but who is signed in.
BEGUN = "Object.keys(sessionStorage).filter(key => key !== 'ratchet.person').length"


async def shown(page: Any, count: int) -> list[str]:
    """What stands in the answers side by side, once each has come as far as it is let."""
    answers = page.locator(".r-column .markdown, .previews .markdown, .r-answer .markdown")
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        texts = [text.strip() for text in await answers.all_inner_texts()]
        if len(texts) == count and all(len(text) >= 4 * HELD for text in texts):
            return texts
        assert time.monotonic() < deadline, texts
        await asyncio.sleep(0.02)


async def try_several(page: Any, how: str, text: str) -> None:
    await want(page, how)
    await ask(page, text)


async def is_blind(page: Any) -> bool:
    return "policy-v" not in await page.locator(".trial").inner_text()


def text_of(served: Live, id: str) -> str:
    return served.ledger.completions((id,))[id].text


@pytest.mark.parametrize("first", [True, False])
async def test_a_refresh_while_two_are_written_side_by_side(page: Any, served: Live, first: bool) -> None:
    """Also of the first question, whose conversation the server does not know of yet."""
    served.engine.set(says={"tea?": SIDES, "coffee?": "Black."})
    if not first:
        await ask(page, "coffee?")
        await answered(page, "Black.")
    served.engine.set(hold_at=HELD)
    await try_several(page, "2 side by side", "tea?")
    begun = await shown(page, 2)
    assert re.search(r"/chat/web-[0-9a-f]+$", page.url)
    await page.reload()
    assert await shown(page, 2) == begun
    assert await is_blind(page) and await page.get_by_label("Message").input_value() == ""
    served.engine.set(hold_at=None)
    await page.get_by_text("The answers are complete.").wait_for()
    whole = await shown(page, 2)
    assert sorted(whole) == sorted(SIDES) and [text[:4] for text in whole] == [text[:4] for text in begun]
    await page.reload()
    await page.get_by_text("The answers are complete.").wait_for()
    assert await shown(page, 2) == whole and await is_blind(page)
    await page.keyboard.press("b")
    await page.locator(".trial").get_by_text("policy-v0").first.wait_for()
    [kept] = await feedback(served)
    assert text_of(served, kept["judgement"]["right"]) == whole[1]
    await page.reload()
    await answered(page, whole[1])
    await page.get_by_text(re.compile("^[12]/2$")).wait_for()  # in the order in which they were stored
    assert served.engine.state()["finished"] == (2 if first else 3)


async def test_a_refresh_in_a_ranking_of_four(page: Any, served: Live) -> None:
    """While they are written, and before the ranking is submitted."""
    served.engine.set(says={"tea?": SIDES}, hold_at=HELD)
    await try_several(page, "4 to rank", "tea?")
    begun = await shown(page, 4)
    await page.reload()
    assert await shown(page, 4) == begun and await is_blind(page)
    served.engine.set(hold_at=None)
    await page.get_by_role("button", name="Submit ranking").wait_for()
    whole = await shown(page, 4)
    assert sorted(whole) == sorted(SIDES * 2) and [text[:4] for text in whole] == [text[:4] for text in begun]
    await page.reload()
    await page.get_by_role("button", name="Submit ranking").wait_for()
    assert await shown(page, 4) == whole and await is_blind(page)
    for key in ("2", "1", "3", "4", "Control+Enter"):
        await page.keyboard.press(key)
    await page.get_by_text("policy-v0").first.wait_for()
    [kept] = await feedback(served)
    slots = served.gateway.archive.offer(kept["judgement"]["comparison_id"]).completion_ids
    assert kept["judgement"]["ranking"] == [[slots[1]], [slots[0]], [slots[2]], [slots[3]]]
    assert [text_of(served, id) for id in slots] == whole
    await page.reload()
    await answered(page, whole[1])
    assert await page.get_by_role("button", name="Submit ranking").count() == 0


async def test_a_refresh_in_a_half_made_ranking(page: Any, served: Live) -> None:
    """Places, a tie, and that none is acceptable; it stays blind, and nothing of it is left once it is submitted."""
    served.engine.set(says={"tea?": SIDES})
    await try_several(page, "4 to rank", "tea?")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    whole = await shown(page, 4)
    for key in ("2", "1", "2"):
        await page.keyboard.press(key)
    await page.get_by_role("checkbox", name="None is acceptable").check()
    half = page.locator(".r-summary")
    before = await half.inner_text()
    assert before.startswith("B > A = C; not ranked: D")
    await page.reload()
    await half.wait_for()
    assert await half.inner_text() == before and await is_blind(page)
    assert await page.get_by_role("checkbox", name="None is acceptable").is_checked()
    assert sorted(await shown(page, 4)) == sorted(whole)
    for key in ("3", "Control+Enter"):  # D is in hand
        await page.keyboard.press(key)
    await page.get_by_text("policy-v0").first.wait_for()
    [kept] = await feedback(served)
    slots = served.gateway.archive.offer(kept["judgement"]["comparison_id"]).completion_ids
    assert kept["judgement"]["ranking"] == [[slots[1]], [slots[0], slots[2]], [slots[3]]]
    assert kept["judgement"]["none_acceptable"]
    assert await page.evaluate(BEGUN) == 0


async def test_a_ranking_that_is_dismissed_leaves_nothing(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": SIDES})
    await try_several(page, "4 to rank", "tea?")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    await page.keyboard.press("2")
    assert "places" in await page.evaluate("JSON.stringify({...sessionStorage})")
    await page.get_by_role("button", name="Not now").click()
    await page.get_by_role("button", name="Submit ranking").wait_for(state="detached")
    assert await page.evaluate(BEGUN) == 0


async def test_a_refresh_in_a_half_written_correction_and_comment(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "Green."})
    await ask(page, "tea?")
    await answered(page, "Green.")
    await page.get_by_role("button", name="Bad answer").click()
    await page.get_by_role("button", name="too short").click()
    await page.get_by_label("Comment, optional").fill("How hot")
    await page.get_by_role("button", name="Edit into what it should have been").click()
    field = page.get_by_label("What the answer should have been")
    await field.fill("Green, at eigh")
    await page.reload()
    await field.wait_for()
    assert await field.input_value() == "Green, at eigh"
    assert await page.get_by_label("Comment, optional").input_value() == "How hot"
    assert await page.get_by_role("button", name="too short").get_attribute("aria-pressed") == "true"
    await field.fill("Green, at eighty degrees.")
    await field.press("Control+Enter")
    await page.get_by_role("region", name="Correct this answer").get_by_text(re.compile("^Saved")).wait_for()
    await page.get_by_role("button", name="Send comment").click()
    await page.get_by_text("Not sent yet").wait_for(state="detached")
    await page.get_by_text("Saved", exact=True).wait_for()
    assert await page.evaluate(BEGUN) == 0
    said = {kept["type"]: kept["judgement"] for kept in await feedback(served)}
    assert said["demonstration"]["content"] == "Green, at eighty degrees."
    assert said["rating"]["comment"] == "How hot"


async def test_a_refresh_in_a_half_written_report(page: Any, served: Live, eventually: Any) -> None:
    """It is in the way again only if it was; closed, it waits behind its button."""
    served.engine.set(says={"tea?": "Green."})
    await ask(page, "tea?")
    await answered(page, "Green.")
    report = page.get_by_role("button", name="Report this answer")
    await report.click()
    await page.get_by_role("button", name="misleading").click()
    field = page.get_by_label("What should they know?")
    await field.fill("It is bl")
    await page.reload()
    await field.wait_for()
    assert await field.input_value() == "It is bl"
    assert await page.get_by_role("button", name="misleading").get_attribute("aria-pressed") == "true"
    await page.keyboard.press("Escape")
    await page.reload()
    await page.get_by_role("button", name="Good answer").wait_for()
    assert await field.count() == 0
    await report.click()
    await field.fill(await field.input_value() + "ue.")
    await page.get_by_role("button", name="Report", exact=True).click()
    await page.get_by_text("Reported").wait_for()
    [kept] = await feedback(served)
    assert (kept["judgement"]["reasons"], kept["judgement"]["comment"]) == (["misleading"], "It is blue.")

    async def nothing_begun() -> bool:
        return bool(await page.evaluate(BEGUN) == 0)

    await eventually(nothing_begun)


async def test_answers_wait_while_one_looks_at_another_chat(page: Any, served: Live) -> None:
    """Nor are they stopped meanwhile; they are once one wants to see them no more."""
    served.engine.set(says={"tea?": SIDES * 2, "coffee?": "Black."}, hold_at=HELD)
    await try_several(page, "2 side by side", "tea?")
    begun = await shown(page, 2)
    address = page.url
    await page.keyboard.press("Control+Shift+O")
    await page.get_by_text("What would you like to know?").wait_for()
    assert await page.get_by_label("Message").input_value() == ""
    await page.go_back()
    assert page.url == address and await shown(page, 2) == begun
    assert served.engine.state()["active"] == 2
    await page.get_by_role("button", name="Not now").click()
    await page.get_by_text("Stopped here.").wait_for()
    assert served.engine.state()["aborted"] == 2
    await page.reload()
    await page.get_by_text("Stopped here.").wait_for()
    assert await page.get_by_role("button", name="B is better").count() == 0


@pytest.fixture
async def cable(served: Live) -> AsyncIterator[Cable]:
    async with cable_to(served.url) as cable:
        yield cable


@pytest.fixture
async def far(browser: Any, served: Live, cable: Cable) -> AsyncIterator[Any]:
    """A page at the other end of the cable."""
    context = await browser.new_context(base_url=cable.url)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await sign_in(page, served.user_key)
    yield page
    await context.close()


async def test_an_answer_goes_on_over_a_connection_that_broke_off(far: Any, served: Live, cable: Cable) -> None:
    served.engine.set(says={"go on": LONG}, hold_at=200)
    await ask(far, "go on")
    await far.get_by_text("Line 1 of it.").wait_for()
    await cable.cut()
    await far.get_by_text("The connection broke off. Trying to go on").wait_for()
    assert await far.get_by_text("Line 1 of it.").is_visible()
    served.engine.set(hold_at=None, tick=0)
    await cable.mend()
    await answered(far, "Line 399 of it.")
    lines = (await far.locator(".answer .markdown").inner_text()).split("\n\n")
    assert lines == [f"Line {number} of it." for number in range(400)], "a piece is missing, or came twice"
    assert await far.get_by_text("The connection broke off").count() == 0
    assert len(served.ledger.completion_ids()) == served.engine.state()["finished"] == 1


async def test_a_vote_over_a_broken_connection_is_given_once(far: Any, served: Live, cable: Cable) -> None:
    served.engine.set(says={"tea?": SIDES}, hold_at=HELD)
    await try_several(far, "2 side by side", "tea?")
    begun = await shown(far, 2)
    await cable.cut()
    await far.get_by_text("The connection broke off. Trying to go on").wait_for()
    await far.keyboard.press("b")
    await far.get_by_text("Not saved.").wait_for()
    assert await shown(far, 2) == begun and await is_blind(far)
    served.engine.set(hold_at=None)
    await cable.mend()
    await far.get_by_text("The connection broke off").wait_for(state="detached")
    assert [text[:4] for text in await shown(far, 2)] == [text[:4] for text in begun]
    await far.get_by_role("button", name="Try again").click()
    await far.get_by_text("policy-v0").first.wait_for()
    assert [kept["judgement"]["winner"] for kept in await feedback(served)] == ["right"]
    assert len(served.ledger.completion_ids()) == 2


async def test_what_was_shown_is_kept_when_the_gateway_goes(
    browser: Any, settings: Settings, shelf: Any, fake_engine: Any, eventually: Any
) -> None:
    fake_engine.set(says={"go on": LONG, "and now?": "New."}, hold_at=200)
    async with AsyncExitStack() as rest:
        async with running_gateway(settings) as first:
            await eventually(lambda: first.served is not None)
            cable = await rest.enter_async_context(cable_to(first.url))
            page = await (await browser.new_context(base_url=cable.url)).new_page()
            await sign_in(page, first.user_key)
            await ask(page, "go on")
            await page.get_by_text("Line 1 of it.").wait_for()
            before = await page.locator(".answer .markdown").inner_text()
        second = await rest.enter_async_context(running_gateway(settings))
        fake_engine.set(hold_at=None)
        cable.port = int(second.url.rpartition(":")[2])
        await page.get_by_text("Stopped here.").wait_for()
        assert (await page.locator(".answer .markdown").inner_text()).startswith(before)
        assert await page.get_by_role("article", name="Answer").count() == 1
        await eventually(lambda: second.served is not None)
        await ask(page, "and now?")
        await answered(page, "New.")
        assert len(second.ledger.completion_ids()) == 2
