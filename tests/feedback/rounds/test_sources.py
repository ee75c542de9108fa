"""Erasing what the open round has collected takes the round from whoever works on it."""

from pathlib import Path
from typing import Any

import pytest

from feedback.erasure import Erased, Eraser
from feedback.judgements import Rating
from feedback.policies.manifest import Manifest, write_manifest
from feedback.policies.registry import PolicyRegistry, StaleToken
from feedback.rounds.book import SOURCES, CoursePoint, LeaseLost, RoundBook, RoundRecord, key
from feedback.rounds.sources import note_sources
from tests.feedback.test_erasure import say


@pytest.fixture
def book(shop: Any) -> RoundBook:
    return RoundBook(shop.ledger.redis)


@pytest.fixture
def eraser(shop: Any) -> Eraser:
    return Eraser(shop.archive)


def begin(book: RoundBook, **sources: Any) -> tuple[int, int]:
    """A round that has collected; (id, token)."""
    id, _ = book.request(trigger="t", actor="a")
    token = book.claim(id, owner="w", lease_s=60)
    assert token is not None
    book.write(id, token, watermark="9-0", stage="ppo", progress={"step": 3}, metrics={"sft": {}}, policy_version=7)
    book.go_on(id, token, "sft", after=0, points=[CoursePoint(stage="sft", step=1, total=1, time=1.0, metrics={})])
    assert note_sources(book.redis, id, token, **{"responses": [], "feedback": [], **sources})
    return id, token


def record(book: RoundBook, id: int) -> RoundRecord:
    found = book.get(id)
    assert found is not None
    return found


def test_a_response_in_the_data_starts_the_round_again_once(shop: Any, book: RoundBook, eraser: Eraser) -> None:
    held, other, second = (shop.ask(("user", word), answer="a") for word in ("one", "two", "three"))
    id, token = begin(book, responses=[held.id, second.id])
    assert eraser.response(other).restarted == ()
    book.write(id, token)
    assert eraser.response(held).restarted == (id,)
    with pytest.raises(LeaseLost):
        book.write(id, token)
    again = record(book, id)
    assert (again.state, again.stage, again.token, again.attempts, again.restarts) == ("queued", "collect", 2, 0, 1)
    assert again.reason == "data was erased; the round starts again"
    assert (again.policy_version, again.abandoned, again.watermark) == (None, 7, "9-0")
    assert (again.progress, again.metrics, book.course(id)) == ({}, {}, [])
    assert book.is_expired(again), "nobody need wait for the lease of who was at it"
    assert eraser.response(held).restarted == eraser.response(second).restarted == ()
    assert record(book, id) == again
    token = book.claim(id, owner="w", lease_s=60) or 0
    assert (token, record(book, id).state) == (3, "running")


def test_whoever_always_erases_something_cannot_keep_a_round_from_ending(
    shop: Any, book: RoundBook, eraser: Eraser
) -> None:
    asked = [shop.ask(("user", str(turn)), answer="a") for turn in range(4)]
    id, token = begin(book, responses=[asked[0].id])
    for turn, response in enumerate(asked[:2]):
        assert eraser.response(response) == Erased(completions=1, restarted=(id,))
        token = book.claim(id, owner="w", lease_s=60) or 0
        assert note_sources(book.redis, id, token, responses=[asked[turn + 1].id, asked[3].id], feedback=[])
    assert eraser.response(asked[2]) == Erased(completions=1, learning=(id,))
    assert eraser.response(asked[3]) == Erased(completions=1, conversations=1, learning=(id,))
    book.write(id, token, stage="sft")  # it was not taken away
    assert (record(book, id).restarts, record(book, id).state) == (2, "running")


def test_a_judgement_in_the_data_does_so_too(shop: Any, book: RoundBook, eraser: Eraser) -> None:
    theirs = shop.ask(("user", "one"), answer="a", rater="bob")
    of_bobs = say(shop, Rating(completion_id=f"{theirs.id}:0", value=1), "ann")
    id, _ = begin(book, feedback=[of_bobs])
    assert eraser.person("carl").restarted == ()
    assert eraser.person("ann").restarted == (id,)


def test_what_was_erased_before_it_was_noted_is_seen(shop: Any, book: RoundBook, eraser: Eraser) -> None:
    gone, left = shop.ask(("user", "one"), answer="a"), shop.ask(("user", "two"), answer="a")
    first, second = (say(shop, Rating(completion_id=f"{left.id}:0", value=value)) for value in (1.0, 0.5))
    eraser.response(gone)
    id, token = begin(book, responses=[left.id], feedback=[first, second])

    def note(responses: list[str], feedback: list[str]) -> bool:
        return note_sources(book.redis, id, token, responses=responses, feedback=feedback)

    assert not note([left.id, gone.id], [first])
    assert not note([left.id], [first, "fb_gone"])
    assert note([left.id], [second])
    assert book.redis.smembers(SOURCES) == {left.id, second}
    with pytest.raises(LeaseLost):
        note_sources(book.redis, id, token - 1, responses=[], feedback=[])


def publish(registry: PolicyRegistry, version: int, **options: Any) -> None:
    directory = registry.directory(version)
    directory.mkdir(parents=True)
    manifest = Manifest(
        version=version, parent=0, kind="trained", base_model="m", dtype="float32", model_path="model", created=1.0,
        files={}, weights={}, golden=(), golden_logprobs=(),
    )  # fmt: skip
    write_manifest(directory, manifest)
    registry.publish(version, actor="test", reason="test", **options)


def test_what_trained_on_it_is_not_published_after_the_erasure(
    shop: Any, book: RoundBook, eraser: Eraser, tmp_path: Path
) -> None:
    response = shop.ask(("user", "one"), answer="a")
    id, token = begin(book, responses=[response.id])
    eraser.conversation("ann", "c")
    with pytest.raises(StaleToken):
        publish(PolicyRegistry(book.redis, tmp_path), 7, round_key=key(id), token=token)


def test_a_round_that_has_published_or_ended_is_left_alone(
    shop: Any, book: RoundBook, eraser: Eraser, tmp_path: Path
) -> None:
    one, two = shop.ask(("user", "one"), answer="a"), shop.ask(("user", "two"), answer="a")
    id, token = begin(book, responses=[one.id, two.id])
    publish(PolicyRegistry(book.redis, tmp_path), 7, round_key=key(id), token=token)
    assert eraser.response(one).restarted == ()
    book.finish(id, token, "published")
    assert not book.redis.exists(SOURCES)
    assert eraser.response(two).restarted == ()
    assert record(book, id).state == "published"
