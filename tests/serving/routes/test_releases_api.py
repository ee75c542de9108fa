"""/v1/releases on a real Valkey: what operators order, who of two at once wins, and what is shown of a release."""

import asyncio
import math
import threading
from typing import Any

import httpx
import pytest

from feedback.e_values import Balance
from feedback.releases import orders
from feedback.releases.book import LAST, Release, ReleaseBook
from feedback.releases.clock import time_key
from feedback.releases.decisions import Decision
from feedback.releases.guardrails import Guardrail
from feedback.releases.self_test import KEY, SelfTest, self_test_of
from feedback.statistics import Interval
from serving.routes import releases
from tests.feedback.booth import Booth

ORDERS = ("promote", "pause", "resume", "abort", "rollback")
STEPS = [{"set_weight": 5}, {"pause": "30m"}, {"set_weight": 25}, {"pause": None}, {"analysis": {}}]
FAILED = {"wanted": 1, "release": 1, "state": "failed", "state_release": 1, "cause": "out of memory"}
DECISION = Decision(
    outcome="undecided", reason="The candidate won 31 of 50 decisive votes, which decides nothing.",
    wins=31, losses=19, ties=4, capped=2, log_e_better=1.2, log_e_worse=-1.5, log_e_standing=0.4, log_threshold=3.7,
    win_rate=Interval(0.62, 0.41, 0.79), thumbs=Interval(0.02, -0.05, 0.09), still_needed=120,
    sides=Balance(first=26, second=24, rate=Interval(0.52, 0.3, 0.7), log_e=-0.9, alarm=False),
    guardrails=(
        Guardrail(name="errors", verdict="ok", value=0.9, interval=None, limit=1.5, log_e=-2.0, log_e_ok=5.0,
                  candidate=210, stable=1890),
        Guardrail(name="length", verdict="unknown", value=math.log(1.2), limit=math.log(2), log_e=0.0, log_e_ok=0.0,
                  interval=Interval(0.0, -math.log(2), math.log(4)), candidate=200, stable=1800),
    ),
    raters=11,
)  # fmt: skip


@pytest.fixture(autouse=True)
def undriven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases stay as operators leave them."""
    monkeypatch.setattr("serving.release.controller.Controller.tick", lambda self: None)
    monkeypatch.setattr("feedback.releases.pool.EnginePool.want", lambda self, wish: None)


@pytest.fixture
def shelf(shelf: Any) -> Any:
    """Three candidates beside the base that serves."""
    for version in (1, 2, 3):
        shelf.publish(version, move=0.4 * version, stable=False)
    return shelf


@pytest.fixture
def book(live: Any) -> ReleaseBook:
    return ReleaseBook(live.gateway.registry)


async def start(live: Any, candidate: Any = 1, **more: Any) -> dict[str, Any]:
    answer = await live.http.post("/v1/releases", json={"candidate": candidate, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def order(live: Any, name: str, id: Any = "current", **body: Any) -> httpx.Response:
    answer: httpx.Response = await live.http.post(f"/v1/releases/{id}/{name}", json=body)
    return answer


def proven(book: ReleaseBook, **changes: Any) -> Release:
    """The open release as the controller moves it, with its first weight set."""
    release = book.open()
    assert release is not None
    begun = release.model_copy(update={"state": "canary", "weight": 0.05, "step": 1, **changes})
    return book.move(release, begun, actor="ratchet", reason="proven")


def refusal(answer: httpx.Response, status: int = 409) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert status != 409 or answer.headers["x-should-retry"] == "false"
    return dict(answer.json()["error"])


async def test_a_release_begins_with_the_steps_that_were_asked_for(live: Any) -> None:
    card = await start(
        live, "policy-v1", strategy={"steps": STEPS}, analysis={"alpha": 0.1, "max_votes": 2000}, mode="assisted",
        reason="fewer words",
    )  # fmt: skip
    assert (card["id"], card["revision"], card["candidate"], card["stable"]) == (1, 0, 1, 0)
    assert (card["state"], card["open"], card["weight"], card["actor"]) == ("pending", True, 0.0, "root")
    assert (card["mode"], card["reason"], card["whose"]) == ("assisted", "fewer words", "all")
    assert card["steps"] == [
        {"says": "5% of conversations", "state": "under way"}, {"says": "wait 30 minutes", "state": "to come"},
        {"says": "25% of conversations", "state": "to come"}, {"says": "wait for an operator", "state": "to come"},
        {"says": "wait for the votes", "state": "to come"},
    ]  # fmt: skip
    assert (card["plan"]["alpha"], card["plan"]["max_votes"], card["plan"]["interleave"]) == (0.1, 2000, 0.5)
    assert card["voters"] == {"voted": None, "may_vote": 0}
    assert (card["votes"], card["outcome"], card["guardrails"], card["engine"]) == (None, None, [], None)
    assert live.gateway.registry.states()[1] == "canary"


async def test_releases_are_paged_from_the_newest_over_numbers_that_never_began(live: Any, book: ReleaseBook) -> None:
    ids = []
    for candidate in (1, 2, 3):
        ids.append((await start(live, candidate))["id"])
        live.gateway.registry.redis.incr(LAST)

    async def page(**asked: Any) -> tuple[list[int], bool, int]:
        found = (await live.http.get("/v1/releases", params=asked)).json()
        return [release["id"] for release in found["data"]], found["has_more"], found["open"]

    assert ids == [1, 3, 5]
    assert await page(limit=2) == ([5, 3], True, 5)
    assert await page(limit=2, before=3) == ([1], False, 5)


async def test_what_is_not_asked_for_is_as_the_installation_has_it(live: Any) -> None:
    (live.gateway.settings.home / "release.json").write_text('{"alpha": 0.2, "limits": {"errors": 3.0}}')
    plan = (await start(live, 1, interleave=0.25, plan={"limits": {"score": 0.1}}))["plan"]
    assert (plan["alpha"], plan["interleave"], plan["max_votes"]) == (0.2, 0.25, 4000)
    assert (plan["limits"]["errors"], plan["limits"]["score"], plan["limits"]["length"]) == (3.0, 0.1, 2.0)
    (live.gateway.settings.home / "release.json").write_text('{"alpha": 2}')
    broken = refusal(await live.http.post("/v1/releases", json={"candidate": 2}))
    assert broken["code"] == "bad_plan"
    assert "release.json: alpha:" in broken["message"]
    (live.gateway.settings.home / "release.json").unlink()
    (live.gateway.settings.home / "release.json").mkdir()
    unreadable = refusal(await live.http.post("/v1/releases", json={"candidate": 2}))
    assert unreadable["code"] == "bad_plan"
    assert unreadable["message"].endswith("release.json: Is a directory")


async def test_an_operators_release_waits_for_them_unless_releases_are_automatic(live: Any, start: Any) -> None:
    body = {"candidate": 1}
    assert (await live.http.post("/v1/releases", json=body)).json()["mode"] == "manual"
    assert (await live.http.post("/v1/releases", json={**body, "mode": "automatic"})).json()["mode"] == "automatic"
    other = await start(release_mode="assisted")
    assert (await other.http.post("/v1/releases", json=body)).json()["mode"] == "assisted"


@pytest.mark.parametrize(
    ("setting", "mode", "becomes"),
    [
        ("direct", "manual", "serves at once, without a release."),
        ("manual", "manual", "waits for an operator, who starts its release or promotes it."),
        ("assisted", "assisted", "once its steps are taken an operator promotes it. An open release makes way for it."),
        ("automatic", "automatic", "serves once its steps are taken. An open release makes way for it."),
    ],
)
async def test_the_list_says_what_becomes_of_a_version_that_passes_its_gate(
    start: Any, setting: Any, mode: str, becomes: str
) -> None:
    live = await start(release_mode=setting)
    (live.gateway.settings.home / "release.json").write_text('{"steps": [{"set_weight": 5}, {"pause": "30m"}]}')

    async def usual() -> dict[str, Any]:
        return dict((await live.http.get("/v1/releases")).json()["usual"])

    known = await usual()
    assert (known["setting"], known["mode"], known["broken"]) == (setting, mode, None)
    assert known["says"].startswith("A version that passes its gate ") and known["says"].endswith(becomes)
    begun = (await live.http.post("/v1/releases", json={"candidate": 1})).json()
    assert (known["mode"], known["plan"]) == (begun["mode"], begun["plan"])
    assert known["steps"] == [{"says": step["says"], "state": "to come"} for step in begun["steps"]]
    live.gateway.releases.freeze(True, actor="a", reason="so")
    assert ("while releases are frozen" in (await usual())["says"]) == (setting != "manual")


@pytest.mark.parametrize("broken", [b'{"alpha": 2}', b"\xff", b"", None])
async def test_a_broken_plan_is_told_beside_the_list_with_why(start: Any, broken: bytes | None) -> None:
    live = await start(release_mode="automatic")
    plan = live.gateway.settings.home / "release.json"
    plan.mkdir() if broken is None else plan.write_bytes(broken)
    answer = await live.http.get("/v1/releases")
    assert answer.status_code == 200, answer.text
    known = answer.json()["usual"]
    assert (known["plan"], known["steps"], known["mode"]) == (None, [], "automatic")
    assert "release.json" in known["broken"]
    assert "waits for an operator: by itself no release begins" in known["says"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "candidate"),
        ({"candidate": "newest"}, "candidate"),
        ({"candidate": 1, "strategy": {"steps": [{"set_weight": 95}]}}, "steps"),
        ({"candidate": 1, "analysis": {"alpha": 2}}, "alpha"),
        ({"candidate": 1, "analysis": {"primary": {}}}, "analysis.primary"),
        ({"candidate": 1, "plan": {"step": []}}, "step"),
        ({"candidate": 1, "plan": []}, "plan"),
        ({"candidate": 1, "canditate": 1}, "canditate"),
        ({"candidate": 1, "max_votes": 0}, "max_votes"),
        ({"candidate": 1, "mode": "direct"}, "mode"),
        ({"candidate": 1, "replaces": True}, "replaces"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(live: Any, body: dict[str, Any], param: str) -> None:
    told = refusal(await live.http.post("/v1/releases", json=body), 400)
    assert str(told["param"]).startswith(param), told
    assert (await live.http.get("/v1/releases")).json()["data"] == []


async def test_only_what_may_serve_is_released(live: Any) -> None:
    assert refusal(await live.http.post("/v1/releases", json={"candidate": 9}), 404)["code"] == "policy_not_found"
    serves = refusal(await live.http.post("/v1/releases", json={"candidate": 0}))
    assert (serves["code"], serves["message"]) == ("not_releasable", "policy-v0 is stable: it cannot be released")


async def test_a_new_candidate_takes_the_place_of_the_running_one(live: Any) -> None:
    await start(live, 1)
    assert (await start(live, 2, replaces=1))["id"] == 2
    for named in (1, None):
        late = refusal(await live.http.post("/v1/releases", json={"candidate": 3, "replaces": named}))
        assert (late["code"], late["current"]["id"], late["current"]["candidate"]) == ("conflict", 2, 2)
        assert late["message"] == "release 2 is open: pending, step 1 of 2, policy-v2 at 0%"
    assert (await start(live, 3))["id"] == 3
    shown = (await live.http.get("/v1/releases")).json()
    assert [(each["candidate"], each["state"]) for each in shown["data"]] == [
        (3, "pending"), (2, "replaced"), (1, "replaced"),
    ]  # fmt: skip
    assert (shown["open"], shown["frozen"]) == (3, False)
    assert len((await live.http.get("/v1/releases", params={"limit": 1})).json()["data"]) == 1


async def test_of_two_who_start_at_once_one_wins(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def together(*arguments: Any, **named: Any) -> Release | None:
        seen = orders.to_replace(*arguments, **named)
        both.wait(20)  # neither writes before both have read
        return seen

    monkeypatch.setattr(releases, "to_replace", together)
    for earlier in (None, 1):
        bodies = [{"candidate": version, "reason": f"v{version}"} for version in (2, 3)]
        answers = await asyncio.gather(*(live.http.post("/v1/releases", json=body) for body in bodies))
        won, lost = sorted(answers, key=lambda answer: answer.status_code)
        assert won.status_code == 201, earlier
        current = refusal(lost)["current"]
        assert (current["id"], current["candidate"]) == (won.json()["id"], won.json()["candidate"])
        stored = (await live.http.get("/v1/releases/current")).json()
        assert stored["reason"] == f"v{won.json()['candidate']}"
    assert [version for version, state in live.gateway.registry.states().items() if state == "canary"] == [
        won.json()["candidate"]
    ]


async def test_of_two_who_end_it_at_once_one_wins(
    live: Any, book: ReleaseBook, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    await start(live)
    revision = proven(book).revision
    both, end = threading.Barrier(2), ReleaseBook.end

    def together(*arguments: Any, **named: Any) -> Release:
        both.wait(20)
        return end(*arguments, **named)

    monkeypatch.setattr(ReleaseBook, "end", together)
    answers = await asyncio.gather(
        order(live, "promote", full=True, revision=revision), order(live, "abort", revision=revision)
    )
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    assert (won.status_code, won.json()["state"]) == (200, "promoted" if won is answers[0] else "aborted")
    assert refusal(lost)["message"] == "no release is open any more"
    assert live.gateway.registry.stable() == (1 if won is answers[0] else 0)
    await eventually(lambda: live.served == live.gateway.registry.stable())


@pytest.mark.parametrize("name", ORDERS)
async def test_who_saw_an_old_revision_changes_nothing(live: Any, book: ReleaseBook, name: str) -> None:
    await start(live)
    seen = proven(book)
    told = refusal(await order(live, name, revision=0))
    assert told["message"] == "release 1 has changed since revision 0: canary, step 2 of 2, policy-v1 at 5%"
    assert (told["code"], told["current"]["revision"], told["current"]["state"]) == ("conflict", 1, "canary")
    assert book.open() == seen
    assert (await order(live, name, revision=1)).status_code == 200


async def test_a_promotion_passes_the_step_under_way_and_in_full_all_of_them(
    live: Any, book: ReleaseBook, eventually: Any
) -> None:
    await start(live, strategy={"steps": STEPS}, mode="automatic")
    pending = refusal(await order(live, "promote"))
    assert pending["message"].startswith("release 1 is pending: no engine holds policy-v1 yet")
    proven(book)
    passed = (await order(live, "promote", 1, reason="I have seen enough")).json()
    assert (passed["step"], passed["weight"], passed["state"]) == (2, 0.05, "canary")
    weighed = (await order(live, "promote")).json()  # a weight is set, not left out; then somebody is waited for
    assert (weighed["step"], weighed["weight"], weighed["paused"]) == (3, 0.25, True)
    gone_on = (await order(live, "promote")).json()
    assert (gone_on["step"], gone_on["paused"], gone_on["is"]) == (4, False, "canary, step 5 of 5, policy-v1 at 25%")
    done = (await order(live, "promote", full=True, reason="we need it")).json()
    assert (done["state"], done["open"], done["weight"], done["why"]) == ("promoted", False, 0.0, "we need it")
    assert live.gateway.registry.stable() == 1
    await eventually(lambda: live.served == 1)
    assert live.gateway.registry.audit()[-1].actor == "root"
    story = (await live.http.get("/v1/releases/1")).json()["history"]
    assert [(line["actor"], line["state"], line["step"]) for line in story] == [
        ("root", "pending", 0), ("ratchet", "canary", 1), ("root", "canary", 2), ("root", "canary", 3),
        ("root", "canary", 4), ("root", "promoted", 4),
    ]  # fmt: skip
    assert story[2]["reason"] == "I have seen enough"


async def test_what_no_engine_was_asked_about_is_proven_before_it_serves(live: Any, eventually: Any) -> None:
    await start(live)
    assert (await order(live, "promote", full=True)).json()["state"] == "promoted"
    await eventually(lambda: live.served == 1)


async def test_a_proposed_release_is_confirmed(live: Any, book: ReleaseBook, eventually: Any) -> None:
    await start(live, mode="assisted")
    proven(book, step=2, proposed=True)
    assert (await live.http.get("/v1/releases/current")).json()["is"] == "proposed, step 2 of 2, policy-v1 at 5%"
    live.ledger.redis.set("release:1:decision", DECISION.model_dump_json())
    done = (await order(live, "promote")).json()
    assert (done["state"], done["votes"]["won"]) == ("promoted", 31), "it keeps by what it ended"
    live.ledger.redis.delete("release:1:decision")
    assert (await live.http.get("/v1/releases/1")).json()["win_rate"] == {"value": 0.62, "low": 0.41, "high": 0.79}
    await eventually(lambda: live.served == 1)


async def test_time_stands_still_while_it_is_paused(live: Any, book: ReleaseBook) -> None:
    await start(live, strategy={"steps": STEPS})
    proven(book)
    paused = (await order(live, "pause", reason="lunch")).json()
    assert (paused["paused"], paused["step"], paused["is"]) == (True, 1, "paused, step 2 of 5, policy-v1 at 5%")
    again = (await order(live, "pause")).json()
    assert again["revision"] == paused["revision"], "it is paused already: nothing is written"
    going = (await order(live, "resume")).json()
    assert (going["paused"], going["step"], going["revision"]) == (False, 1, paused["revision"] + 1)


@pytest.mark.parametrize(
    ("name", "state", "left"), [("abort", "aborted", "candidate"), ("rollback", "rolled_back", "rolled_back")]
)
async def test_an_end_without_promotion_leaves_what_serves(
    live: Any, book: ReleaseBook, name: str, state: str, left: str
) -> None:
    await start(live)
    proven(book)
    done = (await order(live, name, reason="people complain")).json()
    assert (done["state"], done["why"], done["weight"]) == (state, "people complain", 0.0)
    assert (live.gateway.registry.stable(), live.gateway.registry.states()[1]) == (0, left)
    for late in ORDERS:
        over = refusal(await order(live, late, 1))
        assert over["message"] == f"release 1 is over: {state.replace('_', ' ')}"
        assert over["current"]["state"] == state
        assert refusal(await order(live, late), 404)["code"] == "release_not_found"


async def test_who_stops_it_means_it_at_whatever_step(
    live: Any, book: ReleaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller takes a step between what an order reads and what it writes."""
    await start(live)
    proven(book)
    end, meddled = ReleaseBook.end, []

    def meddling(self: ReleaseBook, seen: Release, *rest: Any, **named: Any) -> Release:
        if not meddled:
            meddled.append(self.move(seen, seen.skipped(0.0), actor="ratchet", reason="a step"))
        return end(self, seen, *rest, **named)

    monkeypatch.setattr(ReleaseBook, "end", meddling)
    assert (await order(live, "rollback")).json()["revision"] == 3
    await start(live, 2)
    meddled.clear()
    assert refusal(await order(live, "promote", full=True))["current"]["revision"] == 1, "this one is not repeated"


async def test_what_is_known_is_shown(live: Any) -> None:
    await start(live)
    redis = live.ledger.redis
    redis.set("release:1:decision", DECISION.model_dump_json())
    redis.hset("engine:candidate", mapping=FAILED)
    redis.hset(time_key(1), mapping={"0": "1.5", "3": "4.5", "unheld": "2"})
    card = (await live.http.get("/v1/releases/1")).json()
    assert card["votes"] == {"won": 31, "lost": 19, "tied": 4, "not_counted": 2}
    assert card["voters"] == {"voted": 11, "may_vote": 0}, "counts alone"
    assert card["win_rate"] == {"value": 0.62, "low": 0.41, "high": 0.79}
    assert card["evidence"] == {"for": "candidate", "log_e": 0.4, "threshold": 3.7}
    assert (card["still_needed"], card["forecast"]) == (120, "about 120 more votes to a decision")
    assert (card["outcome"], card["says"]) == ("undecided", DECISION.reason)
    assert card["thumbs"] == {"value": 0.02, "low": -0.05, "high": 0.09}
    assert card["guardrails"] == [
        {"name": "errors", "verdict": "ok", "value": 0.9, "limit": 1.5, "interval": None,
         "units": {"candidate": 210, "stable": 1890}},
        {"name": "length", "verdict": "unknown", "value": pytest.approx(1.2), "limit": pytest.approx(2.0),
         "interval": {"value": 1.0, "low": pytest.approx(0.5), "high": pytest.approx(4.0)},
         "units": {"candidate": 200, "stable": 1800}},
    ]  # fmt: skip
    assert card["engine"] == {"version": 1, "state": "failed", "cause": "out of memory"}
    assert card["passed"] == {"in_step": 1.5, "in_all": 6.0, "unheld": 2.0}
    assert (await order(live, "abort")).json()["passed"] is None


async def test_the_evidence_is_told_after_each_vote(live: Any, book: ReleaseBook) -> None:
    await start(live, 1, analysis={"alpha": 0.1})
    nothing = (await live.http.get("/v1/releases/current/evidence")).json()
    assert nothing == {"object": "release.evidence", "release": 1, "threshold": math.log(20), "data": []}
    booth = Booth(live.gateway.settings.resolved_redis_url())
    booth.compare(0, 1, winner="right", lane="release", release=1, split="eval", created=5.5)
    booth.compare(1, 0, winner="tie", lane="release", release=1, split="eval", rater="bob", created=6.5)
    first, second = (await live.http.get("/v1/releases/1/evidence")).json()["data"]
    assert (first["vote"], first["time"], first["wins"], first["losses"], first["ties"]) == (1, 5.5, 1, 0, 0)
    assert first["log_e_better"] == pytest.approx(math.log(1.5))
    assert first["log_e"] == pytest.approx(math.log(1.5)), "one of one is no share that is left out"
    assert set(first["win_rate"]) == {"value", "low", "high"} and first["win_rate"]["value"] == 1.0
    assert (second["vote"], second["ties"], second["log_e"]) == (2, 1, first["log_e"])


async def test_frozen_releases_still_begin_by_hand(live: Any) -> None:
    assert (await live.http.post("/v1/releases/freeze", json={"frozen": True})).json()["frozen"] is True
    assert (await live.http.get("/v1/releases/freeze")).json() == {"object": "releases", "frozen": True}
    assert (await live.http.get("/v1/releases")).json()["frozen"] is True
    assert refusal(await live.http.post("/v1/releases/freeze", json={"frozen": "yes"}), 400)["param"] == "frozen"
    assert (await start(live))["state"] == "pending"
    await live.http.post("/v1/releases/freeze", json={"frozen": False})
    assert (await live.http.get("/v1/releases")).json()["frozen"] is False


async def test_what_does_not_exist_is_not_found(live: Any) -> None:
    for id in ("1", "current", "newest", "-1", "9" * 30):
        for path in (f"/v1/releases/{id}", f"/v1/releases/{id}/evidence"):
            assert refusal(await live.http.get(path), 404)["code"] == "release_not_found"
        for name in ORDERS:
            assert refusal(await order(live, name, id), 404)["code"] == "release_not_found"
    await start(live)
    for body, param in (({"full": "yes"}, "full"), ({"revision": True}, "revision"), ({"resaon": "x"}, "resaon")):
        assert refusal(await order(live, "promote", 1, **body), 400)["param"] == param
    assert refusal(await order(live, "abort", 1, full=True), 400)["param"] == "full"


@pytest.mark.parametrize("role", ["user", "rater"])
async def test_releases_are_for_operators(live: Any, role: str) -> None:
    await start(live)
    key = live.gateway.keys.create(name="joe", role=role)
    orders = [("POST", f"/v1/releases/1/{name}") for name in ORDERS]
    for method, path in [
        ("POST", "/v1/releases"), ("GET", "/v1/releases"), ("GET", "/v1/releases/1"), ("GET", "/v1/releases/freeze"),
        ("GET", "/v1/releases/1/evidence"), ("POST", "/v1/releases/freeze"), *orders,
    ]:  # fmt: skip
        response = await live.http.request(method, path, headers={"authorization": f"Bearer {key}"})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_role"), path
        assert (await live.http.request(method, path, headers={"authorization": ""})).status_code == 401


async def test_the_actor_is_the_keys_name(live: Any, book: ReleaseBook) -> None:
    key = live.gateway.keys.create(name="bea", role="operator")
    headers: dict[str, str] = {"authorization": f"Bearer {key}"}
    await live.http.post("/v1/releases", json={"candidate": 1}, headers=headers)
    await live.http.post("/v1/releases/1/abort", headers=headers)
    assert [(line.actor, line.reason) for line in book.history()] == [("bea", "asked for over the API")] * 2


async def test_operators_see_the_self_test_of_votes_and_end_its_alarm(live: Any, caplog: Any) -> None:
    await start(live)
    assert (await live.http.get("/v1/releases/current")).json()["self_test"] is None
    found = SelfTest(since="0", votes=11, wins=11, log_e=5.14, alarm=True)
    live.gateway.registry.redis.set(KEY, found.model_dump_json())
    shown = (await live.http.get("/v1/releases/self-test")).json()
    assert (shown["votes"], shown["wins"], shown["alarm"], round(shown["threshold"], 3)) == (11, 11, True, 4.605)
    assert (await live.http.get("/v1/releases/current")).json()["self_test"] == shown
    assert "ratchet_self_test_alarm 1.0" in (await live.http.get("/metrics")).text
    for body in ({}, {"reset": "yes"}):
        assert refusal(await live.http.post("/v1/releases/self-test", json=body), 400)["param"] == "reset"
    user = {"authorization": f"Bearer {live.user_key}"}
    refusal(await live.http.post("/v1/releases/self-test", json={"reset": True}, headers=user), 403)
    assert self_test_of(live.ledger).alarm
    anew = (await live.http.post("/v1/releases/self-test", json={"reset": True})).json()
    assert (anew["votes"], anew["alarm"]) == (0, False)
    assert "ratchet_self_test_alarm 0.0" in (await live.http.get("/metrics")).text
    assert "root has found the fault" in caplog.text
