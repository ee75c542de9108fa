"""What an operator sees in the console of people, and does about them, in Chromium."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from feedback.people.keys import KeyRing, Limits
from feedback.people.raters import Raters
from tests.serving.live import Live
from tests.web.conftest import PATIENCE_MS, sign_in
from tests.web.people import HURT, QUESTION, People, judged
from tests.web.shots import shoot, too_wide
from tests.web.test_accessibility import complaints
from tests.web.test_hostile import WATCH, Witness

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
async def people(served: Live) -> AsyncIterator[People]:
    everybody = await judged(served)
    yield everybody
    for each in everybody:
        await each.http.aclose()


def rows(page: Any) -> Any:
    return page.get_by_label("Judgements", exact=True).locator("> li")


async def test_judgements_are_filtered_opened_and_read_in_full(console: Any, people: People) -> None:
    await console.get_by_role("link", name="Console").click()
    await console.get_by_role("link", name="Feedback", exact=True).click()
    await expect(rows(console)).to_have_count(16)
    await expect(rows(console).first).to_contain_text("Report")
    await console.get_by_label("Kind").select_option("ranking")
    await expect(rows(console)).to_have_count(1)
    await console.get_by_role("button", name=re.compile("Ranking of 3")).click()
    best = console.get_by_role("region", name="C: place 1 of 2")
    await expect(best).to_contain_text("Because air scatters blue light most.")
    await expect(best.get_by_role("link", name="policy-v0")).to_have_attribute("href", "/console/policies/0")
    await expect(console.get_by_role("region", name="A: place 2 of 2, tied")).to_be_visible()
    await expect(console.get_by_role("region", name="Prompt")).to_contain_text(QUESTION)
    await console.reload()
    await expect(rows(console)).to_have_count(1)  # the address holds the filter
    await console.get_by_label("Kind").select_option("demonstration")
    await console.get_by_role("button", name=re.compile("Corrected answer")).click()
    await expect(console.get_by_role("group", name="Changes").locator("ins")).to_contain_text("green")
    await console.get_by_label("Kind").select_option("rating")
    await console.get_by_label("Rater", exact=True).fill(people.careful.rater)
    await console.get_by_label("Rater", exact=True).press("Enter")
    await expect(rows(console)).to_have_count(1)
    await rows(console).get_by_role("button").click()
    await expect(console.get_by_role("region", name="Earlier")).to_contain_text("Thumb up")
    await console.get_by_role("button", name="Show all").click()
    await console.get_by_label("Raters aside").select_option("only")
    await expect(rows(console)).to_have_count(2)
    async with console.expect_download() as download:
        await console.get_by_label("Export as").select_option("kto")
        await console.get_by_role("link", name="Download").click()
    text = Path(await (await download.value).path()).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    tea, hurt = lines  # what was said last of each answer, of everybody: only split and days narrow an export
    assert [line["prompt"][-1]["content"] for line in lines] == ["tea?", HURT.format("prompt")]
    assert (tea["completion"][0]["content"], tea["label"], hurt["label"]) == ("It is red.", False, False)
    assert "Tea is not red." not in text  # comments stay here
    assert not any(each.rater in text for each in people)  # as do raters' names
    assert (await download.value).suggested_filename.startswith("feedback-kto-")


async def test_what_people_write_stays_text_in_every_view(console: Any, served: Live, people: People) -> None:
    witness = Witness(console, served.url)
    await console.add_init_script(WATCH)
    await console.goto(f"/console/feedback?rater={people.hurtful.rater}")
    await expect(rows(console)).to_have_count(2)
    for row in await rows(console).all():
        await row.get_by_role("button").first.click()
    await expect(console.get_by_role("region", name="Comment").first).to_contain_text(HURT.format("flag"))
    await expect(console.get_by_role("region", name="Prompt").first).to_contain_text(HURT.format("prompt"))
    await witness.saw_nothing()
    for path in ("raters", f"raters/{people.hurtful.rater}", "feedback/review", "audit"):
        await console.goto(f"/console/{path}")
        await console.get_by_text(HURT.format("reason")).first.wait_for()
        await witness.saw_nothing()
    await console.goto("/console/keys")
    await console.get_by_text(HURT.format("name")).first.wait_for()
    await witness.saw_nothing()


async def test_whoever_is_suspected_is_reviewed_put_aside_and_released(
    console: Any, served: Live, people: People
) -> None:  # fmt: skip
    await console.goto("/console/feedback")
    await console.get_by_role("link", name="Quarantine review").click()
    case = console.get_by_role("region", name=people.careless.rater, exact=True)
    await expect(case).to_contain_text("chose left 10 of 10 times")
    await expect(case.get_by_role("listitem")).to_have_count(5)
    await expect(console.get_by_role("region", name=people.careful.rater, exact=True)).to_have_count(0)
    await case.get_by_role("button", name="Quarantine").focus()
    await console.keyboard.press("Enter")
    await console.get_by_label("Reason").fill("reads nothing")
    await console.keyboard.press("Enter")
    release = case.get_by_role("button", name="Release")
    await expect(release).to_be_focused()
    line = Raters(served.ledger.redis).quarantined()[people.careless.rater]
    assert (line.actor, line.reason) == ("root", "reads nothing")
    # Somebody else is quicker.
    Raters(served.ledger.redis).release(people.careless.rater, actor="bob", reason="a mistake")
    await release.click()
    dialog = console.get_by_role("dialog")
    await dialog.get_by_role("button", name="Release").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Somebody else was quicker")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(case.get_by_role("button", name="Quarantine")).to_be_visible()


async def test_raters_are_listed_with_their_figures_and_put_aside(
    console: Any, served: Live, people: People
) -> None:  # fmt: skip
    await console.goto("/console/raters")
    table = console.get_by_role("region", name="Raters")
    row = table.get_by_role("row", name=re.compile("chose left 10 of 10"))
    await expect(row).to_contain_text("100% left (10 of 10)")
    await row.get_by_role("button", name="Quarantine").click()
    await console.get_by_role("dialog").get_by_role("button", name="Quarantine").click()
    await expect(row.get_by_role("button", name="Release")).to_be_visible()
    assert Raters(served.ledger.redis).quarantined()[people.careless.rater].reason == "chose left 10 of 10 times"
    await row.get_by_role("link", name=re.compile("10 judgements")).click()
    await expect(rows(console)).to_have_count(10)
    await console.go_back()
    await row.get_by_role("rowheader").get_by_role("link").click()
    await expect(console.get_by_role("heading", name=people.careless.rater)).to_be_visible()
    await expect(console.get_by_text(re.compile("chance chose the sides; evidence against it: e = 9"))).to_be_visible()
    await console.goto("/console/audit")
    await console.get_by_role("button", name="Raters").click()
    audit = console.get_by_role("region", name="Audit trail")
    await expect(audit.get_by_role("row")).to_have_count(3)
    await expect(audit.get_by_role("row").nth(1)).to_contain_text("chose left 10 of 10 times")


async def test_a_key_is_made_shown_once_bounded_rotated_and_revoked(console: Any, served: Live) -> None:
    ring = KeyRing(served.ledger.redis, "pepper")
    await console.goto("/console/keys")
    form = console.get_by_role("form", name="New key")
    await form.get_by_label("Name").fill("bot")
    await form.get_by_label("Role").select_option("operator")
    await form.get_by_label("Expires").select_option("30")
    await form.get_by_text("Limits").click()
    await form.get_by_label("Requests a minute").fill("60")
    await form.get_by_role("button", name="Make a key").click()
    secret = console.get_by_role("region", name="The key of bot")
    made = await secret.locator("code").inner_text()
    key = ring.find(made)
    assert key is not None
    assert (key.name, key.role, key.limits.requests_per_minute) == ("bot", "operator", 60)
    await secret.get_by_role("button", name="I have it").click()
    await console.reload()
    row = console.get_by_role("region", name="Keys").get_by_role("row", name=re.compile("bot"))
    await expect(row).to_contain_text("60 requests/min")
    assert made not in await console.content()
    await row.get_by_role("button", name="Set limits").click()
    limits = console.get_by_role("dialog")
    await expect(limits.get_by_label("Requests a minute")).to_have_value("60")
    await limits.get_by_label("Requests a minute").fill("")
    await limits.get_by_label("Expires").select_option("in 30 days")
    await limits.get_by_label("Tokens a day").fill("5000")
    await console.keyboard.press("Enter")
    await expect(row).to_contain_text("5,000 tokens/day")
    await expect(row.get_by_role("button", name="Set limits")).to_be_focused()
    changed = ring.get(key.id)
    assert (changed.limits, changed.expires is not None) == (Limits(tokens_per_day=5000), True)
    await row.get_by_role("button", name="Rotate").click()
    await console.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    renewed = await secret.locator("code").inner_text()
    assert (ring.find(made), ring.find(renewed) is not None) == (None, True)
    await row.get_by_role("button", name="Revoke").click()
    await console.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(row).to_have_count(0)
    assert ring.find(renewed) is None


async def test_ones_own_key_is_rotated_without_losing_it(console: Any, served: Live) -> None:
    await console.goto("/console/keys")
    row = console.get_by_role("region", name="Keys").get_by_role("row", name=re.compile("yours"))
    await row.get_by_role("button", name="Rotate").click()
    await console.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    text = await console.get_by_role("region", name="The key of root").locator("code").inner_text()
    assert KeyRing(served.ledger.redis, "pepper").find(text) is not None
    await console.get_by_role("link", name="Audit trail").click()
    await console.get_by_role("heading", name="Audit trail").wait_for()
    await expect(console.get_by_role("region", name="The key of root")).to_contain_text(text)
    await console.get_by_role("button", name="I have it").click()
    await console.get_by_role("link", name="Keys", exact=True).click()
    await console.reload()
    await expect(row).to_be_visible()  # signed in still


async def test_an_invite_lets_one_person_in_once(console: Any, served: Live, browser: Any) -> None:
    await console.goto("/console/keys")
    form = console.get_by_role("form", name="New invite")
    for name in ("Kim", "Lee"):
        await form.get_by_label("Whom it is for").fill(name)
        await form.get_by_role("button", name="Invite").click()
        link = await console.get_by_role("region", name=f"The link of {name}").locator("code").inner_text()
        await console.get_by_role("button", name="I have it").click()
    opened = console.get_by_role("region", name="Open invites")
    await opened.get_by_role("row", name=re.compile("Kim")).get_by_role("button", name="Withdraw").click()
    await console.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
    await expect(opened.get_by_role("row", name=re.compile("Kim"))).to_have_count(0)
    other = await browser.new_context(base_url=served.url)
    page = await other.new_page()
    await page.goto(link)
    await page.get_by_label("Message").wait_for()
    await expect(page.get_by_role("link", name="Console")).to_have_count(0)
    await other.close()


async def test_keys_are_for_admins(browser: Any, served: Live) -> None:
    key = KeyRing(served.ledger.redis, "pepper").create(name="ops", role="operator")
    context = await browser.new_context(base_url=served.url)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await sign_in(page, key)
    await page.goto("/console/keys")
    await page.get_by_text("This is for admins; you are signed in as ops, operator.").wait_for()
    await context.close()


@pytest.mark.parametrize("width", [1280, 390])
async def test_each_view_of_people_is_for_everybody(
    console: Any, served: Live, people: People, width: int
) -> None:  # fmt: skip
    await console.set_viewport_size({"width": width, "height": 844})
    seen: dict[str, list[str]] = {}
    for path in ("feedback", "feedback/review", "raters", f"raters/{people.careless.rater}", "keys", "audit"):
        await console.goto(f"/console/{path}")
        await console.locator(".c-view table, .c-view .p-judgement").first.wait_for()
        if path == "feedback":
            for row in (0, 3, 5):
                await rows(console).nth(row).get_by_role("button").first.click()
                await rows(console).nth(row).locator(".p-facts").wait_for()
        seen[path] = await complaints(console)
        await shoot(console, path.replace("/", "-"))
        assert await too_wide(console) == [], path
    assert {path: said for path, said in seen.items() if said} == {}


@pytest.mark.parametrize("width", [1280, 390])
async def test_what_is_shown_once_and_what_is_confirmed_are_for_everybody(
    console: Any, served: Live, width: int
) -> None:  # fmt: skip
    await console.set_viewport_size({"width": width, "height": 844})
    await console.goto("/console/keys")
    form = console.get_by_role("form", name="New key")
    await form.get_by_label("Name").fill("bot")
    await form.get_by_role("button", name="Make a key").click()
    await console.get_by_role("region", name="The key of bot").wait_for()
    row = console.get_by_role("region", name="Keys").get_by_role("row", name=re.compile("bot"))
    await row.get_by_role("button", name="Revoke").wait_for()
    seen = {"secret": await complaints(console)}
    await row.get_by_role("button", name="Set limits").click()
    await console.get_by_role("dialog").get_by_label("Tokens a day").wait_for()
    seen["limits"] = await complaints(console)
    await shoot(console, "limits")
    await console.keyboard.press("Escape")
    await row.get_by_role("button", name="Revoke").click()
    await console.get_by_role("dialog").get_by_text("it cannot be brought back").wait_for()
    seen["confirmation"] = await complaints(console)
    assert seen == {"secret": [], "limits": [], "confirmation": []}
