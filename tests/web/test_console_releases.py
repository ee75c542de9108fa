"""What an operator does in the console with releases, policies and the leaderboard, in Chromium."""

from typing import Any

import pytest
from playwright.async_api import expect

from feedback.releases.book import ReleaseBook
from feedback.releases.clock import time_key
from feedback.releases.plan import plan_of
from feedback.releases.self_test import KEY, SelfTest, self_test_of
from tests.serving.live import Live, Shelf
from tests.web.releasing import STEPS, released, stock, voted
from tests.web.shots import shoot, too_wide
from tests.web.test_accessibility import complaints

pytestmark = pytest.mark.usefixtures("undriven")


@pytest.fixture
def stocked(shelf: Shelf) -> None:
    stock(shelf)


async def confirm(page: Any, name: str, reason: str = "") -> None:
    """Press a button of a view, and in its dialog the one that acts."""
    await page.get_by_role("button", name=name, exact=True).click()
    dialog = page.get_by_role("dialog")
    if reason:
        await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name=name, exact=True).click()


async def test_an_operator_reads_pauses_and_resumes_a_release(console: Any, served: Live) -> None:
    voted(served, released(served))
    await console.goto("/console/releases")
    await console.get_by_text("Release 1 is open: canary, step 4 of 4").wait_for()
    await console.get_by_role("rowheader").get_by_role("link", name="1", exact=True).click()
    under = console.locator("li[aria-current=step]")
    await under.get_by_text("wait for the votes").wait_for()
    await console.get_by_text("24 won, 12 lost, 4 tied").wait_for()
    await console.locator(".c-drawn svg").nth(1).wait_for()
    await console.get_by_text("Win rate of the candidate, with its confidence band in numbers").click()
    await console.get_by_role("rowheader", name="36", exact=True).wait_for()
    await confirm(console, "Pause", "Lunch.")
    await under.get_by_text("paused here").wait_for()
    history = console.get_by_role("region", name="History")
    await history.get_by_text("Lunch.").wait_for()
    newest = await history.get_by_role("row").nth(1).inner_text()
    assert "Lunch." in newest
    assert "root" in newest
    await confirm(console, "Resume")
    await under.get_by_text("under way").wait_for()
    assert [line.actor for line in ReleaseBook(served.gateway.registry).history(1)][-2:] == ["root", "root"]


async def test_what_another_operator_did_is_not_done_twice(console: Any, served: Live) -> None:
    """Both mean to pass the same step; the page hears of the other's order while its own waits to be confirmed."""
    voted(served, released(served, step=1, weight=0.1))
    book = ReleaseBook(served.gateway.registry)
    await console.goto("/console/releases/1")
    await console.get_by_role("button", name="Pass the step", exact=True).click()
    dialog = console.get_by_role("dialog")
    await dialog.get_by_text("counts as taken").wait_for()
    other = await served.http.post("/v1/releases/1/promote", json={"reason": "we agree"})
    assert (other.status_code, other.json()["step"]) == (200, 2)
    taken = book.history(1)
    await dialog.get_by_role("alert").get_by_text("This changed while you read it; nothing was done.").wait_for()
    assert await dialog.get_by_role("button", name="Pass the step", exact=True).is_disabled()
    await dialog.get_by_label("Reason").press("Enter")
    await dialog.get_by_role("button", name="Cancel").click()
    await console.get_by_role("region", name="History").get_by_text("we agree").wait_for()
    assert book.history(1) == taken


@pytest.mark.parametrize(
    ("order", "state", "is_now"), [("Abort", "aborted", "candidate"), ("Roll back", "rolled_back", "rolled_back")]
)
async def test_a_release_is_stopped(console: Any, served: Live, order: str, state: str, is_now: str) -> None:
    voted(served, released(served))
    await console.goto("/console/releases/1")
    await confirm(console, order, "It rambles.")
    await console.get_by_role("group", name="Orders for release 1").wait_for(state="detached")
    await console.get_by_role("region", name="History").get_by_text("It rambles.").wait_for()
    await console.get_by_role("status").get_by_text(f"{order}: done.").wait_for(state="attached")
    await expect(console.locator("#console")).to_be_focused()  # the button is gone
    registry = served.gateway.registry
    release = ReleaseBook(registry).get(1)
    assert release is not None
    line = ReleaseBook(registry).history(1)[-1]
    assert (release.state, line.actor, line.reason) == (state, "root", "It rambles.")
    assert (registry.stable(), registry.states()[2]) == (1, is_now)


async def test_of_two_operators_the_slower_one_sees_how_it_is_now(console: Any, served: Live) -> None:
    """The page has not heard of the other's order when it gives its own."""
    voted(served, released(served))
    before = (await served.http.get("/v1/releases/1")).json()
    ordered: list[str] = []
    console.on("request", lambda request: ordered.append(request.url) if request.method == "POST" else None)

    async def late(route: Any) -> None:
        await (route.continue_() if ordered else route.fulfill(json=before))

    await console.route("**/v1/releases/1", late)
    await console.goto("/console/releases/1")
    await console.get_by_role("button", name="Promote", exact=True).click()
    dialog = console.get_by_role("dialog")
    await dialog.get_by_text("policy-v2 becomes the stable policy in place of policy-v1").wait_for()
    await served.http.post("/v1/releases/1/abort", json={"reason": "people complain"})
    await dialog.get_by_role("button", name="Promote", exact=True).click()
    await console.get_by_text("people complain").first.wait_for()
    assert [url.rpartition("/")[2] for url in ordered] == ["promote"]
    assert served.gateway.registry.stable() == 1


async def test_a_release_that_ends_while_an_order_is_considered_says_so(console: Any, served: Live) -> None:
    voted(served, released(served))
    await console.goto("/console/releases/1")
    await console.get_by_role("button", name="Promote", exact=True).click()
    await console.get_by_role("dialog").get_by_label("Reason").fill("It is bett")
    await served.http.post("/v1/releases/1/abort", json={"reason": "people complain"})
    told = console.get_by_role("status").get_by_text("This changed while you read it; nothing was done.")
    await told.wait_for()
    assert (await told.bounding_box())["height"] > 10, "it is said, and not seen"
    assert await console.get_by_role("dialog").count() == 0
    await expect(console.locator("#console")).to_be_focused()
    await console.get_by_role("link", name="All releases").click()
    await told.wait_for(state="detached")


async def test_a_proposed_release_is_promoted(console: Any, served: Live, eventually: Any) -> None:
    voted(served, released(served, step=4, proposed=True))
    await console.goto("/console/releases/1")
    await confirm(console, "Promote", "It is better.")
    await console.get_by_text("It is better.").first.wait_for()
    assert served.gateway.registry.stable() == 2
    await eventually(lambda: served.served == 2)


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_proposal_whose_votes_lapsed_says_what_it_waits_for(console: Any, served: Live, width: int) -> None:
    plan = plan_of({"steps": STEPS, "deadline": "2h"})
    voted(served, released(served, step=4, proposed=True, by_votes=True, mode="automatic", plan=plan))
    served.ledger.redis.hset(time_key(1), mapping={"1": "1800", "3": "4210"})
    await served.http.post("/v1/releases/freeze", json={"frozen": True})
    await console.set_viewport_size({"width": width, "height": 844})
    for view in ("/console/releases", "/console/overview", "/console/releases/1"):
        await console.goto(view)
        await console.get_by_text("the votes that took one no longer say that it is better").wait_for()
        await console.get_by_text("1:40:10 of 2 hours until it ends undecided.").wait_for()
        assert (await complaints(console), await too_wide(console)) == ([], []), view
    await console.get_by_text("Releases are frozen: it takes no step by itself.").wait_for()
    await console.get_by_text("inconclusive at 4,000 decisive ones").wait_for()
    await shoot(console, "lapsed")


@pytest.mark.parametrize("view", ["/console/releases/1", "/console/overview"])
async def test_whoever_found_the_fault_behind_an_alarm_resets_the_self_test(
    console: Any, served: Live, view: str
) -> None:  # fmt: skip
    voted(served, released(served))
    served.ledger.redis.set(KEY, SelfTest(votes=12, wins=12, log_e=5.0, alarm=True).model_dump_json())
    await console.goto(view)
    await console.get_by_text("until it is reset no vote decides anything").wait_for()
    assert await complaints(console) == []
    await shoot(console, "alarm")
    await confirm(console, "Reset the self-test")
    await console.get_by_text("until it is reset no vote decides anything").wait_for(state="detached")
    assert not self_test_of(served.ledger).alarm


async def test_a_release_is_started_by_keyboard(console: Any, served: Live) -> None:
    await console.goto("/console/releases")
    await console.get_by_text("No release is open.").wait_for()
    await console.get_by_role("button", name="Start a release").press("Enter")
    await console.get_by_label("Steps").fill("5%, 30m, 25%, analysis")
    await console.keyboard.press("Enter")
    await console.get_by_role("heading", name="Release 1: policy-v3 beside policy-v1").wait_for()
    await console.get_by_text("It waits for an engine to hold policy-v3").wait_for()
    await console.get_by_text("Why: asked for in the console").wait_for()


async def test_versions_are_read_compared_promoted_and_rolled_back(console: Any, served: Live, eventually: Any) -> None:
    await console.goto("/console/policies")
    await console.get_by_role("rowheader", name="policy-v2").get_by_role("link").click()
    await console.get_by_text("policy-v0 → policy-v1").wait_for()
    await console.get_by_role("region", name="Gate checks").get_by_text("score_gain").wait_for()
    await confirm(console, "Promote", "We are sure.")
    await console.get_by_role("button", name="Roll back", exact=True).wait_for()
    await eventually(lambda: served.served == 2)
    await confirm(console, "Roll back", "It rambles.")
    await console.get_by_role("button", name="Promote", exact=True).wait_for()
    assert [line.reason for line in served.gateway.registry.audit()][-2:] == ["We are sure.", "It rambles."]
    await console.get_by_role("link", name="Show what differs").click()
    sky = console.get_by_role("article").filter(has=console.get_by_role("heading", name="Why is the sky blue?"))
    await sky.get_by_text("Air scatters blue light more than red.").wait_for()
    assert [text.partition("\n")[0] for text in await sky.locator(".c-said").all_inner_texts()] == [
        "Sunlight is a mixture of all colours.", "Air scatters blue light more than red.",
    ]  # fmt: skip
    await console.get_by_role("cell", name="0.05").wait_for()
    assert console.url.endswith("/console/policies/1-2")


async def test_what_only_one_of_two_versions_has_is_folded(console: Any, served: Live) -> None:
    """The base was trained by no settings: they would hide all else."""
    await console.goto("/console/policies/0-2")
    fold = console.get_by_text("settings only policy-v2 has")
    setting = console.get_by_role("rowheader", name="ppo.kl_coef")
    await expect(fold).to_be_visible()
    await expect(setting).to_be_hidden()
    await console.get_by_text("0.8, passed").wait_for()
    await fold.click()
    await expect(setting).to_be_visible()
    assert await complaints(console) == []


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_confirmation_is_for_everybody(console: Any, served: Live, width: int) -> None:
    voted(served, released(served))
    await console.set_viewport_size({"width": width, "height": 844})
    await console.goto("/console/releases")
    await console.get_by_role("button", name="Start a release").click()
    await console.get_by_role("dialog").get_by_label("Steps").wait_for()
    seen = {"start": await complaints(console)}
    await shoot(console, "start-release")
    await console.goto("/console/releases/1")
    await console.get_by_role("button", name="Roll back", exact=True).click()
    await console.get_by_role("dialog").get_by_text("counts as worse from now on").wait_for()
    seen["read"] = await complaints(console)
    await served.http.post("/v1/releases/1/pause", json={})
    await console.keyboard.press("Escape")
    await console.get_by_role("button", name="Resume", exact=True).click()
    await served.http.post("/v1/releases/1/resume", json={})
    await console.get_by_role("dialog").get_by_role("alert").wait_for()
    seen["changed"] = await complaints(console)
    assert seen == {"start": [], "read": [], "changed": []}


async def test_the_leaderboard_is_filtered(console: Any, served: Live) -> None:
    voted(served, released(served))
    await console.goto("/console/leaderboard")
    await console.get_by_text("40 votes by 7 raters").wait_for()
    await console.get_by_label("Measured from").select_option("policy-v1")
    await console.locator(".c-drawn svg").wait_for()
    await console.get_by_label("Votes of").select_option("evaluation")
    await console.get_by_text("No votes on different versions yet").wait_for()


VIEWS = {
    "releases": ("/console/releases", "Release 1 is open"),
    "release": ("/console/releases/1", "Win rate of the candidate, with its confidence band"),
    "policies": ("/console/policies", "all 2 passed"),
    "policy": ("/console/policies/2", "Comes from"),
    "diff": ("/console/policies/1-2", "Configuration"),
    "diff-base": ("/console/policies/0-2", "settings only policy-v2 has"),
    "leaderboard": ("/console/leaderboard", "40 votes by 7 raters"),
}


@pytest.mark.parametrize("width", [1280, 390])
async def test_the_views_are_for_everybody(console: Any, served: Live, width: int) -> None:
    voted(served, released(served))
    await console.set_viewport_size({"width": width, "height": 844})
    seen = {}
    for view, (path, text) in VIEWS.items():
        await console.goto(path)
        await console.locator(".c-view").get_by_text(text).first.wait_for(state="attached")
        for plot in await console.locator(".c-drawn").all():
            await plot.locator("svg").wait_for()
        seen[view] = await complaints(console)
        await shoot(console, view)
        assert await too_wide(console) == [], view
    assert {view: said for view, said in seen.items() if said} == {}
