"""What becomes of a judgement: listed, read with its history, revised, taken back, said again."""

import asyncio
from typing import Any

import pytest


async def post(live: Any, key: str | None = None, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await live.http.post("/v1/feedback", json=body, headers=headers)


async def rated(live: Any, id: str, value: float = 1, **more: Any) -> str:
    answer = await post(live, type="rating", completion_id=id, value=value, **more)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


async def listed(live: Any, **params: Any) -> Any:
    answer = await live.http.get("/v1/feedback", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def standing(live: Any) -> list[str]:
    return [feedback.id for feedback in live.ledger.standing(live.ledger.watermark())]


async def test_every_detail_of_a_judgement_comes_back(live: Any) -> None:
    a, b, c = await live.completion_ids(n=3)
    around = {
        "shown_at": 1767225600.5, "answered_at": 1767225609, "presented_order": [c, a, b],
        "tags": {"screen": "phone"},
    }  # fmt: skip
    bodies: list[dict[str, Any]] = [
        {"type": "rating", "completion_id": a, "value": 0.25, "reasons": ["inaccurate", "long"], "comment": "hm"},
        {"type": "rating", "completion_id": a, "value": -1, "metric": "tone"},
        {"type": "comment", "completion_id": a, "content": "who says so?"},
        {"type": "flag", "completion_id": a, "reasons": ["private"], "comment": "a phone number"},
        {"type": "demonstration", "completion_id": a, "content": "better", "based_on_edit": True},
        {"type": "ranking", "candidates": [a, b, c], "ranking": [[c]], "partial": True},
        {"type": "ranking", "candidates": [a, b], "ranking": [[a, b]], "none_acceptable": True},
    ]
    for body in bodies:
        id = (await post(live, **body, **around)).json()["id"]
        kept = (await live.http.get(f"/v1/feedback/{id}")).json()
        assert kept["judgement"].items() >= body.items()
        assert kept["circumstances"] == around
        assert (kept["status"], kept["revision"], kept["history"]) == ("accepted", 1, [])
    assert len(standing(live)) == len(bodies)


@pytest.mark.parametrize(
    ("around", "param"),
    [
        ({"shown_at": "yesterday"}, "shown_at"),
        ({"presented_order": "AB"}, "presented_order"),
        ({"presented_order": ["x"] * 17}, "presented_order"),
        ({"tags": {"a": 1}}, "tags.a"),
        ({"tags": {str(number): "" for number in range(17)}}, "tags"),
        ({"dry_run": 1}, "dry_run"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"reasons": ["x"] * 17}, "reasons"),
        ({"comment": ""}, "comment"),
    ],
)
async def test_details_that_make_no_sense_name_their_field(live: Any, around: dict[str, Any], param: str) -> None:
    [id] = await live.completion_ids()
    refused = await post(live, type="rating", completion_id=id, value=1, **around)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text
    assert live.ledger.watermark() == "0"


async def test_a_dry_run_is_checked_as_any_and_changes_nothing(live: Any) -> None:
    [id] = await live.completion_ids()
    body = {"type": "rating", "completion_id": id, "value": 1, "dry_run": True, "client_id": "once"}
    tried = await post(live, **body)
    assert (tried.status_code, tried.json()) == (200, {"object": "feedback", "type": "rating", "status": "valid"})
    assert (await post(live, **{**body, "value": 7})).status_code == 400
    assert (await post(live, **{**body, "completion_id": "no:0"})).status_code == 404
    assert live.ledger.watermark() == "0"
    assert (await post(live, **{**body, "dry_run": False, "value": -1})).status_code == 201, "its client_id was used"


async def test_pages_join_to_the_whole_list(live: Any) -> None:
    ids = await live.completion_ids(n=7)
    given = [await rated(live, id) for id in ids]
    await post(live, type="comment", completion_id=ids[0], content="hm")
    found: list[str] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        page = await listed(live, limit=3, type="rating", **({"after": page["last_id"]} if page["last_id"] else {}))
        assert (page["object"], page["first_id"]) == ("list", page["data"][0]["id"])
        found += [card["id"] for card in page["data"]]
    assert found == given
    [comment] = (await listed(live, type="comment"))["data"]
    assert comment["judgement"]["content"] == "hm"
    assert {card["type"] for card in (await listed(live, completion_id=ids[0]))["data"]} == {"rating", "comment"}
    nothing = await listed(live, completion_id="no:0")
    assert (nothing["data"], nothing["has_more"], nothing["last_id"]) == ([], False, None)
    for limit in (0, 101, "x"):
        assert (await live.http.get("/v1/feedback", params={"limit": limit})).status_code == 400


async def test_a_list_is_ones_own_unless_an_operator_asks_for_everybodys(live: Any) -> None:
    [mine], [joes] = await live.completion_ids(), await live.completion_ids(key=live.user_key)
    my, his = await rated(live, mine), await rated(live, joes, key=live.user_key)
    headers = {"authorization": f"Bearer {live.user_key}"}
    assert [card["id"] for card in (await listed(live))["data"]] == [my]
    assert [card["id"] for card in (await listed(live, everybody=True))["data"]] == [my, his]
    own = (await live.http.get("/v1/feedback", headers=headers)).json()
    assert [card["id"] for card in own["data"]] == [his]
    refused = await live.http.get("/v1/feedback?everybody=true", headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_role")


async def test_history_tells_every_revision_newest_first(live: Any) -> None:
    [id] = await live.completion_ids()
    first, second, third = [await rated(live, id, value) for value in (1, 0.5, -1)]
    kept = (await live.http.get(f"/v1/feedback/{third}")).json()
    assert (kept["revision"], kept["replaces"]) == (3, second)
    assert [(card["id"], card["judgement"]["value"], card["status"]) for card in kept["history"]] == [
        (second, 0.5, "replaced"), (first, 1.0, "replaced"),
    ]  # fmt: skip
    assert [card["id"] for card in (await listed(live))["data"]] == [third]


async def test_what_is_taken_back_counts_no_more_and_can_be_said_again(live: Any) -> None:
    [id] = await live.completion_ids()
    first = await rated(live, id)
    for _ in range(2):
        undone = await live.http.delete(f"/v1/feedback/{first}")
        assert (undone.status_code, undone.json()) == (
            200, {"object": "feedback.deleted", "id": first, "deleted": True},
        )  # fmt: skip
    assert standing(live) == []
    assert (await listed(live))["data"] == []
    assert (await live.http.get(f"/v1/feedback/{first}")).json()["status"] == "retracted"
    again = await post(live, type="rating", completion_id=id, value=1)
    assert (again.status_code, again.json()["revision"]) == (201, 1)
    assert again.json()["id"] != first
    assert standing(live) == [again.json()["id"]]


async def test_what_was_taken_back_is_not_revived_by_a_repetition_that_comes_late(live: Any) -> None:
    a, b = await live.completion_ids(n=2, metadata={"conversation_id": "c-1"})
    vote = {"type": "comparison", "left": a, "right": b, "winner": "right", "client_id": "once"}
    first = (await post(live, **vote)).json()
    rater = live.ledger.kept([first["id"]])[0].feedback.rater
    await live.http.delete(f"/v1/feedback/{first['id']}")
    live.gateway.archive.change_conversation(rater, "c-1", head=a)
    late = await post(live, **vote)
    assert (late.status_code, late.json()["id"], late.json()["status"]) == (200, first["id"], "retracted")
    assert standing(live) == []
    assert live.gateway.archive.conversation(rater, "c-1").head == a
    again = await post(live, **{**vote, "client_id": "twice"})
    assert (again.status_code, again.json()["status"]) == (201, "accepted")
    assert standing(live) == [again.json()["id"]]


async def test_only_the_last_word_can_be_taken_back(live: Any) -> None:
    [id] = await live.completion_ids()
    first, second = await rated(live, id), await rated(live, id, -1)
    refused = await live.http.delete(f"/v1/feedback/{first}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert standing(live) == [second]


async def test_nobody_else_can_read_or_take_back(live: Any) -> None:
    [mine], [joes] = await live.completion_ids(), await live.completion_ids(key=live.user_key)
    my, his = await rated(live, mine), await rated(live, joes, key=live.user_key)
    headers = {"authorization": f"Bearer {live.user_key}"}
    for method in ("GET", "DELETE"):
        for name in (my, "fb_none"):
            refused = await live.http.request(method, f"/v1/feedback/{name}", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "feedback_not_found")
    # An operator sees what others said, but cannot unsay it.
    assert (await live.http.get(f"/v1/feedback/{his}")).status_code == 200
    refused = await live.http.delete(f"/v1/feedback/{his}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_yours")
    assert standing(live) == [my, his]


async def test_a_thousand_replays_are_one_judgement(live: Any) -> None:
    [id] = await live.completion_ids()
    bounded = asyncio.Semaphore(50)

    async def replay() -> Any:
        async with bounded:
            return await post(live, type="rating", completion_id=id, value=1)

    answers = await asyncio.gather(*(replay() for _ in range(1000)))
    assert sorted(answer.status_code for answer in answers) == [200] * 999 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list(live.ledger.feedback_between("0"))) == 1


async def test_votes_that_race_leave_one_standing_and_all_in_its_history(live: Any) -> None:
    [id] = await live.completion_ids()
    values = [place / 49 for place in range(50)]
    given = await asyncio.gather(*(rated(live, id, value) for value in values))
    [last] = standing(live)
    kept = (await live.http.get(f"/v1/feedback/{last}")).json()
    assert kept["revision"] == 50
    assert {card["id"] for card in kept["history"]} | {last} == set(given)


FORGED = (
    "", "x" * 129, "chatcmpl-x", "chatcmpl-x:0", "*", "completion:{id}", "{id}:0", "{id} ", "{response}:9",
    "{response}:-1", "{response}:00", "{response}:", "fb_1", "\x00", "../{id}",
)  # fmt: skip


async def test_made_up_names_are_judged_by_nobody(live: Any) -> None:
    [id] = await live.completion_ids()
    response = id.partition(":")[0]
    for pattern in FORGED:
        name = pattern.replace("{id}", id).replace("{response}", response)
        for body in (
            {"type": "rating", "completion_id": name, "value": 1},
            {"type": "comparison", "left": id, "right": name, "winner": "left"},
            {"type": "ranking", "candidates": [id, name], "ranking": [[id], [name]]},
            {"type": "comparison", "comparison_id": name, "winner": "left"},
        ):
            refused = await post(live, **body)
            assert refused.status_code in (400, 404), (body, refused.text)
    assert live.ledger.watermark() == "0"


@pytest.mark.parametrize("field", ["policy_version", "rater", "weight", "time", "created", "split", "id", "consent"])
async def test_what_the_server_knows_cannot_be_sent(live: Any, field: str) -> None:
    [id] = await live.completion_ids()
    for value in (1, "x", None):
        refused = await post(live, type="rating", completion_id=id, value=1, **{field: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    assert live.ledger.watermark() == "0"
