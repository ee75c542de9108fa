"""GET /v1/status: everything that runs, and what cannot be known."""

import time
from typing import Any

import pytest

from feedback.durability import LedgerNotDurable
from feedback.settings import Settings
from serving.machine.probes import QUEUE, WORKER_ALIVE
from serving.routes.status import ALONE, hints
from serving.routes.traffic import median
from training.celery import make_app


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A slow machine is no silent ledger, but where that is tried."""
    if "freeze_redis" not in request.fixturenames:
        monkeypatch.setattr("serving.routes.status.WITHIN_S", 30.0)


def keeps_nothing() -> None:
    raise LedgerNotDurable("no space left")


async def status(live: Any) -> dict[str, Any]:
    answer = await live.http.get("/v1/status")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_everything_is_told_of_a_service_at_rest(live: Any) -> None:
    [target] = await live.completion_ids()
    await live.http.post("/v1/feedback", json={"type": "rating", "completion_id": target, "value": 1})
    told = await status(live)
    assert told["engines"] == [{"arm": "stable", "policy_version": 0, "reason": None, "url_kind": "elsewhere"}]
    assert (told["last_swap"]["to_version"], told["last_swap"]["ok"]) == (0, True)
    assert 0 < told["traffic"].pop("first_token_s") < 60
    assert told["traffic"] == {
        "in_flight": 0,
        "places": live.gateway.places.limit,
        "waiting": 0,
        "streams_open": 0,
        "refused": 0,
    }
    memory = told["ledger"].pop("memory_bytes")
    assert memory > 100_000
    assert told["ledger"] == {"writable": True, "reason": None, "completions": 1, "judgements": 1}
    assert told["workers"] == {"alive": 0, "queued": 0, "oldest_wait_s": None, "reason": None}
    assert [told[name] for name in ("round", "learning_frozen", "releases_frozen", "release")] == [
        None, False, False, None,
    ]  # fmt: skip
    assert told["next_round"] == {"judgements": 1, "needed": 48, "scheduled": None}
    assert (told["self_test"]["alarm"], told["reasons"], told["object"]) == (False, {}, "status")


async def test_what_is_under_way_is_told(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.release.controller.Controller.tick", lambda self: None)
    live.shelf.publish(1, move=0.4, stable=False)
    release = (await live.http.post("/v1/releases", json={"candidate": 1})).json()["id"]
    round = (await live.http.post("/v1/rounds")).json()["id"]
    live.ledger.redis.hset(f"round:{round}", "created", time.time() - 60)
    await live.http.post("/v1/rounds/freeze", json={"frozen": True})
    await live.http.post("/v1/releases/freeze", json={"frozen": True})
    live.ledger.redis.set(WORKER_ALIVE, "host:1")
    live.gateway.arms.release = live.gateway.releases.open()  # as its follower soon finds
    told = await status(live)
    candidate = told["engines"][1]
    assert (candidate["arm"], candidate["policy_version"], candidate["url_kind"]) == ("candidate", None, "none")
    assert candidate["reason"]
    assert (told["release"], told["round"]["id"], told["round"]["object"]) == (release, round, "round")
    assert (told["learning_frozen"], told["releases_frozen"], told["workers"]["alive"]) == (True, True, 1)
    assert 60 <= told["workers"]["oldest_wait_s"] < 600
    live.gateway.rounds.claim(round, owner="w", lease_s=60)
    assert (await status(live))["workers"]["oldest_wait_s"] is None


async def test_traffic_is_told_as_it_is(live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await status(live))["traffic"]["first_token_s"] is None
    stream = live.events("hey", max_tokens=500)
    await anext(stream)
    live.gateway.places.limit = 1
    refused = await live.chat(max_tokens=2)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    monkeypatch.setattr(live.ledger, "check", keeps_nothing)
    monkeypatch.setattr("serving.ledger.writable.FRESH_S", 0.0)
    assert (await live.http.get("/ready")).status_code == 503, "its answer, and no refusal"
    with live.gateway.waiting.taken():
        told = (await status(live))["traffic"]
    assert told == {
        "in_flight": 1, "places": 1, "waiting": 1, "streams_open": 1, "refused": 1, "first_token_s": None,
    }  # fmt: skip
    await stream.aclose()
    await eventually(live.engine_is_free)
    told = (await status(live))["traffic"]
    assert (told["in_flight"], told["waiting"], told["streams_open"]) == (0, 0, 0)
    assert 0 < told["first_token_s"] < 60


async def test_hints_are_counted_where_celery_lays_them(live: Any) -> None:
    settings = Settings(home=live.gateway.settings.home, redis_url=live.gateway.settings.resolved_redis_url())
    app = make_app(settings)
    for _ in range(2):
        app.send_task("training.tasks.tick")
    assert live.ledger.redis.llen(QUEUE) == 2
    assert (await status(live))["workers"]["queued"] == 2
    app.close()


async def test_hints_that_expired_behind_a_round_wait_for_nobody(live: Any) -> None:
    settings = Settings(home=live.gateway.settings.home, redis_url=live.gateway.settings.resolved_redis_url())
    app = make_app(settings)
    for expires in (-5, -0.5, 3600, None):
        app.send_task("training.tasks.tick", expires=expires)
    assert live.ledger.redis.llen(QUEUE) == 4
    assert (await status(live))["workers"]["queued"] == 2
    assert hints(live.ledger.redis, time.time() + 7200) == 1, "the one without an end"
    app.close()


async def test_a_ledger_that_keeps_nothing_is_told(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.ledger, "check", keeps_nothing)
    monkeypatch.setattr("serving.ledger.writable.FRESH_S", 0.0)
    ledger = (await status(live))["ledger"]
    assert (ledger["writable"], ledger["completions"]) == (False, 0)
    assert "no space left" in ledger["reason"]


async def test_a_silent_ledger_costs_what_it_knows_and_no_second(
    live: Any, freeze_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ledger.writable.FRESH_S", 0.0)
    await status(live)  # the key is known
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    freeze_redis()
    began = time.monotonic()
    told = await status(live)
    assert time.monotonic() - began < 1.5, "a second, on a machine that has time"
    assert told["engines"][0]["policy_version"] == 0
    assert {told["ledger"][name] for name in ("writable", "completions", "memory_bytes")} == {None}
    assert "did not answer" in told["ledger"]["reason"]
    assert told["workers"]["alive"] is None and "did not answer" in told["workers"]["reason"]
    assert {name: told[name] for name in ALONE} == dict.fromkeys(ALONE)
    assert set(told["reasons"]) == set(ALONE)


async def test_the_status_is_for_operators(live: Any) -> None:
    answer = await live.http.get("/v1/status", headers={"authorization": f"Bearer {live.user_key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role")


def test_the_median_lies_where_it_would_if_each_bucket_were_evenly_filled() -> None:
    assert median([(0.1, 0), (0.2, 0), (float("inf"), 0)]) is None
    # One of four below 0.1, so the second of the three between 0.1 and 0.4 is the second of all.
    assert median([(0.1, 1), (0.4, 4), (float("inf"), 4)]) == pytest.approx(0.2)
    assert median([(0.1, 2), (0.4, 2), (float("inf"), 4)]) == pytest.approx(0.1)
    assert median([(0.1, 1), (0.4, 1), (float("inf"), 4)]) == 0.4, "nobody knows how far beyond"
