"""GET /v1/feedback for operators: everybody's judgements, by what is known of them."""

from typing import Any

import pytest


async def rated(live: Any, *, key: str | None = None, value: int = 1) -> str:
    [target] = await live.completion_ids(key=key)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"type": "rating", "completion_id": target, "value": value}
    return str((await live.http.post("/v1/feedback", json=body, headers=headers)).json()["id"])


async def found(live: Any, **asked: Any) -> list[str]:
    answer = await live.http.get("/v1/feedback", params={"everybody": True, **asked})
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


async def test_everybodys_judgements_are_asked_for_by_what_is_known_of_them(live: Any) -> None:
    mine, his, last = await rated(live), await rated(live, key=live.user_key), await rated(live, value=-1)
    kept = {each.feedback.id: each.feedback for each in live.ledger.kept([mine, his, last])}
    joe = kept[his].rater
    assert await found(live, rater=joe) == [his]
    assert await found(live, order="desc") == [last, his, mine]
    assert await found(live, order="desc", limit=1, after=last) == [his]
    assert await found(live, policy_version=0) == [mine, his, last]
    assert await found(live, policy_version=1) == await found(live, lane="gold") == []
    assert await found(live, since=kept[his].created) == [his, last]
    assert await found(live, until=kept[his].created) == [mine]
    await live.http.post(f"/v1/raters/{joe}/quarantine")
    assert await found(live, quarantined=True) == [his]
    assert await found(live, quarantined=False) == [mine, last]
    split = kept[his].split
    assert his in await found(live, split=split)
    assert his not in await found(live, split="eval" if split == "train" else "train")


async def test_operators_are_told_who_is_aside_and_whose_answers_were_judged(live: Any) -> None:
    mine, his = await rated(live), await rated(live, key=live.user_key)
    joe = live.ledger.kept([his])[0].feedback.rater
    await live.http.post(f"/v1/raters/{joe}/quarantine")
    rows = (await live.http.get("/v1/feedback?everybody=true")).json()["data"]
    assert [(row["id"], row["quarantined"], row["policy_versions"]) for row in rows] == [
        (mine, False, [0]), (his, True, [0]),
    ]  # fmt: skip
    whole = (await live.http.get(f"/v1/feedback/{his}")).json()
    [target] = live.ledger.kept([his])[0].feedback.judgement.targets
    assert (whole["quarantined"], whole["written"]) == (True, {target: 0})
    own = {"authorization": f"Bearer {live.user_key}"}
    for path in ("/v1/feedback", f"/v1/feedback/{his}"):
        told = (await live.http.get(path, headers=own)).text
        assert not [name for name in ("quarantined", "policy_versions", "written") if name in told]


async def test_nobody_is_told_who_wrote_what_is_still_compared_blind(live: Any) -> None:
    offer = (await live.http.post("/v1/comparisons", json=live.body(model="auto"))).json()["id"]
    thumb = {"type": "rating", "completion_id": f"{offer}:0", "value": 1}
    await live.http.post("/v1/feedback", json=thumb)
    [row] = (await live.http.get("/v1/feedback?everybody=true")).json()["data"]
    assert row["policy_versions"] is None
    assert (await live.http.get(f"/v1/feedback/{row['id']}")).json()["written"] is None
    assert await found(live, policy_version=0) == [], "to find it by its version would tell that"
    await live.http.post("/v1/feedback", json={"type": "comparison", "comparison_id": offer, "winner": "left"})
    rows = (await live.http.get("/v1/feedback?everybody=true")).json()["data"]
    assert [each["policy_versions"] for each in rows] == [[0], [0]]
    assert await found(live, policy_version=0) == [each["id"] for each in rows]
    for each in rows:
        written = (await live.http.get(f"/v1/feedback/{each['id']}")).json()["written"]
        assert written == {f"{offer}:{slot}": 0 for slot in range(2 if each["type"] == "comparison" else 1)}


@pytest.mark.parametrize(
    "asked",
    [{"rater": "x"}, {"policy_version": 0}, {"split": "eval"}, {"lane": "gold"}, {"quarantined": True}],
)
async def test_ones_own_are_not_asked_for_by_what_others_know(live: Any, asked: dict[str, Any]) -> None:
    refused = await live.http.get("/v1/feedback", params=asked)
    [name] = asked
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    own = {"authorization": f"Bearer {live.user_key}"}
    refused = await live.http.get("/v1/feedback", params={**asked, "everybody": True}, headers=own)
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "nan"),
        ("until", "-1"),
        ("order", "down"),
        ("lane", "x"),
        ("policy_version", "x"),
        ("quarantined", "x"),
    ],
)
async def test_nonsense_names_its_field(live: Any, name: str, value: str) -> None:
    refused = await live.http.get("/v1/feedback", params={"everybody": True, name: value})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


async def test_ones_own_may_be_asked_for_by_time_and_newest_first(live: Any) -> None:
    first, second = await rated(live), await rated(live)
    moment = live.ledger.kept([second])[0].feedback.created
    newest = (await live.http.get("/v1/feedback?order=desc")).json()
    assert [row["id"] for row in newest["data"]] == [second, first]
    assert [row["id"] for row in (await live.http.get(f"/v1/feedback?until={moment}")).json()["data"]] == [first]
