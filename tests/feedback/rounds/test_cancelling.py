"""A round that an operator ends is over at once, for its worker too; it is published or cancelled, never both."""

import threading
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from feedback.audit import audit
from feedback.policies.registry import PolicyRegistry, StaleToken
from feedback.reconcile import reconcile
from feedback.rounds.book import OPEN, SOURCES, LeaseLost, RoundBook, key
from feedback.rounds.cancelling import NotCancellable, cancel, note_cleared, uncleared
from feedback.rounds.next_round import next_round
from feedback.settings import Settings
from feedback.store import Ledger, connect
from tests.feedback.booth import Booth
from tests.feedback.policies.test_registry import write_policy


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return connect(valkey_url)


@pytest.fixture
def rounds(redis: Redis) -> RoundBook:
    return RoundBook(redis)


def claimed(rounds: RoundBook, lease_s: float = 60) -> tuple[int, int]:
    id, _ = rounds.request(trigger="t", actor="a")
    token = rounds.claim(id, owner="w", lease_s=lease_s)
    assert token is not None
    return id, token


def test_a_cancelled_round_is_over_says_by_whom_and_why_and_takes_nothing_more(rounds: RoundBook) -> None:
    id, token = claimed(rounds)
    rounds.write(id, token, stage="ppo", watermark="5-0")
    rounds.redis.sadd(SOURCES, "x")
    round = cancel(rounds.redis, id, actor="ann", reason="a test")
    assert (round.state, round.reason, round.stage, round.watermark) == (
        "cancelled", "cancelled by ann: a test", "ppo", "5-0",
    )  # fmt: skip
    assert round.finished is not None and round == rounds.get(id) and rounds.open_round() is None
    assert rounds.redis.exists(OPEN, SOURCES) == 0
    for worker in (rounds.write, lambda *args: rounds.finish(*args, "published"), rounds.release):
        with pytest.raises(LeaseLost):
            worker(id, token)
    assert rounds.claim(id, owner="v", lease_s=60) is None
    assert rounds.request(trigger="t", actor="a") == (id + 1, True)
    [line] = audit(rounds.redis).entries
    assert (line.kind, line.what, line.action) == ("round", "round 1", "cancel")
    assert (line.actor, line.reason) == ("ann", "a test")


def test_a_queued_round_is_cancelled_too_and_the_same_judgements_start_no_other(redis: Redis, valkey_url: str) -> None:
    rounds, booth, settings = RoundBook(redis), Booth(valkey_url), Settings(min_rankings=1, redis_url=valkey_url)
    booth.compare(0, 1, rater="ann")
    id, _ = rounds.request(trigger="count", actor="beat")
    assert next_round(settings, rounds, booth.ledger).judgements == 1
    assert cancel(redis, id, actor="ann", reason="r").watermark == Ledger(redis).watermark() != "0"
    assert next_round(settings, rounds, booth.ledger).judgements == 0
    booth.compare(2, 3, rater="ann")
    assert next_round(settings, rounds, booth.ledger).judgements == 1


@pytest.mark.parametrize("end", ["published", "refused", "failed"])
def test_what_is_over_stays_as_it_is(rounds: RoundBook, end: Any) -> None:
    id, token = claimed(rounds)
    rounds.finish(id, token, end, reason="so")
    with pytest.raises(NotCancellable, match=f"round 1 is over: {end}") as refused:
        cancel(rounds.redis, id, actor="ann", reason="r")
    assert refused.value.current == rounds.get(id)
    assert audit(rounds.redis).entries == [] and uncleared(rounds.redis) == []


def test_nobody_cancels_twice(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    first = cancel(rounds.redis, id, actor="ann", reason="r")
    with pytest.raises(NotCancellable, match="over: cancelled"):
        cancel(rounds.redis, id, actor="bob", reason="s")
    assert rounds.get(id) == first and len(audit(rounds.redis).entries) == 1


@pytest.fixture
def registry(redis: Redis, tmp_path: Path) -> PolicyRegistry:
    return PolicyRegistry(redis, tmp_path)


def at_its_end(rounds: RoundBook, registry: PolicyRegistry) -> tuple[int, int, int]:
    """A round whose policy is written, but not registered: id, token, version."""
    id, token = claimed(rounds)
    version = registry.reserve()
    write_policy(registry.directory(version), version)
    rounds.write(id, token, stage="publish", policy_version=version)
    return id, token, version


def publish(registry: PolicyRegistry, id: int, token: int, version: int) -> None:
    registry.publish(version, actor="training", reason="r", round_key=key(id), token=token)


def test_what_has_published_is_not_cancelled(rounds: RoundBook, registry: PolicyRegistry) -> None:
    id, token, version = at_its_end(rounds, registry)
    publish(registry, id, token, version)
    with pytest.raises(NotCancellable, match=f"at its end: policy-v{version} is published") as refused:
        cancel(rounds.redis, id, actor="ann", reason="r")
    assert refused.value.current.state == "running"
    rounds.finish(id, token, "published")


def test_what_was_written_but_not_registered_is_neither_published_nor_found(
    rounds: RoundBook, registry: PolicyRegistry
) -> None:
    id, token, version = at_its_end(rounds, registry)
    round = cancel(rounds.redis, id, actor="ann", reason="r")
    assert (round.policy_version, round.abandoned) == (None, version)
    with pytest.raises(StaleToken):
        publish(registry, id, token, version)
    assert reconcile(registry) == [] and version not in registry.states()
    assert uncleared(rounds.redis) == [round]
    assert uncleared(rounds.redis, let_go=True) == [], "its worker may be at it for as long as its lease was"
    note_cleared(rounds.redis, id)
    assert uncleared(rounds.redis) == []


def test_at_the_same_moment_a_round_is_published_or_cancelled(rounds: RoundBook, registry: PolicyRegistry) -> None:
    for _ in range(20):
        id, token, version = at_its_end(rounds, registry)
        done: list[str] = []
        together = threading.Barrier(2)

        def attempt(name: str, deed: Any, refusal: type[Exception], done: Any = done, together: Any = together) -> None:
            together.wait()
            try:
                deed()
                done.append(name)
            except refusal:
                pass

        deeds: list[tuple[str, Any, type[Exception]]] = [
            ("publish", lambda: publish(registry, id, token, version), StaleToken),  # noqa: B023
            ("cancel", lambda: cancel(rounds.redis, id, actor="a", reason="r"), NotCancellable),  # noqa: B023
        ]
        threads = [threading.Thread(target=attempt, args=deed) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = rounds.get(id)
        assert record is not None and len(done) == 1
        assert (version in registry.states()) == (done == ["publish"]) == (record.state == "running")
        if record.is_open:
            rounds.finish(id, token, "published")
