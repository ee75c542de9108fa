"""How people come in by the page, and get out again."""

from typing import Any

from feedback.people.invites import Invites
from feedback.people.keys import KeyRing
from feedback.people.sessions import Sessions
from tests.serving.live import Live
from tests.web.conftest import PATIENCE_MS


def invite(live: Live, name: str) -> str:
    token, _ = Invites(Sessions(KeyRing(live.ledger.redis, "pepper"))).create(name=name)
    return token


async def test_an_invitation_signs_in_once_and_leaves_the_address(browser: Any, served: Live) -> None:
    token = invite(served, "ann")
    for first in (True, False):
        context = await browser.new_context(base_url=served.url)
        page = await context.new_page()
        await page.goto(f"/join#{token}")
        if first:
            await page.get_by_role("button", name="ann").wait_for()
        else:
            await page.get_by_text("This invitation was used already").wait_for()
        assert token not in page.url
        await context.close()


async def test_a_single_user_is_let_in_without_a_key(browser: Any, start: Any) -> None:
    live = await start(single_user=True)
    context = await browser.new_context(base_url=live.url)
    page = await context.new_page()
    await page.goto("/")
    await page.get_by_label("Message").wait_for()
    await page.get_by_text("on this machine").wait_for()
    await context.close()


async def test_on_a_machine_of_one_user_whoever_joined_as_another_gets_back(browser: Any, start: Any) -> None:
    live = await start(single_user=True)
    context = await browser.new_context(base_url=live.url)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.goto("/")
    await page.get_by_role("button", name="root").click()
    await page.get_by_role("button", name="My data").wait_for()
    assert await page.get_by_role("button", name="Sign out").count() == 0
    await page.goto(f"/join#{invite(live, 'ann')}")
    await page.get_by_role("button", name="Join").click()
    for _ in range(2):  # a refresh does not change who one is
        await page.get_by_role("button", name="ann").get_by_text("user").wait_for()
        await page.reload()
    await page.get_by_role("button", name="ann").click()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("button", name="root").get_by_text("on this machine").wait_for()
    await context.close()
