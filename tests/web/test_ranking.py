"""Answers judged against each other by mouse and keys, and what the ledger has of it then."""

from typing import Any

import pytest

from feedback.judgements import Comparison, Ranking
from feedback.people.checks import checked
from serving.chat import checks
from tests.serving.live import Live
from tests.web.conftest import want
from tests.web.test_interruptions import HELD, SIDES, shown, try_several
from tests.web.test_page import LONG, answered, ask, feedback
from tests.web.test_rating import asked, given, saved, standing


def slots(served: Live, judgement: Comparison | Ranking) -> tuple[str, ...]:
    """The answers in the order shown."""
    assert judgement.comparison_id is not None
    offer = served.gateway.archive.offer(judgement.comparison_id)
    assert offer is not None
    return offer.completion_ids


async def four(page: Any, served: Live) -> Any:
    """Answers to be ranked; the board, with room for all of it: near an edge, what is dragged scrolls what is below."""
    await page.set_viewport_size({"width": 1280, "height": 1200})
    served.engine.set(says={"tea?": "Green."})
    await try_several(page, "4 to rank", "tea?")
    await page.get_by_role("button", name="Submit ranking").wait_for()
    return page.locator(".r-board")


async def drag(page: Any, name: str, target: str) -> None:
    """An answer by its handle to where `target` is once something is dragged."""
    handle = page.get_by_role("button", name=f"{name},")
    box = await handle.bounding_box()
    await page.mouse.move(box["x"] + 8, box["y"] + 8)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 8, box["y"] - 8)  # far enough to be no click
    await page.locator(".r-gap.r-dragging").first.wait_for()
    place = await page.locator(target).bounding_box()
    await page.mouse.move(place["x"] + 40, place["y"] + place["height"] / 2, steps=4)
    await page.locator(f"{target}.r-over").wait_for()
    await page.mouse.up()
    await page.locator(".r-dragging").first.wait_for(state="detached")
    await page.evaluate(
        "new Promise(done => setTimeout(done, 60))"
    )  # dnd-kit takes a click within 50 ms for the drag's


def gap(index: int) -> str:
    """Above the place of that index."""
    return f":nth-match(.r-gap, {index + 1})"


async def test_four_answers_are_ranked_by_mouse_with_a_tie(page: Any, served: Live) -> None:
    board = await four(page, served)
    for name, target in (("B", gap(0)), ("D", gap(1)), ("A", gap(0)), ("C", ":nth-match(.r-place, 3)")):
        await drag(page, f"Answer {name}", target)
    await board.get_by_text("A > B > C = D").wait_for()
    await page.get_by_role("button", name="Submit ranking").click()
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Ranking)
    a, b, c, d = slots(served, said.judgement)
    assert [set(group) for group in said.judgement.ranking] == [{a}, {b}, {c, d}]
    assert (said.judgement.partial, said.judgement.none_acceptable) == (False, False)


async def test_what_is_put_back_on_the_shelf_is_worse_and_none_need_be_acceptable(page: Any, served: Live) -> None:
    board = await four(page, served)
    for name, target in (("C", gap(0)), ("A", gap(1)), ("C", ".r-shelf")):
        await drag(page, f"Answer {name}", target)
    await board.get_by_label("None is acceptable").check()
    await page.get_by_role("button", name="Submit ranking").click()
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Ranking)
    assert said.judgement.ranking == ((slots(served, said.judgement)[0],),)
    assert (said.judgement.partial, said.judgement.none_acceptable) == (True, True)


async def test_a_ranking_is_taken_back_and_given_anew(page: Any, served: Live) -> None:
    await four(page, served)
    for key in ("1", "2", "3", "4", "Control+Enter"):
        await page.keyboard.press(key)
    await saved(page)
    await page.get_by_role("button", name="Undo").click()
    await page.get_by_text("Taken back").wait_for()
    assert standing(served) == []
    await page.get_by_label("Place of Answer D").select_option("place 1")
    await page.get_by_role("button", name="Submit ranking").click()
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Ranking)
    a, b, c, d = slots(served, said.judgement)
    assert [set(group) for group in said.judgement.ranking] == [{a, d}, {b}, {c}]


@pytest.mark.parametrize(("key", "winner"), [("t", "tie"), ("n", "both_bad"), ("a", "left"), ("2", "right")])
async def test_a_pair_is_judged_taken_back_and_judged_again(page: Any, served: Live, key: str, winner: str) -> None:
    served.engine.set(says={"tea?": SIDES})
    await try_several(page, "2 side by side", "tea?")
    await page.get_by_text("The answers are complete.").wait_for()
    await page.keyboard.press("b")
    await saved(page)
    await page.keyboard.press("u")
    await page.get_by_text("Taken back").wait_for()
    assert standing(served) == []
    await page.keyboard.press(key)
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Comparison) and said.judgement.winner == winner
    assert said.circumstances is not None and said.circumstances.answered_at > said.circumstances.shown_at


async def test_a_vote_while_they_are_written_ends_both(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": SIDES, "milk?": "No."}, hold_at=HELD)
    await try_several(page, "2 side by side", "tea?")
    begun = await shown(page, 2)
    await page.get_by_role("button", name="A is better").click()
    await saved(page)
    await page.get_by_text("stopped early").nth(1).wait_for()
    [said] = standing(served)
    assert isinstance(said.judgement, Comparison) and said.judgement.winner == "left"
    kept = served.ledger.completions(slots(served, said.judgement))
    assert [(each.text.strip(), each.partial) for each in kept.values()] == [(text, True) for text in begun]
    served.engine.set(hold_at=None)
    await want(page, "1 answer")
    await ask(page, "milk?")
    await answered(page, "No.")
    history = served.engine.state()["bodies"][-1]["messages"]
    assert [message["content"].strip() for message in history] == ["tea?", begun[0], "milk?"]


@pytest.mark.parametrize(("drawn", "sides"), [(0.49, ["Black.", "Green."]), (0.5, ["Green.", "Black."])])
async def test_another_answer_beside_the_one_that_is_there(
    page: Any, served: Live, drawn: float, sides: list[str]
) -> None:
    await page.evaluate(f"Math.random = () => {drawn}")
    await asked(page, served)
    served.engine.set(says={"tea?": "Black."})
    await page.keyboard.press("Escape")  # out of the field
    await page.keyboard.press("s")
    await page.get_by_text("The answers are complete.").wait_for()
    columns = page.locator(".r-column .markdown")
    texts = [text.strip() for text in await columns.all_inner_texts()]
    assert texts == sides
    await page.keyboard.press("ab"[texts.index("Black.")])
    await saved(page)
    [said] = standing(served)
    assert isinstance(said.judgement, Comparison)
    kept = served.ledger.completions(said.judgement.targets)
    assert [each.text for each in kept.values()] == texts
    assert kept[said.judgement.targets[said.judgement.tiers.index(0)]].text == "Black."
    for again in (lambda: page.get_by_role("button", name="Close").click(), page.reload):
        await again()
        await answered(page, "Black.")
        await page.get_by_text("Your choice of two answers.").wait_for()
    await page.get_by_role("button", name="Take it back").click()
    await page.get_by_text("Taken back").wait_for()
    assert standing(served) == []


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
async def test_only_the_thread_scrolls_be_it_ever_so_long(page: Any, served: Live, width: int, height: int) -> None:
    await page.set_viewport_size({"width": width, "height": height})
    served.engine.set(says={"tea?": LONG[:4000]}, tick=0)
    seen = {}
    for how, ready in (("1 answer", "Good answer"), ("2 side by side", "A is better"), ("4 to rank", "Submit ranking")):
        await try_several(page, how, "tea?")
        await page.get_by_role("button", name=ready).last.wait_for()
        await page.locator("[aria-busy=true]").first.wait_for(state="detached")
        await page.locator(".scroll").evaluate("thread => { thread.scrollTop = 0; }")
        seen[how] = await page.evaluate("document.scrollingElement.scrollHeight")
        if how == "2 side by side":
            await page.get_by_role("button", name="A is better").click()
            await saved(page)
            await page.get_by_role("button", name="Close").click()
            await page.locator(".trial").wait_for(state="detached")
    assert seen == dict.fromkeys(seen, height)


async def test_not_now_keeps_the_answer_that_was_there(page: Any, served: Live) -> None:
    await asked(page, served)
    served.engine.set(says={"tea?": SIDES[1]}, hold_at=HELD)
    await page.get_by_role("button", name="Another answer side by side").click()
    await page.get_by_text("Black, and b").wait_for()
    await page.get_by_role("button", name="Not now").click()
    await page.get_by_text("1/2").wait_for()
    await answered(page, "Green.")
    await page.get_by_role("button", name="Another answer in its place").wait_for()


async def test_a_pair_comes_again_swapped_and_the_chat_stays_where_it_is(
    page: Any, served: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "REPEAT_AFTER_S", -1.0)  # what was chosen this moment may come again
    await page.evaluate("Math.random = () => 0")
    for question in ("tea?", "milk?"):
        served.engine.set(says={question: SIDES})
        await try_several(page, "2 side by side", question)
        await page.get_by_text("The answers are complete.").wait_for()
        texts = await shown(page, 2)
        async with given(page):
            await page.keyboard.press("a")
        await page.get_by_role("button", name="Close").click()
        if question == "tea?":
            pair = page.get_by_role("dialog")
            again = pair.locator(".r-column .markdown")
            await again.nth(1).wait_for()
            assert [text.strip() for text in await again.all_inner_texts()] == texts[::-1]
            async with given(page):
                await page.keyboard.press("b")
            await pair.locator(".r-votes").get_by_role("button", name="Close").click()
        await answered(page, texts[0])
        assert await page.get_by_role("dialog").count() == 0
    said = standing(served)
    assert [each.lane == "repeat" for each in said] == [False, True, False], "one a session"
    [counts] = checked(said, served.gateway.archive).values()
    assert (counts.same, counts.other) == (1, 0)


@pytest.mark.parametrize("first", ["2 side by side", "4 to rank"])
async def test_the_next_question_is_judged_anew_where_the_last_one_stands(page: Any, served: Live, first: str) -> None:
    """Without closing what was decided: whoever chose a way of asking goes on asking in it."""
    served.engine.set(says={"tea?": "Green.", "coffee?": "Black."})
    await try_several(page, first, "tea?")
    await decided(page)
    await ask(page, "coffee?")
    await page.get_by_text("Black.").nth(1).wait_for()
    await decided(page)
    asked_of = [kept["about"]["question"] for kept in await feedback(served)]
    assert asked_of == ["tea?", "coffee?"]


async def decided(page: Any) -> None:
    """The first of the answers is the best, and the chat goes on from it."""
    ranks = page.get_by_role("button", name="Submit ranking")
    await ranks.or_(page.get_by_text("The answers are complete.")).first.wait_for()
    for key in ("1", "Control+Enter") if await ranks.count() else ("a",):
        await page.keyboard.press(key)
    await saved(page)
