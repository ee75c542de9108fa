"""/v1/raters on a real Valkey: who is listed, who is put aside by whom, and what is refused."""

from typing import Any

import httpx
import pytest

from feedback.erasure import Eraser
from feedback.judgements import Feedback
from feedback.people.raters import Raters, RaterWeight
from feedback.store import Ledger


@pytest.fixture
async def joe(live: Any) -> str:
    """Chose left twice and right once of what he was shown blind, and rated something."""
    headers = {"authorization": f"Bearer {live.user_key}"}
    for winner in ("left", "left", "right"):
        offer = await live.http.post("/v1/comparisons", json=live.body(model="auto"), headers=headers)
        vote = {"type": "comparison", "comparison_id": offer.json()["id"], "winner": winner}
        assert (await live.http.post("/v1/feedback", json=vote, headers=headers)).status_code == 201
    [target] = await live.completion_ids(key=live.user_key)
    thumb = {"type": "rating", "completion_id": target, "value": 1}
    assert (await live.http.post("/v1/feedback", json=thumb, headers=headers)).status_code == 201
    return str((await live.http.get("/v1/me", headers=headers)).json()["rater"])


async def order(live: Any, name: str, rater: str, **body: Any) -> httpx.Response:
    answer: httpx.Response = await live.http.post(f"/v1/raters/{rater}/{name}", json=body)
    return answer


async def test_the_list_is_what_is_known_of_everybody(live: Any, joe: str) -> None:
    [rated] = await live.completion_ids()
    await live.http.post("/v1/feedback", json={"type": "rating", "completion_id": rated, "value": -1})
    kept = RaterWeight(
        rater=joe, source="live", judgements=3, compared=2, agreement=0.25, reliability=0.5, share=1.0, capped=True
    )
    Raters(live.ledger.redis).keep_weights([kept])
    listed = (await live.http.get("/v1/raters")).json()
    assert listed["object"] == "list"
    first, second = listed["data"]
    assert (first["rater"], first["judgements"], first["split"], first["source"]) == (joe, 4, first["split"], "live")
    assert (first["agreement"], first["reliability"], first["share"], first["capped"]) == (0.25, 0.5, 1.0, True)
    assert first["side"] == pytest.approx(2 / 3)
    assert (first["checks"]["left"], first["checks"]["right"], first["suspected"]) == (2, 1, [])
    assert (second["source"], second["judgements"], second["side"], second["share"]) == ("operator", 1, None, None)
    assert (second["quarantined"], second["capped"]) == (None, False)


async def test_a_rater_is_put_aside_and_released_once_each(live: Any, joe: str) -> None:
    aside = await order(live, "quarantine", joe, reason="votes for a trigger")
    assert aside.status_code == 200
    line = aside.json()["quarantined"]
    assert (line["actor"], line["reason"], line["action"]) == ("root", "votes for a trigger", "quarantine")
    assert aside.json()["side"] == pytest.approx(2 / 3), "the row is the list's"
    again = await order(live, "quarantine", joe)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert again.headers["x-should-retry"] == "false"
    released = await order(live, "release", joe)
    assert (released.status_code, released.json()["quarantined"]) == (200, None)
    assert (await order(live, "release", joe)).status_code == 409
    audit = Raters(live.ledger.redis).audit()
    assert [(each.action, each.actor, each.reason) for each in audit] == [
        ("quarantine", "root", "votes for a trigger"), ("release", "root", "asked for over the API"),
    ]  # fmt: skip


async def test_who_only_asked_may_be_put_aside_as_well(live: Any) -> None:
    await live.completion_ids(key=live.user_key)
    headers = {"authorization": f"Bearer {live.user_key}"}
    rater = (await live.http.get("/v1/me", headers=headers)).json()["rater"]
    assert (await order(live, "quarantine", rater)).json()["judgements"] == 0
    row = (await order(live, "release", rater)).json()
    assert (row["rater"], row["judgements"], row["checks"]["left"], row["side"]) == (rater, 0, 0, None)
    assert (await live.http.get("/v1/raters")).json()["data"] == []


async def test_the_ledger_is_read_again_only_when_it_has_changed(
    live: Any, joe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[str] = []
    standing = Ledger.standing

    def counted(ledger: Ledger, until: str) -> list[Feedback]:
        readings.append(until)
        return standing(ledger, until)

    async def row() -> tuple[int, bool, float | None, int]:
        [found] = (await live.http.get("/v1/raters")).json()["data"]
        return found["judgements"], found["quarantined"] is not None, found["share"], len(readings)

    monkeypatch.setattr(Ledger, "standing", counted)
    kept = RaterWeight(
        rater=joe, source="live", judgements=4, compared=0, agreement=None, reliability=0.5, share=0.25, capped=False
    )
    assert [await row(), await row()] == [(4, False, None, 1)] * 2
    await order(live, "quarantine", joe)
    Raters(live.ledger.redis).keep_weights([kept])
    assert await row() == (4, True, 0.25, 1)
    oldest, *_, newest = [said for _, said in live.ledger.feedback_between("0")]
    assert live.ledger.retract(newest.id)
    assert [await row(), await row()] == [(3, True, 0.25, 2)] * 2
    compared = live.gateway.archive.response(oldest.judgement.targets[0].partition(":")[0])
    assert Eraser(live.gateway.archive).response(compared).feedback == (oldest.id,)
    assert [await row(), await row()] == [(2, True, 0.25, 3)] * 2


@pytest.mark.parametrize("name", ["quarantine", "release"])
async def test_nobody_is_not_found_and_nonsense_is_refused(live: Any, joe: str, name: str) -> None:
    nobody = await order(live, name, f"{joe}x")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "rater_not_found")
    for body, param in (({"reason": 1}, "reason"), ({"reason": "x" * 1025}, "reason"), ({"why": "x"}, "why")):
        refused = await order(live, name, joe, **body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert Raters(live.ledger.redis).audit() == []


async def test_raters_are_for_operators(live: Any, joe: str) -> None:
    headers = {"authorization": f"Bearer {live.user_key}"}
    for method, path in (("GET", ""), ("POST", f"/{joe}/quarantine"), ("POST", f"/{joe}/release")):
        answer = await live.http.request(method, f"/v1/raters{path}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role")
