"""What a person does on the page, by mouse and keys, in Chromium."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from tests.serving.live import Live
from tests.web.conftest import sign_in, want

LONG = "".join(f"Line {number} of it.\n\n" for number in range(400))


async def ask(page: Any, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.locator(".send:enabled").wait_for()  # the next question waits for what a vote decided
    await page.keyboard.press("Enter")


def changed(page: Any) -> Any:
    """The server has taken a change of a conversation: a refresh right after it would race with it."""
    return page.expect_response(lambda answer: answer.request.method == "PUT" and "/v1/conversations/" in answer.url)


async def answered(page: Any, text: str) -> None:
    """The last answer says so, and is finished."""
    last = page.get_by_role("article", name="Answer").last
    await last.get_by_text(text).first.wait_for()
    await page.get_by_role("button", name="Send", exact=True).wait_for()


async def test_an_answer_streams_and_the_conversation_is_in_the_list(page: Any, served: Live) -> None:
    served.engine.set(says={"hello": "Hello **there**, `x`."})
    await ask(page, "hello")
    await answered(page, "there")
    assert await page.locator(".answer strong").inner_text() == "there"
    await page.get_by_role("link", name="hello").wait_for()
    assert re.search(r"/chat/web-[0-9a-f]+$", page.url)


async def test_stop_by_escape_keeps_what_was_shown(page: Any, served: Live) -> None:
    served.engine.set(says={"go on": LONG})
    await ask(page, "go on")
    await page.get_by_text("Line 1 of it.").wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_text("Stopped here.").wait_for()
    await page.reload()
    await page.get_by_text("Stopped here.").wait_for()
    assert await page.get_by_text("Line 399 of it.").count() == 0


async def test_a_refresh_in_mid_stream_loses_nothing(page: Any, served: Live) -> None:
    served.engine.set(says={"go on": LONG}, hold_at=200)
    await ask(page, "go on")
    await page.get_by_text("Line 1 of it.").wait_for()
    await page.reload()
    await page.get_by_text("Line 1 of it.").wait_for()
    await page.get_by_role("button", name="Stop (Esc)").wait_for()
    served.engine.set(hold_at=None, tick=0)
    await answered(page, "Line 399 of it.")
    assert await page.get_by_role("article", name="Answer").count() == 1
    assert served.engine.state()["finished"] == 1


async def test_regenerated_and_edited_turns_are_branches(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "Green.", "coffee?": "Black."})
    await ask(page, "tea?")
    await answered(page, "Green.")
    await page.get_by_role("button", name="Another answer in its place").click()
    await page.get_by_text("2/2").wait_for()
    await page.locator(".question").hover()
    await page.get_by_role("button", name="Edit and send again").click()
    await page.get_by_label("Your question in other words").fill("coffee?")
    await page.keyboard.press("Enter")
    await answered(page, "Black.")
    async with changed(page):
        await page.get_by_role("button", name="Previous wording").click()
    await answered(page, "Green.")
    await page.reload()
    await answered(page, "Green.")
    await page.get_by_role("button", name="Previous answer").click()
    await page.get_by_text("1/2").first.wait_for()


async def test_rename_search_export_delete(page: Any, served: Live) -> None:
    served.engine.set(says={"one": "First.", "two": "Second."})
    await ask(page, "one")
    await answered(page, "First.")
    await page.keyboard.press("Control+Shift+O")
    await ask(page, "two")
    await answered(page, "Second.")
    more = page.get_by_role("button", name="More for one")
    await more.click()
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("Title", exact=True).fill("The first")
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="The first").wait_for()
    await page.get_by_label("Search conversations by title").fill("first")
    assert await page.get_by_role("link", name="two").count() == 0
    await page.get_by_role("button", name="More for The first").click()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export as JSON").click()
    exported = json.loads(Path(await (await download.value).path()).read_text())
    assert [node["content"] for node in exported["nodes"]] == ["First."]
    await page.get_by_role("button", name="More for The first").click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_text("No title has these words.").wait_for()


async def test_a_draft_outlives_a_refresh_and_a_failure(page: Any, served: Live) -> None:
    await page.get_by_label("Message").fill("half a thought")
    await page.reload()
    assert await page.get_by_label("Message").input_value() == "half a thought"
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    await page.get_by_label("Message").press("Enter")
    await page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    assert await page.get_by_label("Message").input_value() == "half a thought"
    await page.unroute("**/v1/chat/completions")
    served.engine.set(says={"half a thought": "A whole one."})
    await page.get_by_role("button", name="Try again").click()
    await answered(page, "A whole one.")
    assert await page.get_by_label("Message").input_value() == ""


async def test_a_temporary_chat_leaves_nothing(page: Any, served: Live) -> None:
    served.engine.set(says={"secret": "Forgotten."})
    await page.get_by_label("Temporary").check()
    await ask(page, "secret")
    await answered(page, "Forgotten.")
    stored = await served.http.get("/v1/me/export", headers={"authorization": f"Bearer {served.user_key}"})
    assert stored.text == ""
    assert await page.get_by_text("No conversations yet.").is_visible()
    kept = await page.evaluate("Object.keys({...localStorage, ...sessionStorage})")
    assert kept == ["ratchet.person"], "nothing but who is signed in"


async def test_consent_is_given_per_chat(page: Any, served: Live) -> None:
    await page.get_by_label("learned from").uncheck()
    async with changed(page):
        await ask(page, "hi")
        await page.get_by_role("article", name="Answer").wait_for()
        await page.get_by_role("button", name="Send", exact=True).wait_for()
    await page.reload()
    await page.get_by_role("article", name="Answer").wait_for()
    assert not await page.get_by_label("learned from").is_checked()


async def test_by_keyboard_from_the_help_sheet_to_sign_out(page: Any) -> None:
    await page.locator("body").click(position={"x": 700, "y": 300})
    await page.keyboard.press("?")
    await page.get_by_role("heading", name="Keyboard shortcuts").wait_for()
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "composer"
    await page.get_by_role("button", name="joe").press("Enter")
    await page.get_by_role("button", name="Sign out").press("Enter")
    await page.get_by_label("API key").wait_for()
    await page.reload()
    await page.get_by_label("API key").wait_for()


async def feedback(served: Live) -> list[dict[str, Any]]:
    listed = await served.http.get("/v1/feedback", headers={"authorization": f"Bearer {served.user_key}"})
    return list(listed.json()["data"])


async def test_a_swap_in_mid_stream_is_not_noticed(page: Any, served: Live, eventually: Any) -> None:
    served.engine.set(says={"go on": LONG, "and now?": "New."}, hold_at=200)
    await ask(page, "go on")
    await page.get_by_text("Line 1 of it.").wait_for()
    served.shelf.publish(1, move=0.4)
    await eventually(lambda: served.served == 1)
    served.engine.set(hold_at=None, tick=0)
    await answered(page, "Line 399 of it.")
    await ask(page, "and now?")
    await answered(page, "New.")
    await page.get_by_text("policy-v1").wait_for()
    answers = await page.get_by_role("article", name="Answer").all_inner_texts()
    assert [re.findall(r"policy-v\d+", said) for said in answers] == [["policy-v0"], ["policy-v1"]]
    assert await page.get_by_role("alert").count() == 0


async def test_two_browsers_at_once(page: Any, browser: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "Green.", "coffee?": "Black."})
    context = await browser.new_context(base_url=served.url)
    other = await context.new_page()
    await sign_in(other, served.user_key)
    await asyncio.gather(ask(page, "tea?"), ask(other, "coffee?"))
    await asyncio.gather(answered(page, "Green."), answered(other, "Black."))
    for each in (page, other):
        await each.reload()
        for title in ("tea?", "coffee?"):
            await each.get_by_role("link", name=title).wait_for()
    await page.get_by_role("link", name="coffee?").click()
    await answered(page, "Black.")
    await context.close()


async def test_a_thumb_by_key_outlives_a_refresh(page: Any, served: Live) -> None:
    served.engine.set(says={"hello": "Hello."})
    await ask(page, "hello")
    await answered(page, "Hello.")
    await page.get_by_role("button", name="Good answer").wait_for()
    await page.keyboard.press("Escape")  # out of the field
    await page.keyboard.press("+")
    await page.get_by_text("Saved").first.wait_for()
    await page.reload()
    thumb = page.get_by_role("button", name="Good answer")
    await thumb.wait_for()
    assert await thumb.get_attribute("aria-pressed") == "true"
    assert [kept["judgement"]["value"] for kept in await feedback(served)] == [1]


async def test_side_by_side_is_decided_by_one_key_and_the_chat_goes_on(page: Any, served: Live) -> None:
    served.engine.set(says={"tea?": "Green.", "coffee?": "Black."})
    await want(page, "2 side by side")
    await ask(page, "tea?")
    await page.get_by_text("Green.").nth(1).wait_for()
    await page.keyboard.press("b")
    await page.get_by_text("policy-v0").first.wait_for()
    assert [kept["judgement"]["winner"] for kept in await feedback(served)] == ["right"]
    await want(page, "1 answer")
    await ask(page, "coffee?")
    await answered(page, "Black.")
    await page.get_by_text("2/2").wait_for()
    assert re.search(r"/chat/web-[0-9a-f]+$", page.url)


async def test_a_search_finds_what_is_not_loaded(page: Any, served: Live) -> None:
    for number in range(51):
        await served.chat(f"tea number {number}", key=served.user_key, max_tokens=1)
    await page.reload()
    await page.get_by_role("link", name="tea number 50").wait_for()
    assert await page.get_by_role("link", name="tea number 0").count() == 0
    await page.get_by_label("Search conversations by title").fill("0 TEA")
    await page.get_by_role("link", name="tea number 0").wait_for()
    assert await page.get_by_role("link", name=re.compile("tea number")).count() == 6
    await page.get_by_role("button", name="More for tea number 0").click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("link", name="tea number 0").wait_for(state="detached")
    await page.get_by_label("Search conversations by title").fill("coffee")
    await page.get_by_text("No title has these words.").wait_for()


async def test_deleting_what_is_gone_already_is_no_failure(page: Any, served: Live) -> None:
    deleted = []

    async def by_another_first(route: Any) -> None:
        if route.request.method == "DELETE":
            mine = {"authorization": f"Bearer {served.user_key}"}
            deleted.append((await served.http.delete(route.request.url, headers=mine)).status_code)
        await route.continue_()

    await page.route("**/v1/conversations/*", by_another_first)
    await ask(page, "tea?")
    await page.get_by_role("button", name="More for tea?").click()
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_text("No conversations yet.").wait_for()
    assert await page.get_by_role("alert").count() == 0
    assert deleted == [200]


async def test_votes_are_in_sight_and_leave_room_for_what_is_judged(page: Any, served: Live) -> None:
    served.engine.set(says={"go on": LONG[:2000]}, tick=0)
    await page.set_viewport_size({"width": 390, "height": 844})
    for how, ready in (("2 side by side", "A is better"), ("4 to rank", "Submit ranking")):
        await page.get_by_role("radio", name=how).check()
        await ask(page, "go on")
        button = page.get_by_role("button", name=ready)
        await button.wait_for()
        box = await page.locator(".r-votes").bounding_box()
        composer = await page.locator(".composer").bounding_box()
        assert box["height"] <= 100
        assert box["y"] > 0 and box["y"] + box["height"] <= composer["y"] + 1
        await page.get_by_role("button", name="Not now").click()
        await page.locator(".trial").wait_for(state="detached")
