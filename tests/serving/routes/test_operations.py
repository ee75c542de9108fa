"""What operators and machines ask of the gateway."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feedback.durability import LedgerNotDurable
from feedback.rounds.book import CoursePoint


async def test_policies_are_listed_promoted_and_rolled_back(live: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4, stable=False)
    assert (await live.http.post("/v1/policies/policy-v1/promote", json={"reason": "looks good"})).status_code == 200
    await eventually(lambda: live.served == 1)
    listing = (await live.http.get("/v1/policies")).json()
    assert [(p["id"], p["state"], p["served"]) for p in listing["data"]] == [
        ("policy-v0", "retired", False), ("policy-v1", "stable", True),
    ]  # fmt: skip
    assert listing["data"][1]["parent"] == 0
    assert (listing["stable"], listing["previous"], listing["served"]) == (1, 0, 1)
    assert listing["last_swap"]["to_version"] == 1
    assert listing["last_swap"]["proof"]["decided_by"] == "change"
    assert live.gateway.registry.audit()[-1].reason == "looks good"
    assert (await live.http.post("/v1/rollback")).json()["version"] == 0
    await eventually(lambda: live.served == 0)
    assert (await live.http.get("/v1/policies")).json()["previous"] is None
    assert (await live.http.post("/v1/rollback", json={"to": "policy-v1"})).json()["version"] == 1
    await eventually(lambda: live.served == 1)


async def test_an_operator_who_saw_another_policy_serve_changes_nothing(live: Any, eventually: Any) -> None:
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    for path in ("/v1/policies/0/promote", "/v1/policies/1/promote", "/v1/rollback"):
        late = await live.http.post(path, json={"expected": "policy-v0"})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
        assert late.json()["error"]["message"] == "the stable policy is no longer policy-v0; it is policy-v1"
        assert (await live.http.post(path, json={"expected": "newest"})).json()["error"]["param"] == "expected"
        for no_text in (["none"], [], 0, False):
            assert (await live.http.post(path, json={"reason": no_text})).json()["error"]["param"] == "reason"
    assert (await live.http.post("/v1/policies/1/promote", json={"expected": 1})).json()["version"] == 1
    assert (await live.http.post("/v1/rollback", json={"expected": 1})).json()["version"] == 0


async def test_unknown_or_rejected_policies_cannot_be_promoted(live: Any, eventually: Any) -> None:
    assert (await live.http.post("/v1/policies/9/promote")).json()["error"]["code"] == "policy_not_found"
    assert (await live.http.post("/v1/policies/newest/promote")).json()["error"]["param"] == "id"
    live.shelf.publish(1, move=0.4, engine_checksum="other")
    await eventually(lambda: live.gateway.registry.states()[1] == "rejected")
    refused = await live.http.post("/v1/policies/1/promote")
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    back = await live.http.post("/v1/rollback", json={"to": 1})
    assert (back.status_code, back.json()["error"]["code"]) == (409, "policy_rejected")
    assert live.gateway.registry.stable() == 0
    assert (await live.http.post("/v1/rollback")).status_code == 404, "back to the rejected one"


async def test_rounds_are_opened_once_listed_and_frozen(live: Any) -> None:
    first, second = await live.http.post("/v1/rounds"), await live.http.post("/v1/rounds")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"] == 1
    assert (first.json()["trigger"], first.json()["actor"]) == ("operator", "root")
    assert (await live.http.get("/v1/rounds/1")).json() == first.json()
    assert (await live.http.get("/v1/rounds/2")).status_code == 404
    assert (await live.http.get("/v1/rounds/x")).json()["error"]["param"] == "id"
    assert (await live.http.post("/v1/rounds/freeze", json={"frozen": "yes"})).json()["error"]["param"] == "frozen"
    assert (await live.http.post("/v1/rounds/freeze", json={"frozen": True})).json()["frozen"] is True
    listing = (await live.http.get("/v1/rounds")).json()
    assert (len(listing["data"]), listing["frozen"]) == (1, True)


async def test_a_round_that_is_asked_for_takes_no_number_that_is_on_the_disk(live: Any) -> None:
    (live.gateway.settings.rounds_dir / "000004").mkdir(parents=True)
    assert (await live.http.post("/v1/rounds")).json()["id"] == 5


async def test_rounds_are_paged_from_the_newest(live: Any) -> None:
    for _ in range(3):
        id, _ = live.gateway.rounds.request(trigger="operator", actor="ann")
        live.gateway.rounds.finish(id, live.gateway.rounds.claim(id, owner="w", lease_s=60), "failed", reason="a test")

    async def page(**asked: Any) -> tuple[list[int], bool]:
        found = (await live.http.get("/v1/rounds", params=asked)).json()
        return [round["id"] for round in found["data"]], found["has_more"]

    assert [await page(), await page(limit=3), await page(limit=2)] == [
        ([3, 2, 1], False), ([3, 2, 1], False), ([3, 2], True),
    ]  # fmt: skip
    assert [await page(limit=2, before=2), await page(before=9), await page(before=1)] == [
        ([1], False), ([3, 2, 1], False), ([], False),
    ]  # fmt: skip
    for beyond in ({"before": 0}, {"limit": 0}, {"limit": 101}):
        refused = await live.http.get("/v1/rounds", params=beyond)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, *beyond)


async def test_an_open_round_is_cancelled_once_by_name_and_with_a_reason(live: Any) -> None:
    assert (await live.http.post("/v1/rounds/1/cancel")).json()["error"]["code"] == "round_not_found"
    await live.http.post("/v1/rounds")
    refused = await live.http.post("/v1/rounds/1/cancel", json={"reason": 7})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reason")
    done = await live.http.post("/v1/rounds/1/cancel", json={"reason": "a test"})
    assert (done.status_code, done.json()["state"]) == (200, "cancelled")
    assert done.json()["reason"] == "cancelled by root: a test"
    late = await live.http.post("/v1/rounds/1/cancel")
    error = late.json()["error"]
    assert (late.status_code, error["code"], error["current"]) == (409, "conflict", done.json())
    assert (error["message"], late.headers["x-should-retry"]) == ("round 1 is over: cancelled", "false")
    [line] = (await live.http.get("/v1/audit", params={"kind": "round"})).json()["data"]
    assert (line["what"], line["action"], line["actor"], line["reason"]) == ("round 1", "cancel", "root", "a test")
    await live.http.post("/v1/rounds")
    assert (await live.http.post("/v1/rounds/2/cancel")).json()["reason"].endswith(": asked for over the API")


async def test_the_course_of_a_round_is_there_whole_whenever_it_is_asked_for(live: Any) -> None:
    assert (await live.http.get("/v1/rounds/1/course")).json()["error"]["code"] == "round_not_found"
    id, _ = live.gateway.rounds.request(trigger="operator", actor="ann")
    assert (await live.http.get("/v1/rounds/1/course")).json() == {"object": "round.course", "round": 1, "data": []}
    token = live.gateway.rounds.claim(id, owner="w", lease_s=60)
    points = [
        {"stage": stage, "step": step, "total": 2, "time": 5.5 + step, "metrics": {"loss": 0.5, "kl": None}}
        for stage in ("sft", "ppo") for step in (1, 2)
    ]  # fmt: skip
    for point in points:
        kept = CoursePoint.model_validate(point)
        live.gateway.rounds.go_on(id, token, kept.stage, after=kept.step - 1, points=[kept])
    assert (await live.http.get("/v1/rounds/1/course")).json()["data"] == points
    assert (await live.http.get("/v1/rounds/x/course")).json()["error"]["param"] == "id"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/policies"), ("POST", "/v1/rollback"), ("POST", "/v1/policies/0/promote"), ("POST", "/v1/rounds"),
        ("GET", "/v1/rounds"), ("GET", "/v1/rounds/1"), ("POST", "/v1/rounds/1/cancel"),
        ("POST", "/v1/rounds/freeze"), ("GET", "/v1/rounds/1/course"),
        ("GET", "/v1/policies/0"), ("GET", "/v1/policies/0/diff?with=0"),
    ],
)  # fmt: skip
async def test_operations_are_for_operators(live: Any, method: str, path: str) -> None:
    response = await live.http.request(method, path, headers={"authorization": f"Bearer {live.user_key}"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "insufficient_role"
    nobody = await live.http.request(method, path, headers={"authorization": ""})
    assert nobody.status_code == 401


async def test_health_readiness_and_metrics_need_no_key(live: Any) -> None:
    live.http.headers.pop("authorization")
    assert (await live.http.get("/health")).json() == {"status": "ok"}
    ready = await live.http.get("/ready")
    assert (ready.status_code, ready.json()["policy_version"]) == (200, 0)
    text = (await live.http.get("/metrics")).text
    assert 'ratchet_requests_total{method="GET",route="/ready",status="200"} 1.0' in text
    assert 'ratchet_swaps_total{result="ok"} 1' in text
    assert "ratchet_policy_version 0" in text


async def test_a_frozen_redis_makes_the_gateway_unready_not_silent(live: Any, freeze_redis: Any) -> None:
    freeze_redis()
    response = await live.http.get("/ready")
    assert response.status_code == 503
    assert "the ledger takes no writes" in response.json()["reasons"][0]


async def unready(live: Any) -> str:
    """The reason, once it is seen."""
    while (response := await live.http.get("/ready")).status_code == 200:
        await asyncio.sleep(0.05)
    assert (response.status_code, int(response.headers["retry-after"])) == (503, 1)
    [reason] = response.json()["reasons"]
    assert response.json()["ready"] is False
    return str(reason)


@pytest.mark.parametrize(
    ("command", "back", "told"),
    [
        (
            "CONFIG SET appendonly no",
            "CONFIG SET appendonly yes",
            "does not keep what it takes: Redis runs without AOF",
        ),
        ("CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction", "may evict feedback"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "takes no writes"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "is a replica"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "takes no writes"),
    ],
)
async def test_a_ledger_that_would_lose_what_it_takes_is_not_ready(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, command: str, back: str, told: str
) -> None:
    monkeypatch.setattr("serving.ledger.writable.FRESH_S", 0.0)
    assert (await live.http.get("/ready")).status_code == 200
    redis = live.ledger.redis
    redis.execute_command(*command.split())
    assert told in await asyncio.wait_for(unready(live), 20)
    redis.execute_command(*back.split())

    async def ready() -> bool:
        return (await live.http.get("/ready")).status_code == 200

    await eventually(ready)


async def test_however_often_readiness_is_asked_it_costs_one_write(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.ledger.writable.FRESH_S", 1000.0)
    checked, check = [], live.ledger.check
    monkeypatch.setattr(live.ledger, "check", lambda: checked.append(1) or check())
    answers = await asyncio.gather(*(live.http.get("/ready") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(checked) == 1


async def test_a_ledger_that_must_be_waited_for_is_waited_for(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live.ledger.redis.config_set("appendfsync", "everysec")
    before = live.ledger.redis.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"]
    live.ledger.check()
    assert live.ledger.redis.info("commandstats")["cmdstat_waitaof"]["calls"] == before + 2, "known, then asked"
    monkeypatch.setattr("feedback.durability.WAITED", ("WAITAOF", 1, 0, 1))
    live.ledger.redis.config_set("appendfsync", "no")
    with pytest.raises(LedgerNotDurable, match="did not fsync"):
        live.ledger.check()


async def test_an_answer_is_stored_though_others_hold_all_connections(live: Any) -> None:
    assert (await live.http.get("/v1/models")).status_code == 200
    pool = live.ledger.redis.connection_pool
    held = [pool.get_connection() for _ in range(pool.max_connections - len(pool._in_use_connections))]
    assert (await live.chat("hi", max_tokens=2)).json()["ratchet"]["stored"]
    for connection in held:
        pool.release(connection)


async def test_a_known_key_outlives_redis_and_a_revoked_one_does_not_outlive_its_cache(
    live: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    assert (await live.http.get("/v1/models")).status_code == 200
    valkey.kill()
    assert (await live.http.get("/v1/models")).status_code == 200
    unknown = await live.http.get("/v1/models", headers={"authorization": f"Bearer {live.user_key}"})
    assert unknown.status_code == 503
    valkey.start()
    [joe] = [key for key in live.gateway.keys.list() if key.name == "joe"]
    user = {"authorization": f"Bearer {live.user_key}"}
    assert (await live.http.get("/v1/models", headers=user)).status_code == 200
    live.gateway.keys.revoke(joe.id)
    assert (await live.http.get("/v1/models", headers=user)).status_code == 401


def test_a_redis_that_would_lose_feedback_ends_the_gateway_with_one_line(valkey: Any, tmp_path: Path) -> None:
    from redis import Redis

    Redis.from_url(valkey.url).config_set("maxmemory-policy", "allkeys-lru")
    ended = subprocess.run(
        [sys.executable, "-m", "serving"], capture_output=True, text=True, timeout=60,
        env={"RATCHET_HOME": str(tmp_path), "RATCHET_REDIS_URL": valkey.url, "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.strip().count("\n") == 0
    assert "noeviction" in ended.stderr


async def test_operators_at_odds_leave_one_whole_policy(live: Any, eventually: Any) -> None:
    """Whoever is too late gets 409; people who chat meanwhile get answers that say truly who wrote them."""
    for version in (1, 2):
        live.shelf.publish(version, move=0.4 * version, stable=False)

    async def order(version: int) -> int:
        return (await live.http.post(f"/v1/policies/policy-v{version}/promote")).status_code

    chats = [asyncio.create_task(live.chat(f"q{n}", max_tokens=40)) for n in range(20)]
    outcomes = await asyncio.gather(*(order(n % 3) for n in range(60)))
    assert set(outcomes) <= {200, 409}
    assert 200 in outcomes
    stable = live.gateway.registry.stable()
    await eventually(lambda: live.served == stable)
    for answer in await asyncio.gather(*chats):
        [kept] = live.ledger.completions(tuple(answer.json()["ratchet"]["completion_ids"])).values()
        words = kept.text.split()
        changed = len(words) if kept.version_changed_at is None else kept.version_changed_at
        assert all(word.startswith(f"w{kept.policy_version}-") for word in words[:changed])
        assert answer.json()["model"] == f"policy-v{kept.policy_version}"
    again = (await live.chat(max_tokens=3)).json()
    assert again["choices"][0]["message"]["content"] == f"w{stable}-0 w{stable}-1 "


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/openapi.json", "/v1/models", "/v1/models/gpt-4o", "/v1/me"]
)
async def test_head_tells_what_get_would_without_its_content(live: Any, path: str) -> None:
    """As balancers and watchdogs ask."""
    get, head = await live.http.get(path), await live.http.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["x-request-id"]
    counted = live.gateway.metrics.requests.labels("HEAD", path.replace("gpt-4o", "{id}"), str(get.status_code))
    assert counted._value.get() == 1
