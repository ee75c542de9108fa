"""Answers that are ranked otherwise than as four: made before, stopped early, found in the list, as many as wanted."""

from typing import Any

import pytest

from feedback.judgements import Ranking
from tests.serving.live import Live
from tests.web.conftest import want
from tests.web.test_interruptions import HELD, SIDES, is_blind, shown, text_of, try_several
from tests.web.test_page import answered, ask
from tests.web.test_rating import saved, standing

TEAS = ["Green, and mild.", "Black, and strong.", "White, and rare."]
DRAWN = [TEAS[1], TEAS[2], TEAS[0]]  # by a draw that is always 0


async def three(page: Any, served: Live) -> None:
    """Three answers to one question, each in the place of the one before."""
    for made, tea in enumerate(TEAS):
        served.engine.set(says={"tea?": tea})
        if made == 0:
            await ask(page, "tea?")
        else:
            await page.get_by_role("button", name="Another answer in its place").click()
        await answered(page, tea)


async def test_three_answers_that_are_there_are_ranked_blind_and_told_of_after(page: Any, served: Live) -> None:
    await three(page, served)
    await page.evaluate("Math.random = () => 0")
    await page.get_by_role("button", name="Rank these 3 answers").click()
    submit = page.get_by_role("button", name="Submit ranking")
    await submit.wait_for()
    assert await shown(page, 3) == DRAWN
    await page.reload()
    await submit.wait_for()
    assert await shown(page, 3) == DRAWN
    assert await is_blind(page) and await page.locator(".policy").count() == 0, "nor above it"
    for key in ("2", "1", "3", "Control+Enter"):
        await page.keyboard.press(key)
    await saved(page)
    assert await page.locator(".r-policy").all_inner_texts() == ["policy-v0"] * 3
    [said] = standing(served)
    assert isinstance(said.judgement, Ranking) and said.judgement.comparison_id is None
    places = [[text_of(served, id) for id in group] for group in said.judgement.ranking]
    assert places == [[DRAWN[1]], [DRAWN[0]], [DRAWN[2]]]
    assert [text_of(served, id) for id in said.circumstances.presented_order] == DRAWN
    await page.get_by_role("button", name="Close").click()
    await answered(page, DRAWN[1])


async def test_escape_stops_four_that_are_written_and_what_there_is_is_ranked(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": SIDES}, hold_at=HELD)
    await try_several(page, "4 to rank", "tea?")
    begun = await shown(page, 4)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    assert await shown(page, 4) == begun
    for key in ("1", "2", "3", "4", "Control+Enter"):
        await page.keyboard.press(key)
    await saved(page)
    kept = served.ledger.completions(tuple(served.ledger.completion_ids()))
    assert [each.partial for each in kept.values()] == [True] * 4


@pytest.mark.parametrize(("how", "done"), [("2 side by side", "b"), ("4 to rank", "Control+Enter")])
async def test_a_first_question_is_in_the_list_while_its_answers_are_judged(
    page: Any, served: Live, how: str, done: str
) -> None:
    served.engine.set(says={"tea?": SIDES}, hold_at=HELD)
    await try_several(page, how, "tea?")
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("link", name="tea?")
    await listed.wait_for()
    begun = await shown(page, int(how[0]))
    await page.get_by_role("button", name="New").click()
    await page.get_by_text("What would you like to know?").wait_for()
    await listed.click()
    assert await shown(page, int(how[0])) == begun
    served.engine.set(hold_at=None)
    await page.get_by_text("The answers are complete.").or_(page.get_by_text("Submit ranking")).wait_for()
    for key in ("1", "2", "3", "4", done) if done == "Control+Enter" else done:
        await page.keyboard.press(key)
    await saved(page)
    await page.get_by_role("button", name="More for tea?").wait_for()  # the server's by now
    assert await listed.count() == 1


async def test_so_many_are_written_to_be_ranked_as_one_wants(page: Any, served: Live) -> None:
    await want(page, "4 to rank")
    await page.get_by_label("How many to rank").select_option("3 to rank")
    await page.reload()
    served.engine.set(says={"tea?": SIDES})
    await try_several(page, "3 to rank", "tea?")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    await shown(page, 3)
    assert len(served.ledger.completion_ids()) == 3
