"""What an operator sees in the console of learning and health, and does about it, in Chromium."""

import re
from typing import Any

import pytest
from playwright.async_api import expect

from feedback.people.keys import KeyRing
from tests.serving.live import Live, Shelf
from tests.web.conftest import PATIENCE_MS, sign_in
from tests.web.learning import ITERATIONS, judging, refused, stock, under_way
from tests.web.shots import shoot, too_wide
from tests.web.test_accessibility import complaints

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def stocked(shelf: Shelf) -> None:
    stock(shelf)


def lines(page: Any, title: str) -> Any:
    """What a plot drew as lines; the path of one says where its points are."""
    return page.locator("figure", has_text=title).locator("svg g[data-mark=line] path")


async def numbers(page: Any, title: str) -> list[str]:
    """A plot in numbers, by row."""
    await page.get_by_text(f"{title} in numbers").click()
    table = page.get_by_label(f"{title} in numbers").get_by_role("table")
    await table.wait_for()
    return [" ".join(row.split()) for row in await table.locator("tr").all_inner_texts()]


async def test_the_curves_of_a_round_come_live_and_outlive_a_reload(console: Any, served: Live) -> None:
    id, go_on = under_way(served.gateway.rounds, up_to=24)
    await console.get_by_role("link", name="Console").click()
    await console.get_by_role("link", name="Rounds", exact=True).click()
    await console.get_by_role("link", name=f"round {id}", exact=True).click()
    await expect(console.get_by_role("progressbar")).to_have_accessible_name(r"PPO: step 24 of 60, 0:36 to go")
    await expect(lines(console, "KL to the reference")).to_have_count(1)
    before = await lines(console, "Score").get_attribute("d")
    for step in range(25, 31):
        go_on(step)
    await expect(console.get_by_role("progressbar")).to_have_accessible_name(r"PPO: step 30 of 60, 0:30 to go")
    await expect(lines(console, "Score")).not_to_have_attribute("d", before)
    await console.reload()
    await expect(lines(console, "Score")).to_have_count(1)
    assert len(await numbers(console, "Length")) == 31  # with its head
    await console.set_viewport_size({"width": 390, "height": 844})
    assert await console.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1280, 390])
async def test_the_further_figures_of_ppo_unfold_and_stay_so(console: Any, served: Live, width: int) -> None:
    id, go_on = under_way(served.gateway.rounds, up_to=24)
    await console.set_viewport_size({"width": width, "height": 844})
    await console.goto(f"/console/rounds/{id}")
    await expect(console.locator("figure")).to_have_count(4)
    await console.get_by_text("8 more figures of PPO").click()
    await expect(lines(console, "Effective share of the sample")).to_have_count(1)
    before = await lines(console, "Effective share of the sample").get_attribute("d")
    go_on(25)
    await expect(lines(console, "Effective share of the sample")).not_to_have_attribute("d", before)
    assert (await numbers(console, "Ended by itself"))[1] == "1 0.9983"
    assert (await complaints(console), await too_wide(console)) == ([], [])
    await shoot(console, "further-figures")


@pytest.mark.parametrize("width", [1280, 390])
async def test_while_a_reward_model_learns_its_loss_is_drawn_and_nothing_empty(
    console: Any, served: Live, width: int
) -> None:  # fmt: skip
    id = judging(served.gateway.rounds)
    await console.set_viewport_size({"width": width, "height": 844})
    await console.goto(f"/console/rounds/{id}")
    await expect(lines(console, "Loss of the reward model")).to_have_count(1)
    await expect(console.locator("figure")).to_have_count(1)
    await console.get_by_text("To come: PPO’s score, KL, length and entropy.").wait_for()
    await expect(console.locator(".c-figures > div", has_text="rankings that train")).to_contain_text("54")
    assert (await complaints(console), await too_wide(console)) == ([], [])
    await shoot(console, "judging")


async def test_a_refused_round_says_what_failed(console: Any, served: Live) -> None:
    id = refused(served.gateway.rounds)
    await console.goto(f"/console/rounds/{id}")
    await console.get_by_text("KL to the reference is 14.2, threshold 12").wait_for()
    row = console.get_by_label("Gate checks").get_by_role("row", name="KL to the reference")
    assert (await row.inner_text()).split() == ["KL", "to", "the", "reference", "failed", "14.25", "at", "most", "12"]
    stages = [" ".join(text.split()) for text in await console.locator(".c-stages li").all_inner_texts()]
    assert stages[1:] == [
        "– SFT skipped",
        "✓ Reward model done",
        "✓ PPO done",
        "✕ Gate ended here",
        "Publish not reached",
    ]
    assert (await numbers(console, "Entropy"))[-1].startswith(f"{ITERATIONS} ")


async def test_a_round_is_started_once(console: Any, served: Live) -> None:
    await console.goto("/console/rounds")
    await console.get_by_text("No round has been run yet.").wait_for()
    await console.get_by_role("button", name="Start a round").click()
    await console.get_by_role("dialog").get_by_role("button", name="Start a round").click()
    await console.wait_for_url("**/console/rounds/1")
    await console.get_by_role("link", name="All rounds").click()
    await console.get_by_text("Round 1 is open already").wait_for()
    await expect(console.get_by_role("button", name="Start a round")).to_have_count(0)
    assert [(each.trigger, each.actor) for each in served.gateway.rounds.list()] == [("operator", "root")]


async def test_rounds_older_than_the_newest_fifty_are_one_button_away(console: Any, served: Live) -> None:
    for _ in range(51):
        id, _ = served.gateway.rounds.request(trigger="count", actor="beat")
        token = served.gateway.rounds.claim(id, owner="w", lease_s=60)
        assert token is not None
        served.gateway.rounds.finish(id, token, "failed", reason="a test")
    await console.goto("/console/rounds")
    rows = console.get_by_role("region", name="Rounds").get_by_role("rowheader")
    await expect(rows).to_have_count(50)
    await console.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(51)
    await expect(rows.last).to_have_text("round 1")
    await expect(console.get_by_role("button", name="Show more")).to_have_count(0)


async def test_an_old_tab_is_told_when_the_server_is_away_and_recovers(console: Any, served: Live) -> None:
    id, _ = under_way(served.gateway.rounds)
    await console.goto(f"/console/rounds/{id}")
    await expect(lines(console, "Score")).to_have_count(1)
    await console.route("**/v1/rounds/**", lambda route: route.abort())
    await console.get_by_role("alert").get_by_text("This is from").wait_for()
    await expect(lines(console, "Score")).to_have_count(1)
    await console.unroute("**/v1/rounds/**")
    await console.get_by_role("alert").wait_for(state="detached")


async def test_reliability_of_reward_models(console: Any) -> None:
    await console.goto("/console/reward-model")
    await console.get_by_role("heading", name="policy-v2").wait_for()
    figure = console.locator("figure", has_text="Reliability")
    await expect(figure.locator("svg g[data-mark=dot] circle")).to_have_count(5)
    await expect(figure.locator("svg g[data-mark=link]")).to_have_count(1)
    await expect(figure.locator("svg g[data-mark=rule] line[y1]")).to_have_count(5)  # an interval for each
    assert (await numbers(console, "Reliability"))[-1] == "95% 81.5% (62.1% to 92.2%)"
    assert (await numbers(console, "Accuracy"))[1:] == ["1 66% (60% to 71%)", "2 74% (68% to 79%)"]
    await console.get_by_role("link", name="policy-v1").click()
    await console.get_by_role("heading", name="policy-v1").wait_for()
    await console.get_by_text("0.48 to 0.59 nats per pair").wait_for()


async def test_freezing_takes_a_reason_and_is_seen_at_once(console: Any, served: Live) -> None:
    await console.goto("/console")
    await console.get_by_role("button", name="Freeze learning").click()
    dialog = console.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill("an audit")
    await console.keyboard.press("Enter")
    await console.get_by_role("button", name="Unfreeze learning").wait_for()
    assert served.gateway.rounds.is_frozen()
    await console.get_by_role("button", name="Freeze releases").click()
    await console.keyboard.press("Escape")
    assert not served.gateway.releases.is_frozen()


async def test_the_overview_says_what_serves_and_what_is_learned(console: Any, served: Live) -> None:
    under_way(served.gateway.rounds)
    await console.goto("/console/overview")
    engine = console.locator(".c-figures > div", has_text="engine, stable")
    await expect(engine.get_by_role("link")).to_have_text("policy-v0")
    await expect(console.get_by_role("progressbar")).to_have_accessible_name("PPO: step 24 of 60, 0:36 to go")
    await console.get_by_text("No release is open.").wait_for()


@pytest.mark.parametrize("width", [1280, 390])
async def test_an_engine_that_is_down_is_told_in_words(console: Any, served: Live, width: int) -> None:
    """What a library said of it is for whoever unfolds it, and stays unfolded."""
    await console.set_viewport_size({"width": width, "height": 844})
    served.engine.kill()
    await console.goto("/console/overview")
    engine = console.locator(".c-figures > div", has_text="engine, stable")
    await expect(engine).to_have_text(re.compile("does not serve.*the engine is down"))
    said = engine.get_by_text("ClientConnectorError")
    await expect(said).to_be_hidden()
    await engine.get_by_text("Details").press("Enter")
    await expect(said).to_be_visible()
    async with console.expect_response("**/v1/status"):
        pass
    await expect(said).to_be_visible()
    assert (await complaints(console), await too_wide(console)) == ([], [])
    await shoot(console, "engine-down")


async def test_the_console_is_for_operators(browser: Any, served: Live) -> None:
    rater = KeyRing(served.gateway.registry.redis, "pepper").create(name="ann", role="rater")
    context = await browser.new_context(base_url=served.url)
    page = await context.new_page()
    await sign_in(page, rater)
    assert await page.get_by_role("link", name="Console").count() == 0
    await page.goto("/console/rounds")
    await page.get_by_text("This is for operators and admins").wait_for()
    await page.get_by_role("button", name="New").click()
    await page.get_by_label("Message").wait_for()
    await context.close()


async def test_a_phone_and_a_keyboard_are_enough(console: Any, served: Live) -> None:
    await console.set_viewport_size({"width": 390, "height": 844})
    await console.goto("/console/overview")
    await console.get_by_role("button", name="Views").focus()
    await console.keyboard.press("Enter")
    await console.get_by_role("link", name="Rounds", exact=True).focus()
    await console.keyboard.press("Enter")
    await console.get_by_role("button", name="Start a round").focus()
    await console.keyboard.press("Enter")
    await console.get_by_role("dialog").wait_for()
    await console.keyboard.press("Escape")
    await expect(console.get_by_role("button", name="Start a round")).to_be_focused()


@pytest.mark.parametrize("width", [1280, 390])
async def test_each_view_of_learning_is_for_everybody(console: Any, served: Live, width: int) -> None:
    await console.set_viewport_size({"width": width, "height": 844})
    await console.goto("/console/rounds")
    await console.get_by_role("button", name="Start a round").click()
    await console.get_by_role("dialog").wait_for()
    seen = {"start": await complaints(console)}
    await shoot(console, "start-round")
    over, _ = refused(served.gateway.rounds), under_way(served.gateway.rounds)
    for view, shown in {
        "overview": "No release is open.", "rounds": "round 1", f"rounds/{over}": "Gate checks",
        f"rounds/{over + 1}": "Score in numbers", "reward-model": "Over versions",
    }.items():  # fmt: skip
        await console.goto(f"/console/{view}")
        await console.get_by_text(shown).or_(console.get_by_label(shown)).first.wait_for()
        seen[view] = await complaints(console)
        await shoot(console, view.replace("/", "-"))
        assert await too_wide(console) == [], view
    assert {view: said for view, said in seen.items() if said} == {}
