"""What a person says of one answer by mouse and keys, what the ledger has of it, and what is theirs to take away."""

import json
from typing import Any

from feedback.judgements import Demonstration, Feedback, Flag, Rating
from tests.feedback.test_erasure import publish
from tests.serving.live import Live
from tests.web.test_page import answered, ask


def standing(served: Live) -> list[Feedback]:
    return served.ledger.standing(served.ledger.watermark())


async def saved(page: Any) -> None:
    await page.locator("[role=status]", has_text="Saved").first.wait_for()


async def asked(page: Any, served: Live, answer: str = "Green.") -> None:
    served.engine.set(says={"tea?": answer})
    await ask(page, "tea?")
    await answered(page, answer)
    await page.get_by_role("button", name="Good answer").wait_for()


def given(page: Any) -> Any:
    """The ledger has another judgement then."""
    return page.expect_response(lambda answer: answer.request.method == "POST" and "/v1/feedback" in answer.url)


async def test_reasons_and_a_comment_are_revisions_of_a_thumb(page: Any, served: Live, eventually: Any) -> None:
    await asked(page, served)
    for name in ("Bad answer", "wrong", "too short"):
        async with given(page):
            await page.get_by_role("button", name=name).click()
    await page.get_by_label("Comment, optional").fill("Tea is black, too.")
    async with given(page):
        await page.get_by_role("button", name="Send comment").click()
    [answer] = served.ledger.completion_ids()
    both, words = ("wrong", "too short"), "Tea is black, too."
    assert [each.judgement for _, each in served.ledger.feedback_between("0")] == [
        Rating(completion_id=answer, value=-1.0, reasons=reasons, comment=comment)
        for reasons, comment in (((), None), (both[:1], None), (both, None), (both, words))
    ]
    assert len(standing(served)) == 1

    async def sent() -> bool:
        return await page.evaluate("sessionStorage.getItem('ratchet.words')") is None

    await eventually(sent)  # or the comment is still held as unsent
    await page.reload()
    await page.get_by_role("button", name="Your reasons").click()
    assert await page.get_by_label("Comment, optional").input_value() == words
    await page.get_by_role("button", name="Bad answer").click()
    await page.get_by_text("Taken back").wait_for()
    assert standing(served) == []


async def test_an_edited_answer_is_a_demonstration(page: Any, served: Live) -> None:
    await asked(page, served)
    await page.get_by_role("button", name="Edit into what it should have been").click()
    await page.get_by_label("What the answer should have been").fill("Green, but not boiling.")
    await page.keyboard.press("Control+Enter")
    await saved(page)
    [said] = standing(served)
    [answer] = served.ledger.completion_ids()
    better = "Green, but not boiling."
    assert said.judgement == Demonstration(completion_id=answer, content=better, based_on_edit=True)
    mark = page.get_by_text("corrected", exact=True)
    await mark.wait_for()
    await page.reload()
    await mark.wait_for()
    await page.get_by_role("button", name="Edit into what it should have been").click()
    await page.get_by_role("button", name="Take it back").click()
    await mark.wait_for(state="detached")
    assert standing(served) == []


async def test_an_answer_is_reported_and_teaches_nothing(page: Any, served: Live) -> None:
    await asked(page, served)
    await page.get_by_role("button", name="Report this answer").click()
    await page.get_by_role("button", name="misleading").click()
    await page.get_by_label("What should they know?").fill("It is blue.")
    await page.get_by_role("button", name="Report", exact=True).click()
    await page.get_by_text("Reported").wait_for()
    [said] = standing(served)
    [answer] = served.ledger.completion_ids()
    assert said.judgement == Flag(completion_id=answer, reasons=("misleading",), comment="It is blue.")
    await page.get_by_role("button", name="Take it back").click()
    await page.get_by_text("Taken back").wait_for()
    assert standing(served) == []


async def test_an_answer_and_its_code_are_copied(page: Any, served: Live) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    served.engine.set(says={"code?": "So:\n\n```python\nprint(1)\n```\n"})
    await ask(page, "code?")
    await answered(page, "So:")
    for name, text in (("Copy answer", "So:\n\n```python\nprint(1)\n```\n"), ("Copy code", "print(1)")):
        await page.get_by_role("button", name=name).click()
        await page.get_by_role("button", name="Copied").wait_for()
        assert (await page.evaluate("navigator.clipboard.readText()")).strip() == text.strip()
        await page.get_by_role("button", name="Copied").wait_for(state="detached")


async def my_data(page: Any) -> Any:
    await page.get_by_role("button", name="joe").click()
    await page.get_by_role("button", name="My data").click()
    return page.get_by_role("dialog")


async def test_what_one_said_names_what_learned_from_it_and_is_taken_back(page: Any, served: Live) -> None:
    await asked(page, served)
    await page.get_by_role("button", name="Good answer").click()
    await saved(page)
    [said] = standing(served)
    publish(served.shelf.registry, 7, 0, feedback_ids=[said.id])
    await page.reload()
    await page.get_by_text("Your rating helped to train policy-v7.").wait_for()
    data = await my_data(page)
    await data.get_by_text("Helped to train policy-v7.").wait_for()
    await data.get_by_role("button", name="Take back: Thumb up").click()
    await data.get_by_text("Taken back").wait_for()
    assert standing(served) == []


async def test_what_one_said_leads_back_to_the_question(page: Any, served: Live) -> None:
    await asked(page, served)
    await page.get_by_role("button", name="Good answer").click()
    await saved(page)
    await page.get_by_role("button", name="New").click()
    await page.get_by_text("What would you like to know?").wait_for()
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.get_by_role("button", name="Conversations").click()
    data = await my_data(page)
    await data.get_by_role("link", name="tea?").click()
    await data.wait_for(state="detached")
    await page.locator(".drawer-open").wait_for(state="detached")
    await answered(page, "Green.")


async def test_ones_data_is_taken_along_and_erased(page: Any, served: Live) -> None:
    await asked(page, served)
    await page.get_by_role("button", name="Good answer").click()
    await saved(page)
    data = await my_data(page)
    async with page.expect_download() as download:
        await data.get_by_role("link", name="Export my data").click()
    lines = (await (await download.value).path()).read_text().splitlines()
    mine = {"authorization": f"Bearer {served.user_key}"}
    assert lines == (await served.http.get("/v1/me/export", headers=mine)).text.splitlines()
    assert {json.loads(line)["object"] for line in lines} >= {"feedback"}
    erase = data.get_by_role("button", name="Erase everything")
    await data.get_by_label("to confirm").fill("delete nothing")
    assert await erase.is_disabled()
    await data.get_by_label("to confirm").fill("delete everything")
    await erase.click()
    await data.get_by_text("Erased: 1 conversation, 1 answer, 1 judgement.").wait_for()
    assert (await served.http.get("/v1/me/export", headers=mine)).text == ""
    assert served.ledger.completion_ids() == [] and standing(served) == []
