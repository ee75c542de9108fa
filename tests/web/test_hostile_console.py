"""Nor does anything run in an operator's session of what models, people and other operators wrote."""

from typing import Any

import pytest

from tests.serving.live import Live, Shelf
from tests.web.learning import taken
from tests.web.releasing import released, stock
from tests.web.test_hostile import EVIL, MARKUP, Witness, witnessed

SAID = " ".join(MARKUP)
# Each is a handler or a script, which the witness notices as soon as it is an element.
WHY = {"release": MARKUP[1], "round": MARKUP[2], "freeze": MARKUP[4], "actor": MARKUP[0], "check": MARKUP[10]}


pytestmark = pytest.mark.usefixtures("undriven")


@pytest.fixture
def stocked(shelf: Shelf) -> None:
    stock(shelf, {1: EVIL, 2: f"{SAID} and more", 3: SAID})


def hostile_round(served: Live) -> int:
    """One that ended for a reason, by somebody and at a check of such names."""
    book = served.gateway.rounds
    id, _ = book.request(trigger="operator", actor=WHY["actor"])
    check = {"name": WHY["check"], "value": 1.0, "sign": ">", "threshold": 2.0, "passed": False}
    token = taken(book, id)
    book.write(id, token, stage="gate", metrics={"gate": {"checks": [check]}})
    book.finish(id, token, "refused", reason=WHY["round"])
    return id


async def shown(witness: Witness, path: str, *texts: str) -> None:
    await witness.page.goto(f"/console/{path}")
    for text in texts:
        await witness.page.locator(".c-view").get_by_text(text).first.wait_for()
    await witness.saw_nothing()


async def test_nothing_that_was_written_runs_before_an_operator(browser: Any, served: Live) -> None:
    round = hostile_round(served)
    released(served, why=WHY["release"])
    for what in ("rounds", "releases"):
        frozen = await served.http.post(f"/v1/{what}/freeze", json={"frozen": True, "reason": WHY["freeze"]})
        assert frozen.status_code == 200, frozen.text
    async with witnessed(browser, served, served.admin_key) as witness:
        await shown(witness, "policies/1-2", "the end", SAID)
        await shown(witness, "rounds", WHY["round"], WHY["actor"])
        await shown(witness, f"rounds/{round}", WHY["round"], WHY["actor"], WHY["check"])
        await shown(witness, "releases/1", WHY["release"])
        await shown(witness, "releases", "Release 1 is open")
        await shown(witness, "overview", "frozen")
        await shown(witness, "audit", WHY["release"], WHY["freeze"])
