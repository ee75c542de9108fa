import threading
from pathlib import Path
from typing import Any

import pytest

from feedback.rounds.book import CoursePoint, LeaseLost, RoundBook, last_on_disk
from feedback.store import connect
from tests.conftest import wait_for


@pytest.fixture
def rounds(valkey_url: str) -> RoundBook:
    return RoundBook(connect(valkey_url))


def test_at_most_one_round_is_open(rounds: RoundBook) -> None:
    assert rounds.request(trigger="count", actor="beat") == (1, True)
    assert rounds.request(trigger="operator", actor="cli") == (1, False)
    token = rounds.claim(1, owner="w", lease_s=10)
    assert token == 1
    rounds.finish(1, token, "refused", reason="gate")
    assert rounds.open_round() is None
    assert rounds.request(trigger="count", actor="beat") == (2, True)


def test_a_number_on_the_disk_is_never_another_rounds(rounds: RoundBook, tmp_path: Path) -> None:
    """Redis may be new, or restored from before that round."""
    assert last_on_disk(tmp_path / "rounds") == 0
    for name in ("000003", "000007.1", "notes"):
        (tmp_path / "rounds" / name).mkdir(parents=True)
    assert last_on_disk(tmp_path / "rounds") == 7
    for beyond, id in ((7, 8), (0, 9), (3, 10)):
        assert rounds.request(trigger="count", actor="beat", beyond=beyond) == (id, True)
        assert rounds.request(trigger="count", actor="beat", beyond=100) == (id, False)
        rounds.finish(id, rounds.claim(id, owner="w", lease_s=60) or 0, "failed")


def test_a_live_lease_keeps_others_out_and_an_expired_one_lets_them_in(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    first = rounds.claim(id, owner="first", lease_s=0.15)
    assert first is not None
    assert rounds.claim(id, owner="second", lease_s=10) is None
    wait_for(lambda: rounds.claim(id, owner="second", lease_s=10) is not None, seconds=5, what="lease expiry")
    with pytest.raises(LeaseLost):
        rounds.write(id, first, stage="ppo")
    with pytest.raises(LeaseLost):
        rounds.finish(id, first, "published")
    record = rounds.get(id)
    assert record is not None and (record.stage, record.owner, record.attempts) == ("collect", "second", 2)


def test_twenty_claims_at_once_one_gets_it(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    tokens: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(rounds.claim(id, owner="w", lease_s=10))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [token for token in tokens if token is not None] == [1]


def test_renewal_keeps_the_lease_and_fields_survive(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    token = rounds.claim(id, owner="w", lease_s=0.2)
    assert token is not None
    rounds.write(id, token, lease_s=60, stage="reward", watermark="5-0", progress={"step": 3}, metrics={"a": [1.5]})
    record = rounds.get(id)
    assert record is not None and not rounds.is_expired(record)
    assert (record.stage, record.watermark, record.progress, record.metrics) == (
        "reward", "5-0", {"step": 3}, {"a": [1.5]},
    )  # fmt: skip


def test_a_released_round_can_be_claimed_at_once(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    token = rounds.claim(id, owner="w", lease_s=60)
    assert token is not None
    rounds.release(id, token)
    assert rounds.claim(id, owner="v", lease_s=60) == token + 1


def test_a_finished_round_cannot_be_claimed_or_written(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    token = rounds.claim(id, owner="w", lease_s=0)
    assert token is not None
    rounds.finish(id, token, "failed", reason="NaN")
    assert rounds.claim(id, owner="v", lease_s=60) is None
    with pytest.raises(LeaseLost):
        rounds.finish(id, token, "published")


def test_list_begins_with_the_newest(rounds: RoundBook) -> None:
    for _ in range(3):
        id, _ = rounds.request(trigger="t", actor="a")
        token = rounds.claim(id, owner="w", lease_s=60)
        assert token is not None
        rounds.finish(id, token, "failed")
    assert [round.id for round in rounds.list(limit=2)] == [3, 2]


def test_freezing(rounds: RoundBook) -> None:
    assert not rounds.is_frozen()
    rounds.freeze(True, actor="test", reason="test")
    assert rounds.is_frozen()
    rounds.freeze(False, actor="test", reason="test")
    assert not rounds.is_frozen()


def point(stage: str, step: int, loss: float = 0.5) -> CoursePoint:
    return CoursePoint(stage=stage, step=step, total=9, time=float(step), metrics={"loss": loss})


@pytest.mark.parametrize("end", ["published", "refused", "failed", "cancelled"])
def test_a_course_is_kept_for_90_days_after_the_end_and_the_round_for_good(rounds: RoundBook, end: Any) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    token = rounds.claim(id, owner="w", lease_s=60)
    assert token is not None
    rounds.go_on(id, token, "ppo", after=0, points=[point("ppo", 1)])
    rounds.write(id, token, stage="ppo")
    assert rounds.redis.ttl(f"round:{id}:course") == -1, "for as long as it is open"
    rounds.finish(id, token, end)
    assert 90 * 86400 - 3600 < rounds.redis.ttl(f"round:{id}:course") <= 90 * 86400
    assert rounds.redis.ttl(f"round:{id}") == -1 and rounds.course(id) == [point("ppo", 1)]


def test_a_course_goes_on_where_an_attempt_begins_and_only_for_the_newest(rounds: RoundBook) -> None:
    id, _ = rounds.request(trigger="t", actor="a")
    old = rounds.claim(id, owner="w", lease_s=0)
    assert old is not None
    rounds.go_on(id, old, "ppo", after=0, points=[point("ppo", step) for step in (1, 2, 3)])
    rounds.go_on(id, old, "sft", after=0, points=[point("sft", 1)])
    rounds.go_on(id, old, "gate", after=0, points=[point("gate", 7)])
    new = rounds.claim(id, owner="v", lease_s=60)
    assert new is not None
    rounds.go_on(id, new, "ppo", after=1, points=[])
    rounds.go_on(id, new, "ppo", after=1, points=[point("ppo", 2, loss=0.25)])
    with pytest.raises(LeaseLost, match="token 1 is no longer the newest"):
        rounds.go_on(id, old, "ppo", after=3, points=[point("ppo", 4)])
    expected = [point("sft", 1), point("ppo", 1), point("ppo", 2, loss=0.25), point("gate", 7)]
    assert rounds.course(id) == expected
    rounds.finish(id, new, "refused")
    with pytest.raises(LeaseLost):
        rounds.go_on(id, new, "ppo", after=2, points=[point("ppo", 3)])
    assert rounds.course(id) == expected and rounds.course(id + 1) == []
