"""When rounds start by themselves: by count, by schedule, never while frozen, and once however many beats there are."""

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from feedback.judgements import Feedback, Rating
from feedback.people.raters import Raters
from feedback.records import CHECKS
from feedback.rounds.book import RoundBook
from feedback.rounds.next_round import BATCH, NextRound, next_round
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.schedule import release_of_dead, round_in_need


class Clockwork:
    def __init__(self, url: str, home: Path) -> None:
        self.redis = connect(url)
        self.book, self.ledger = RoundBook(self.redis), Ledger(self.redis)
        self.url, self.home = url, home

    def settings(self, **fields: float) -> Settings:
        return Settings(home=self.home, redis_url=self.url, **{"min_rankings": 3, **fields})  # type: ignore[arg-type]

    def judge(self, *ids: str, on: str = "", metric: str | None = None, **facts: Any) -> None:
        for id in ids:
            judgement = Rating(completion_id=on or id, value=1, metric=metric)
            said = {"id": id, "judgement": judgement, "rater": "r", "split": "train", "created": 0.0}
            self.ledger.append_feedback(Feedback.model_validate(said | facts))

    def tick(self, **fields: float) -> int | None:
        return round_in_need(self.settings(**fields), self.redis)

    def ahead(self, **fields: float) -> NextRound:
        return next_round(self.settings(**fields), self.book, self.ledger)

    def end_round(self, state: str) -> None:
        round = self.book.open_round()
        assert round is not None
        token = self.book.claim(round.id, owner="test", lease_s=60)
        assert token is not None
        self.book.write(round.id, token, watermark=self.ledger.watermark())
        self.book.finish(round.id, token, state, reason="test")  # type: ignore[arg-type]


@pytest.fixture
def clockwork(valkey_url: str, tmp_path: Path) -> Clockwork:
    return Clockwork(valkey_url, tmp_path)


def test_enough_judgements_open_a_round(clockwork: Clockwork) -> None:
    assert clockwork.tick() is None
    clockwork.judge("a", "b")
    assert clockwork.tick() is None
    clockwork.judge("c")
    assert clockwork.tick() == 1
    record = clockwork.book.get(1)
    assert record is not None
    assert (record.trigger, record.actor, record.state) == ("count", "beat", "queued")


def test_a_round_that_starts_takes_no_number_that_is_on_the_disk(clockwork: Clockwork) -> None:
    (clockwork.settings().rounds_dir / "000004").mkdir(parents=True)
    clockwork.judge("a", "b", "c")
    assert clockwork.tick() == 5


def test_what_the_next_round_waits_for_is_told_whatever_runs(clockwork: Clockwork) -> None:
    assert clockwork.ahead() == NextRound(judgements=0, needed=3)
    clockwork.judge("a", "b")
    clockwork.judge("e", split="eval")
    assert clockwork.ahead() == NextRound(judgements=2, needed=3)
    clockwork.judge("c", "d", "f")
    assert clockwork.ahead().judgements == 3, "more than are needed are not counted"
    assert clockwork.tick() == 1
    clockwork.end_round("failed")
    clockwork.judge("g")
    assert clockwork.ahead() == NextRound(judgements=1, needed=3)
    clockwork.book.request(trigger="operator", actor="test")
    assert clockwork.ahead().judgements == 1, "the open one has not looked yet"


def test_only_what_a_round_would_learn_from_is_counted(clockwork: Clockwork) -> None:
    clockwork.judge("a", "b", "taken back")
    clockwork.judge("revised", on="d")
    clockwork.judge("d")
    clockwork.judge("of another metric", metric="tone")
    clockwork.judge("aside", rater="s")
    assert clockwork.ahead(min_rankings=9).judgements == 5
    clockwork.ledger.retract("taken back")
    Raters(clockwork.redis).quarantine("s", actor="test", reason="test")
    assert clockwork.ahead() == NextRound(judgements=3, needed=3)
    clockwork.ledger.retract("a")
    assert clockwork.ahead().judgements == 2 and clockwork.tick() is None
    clockwork.judge(*map(str, range(2 * BATCH)))
    for id in range(2 * BATCH):
        clockwork.ledger.retract(str(id))
    clockwork.judge("c")
    assert clockwork.tick() == 1, "however many were taken back before it"


def test_evaluation_raters_open_no_round(clockwork: Clockwork) -> None:
    clockwork.judge("a", "b", "c", "d", split="eval")
    assert clockwork.tick() is None


def test_frozen_learning_opens_no_round_but_one_asked_for_goes_on(clockwork: Clockwork) -> None:
    clockwork.book.freeze(True, actor="test", reason="test")
    clockwork.judge("a", "b", "c")
    assert clockwork.tick() is None
    assert clockwork.book.open_round() is None
    clockwork.book.request(trigger="operator", actor="test")
    assert clockwork.tick() == 1
    clockwork.end_round("refused")
    clockwork.judge("d", "e", "f")
    clockwork.book.freeze(False, actor="test", reason="test")
    assert clockwork.tick() == 2


@pytest.mark.parametrize("state", ["published", "refused", "failed", "cancelled"])
def test_feedback_opens_one_round_whatever_became_of_it(clockwork: Clockwork, state: str) -> None:
    clockwork.judge("a", "b", "c")
    assert clockwork.tick() == 1
    clockwork.end_round(state)
    assert clockwork.tick() is None
    clockwork.judge("d", "e")
    assert clockwork.tick() is None
    clockwork.judge("f")
    assert clockwork.tick() == 2


def test_hint_is_sent_again_only_while_nobody_holds_the_round(clockwork: Clockwork) -> None:
    clockwork.book.request(trigger="operator", actor="test")
    assert clockwork.tick() == 1
    assert clockwork.tick() == 1, "the first hint was lost"
    token = clockwork.book.claim(1, owner="worker", lease_s=60)
    assert token is not None
    assert clockwork.tick() is None
    clockwork.book.release(1, token)
    assert clockwork.tick() == 1


@pytest.mark.parametrize(
    ("holder", "freed"),
    [("here:DEAD", True), ("here:ALIVE", False), ("elsewhere:DEAD", False), ("here:MINE", True)],
)
def test_round_of_a_worker_that_died_here_is_free_at_once(clockwork: Clockwork, holder: str, freed: bool) -> None:
    """A pid like one's own is a predecessor's: containers give the same one again."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    owner = holder.replace("DEAD", str(dead.pid)).replace("ALIVE", str(os.getppid())).replace("MINE", str(os.getpid()))
    clockwork.book.request(trigger="operator", actor="test")
    assert clockwork.book.claim(1, owner=owner, lease_s=60) == 1
    release_of_dead(clockwork.book, f"here:{os.getpid()}")
    record = clockwork.book.get(1)
    assert record is not None
    assert clockwork.book.is_expired(record) is freed


def test_many_beats_open_one_round(clockwork: Clockwork) -> None:
    clockwork.judge("a", "b", "c")
    seen: list[int | None] = []
    beats = [threading.Thread(target=lambda: seen.append(clockwork.tick())) for _ in range(8)]
    for beat in beats:
        beat.start()
    for beat in beats:
        beat.join()
    assert seen == [1] * 8
    assert [round.id for round in clockwork.book.list()] == [1]


@pytest.mark.parametrize("lane", CHECKS)
def test_checks_of_raters_start_no_round(clockwork: Clockwork, lane: str) -> None:
    clockwork.judge("a", "b", "c", lane=lane)
    clockwork.judge("d", "e")
    assert clockwork.tick() is None
    clockwork.judge("f", lane="release")
    assert clockwork.tick() == 1


def test_schedule_waits_its_time_and_for_something_new(clockwork: Clockwork) -> None:
    assert clockwork.ahead(round_every_minutes=10).due(1e12) is None, "nothing was said"
    clockwork.judge("a", created=1000.0)
    ahead = clockwork.ahead(round_every_minutes=10)
    assert ahead == NextRound(judgements=1, needed=3, scheduled=1600.0)
    assert ahead.due(1599.0) is None
    assert ahead.due(1600.0) == "schedule"
    assert clockwork.tick(round_every_minutes=10) == 1
    clockwork.end_round("refused")
    assert clockwork.ahead(round_every_minutes=10).due(time.time() + 3600) is None, "nothing was said since"
    clockwork.judge("b", created=time.time())
    assert clockwork.ahead(round_every_minutes=10).due(time.time() + 500) is None
    assert clockwork.ahead(round_every_minutes=10).due(time.time() + 700) == "schedule"
