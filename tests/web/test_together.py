"""The same chat open in two browsers of one person: what is done in one never breaks the other."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from feedback.judgements import Rating
from tests.serving.live import Live
from tests.web.conftest import signed_in
from tests.web.test_page import answered, ask
from tests.web.test_rating import asked, given, saved, standing


@pytest.fixture
async def other(browser: Any, page: Any, served: Live) -> AsyncIterator[Any]:
    """Where the chat that was begun in `page` is open, too."""
    await asked(page, served)
    async with signed_in(browser, served, served.user_key) as other:
        await other.get_by_role("link", name="tea?").click()
        await answered(other, "Green.")
        await other.get_by_role("button", name="Good answer").wait_for()
        yield other


async def come_back(page: Any) -> None:
    """As whoever looks at it again: two pages of one test both have the focus all the time."""
    await page.evaluate("window.dispatchEvent(new Event('focus'))")


async def pressed(page: Any) -> list[bool]:
    """Of the thumb up and the thumb down."""
    thumbs = [page.get_by_role("button", name=name, exact=True) for name in ("Good answer", "Bad answer")]
    return [await thumb.get_attribute("aria-pressed") == "true" for thumb in thumbs]


async def test_the_last_vote_stands_and_whoever_did_not_know_of_it_is_told(page: Any, other: Any, served: Live) -> None:
    for browser, thumb in ((page, "Good answer"), (other, "Bad answer")):
        async with given(browser):
            await browser.get_by_role("button", name=thumb).click()
        await saved(browser)
    await page.get_by_role("button", name="Good answer").click()  # takes back what stands no more
    await page.get_by_text("It was changed or deleted elsewhere meanwhile").wait_for()
    [said] = standing(served)
    assert isinstance(said.judgement, Rating) and said.judgement.value == -1
    for browser in (page, other):
        await browser.reload()
        await browser.get_by_role("button", name="Say why").wait_for()
        assert await pressed(browser) == [False, True]


async def test_what_goes_on_in_both_is_two_branches(page: Any, other: Any, served: Live) -> None:
    served.engine.set(says={"milk?": "No.", "sugar?": "Yes."})
    await ask(page, "milk?")
    await answered(page, "No.")
    await ask(other, "sugar?")
    await answered(other, "Yes.")
    await page.reload()
    await answered(page, "Yes.")
    await page.get_by_role("button", name="Previous wording").click()
    await answered(page, "No.")


async def test_whoever_comes_back_goes_on_from_what_the_other_has(page: Any, other: Any, served: Live) -> None:
    served.engine.set(says={"milk?": "No.", "sugar?": "Yes."})
    await ask(page, "milk?")
    await answered(page, "No.")
    await come_back(other)
    await answered(other, "No.")
    await ask(other, "sugar?")
    await answered(other, "Yes.")
    await come_back(page)
    await answered(page, "Yes.")
    assert await page.get_by_role("article", name="Answer").count() == 3
    assert await page.get_by_role("button", name="Previous wording").count() == 0


async def test_what_was_deleted_in_the_other_is_gone_from_the_list_and_breaks_nothing(
    page: Any, other: Any, served: Live
) -> None:
    served.engine.set(says={"milk?": "No."})
    await page.get_by_role("button", name="More for tea?").click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_text("No conversations yet.").wait_for()
    await come_back(other)
    await other.get_by_text("No conversations yet.").wait_for()
    await answered(other, "Green.")
    await other.get_by_role("button", name="Good answer").click()
    await other.get_by_text("It was changed or deleted elsewhere meanwhile").wait_for()
    assert standing(served) == []
    await ask(other, "milk?")  # what is on the page is said again, and what is asked begins the chat anew
    await answered(other, "No.")
    await other.reload()
    await answered(other, "No.")
    await come_back(page)
    await page.get_by_role("link", name="tea?").wait_for()


async def test_a_chat_that_was_deleted_in_the_other_is_not_there_after_a_refresh(page: Any, other: Any) -> None:
    await page.get_by_role("button", name="More for tea?").click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_text("No conversations yet.").wait_for()
    await other.reload()
    await other.get_by_text("There is no such conversation, or it was deleted.").wait_for()
    assert await other.get_by_role("alert").count() == 0
