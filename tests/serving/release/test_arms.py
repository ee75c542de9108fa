"""Two policies beside each other: who answers whom, what stays hidden, and what moves when the candidate is lost."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.releases.book import Release, ReleaseMoved
from feedback.releases.plan import Pause, Plan, SetWeight
from serving.chat import comparisons
from serving.engine.control_tokens import ControlTokens
from serving.engine.server import Engine
from serving.engine.swap_gate import Close, Lose, Open, Served, SwapGate, Taint
from serving.metrics import Pace
from serving.release.arms import STABLE, Arm, Arms, place_of
from serving.streams.arrivals import Arrivals, Source
from serving.streams.relay import Relay, UnprovenWeights
from tests.serving.streams.test_streams import Kept, said, text_of, ticket_of

WEIGHT = 0.5
SALT = b"nobody knows"
RELEASES = st.integers(1, 10**9)


@settings(deadline=None)  # a loaded machine is slow, not wrong
@given(RELEASES, st.floats(0.02, 0.9))
def test_the_candidates_share_of_conversations_is_its_weight(release: int, weight: float) -> None:
    """Within six standard deviations: by chance outside once in half a billion."""
    count = 2000
    share = sum(place_of(SALT, release, "ann", f"conv_{index}") < weight for index in range(count)) / count
    assert abs(share - weight) <= 6 * sqrt(weight * (1 - weight) / count)


@given(RELEASES, st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_weight_takes_no_conversation_from_the_candidate(
    release: int, id: str, one: float, two: float
) -> None:
    low, high = sorted((one, two))
    arms = arms_of(release_of(id=release, weight=low))
    before = arms.sides("policy", "ann", id)[0].arm.name
    arms.release = release_of(id=release, weight=high)
    assert (before, arms.sides("policy", "ann", id)[0].arm.name) != ("candidate", "stable")
    assert 0 <= place_of(SALT, release, "ann", id) < 1


def test_an_application_that_names_all_conversations_alike_is_on_both_sides() -> None:
    """Within six standard deviations, as if each person had a conversation of another name."""
    share = sum(place_of(SALT, 1, f"rater_{index}", "default") < WEIGHT for index in range(2000)) / 2000
    assert abs(share - WEIGHT) <= 6 * sqrt(WEIGHT * (1 - WEIGHT) / 2000)


def test_where_a_conversation_falls_is_fixed() -> None:
    """By hand: the first 53 bits of HMAC-SHA256 (RFC 2104) of "7:ann|conv_1", as a fraction."""
    inner = hashlib.sha256(bytes(each ^ 0x36 for each in SALT.ljust(64, b"\0")) + b"7:ann|conv_1").digest()
    outer = hashlib.sha256(bytes(each ^ 0x5C for each in SALT.ljust(64, b"\0")) + inner)
    bits = f"{int(outer.hexdigest(), 16):0256b}"[:53]
    expected = sum(2.0 ** -(index + 1) for index, bit in enumerate(bits) if bit == "1")
    assert place_of(SALT, 7, "ann", "conv_1") == expected


def served_of(version: int) -> Served:
    return Served(version, "policy", f"fp_{version}", ControlTokens(()), False, None, 0.0)


def release_of(**more: Any) -> Release:
    facts = {
        "id": 1,
        "candidate": 1,
        "stable": 0,
        "plan": Plan(),
        "mode": "manual",
        "whose": "all",
        "former": "candidate",
    }
    known = {"actor": "t", "reason": "t", "created": 0.0, "stepped": 0.0, "state": "canary", "weight": WEIGHT}
    return Release(**(facts | known | more))


def arms_of(release: Release | None) -> Arms:
    arms = Arms(Arm("stable", Engine("http://a", "")), Arm("candidate", Engine("http://b", "")), release, SALT)
    arms.stable.gate.obey(Open(served_of(0)))
    arms.candidate.gate.obey(Open(served_of(1)))
    return arms


def on(side: str, release: int = 1, salt: bytes = SALT, rater: str = "ann") -> str:
    """A conversation of a person that falls on a side of a release at WEIGHT."""
    ids = (f"{side}_{index}" for index in range(1000))
    return next(id for id in ids if (place_of(salt, release, rater, id) < WEIGHT) == (side == "candidate"))


def test_chance_is_told_as_it_was() -> None:
    arms = arms_of(release_of(weight=0.25))
    ids = [f"conv_{index}" for index in range(200)]
    for id in ids:
        first, *rest = arms.sides("policy", "ann", id)
        if first.arm.name == "candidate":
            assert (first.release, first.propensity) == (1, 0.25)
            assert rest == [(arms.stable, None, None, True)]
        else:
            assert (first, rest) == ((arms.stable, 1, 0.75, False), [])
    assert {arms.sides("policy", "ann", id)[0].arm.name for id in ids} == {"stable", "candidate"}


@pytest.mark.parametrize("order", [Lose("gone"), Close(), Open(served_of(2))], ids=["lost", "swapping", "another"])
def test_while_the_candidate_does_not_serve_chance_puts_nobody_anywhere(order: Any) -> None:
    arms = arms_of(release_of())
    arms.candidate.gate.obey(order)
    assert arms.sides("policy", "ann", on("stable")) == ((arms.stable, None, None, False),)
    assert arms.sides("policy", "ann", on("candidate")) == ((arms.stable, None, None, True),)
    assert (arms.canary, arms.contest) == (None, None)


def test_names_belong_to_the_arm_that_serves_them_and_prove_nothing() -> None:
    arms = arms_of(release_of())
    for name, arm in {"policy@candidate": arms.candidate, "policy-v1": arms.candidate, "policy@stable": arms.stable,
                      "policy-v0": arms.stable, "policy-v7": arms.stable}.items():  # fmt: skip
        assert arms.sides(name, "ann", on("candidate")) == ((arm, None, None, False),)
    arms.stable.gate.obey(Open(served_of(1)))  # promoted
    assert arms.named("policy-v1") is arms.stable
    assert arms.contest is None


def test_where_a_conversation_falls_is_a_secret_of_the_installation() -> None:
    ids = [f"conv_{index}" for index in range(200)]
    ours, theirs = ({id for id in ids if place_of(salt, 1, "ann", id) < WEIGHT} for salt in (SALT, b"another"))
    assert 50 < len(ours ^ theirs) < 150  # within seven standard deviations of half


async def test_an_answer_of_two_gates_waits_for_both_and_trusts_both() -> None:
    gates = [SwapGate(), SwapGate()]
    for version, gate in enumerate(gates):
        gate.obey(Open(served_of(version)))

    def relay() -> Relay:
        sources = [Source(said(index, "a", "b"), served_of(index), gate) for index, gate in enumerate(gates)]
        taints = {gate: gate.taints for gate in gates}
        return Relay(ticket_of(2, blind=True), Arrivals(sources), Kept(), Pace(), taints=taints)

    for gate in gates:
        one = relay()
        gate.obey(Close())
        held = asyncio.ensure_future(anext(one.batches()))
        while len(one.arrivals._waiting) and not held.done():
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not held.done()
        gate.obey(Open(gate.served))
        assert text_of(await held) == "ab"
    for gate in gates:
        one = relay()
        gate.obey(Taint())
        with pytest.raises(UnprovenWeights):
            [batch async for batch in one.batches()]
    writers = {index: draft.served.version for index, draft in one.drafts.items() if draft.served}
    assert writers == {}


@dataclass
class Canary:
    """A gateway in the middle of a release of policy-v1 beside policy-v0, each in an engine of its own."""

    live: Any
    second: Any
    release: Release

    def candidate(self) -> SwapGate:
        gate: SwapGate = self.live.gateway.arms.candidate.gate
        return gate

    def stored(self, answer: dict[str, Any]) -> list[Any]:
        known = self.live.ledger.completions(tuple(answer["ratchet"]["completion_ids"]))
        return [known[id] for id in answer["ratchet"]["completion_ids"]]

    def on(self, side: str) -> str:
        """A conversation of the admin's that falls on a side."""
        gateway = self.live.gateway
        rater = gateway.rater(gateway.keys.find(self.live.admin_key), None)
        return on(side, self.release.id, gateway.arms.salt, rater)

    async def chat(self, side: str, **more: Any) -> Any:
        answer = await self.live.chat(max_tokens=2, metadata={"conversation_id": self.on(side)}, **more)
        assert answer.status_code == 200, answer.text
        return answer

    async def compare(self, **more: Any) -> Any:
        body = self.live.body(**{"model": "auto", "max_tokens": 2, **more})
        answer = await self.live.http.post("/v1/comparisons", json=body)
        assert answer.status_code == 200, answer.text
        return answer

    async def moved(self) -> float:
        lines = (await self.live.http.get("/metrics")).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("ratchet_requests_moved_total"))


Begin = Callable[..., Awaitable[Canary]]


@pytest.fixture
def begin(start: Any, second_engine: Any, eventually: Any) -> Begin:
    async def canary(*, interleave: float = 0.0) -> Canary:
        live = await start(candidate_url=second_engine.url)
        live.shelf.publish(1, stable=False)
        plan = Plan(steps=(SetWeight(set_weight=WEIGHT * 100), Pause(pause=None)), interleave=interleave)
        gateway, book = live.gateway, live.gateway.releases
        begun = book.start(1, plan, mode="manual", whose="all", since="0", actor="t", reason="t", seen=None)
        await eventually(lambda: gateway.arms.candidate.serves(1))

        def under_way() -> bool:
            known, open = gateway.arms.release, book.open()
            if open.state == "pending":
                try:
                    book.move(
                        open, open.model_copy(update={"state": "canary", "weight": WEIGHT}), actor="t", reason="t"
                    )
                except ReleaseMoved:
                    return False
            return known is not None and known.state == "canary" and known.weight == WEIGHT

        await eventually(under_way)
        return Canary(live, second_engine, begun)

    return canary


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in answer["choices"]]


async def test_a_conversation_stays_on_its_side_and_the_ledger_knows_why(begin: Begin) -> None:
    canary = await begin()
    for side, version, share in (("candidate", 1, WEIGHT), ("stable", 0, 1 - WEIGHT)):
        for _ in range(3):
            response = await canary.chat(side)
            answer = response.json()
            assert texts(answer) == [f"w{version}-0 "]
            assert response.headers["x-policy-version"] == str(version)
            told = {name: answer["ratchet"][name] for name in ("policy_version", "release", "arm")}
            assert told == {"policy_version": version, "release": canary.release.id, "arm": side}
            [kept] = canary.stored(answer)
            assert (kept.release, kept.arm, kept.propensity) == (canary.release.id, side, share)
            assert kept.policy_version == version
    assert len(canary.second.state()["bodies"]) == 3
    assert sum(canary.candidate().in_flight.values()) == 0
    metrics = (await canary.live.http.get("/metrics")).text
    for line in ('arm_requests_total{arm="stable"} 3.0', 'arm_requests_total{arm="candidate"} 3.0',
                 'arm_ready{arm="candidate"} 1.0', "requests_moved_total 0.0"):  # fmt: skip
        assert f"ratchet_{line}" in metrics


@pytest.mark.parametrize("streamed", [True, False])
async def test_who_waits_at_the_gate_until_the_release_is_over_gets_an_answer_that_proves_nothing(
    begin: Begin, eventually: Any, streamed: bool
) -> None:
    canary = await begin()
    live, gateway = canary.live, canary.live.gateway
    live.engine.set(reload_s=60)
    live.shelf.publish(2)
    await eventually(lambda: gateway.arms.stable.gate.swapping)
    conversation = {"metadata": {"conversation_id": canary.on("stable")}, "max_tokens": 2}
    waiting = asyncio.create_task(live.stream(**conversation) if streamed else live.chat(**conversation))
    await eventually(lambda: gateway.waiting.count == 1)
    await eventually(lambda: gateway.arms.release is None)
    live.engine.set(reload_s=0)
    answer = (await waiting)[0] if streamed else (await waiting).json()
    assert answer["ratchet"]["policy_version"] == 2
    assert "release" not in answer["ratchet"]
    await eventually(lambda: len(gateway.running) == 0)
    [kept] = canary.stored(answer)
    assert (kept.policy_version, kept.release, kept.arm, kept.propensity) == (2, None, None, None)


async def test_who_names_a_policy_gets_it_and_proves_nothing(begin: Begin) -> None:
    canary = await begin()
    for name, word in {"policy@candidate": "w1-0 ", "policy-v1": "w1-0 ", "policy@stable": "w0-0 ",
                       "policy-v0": "w0-0 "}.items():  # fmt: skip
        for side in ("stable", "candidate"):
            answer = (await canary.chat(side, model=name)).json()
            assert texts(answer) == [word]
            assert "release" not in answer["ratchet"]
            [kept] = canary.stored(answer)
            assert (kept.release, kept.propensity) == (None, None)
    http = canary.live.http
    listed = {model["id"]: model["root"] for model in (await http.get("/v1/models")).json()["data"]}
    assert listed == {"policy": "policy-v0", "policy@stable": "policy-v0", "policy-v0": "policy-v0",
                      "policy@candidate": "policy-v1", "policy-v1": "policy-v1"}  # fmt: skip
    assert (await http.get("/v1/models/policy@candidate")).json()["root"] == "policy-v1"
    policies = (await http.get("/v1/policies")).json()
    assert (policies["served"], policies["candidate_served"]) == (0, 1)
    assert (await http.get("/ready")).json()["arms"] == {
        "stable": {"policy_version": 0, "reason": None}, "candidate": {"policy_version": 1, "reason": None},
    }  # fmt: skip


async def test_without_a_release_there_is_no_candidate(live: Any) -> None:
    for name in ("policy@candidate", "policy@stable/2", "policy-v1"):
        assert (await live.chat(model=name)).status_code == 404
        pair = live.body(model=["policy@stable", name])
        assert (await live.http.post("/v1/comparisons", json=pair)).status_code == 404
    answer = (await live.chat(max_tokens=2)).json()
    assert "release" not in answer["ratchet"]
    [kept] = live.ledger.completions(tuple(answer["ratchet"]["completion_ids"])).values()
    assert (kept.release, kept.arm, kept.propensity) == (None, None, None)
    assert list((await live.http.get("/ready")).json()["arms"]) == ["stable"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_the_candidates_engine_breaks_off_before_it_is_shown_stable_answers(
    begin: Begin, streamed: bool
) -> None:
    canary = await begin()
    canary.second.set(die_after=0)
    conversation = {"metadata": {"conversation_id": canary.on("candidate")}, "max_tokens": 2}
    for moves in (1.0, 2.0):  # it dies of the first; the second finds nobody
        if streamed:
            chunks = await canary.live.stream(**conversation)
            assert (text_of(chunks[:-1]), chunks[-1]) == ("w0-0 ", "[DONE]")
            answer = chunks[0]
        else:
            answer = (await canary.chat("candidate")).json()
            assert texts(answer) == ["w0-0 "]
        assert answer["ratchet"]["policy_version"] == 0
        assert "release" not in answer["ratchet"]
        [kept] = canary.stored(answer)
        assert (kept.release, kept.arm, kept.propensity) == (None, "stable", None)
        assert await canary.moved() == moves
    assert canary.live.served == 0
    assert not canary.live.gateway.arms.candidate.serves(1)
    assert (await canary.live.http.get("/ready")).status_code == 200


async def test_a_request_that_is_itself_at_fault_does_not_move(begin: Begin) -> None:
    canary = await begin()
    refused = await canary.live.chat(temperature=3, metadata={"conversation_id": canary.on("candidate")})
    assert refused.status_code == 400
    assert await canary.moved() == 0.0


@pytest.mark.parametrize("model", ["auto", ["policy@candidate", "policy@stable"]])
@pytest.mark.parametrize("streamed", [True, False])
async def test_both_policies_write_into_one_blind_answer(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, model: Any, streamed: bool
) -> None:
    monkeypatch.setattr(comparisons, "AA_SHARE", 0.0)
    canary = await begin()
    response = await canary.compare(k=5, model=model, stream=streamed)
    id = "cmp_" + response.text.partition("cmp_")[2].partition('"')[0]
    offer = canary.live.gateway.archive.offer(id)
    assert (offer.lane, offer.release) == ("release", canary.release.id)
    assert sorted(slot.arm for slot in offer.slots).count("policy@stable") in (2, 3)
    known = canary.live.ledger.completions(offer.completion_ids)
    for slot in offer.slots:
        kept, version = known[slot.completion_id], int(slot.arm == "policy@candidate")
        assert (kept.policy_version, kept.text, f"policy@{kept.arm}") == (version, f"w{version}-0 ", slot.arm)
        assert (kept.release, kept.propensity) == (canary.release.id, None)
    for trace in ("policy-v", "policy_version", "fp_", "load-", "stable", "candidate", "release", "arm", "propensity"):
        assert trace not in response.text
    assert "x-policy-version" not in response.headers
    lines = response.text.split("data: ")[1:-1] if streamed else [response.text]
    chunks = [json.loads(line) for line in lines]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}) == 1
    assert len({frozenset(chunk) for chunk in chunks if chunk["choices"] and "ratchet" not in chunk}) <= 1
    gateway = canary.live.gateway
    assert not sum(gateway.gate.in_flight.values()) + sum(canary.candidate().in_flight.values())


class Drawn:
    """Chance that comes out as it is told, and leaves each order as it is or turns it round."""

    def __init__(self, value: float, *, turn: bool = False) -> None:
        self.value, self.turn = value, turn

    def random(self) -> float:
        return self.value

    def shuffle(self, order: list[Any]) -> None:
        if self.turn:
            order.reverse()


async def test_one_in_a_hundred_sets_stable_against_itself_and_the_odd_slot_is_drawn(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = await begin()
    for value, turn, lane, arms in (
        (0.0099, False, "aa", ["policy@stable", "policy@stable/2", "policy@stable"]),
        (0.0099, True, "aa", ["policy@stable/2", "policy@stable", "policy@stable/2"]),
        (0.01, False, "release", ["policy@stable", "policy@candidate", "policy@stable"]),
        (0.01, True, "release", ["policy@candidate", "policy@stable", "policy@candidate"]),
    ):
        monkeypatch.setattr(comparisons, "_draw", Drawn(value, turn=turn))
        offer = canary.live.gateway.archive.offer((await canary.compare(k=3)).json()["id"])
        assert (offer.lane, [slot.arm for slot in offer.slots]) == (lane, arms)


async def test_without_a_release_auto_sets_stable_against_itself_with_seeds_of_its_own(live: Any) -> None:
    body = live.body(model="auto", max_tokens=2, seed=7)
    offer = live.gateway.archive.offer((await live.http.post("/v1/comparisons", json=body)).json()["id"])
    assert (offer.lane, offer.release) == ("aa", None)
    assert {slot.arm for slot in offer.slots} == {"policy@stable", "policy@stable/2"}
    assert sorted(sent["seed"] for sent in live.engine.state()["bodies"][-2:]) == [7, 8]
    assert all(kept.arm is None for kept in live.ledger.completions(offer.completion_ids).values())


async def test_a_comparison_that_loses_an_engine_is_one_of_stable_against_itself(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparisons, "AA_SHARE", 0.0)
    canary = await begin()
    canary.second.set(die_after=0)
    for _ in range(2):
        answer = (await canary.compare(k=4)).json()
        assert texts(answer) == ["w0-0 "] * 4
        offer = canary.live.gateway.archive.offer(answer["id"])
        assert (offer.lane, offer.release) == ("aa", None)
        assert {kept.policy_version for kept in canary.stored(answer)} == {0}


@pytest.mark.parametrize("streamed", [True, False])
async def test_several_answers_to_a_chat_are_a_blind_comparison_whose_ranking_is_a_vote(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(comparisons, "AA_SHARE", 0.0)
    canary = await begin(interleave=1.0)
    if streamed:
        answer = (await canary.live.stream(n=2, max_tokens=2))[0]
    else:
        answer = (await canary.live.chat(n=2, max_tokens=2)).json()
        assert sorted(texts(answer)) == ["w0-0 ", "w1-0 "]
    assert answer["model"] == "policy"
    assert answer["ratchet"]["comparison_id"] == answer["id"]
    assert (await canary.live.http.get(f"/v1/comparisons/{answer['id']}")).json()["reveal"] is None
    ids = answer["ratchet"]["completion_ids"]
    ranking = {"type": "ranking", "candidates": ids, "ranking": [[ids[1]], [ids[0]]]}
    said = await canary.live.http.post("/v1/feedback", json=ranking)
    assert said.status_code == 201, said.text
    [kept] = canary.live.ledger.kept([said.json()["id"]])
    assert (kept.feedback.lane, kept.feedback.release) == ("release", canary.release.id)
    told = (await canary.live.http.get(f"/v1/comparisons/{answer['id']}")).json()["reveal"]
    assert sorted(told.values()) == ["policy-v0", "policy-v1"]


@pytest.mark.parametrize("side", ["stable", "candidate"])
async def test_a_stored_answer_tells_its_side_as_when_it_was_given(begin: Begin, side: str) -> None:
    canary = await begin()
    answer = (await canary.chat(side)).json()
    assert (answer["ratchet"]["release"], answer["ratchet"]["arm"]) == (canary.release.id, side)
    shown = (await canary.live.http.get(f"/v1/chat/completions/{answer['id']}")).json()["ratchet"]
    assert {name: shown[name] for name in answer["ratchet"]} == answer["ratchet"]
    pinned = (await canary.live.chat(model="policy@candidate", max_tokens=2)).json()
    shown = (await canary.live.http.get(f"/v1/chat/completions/{pinned['id']}")).json()["ratchet"]
    assert "release" not in shown and "arm" not in shown


async def test_a_stored_comparison_tells_no_side_before_the_vote(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "AA_SHARE", 0.0)
    canary = await begin(interleave=1.0)
    answer = (await canary.live.chat(n=2, max_tokens=2)).json()
    shown = (await canary.live.http.get(f"/v1/chat/completions/{answer['id']}")).json()["ratchet"]
    assert "release" not in shown and "arm" not in shown
    ids = answer["ratchet"]["completion_ids"]
    ranking = {"type": "ranking", "candidates": ids, "ranking": [[ids[1]], [ids[0]]]}
    assert (await canary.live.http.post("/v1/feedback", json=ranking)).status_code == 201
    shown = (await canary.live.http.get(f"/v1/chat/completions/{answer['id']}")).json()["ratchet"]
    assert (shown["release"], shown["arm"]) == (canary.release.id, None)


async def test_chats_are_interleaved_by_chance_and_only_where_a_vote_may_come_of_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = await begin(interleave=0.3)
    for value, more, lane in (
        (0.29, {}, "release"),
        (0.0099, {}, "aa"),
        (0.3, {}, None),
        (0.0, {"n": 1}, None),
        (0.0, {"store": False}, None),
        (0.0, {"model": "policy@candidate"}, None),
    ):
        monkeypatch.setattr(comparisons, "_draw", Drawn(value))
        answer = (await canary.live.chat(**{"n": 2, "max_tokens": 2, **more})).json()
        offer = canary.live.gateway.archive.offer(answer["ratchet"].get("comparison_id", "none"))
        assert (None if offer is None else offer.lane) == lane, more


async def test_stable_against_itself_hides_among_the_answers_to_a_chat(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = await begin(interleave=1.0)
    monkeypatch.setattr(comparisons, "_draw", Drawn(0.0099))
    answer = (await canary.live.chat(n=3, max_tokens=2)).json()
    assert texts(answer) == ["w0-0 "] * 3
    assert "release" not in answer["ratchet"] and "arm" not in answer["ratchet"]
    [first, *others] = answer["ratchet"]["completion_ids"]
    ranking = {"type": "ranking", "candidates": [first, *others], "ranking": [[first], others]}
    said = (await canary.live.http.post("/v1/feedback", json=ranking)).json()
    [kept] = canary.live.ledger.kept([said["id"]])
    assert (kept.feedback.lane, kept.feedback.release) == ("aa", None)
    assert {(one.release, one.propensity) for one in canary.stored(answer)} == {(None, None)}


async def test_a_vote_keeps_the_lane_of_its_offer(live: Any) -> None:
    body = live.body(model="auto", max_tokens=2)
    id = (await live.http.post("/v1/comparisons", json=body)).json()["id"]
    vote = {"type": "comparison", "comparison_id": id, "winner": "left"}
    said = (await live.http.post("/v1/feedback", json=vote)).json()
    [kept] = live.ledger.kept([said["id"]])
    assert (kept.feedback.lane, kept.feedback.release) == ("aa", None)


async def test_a_gold_pair_is_the_stable_policys_and_no_vote_on_the_release(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = await begin()
    monkeypatch.setattr(comparisons, "is_gold", lambda *_: True)
    answer = (await canary.compare()).json()
    assert texts(answer) == ["w0-0 "] * 2
    assert canary.second.state()["bodies"] == []
    offer = canary.live.gateway.archive.offer(answer["id"])
    assert (offer.lane, offer.release, sorted(slot.arm for slot in offer.slots)) == ("gold", None, ["gold", STABLE])
    vote = {"type": "comparison", "comparison_id": answer["id"], "winner": "left"}
    id = (await canary.live.http.post("/v1/feedback", json=vote)).json()["id"]
    [kept] = canary.live.ledger.kept([id])
    assert (kept.feedback.lane, kept.feedback.release) == ("gold", None)
    assert [(one.release, one.propensity) for one in canary.stored(answer)] == [(None, None)] * 2
