"""Two policies side by side while one is released: blind before the vote, each with its name after it."""

from typing import Any

import pytest

from feedback.judgements import Comparison
from serving.chat import comparisons
from tests.serving.conftest import second_engine, second_process  # noqa: F401  fixtures
from tests.serving.live import Live
from tests.serving.release.test_arms import Begin, Canary, begin  # noqa: F401  a fixture
from tests.web.test_interruptions import is_blind, try_several
from tests.web.test_rating import saved, standing

SAYS = {"policy-v0": "Green, as ever.", "policy-v1": "Black, as it is now."}


class Drawn:
    """In place of chance: who gets the first slot."""

    def __init__(self, swapped: bool) -> None:
        self.swapped = swapped

    def random(self) -> float:
        return 0.5  # no self-test

    def shuffle(self, order: list[Any]) -> None:
        if all(isinstance(each, int) for each in order):
            order.sort(reverse=self.swapped)


@pytest.fixture
async def canary(begin: Begin) -> Canary:  # noqa: F811
    return await begin()


@pytest.fixture
def served(canary: Canary) -> Live:
    canary.live.engine.set(says={"tea?": SAYS["policy-v0"]})
    canary.second.set(says={"tea?": SAYS["policy-v1"]})
    live: Live = canary.live
    return live


@pytest.mark.parametrize("swapped", [False, True])
async def test_a_pair_by_two_policies_is_blind_and_then_tells_who_wrote_which(
    page: Any, served: Live, monkeypatch: pytest.MonkeyPatch, swapped: bool
) -> None:
    monkeypatch.setattr(comparisons, "_draw", Drawn(swapped))
    await try_several(page, "2 side by side", "tea?")
    await page.get_by_text("The answers are complete.").wait_for()
    columns = page.locator(".r-column")
    texts = [text.strip() for text in await columns.locator(".markdown").all_inner_texts()]
    writers = ["policy-v0", "policy-v1"][:: -1 if swapped else 1]
    assert texts == [SAYS[writer] for writer in writers]
    assert await is_blind(page)
    await page.keyboard.press("b")
    await saved(page)
    assert await columns.locator(".r-policy").all_inner_texts() == writers
    [said] = standing(served)
    assert isinstance(said.judgement, Comparison) and said.judgement.winner == "right"
    kept = served.ledger.completions(said.judgement.targets)
    assert [each.text for each in kept.values()] == texts
    assert [f"policy-v{each.policy_version}" for each in kept.values()] == writers
