"""By finger on a phone: questions of several lines, answers ranked by dragging them and by choosing places, and one
scrolls all the same."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from feedback.judgements import Ranking
from tests.serving.live import Live
from tests.web.conftest import PATIENCE_MS, sign_in, want
from tests.web.test_interruptions import SIDES
from tests.web.test_page import answered
from tests.web.test_ranking import gap, slots
from tests.web.test_rating import saved, standing

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.fixture
async def phone(browser: Any, served: Live) -> AsyncIterator[Any]:
    context = await browser.new_context(base_url=served.url, **PHONE)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await sign_in(page, served.user_key)
    yield page
    await context.close()


class Finger:
    """One that the browser takes for a finger: it scrolls where it may."""

    def __init__(self, page: Any, session: Any) -> None:
        self.page, self.session = page, session
        self.x = self.y = 0.0

    async def _touch(self, what: str, *points: dict[str, float]) -> None:
        await self.session.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": list(points)})

    async def down(self, x: float, y: float) -> None:
        self.x, self.y = x, y
        await self._touch("touchStart", {"x": x, "y": y})

    async def move(self, x: float, y: float, steps: int = 6) -> None:
        from_x, from_y = self.x, self.y
        for step in range(1, steps + 1):
            self.x, self.y = from_x + (x - from_x) * step / steps, from_y + (y - from_y) * step / steps
            await self._touch("touchMove", {"x": self.x, "y": self.y})

    async def up(self) -> None:
        await self._touch("touchEnd")


@pytest.fixture
async def finger(phone: Any) -> Finger:
    return Finger(phone, await phone.context.new_cdp_session(phone))


async def drag(phone: Any, finger: Finger, name: str, target: str, eventually: Any) -> None:
    """An answer by its handle to where `target` is; near an edge, what is dragged scrolls what is below."""
    handle = phone.get_by_role("button", name=f"{name},")
    await handle.scroll_into_view_if_needed()
    box = await handle.bounding_box()
    await finger.down(box["x"] + 8, box["y"] + 8)
    await finger.move(box["x"] + 8, box["y"] - 8)
    await phone.locator(".r-gap.r-dragging").first.wait_for()

    async def over() -> bool:
        place = await phone.locator(target).bounding_box()
        await finger.move(place["x"] + 40, place["y"] + place["height"] / 2)
        return bool(await phone.locator(f"{target}.r-over").count())

    await eventually(over, 60)
    await finger.up()
    await phone.locator(".r-dragging").first.wait_for(state="detached")


async def four(phone: Any, served: Live, says: Any = SIDES) -> None:
    served.engine.set(says={"tea?": says})
    await want(phone, "4 to rank")
    await phone.get_by_label("Message").fill("tea?")
    await phone.get_by_role("button", name="Send", exact=True).tap()
    await phone.get_by_role("button", name="Submit ranking").wait_for()


async def test_answers_are_ranked_by_finger(phone: Any, finger: Finger, served: Live, eventually: Any) -> None:
    await four(phone, served)
    assert not await phone.get_by_text("Keys", exact=True).is_visible()
    await drag(phone, finger, "Answer B", gap(0), eventually)
    await drag(phone, finger, "Answer C", gap(0), eventually)
    await phone.locator(".r-summary", has_text="C > B; not ranked: A, D").wait_for()
    await phone.get_by_label("Place of Answer A").select_option("place 2")
    await phone.locator(".r-summary", has_text="C > A = B; not ranked: D").wait_for()
    await phone.get_by_role("button", name="Submit ranking").tap()
    await saved(phone)
    [said] = standing(served)
    assert isinstance(said.judgement, Ranking)
    a, b, c, _ = slots(served, said.judgement)
    assert [set(group) for group in said.judgement.ranking] == [{c}, {a, b}]


async def test_a_finger_beside_the_handles_scrolls(phone: Any, finger: Finger, served: Live) -> None:
    await four(phone, served, "Green, as it is drunk in China.\n\n" * 8)
    thread = phone.locator(".scroll")
    before = await thread.evaluate("thread => { thread.scrollTop = 0; return thread.scrollTop; }")
    box = await phone.locator(".r-answer .markdown").first.bounding_box()
    await finger.down(box["x"] + 40, box["y"] + 10)
    await finger.move(box["x"] + 40, box["y"] - 190)
    await finger.up()
    await phone.wait_for_function("top => document.querySelector('.scroll').scrollTop > top + 50", arg=before)
    assert await phone.locator(".r-dragging").count() == 0


async def test_enter_on_the_screen_begins_a_line(phone: Any, served: Live) -> None:
    served.engine.set(says={"tea?\nor milk?": "Tea."})
    field = phone.get_by_label("Message")
    await field.tap()
    await phone.keyboard.type("tea?")
    await phone.keyboard.press("Enter")
    await phone.keyboard.type("or milk?")
    assert await field.input_value() == "tea?\nor milk?"
    await phone.get_by_role("button", name="Send", exact=True).tap()
    await answered(phone, "Tea.")
