"""Pairs that check raters, over the API: blind, remembered, erased with their person; and nobody learns from them."""

import json
import random
import time
from typing import Any

import pytest

from feedback.archive import Archive
from feedback.exchange.exporting import Wanted, export
from feedback.judgements import Comparison
from feedback.leaderboard.ballots import votes_in
from feedback.people.checks import Checked, checked
from feedback.records import Message
from feedback.settings import Settings
from serving.chat import checks
from tests.serving.chat.test_comparisons import PATH, compare, compared, vote

ASKED = "Is it far to Rome?"


class Loaded:
    """Draws gold, the decoy into the slot that it is told, and the first question."""

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def random(self) -> float:
        return 0.0

    def randrange(self, _: int) -> int:
        return self.slot

    def choice(self, items: Any) -> Any:
        return items[0]

    def shuffle(self, items: list[Any]) -> None:
        pass


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"gold_share": 0.02})


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gold is drawn."""
    draw = random.SystemRandom()
    monkeypatch.setattr(draw, "random", lambda: 1.0)
    monkeypatch.setattr(checks, "_draw", draw)


@pytest.fixture(params=[0, 1])
def decoy(request: pytest.FixtureRequest, ordinary: None, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(checks, "_draw", Loaded(request.param))
    return int(request.param)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen this moment may come again."""
    monkeypatch.setattr(checks, "REPEAT_AFTER_S", -1.0)


def id_in(answer: str) -> str:
    """A comparison's, streamed or whole."""
    return "cmp_" + answer.partition("cmp_")[2].partition('"')[0]


async def messages_of(live: Any, conversation: str) -> Any:
    return (await live.http.get(f"/v1/conversations/{conversation}/messages")).json()


async def test_one_of_a_gold_pair_answers_another_question(live: Any, decoy: int) -> None:
    answer = (await compare(live, messages=[{"role": "user", "content": ASKED}], temperature=0.5)).json()
    first, second = live.engine.state()["bodies"][-2:]
    asked = sorted(body["messages"][0]["content"] for body in (first, second))
    assert asked == sorted([ASKED, checks.QUESTIONS[0]])
    different = {"messages"}
    assert {name for name in {*first, *second} if first.get(name) != second.get(name)} == different
    assert (first["n"], first["temperature"]) == (1, 0.5)
    offer = live.gateway.archive.offer(answer["id"])
    assert (offer.lane, offer.release, offer.propensity) == ("gold", None, 0.5)
    assert [slot.arm for slot in offer.slots][decoy] == "gold"
    assert [slot.arm for slot in offer.slots][1 - decoy] == "policy@stable"
    kept = live.ledger.completions(tuple(answer["ratchet"]["completion_ids"]))
    bad, good = (kept[answer["ratchet"]["completion_ids"][slot]] for slot in (decoy, 1 - decoy))
    assert (bad.decoy, good.decoy) == (True, False)
    assert bad.messages == good.messages == (Message(role="user", content=ASKED),)
    assert bytes(bad.prompt_token_ids).decode() == checks.QUESTIONS[0]
    assert bytes(good.prompt_token_ids).decode() == ASKED


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_gold_pair_looks_like_any_other(live: Any, decoy: int, streamed: bool) -> None:
    """Before the vote and after it, streamed or not, but for an operator who looks at the judgement."""
    headers = {"authorization": f"Bearer {live.user_key}"}
    more = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    body = live.body(ASKED, model="auto", max_tokens=3, **more)
    answer = await live.http.post(PATH, json=body, headers=headers)
    id = id_in(answer.text)
    assert f'"prompt_tokens":{len(ASKED)},' in answer.text.replace(" ", "")
    told = await live.http.get(f"{PATH}/{id}", headers=headers)
    said = {"type": "comparison", "comparison_id": id, "winner": "left"}
    voted = await live.http.post("/v1/feedback", json=said, headers=headers)
    assert voted.json()["reveal"] == {"left": "policy-v0", "right": "policy-v0"}
    fb = voted.json()["id"]
    paths = (
        f"{PATH}/{id}", f"/v1/feedback/{fb}", "/v1/feedback", f"/v1/chat/completions/{id}", "/v1/me/export",
        f"/v1/conversations/{told.json()['conversation_id']}/tree",
    )  # fmt: skip
    elsewhere = [await live.http.get(path, headers=headers) for path in paths]
    for response in (answer, told, voted, *elsewhere):
        assert response.status_code in (200, 201), response.text
        for trace in ("gold", "decoy", '"lane"', checks.QUESTIONS[0]):
            assert trace not in response.text
    assert f'"prompt_tokens":{len(ASKED)},' in elsewhere[3].text
    assert (await live.http.get(f"/v1/feedback/{fb}")).json()["lane"] == "gold"


@pytest.mark.parametrize("streamed", [True, False])
async def test_no_field_makes_the_engine_tell_what_it_was_asked(live: Any, decoy: int, streamed: bool) -> None:
    answer = await compare(live, stream=streamed, return_prompt_text=True, prompt_logprobs=0, echo=True)
    assert answer.status_code == 200
    assert live.gateway.archive.offer(id_in(answer.text)).lane == "gold"
    assert checks.QUESTIONS[0] not in answer.text


@pytest.mark.parametrize("winner", ["left", "right", "tie", "both_bad"])
async def test_the_conversation_goes_on_from_the_answer_that_is_one(live: Any, decoy: int, winner: str) -> None:
    answer = (await compare(live)).json()
    ids, conversation = answer["ratchet"]["completion_ids"], answer["ratchet"]["conversation_id"]
    assert (await messages_of(live, conversation))["head"] == ids[1 - decoy]
    told = (await vote(live, answer["id"], winner=winner)).json()
    assert told["continue_from"] == ids[1 - decoy]
    assert (await messages_of(live, conversation))["head"] == ids[1 - decoy]


async def test_who_prefers_the_decoy_fails_and_neither_answer_learns_or_ranks(live: Any, decoy: int) -> None:
    sides = ("left", "right")
    for slot in (decoy, decoy, 1 - decoy):
        assert (await vote(live, await compared(live), winner=sides[slot])).status_code == 201
    standing = live.ledger.standing(live.ledger.watermark())
    [counts] = checked(standing, Archive(live.ledger)).values()
    left = (2, 1) if decoy == 0 else (1, 2)
    assert counts == Checked(failed=2, passed=1, left=left[0], right=left[1])
    assert {item.lane for item in standing} == {"gold"}
    assert votes_in(live.ledger) == []
    assert list(export(live.ledger, Wanted("ratchet", private=True), b"salt")) == []


@pytest.mark.parametrize(
    "more",
    [
        {"model": "policy"},
        {"model": ["policy@stable", "policy"]},
        {"k": 3},
        {"return_token_ids": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
    ],
)
async def test_only_plain_pairs_of_the_servers_choice_are_gold(live: Any, decoy: int, more: dict[str, Any]) -> None:
    offer = live.gateway.archive.offer(await compared(live, **more))
    assert offer.lane != "gold"
    questions = [body["messages"][0]["content"] for body in live.engine.state()["bodies"]]
    assert set(questions) == {"hi"}


async def test_none_is_gold_where_the_share_is_nothing(start: Any, decoy: int) -> None:
    live = await start(gold_share=0.0)
    assert live.gateway.archive.offer(await compared(live)).lane == "aa"


def test_as_many_are_gold_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of these bounds once in 10**6 runs."""
    monkeypatch.setattr(checks, "_draw", random.SystemRandom())
    drawn = sum(checks.is_gold({"n": 2}, 0.1) for _ in range(10_000))
    assert 853 < drawn < 1147


def test_decoys_are_about_something_else() -> None:
    """Whatever was said, no longer word of the question was among it."""
    about = [Message(role="user", content=f"Tell me of {topic}") for topic in ("BREAD", "violins? a violin", "geese")]
    found = {checks.unrelated(about) for _ in range(200)}
    assert found == {each for each in checks.QUESTIONS if not any(w in each for w in ("bread", "violin", "geese"))}
    assert checks.unrelated([Message(role="user", content=" ".join(checks.QUESTIONS))]) is None


async def test_what_was_chosen_comes_again_in_the_other_order(live: Any, now: None) -> None:
    first = (await compare(live, messages=[{"role": "user", "content": ASKED}])).json()
    ids, conversation = first["ratchet"]["completion_ids"], first["ratchet"]["conversation_id"]
    one = (await vote(live, first["id"], winner="left")).json()
    asked = len(live.engine.state()["bodies"])
    again = (await live.http.post(PATH, json={"repeat": True})).json()
    assert again["completion_ids"] == ids[::-1] and again["id"] != first["id"]
    assert again["messages"] == [{"role": "user", "content": ASKED}]
    assert [each["completion_id"] for each in again["answers"]] == ids[::-1]
    assert (again["votes"], again["reveal"]) == ([], None)
    assert (await live.http.post(PATH, json={"repeat": True})).json() == again, "until it is judged"
    assert len(live.engine.state()["bodies"]) == asked
    two = (await vote(live, again["id"], winner="left")).json()
    assert (two["status"], two["revision"]) == ("accepted", 1)
    assert "continue_from" not in two
    assert (await messages_of(live, conversation))["head"] == ids[0], "the first vote's"
    for id, votes in ((first["id"], [one["id"]]), (again["id"], [two["id"]])):
        assert (await live.http.get(f"{PATH}/{id}")).json()["votes"] == votes
    standing = live.ledger.standing(live.ledger.watermark())
    assert [(item.judgement.winner, item.lane) for item in standing] == [("left", "aa"), ("left", "repeat")]
    assert list(checked(standing, Archive(live.ledger)).values()) == [Checked(other=1, left=1)]
    assert (await vote(live, again["id"], winner="right")).json()["revision"] == 2
    standing = live.ledger.standing(live.ledger.watermark())
    assert list(checked(standing, Archive(live.ledger)).values()) == [Checked(same=1, left=1)]
    done = await live.http.post(PATH, json={"repeat": True})
    assert (done.status_code, done.json()["error"]["code"]) == (404, "nothing_to_repeat")


async def test_nothing_comes_again_too_soon_or_to_somebody_else(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await vote(live, await compared(live), winner="right")
    refused = await live.http.post(PATH, json={"repeat": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "nothing_to_repeat")
    later = time.time() + checks.REPEAT_AFTER_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await live.http.post(PATH, json={"repeat": True, "user": "bea"})).status_code == 404
    assert (await live.http.post(PATH, json={"repeat": True})).status_code == 200


@pytest.mark.parametrize("more", [{"repeat": 1}, {"repeat": None}, {"repeat": True, "k": 2}, {"repeat": True, "n": 1}])
async def test_bad_repeats_name_their_field(live: Any, more: dict[str, Any]) -> None:
    refused = await live.http.post(PATH, json=more)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, [*more][-1]), refused.text


async def test_repeat_false_is_an_ordinary_comparison(live: Any) -> None:
    assert (await compare(live, repeat=False)).status_code == 200
    assert "repeat" not in live.engine.state()["bodies"][-1]


async def test_what_checks_a_person_is_exported_and_erased_with_them(
    live: Any, now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await compared(live)
    await vote(live, first, winner="left")
    again = (await live.http.post(PATH, json={"repeat": True})).json()["id"]
    monkeypatch.setattr(checks, "_draw", Loaded(0))
    gold = await compared(live)
    for id in (again, gold):
        await vote(live, id, winner="right")
    lines = [json.loads(line) for line in (await live.http.get("/v1/me/export")).text.splitlines()]
    laid = {line["id"]: line for line in lines if line["object"] == "comparison"}
    assert set(laid) == {first, again, gold}
    assert [len(line["answers"]) for line in laid.values()] == [2, 2, 2]
    judged = [line["judgement"]["comparison_id"] for line in lines if line["object"] == "feedback"]
    assert judged == [first, again, gold]
    assert (await live.http.request("DELETE", "/v1/me")).status_code == 200
    assert live.gateway.archive.offers([first, again, gold]) == {}
    assert (await live.http.get("/v1/me/export")).text == ""
    assert (await live.http.post(PATH, json={"repeat": True})).status_code == 404


async def test_a_revised_repeat_keeps_the_first_word(live: Any, now: None) -> None:
    """Set side by side without the comparison's name, they are judged as they first were."""
    first = await compared(live)
    one = (await vote(live, first, winner="left")).json()
    again = (await live.http.post(PATH, json={"repeat": True})).json()
    await vote(live, again["id"], winner="tie")
    left, right = again["completion_ids"]
    plain = {"type": "comparison", "left": left, "right": right, "winner": "left"}
    revised = (await live.http.post("/v1/feedback", json=plain)).json()
    assert revised["revision"] == 2
    kept = live.ledger.kept([revised["id"]])[0]
    assert kept.replaces == one["id"] and isinstance(kept.feedback.judgement, Comparison)
