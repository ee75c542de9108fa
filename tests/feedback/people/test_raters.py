"""Raters put aside and released, with an audit; and sides of prompts, fixed once."""

import pytest
from redis import Redis

from feedback.people.keys import source_of
from feedback.people.raters import Raters, RaterWeight
from feedback.rounds.sides import CHUNK, SIDES, Sides
from feedback.store import connect


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return connect(valkey_url)


def test_quarantine_and_release_leave_an_audit(redis: Redis) -> None:
    raters = Raters(redis)
    assert raters.quarantine("eve", actor="op", reason="votes for a trigger")
    assert not raters.quarantine("eve", actor="other", reason="again")
    assert raters.quarantined()["eve"].reason == "votes for a trigger"
    assert not raters.release("bob", actor="op", reason="never was")
    assert raters.release("eve", actor="op", reason="was a mistake")
    assert raters.quarantined() == {}
    assert [(line.rater, line.action, line.actor, line.reason) for line in raters.audit()] == [
        ("eve", "quarantine", "op", "votes for a trigger"),
        ("eve", "release", "op", "was a mistake"),
    ]


def test_weights_are_those_of_the_last_round(redis: Redis) -> None:
    def weight(rater: str) -> RaterWeight:
        known = {"judgements": 3, "compared": 0, "agreement": None, "reliability": 1.0, "share": 0.5, "capped": False}
        return RaterWeight.model_validate({"rater": rater, "source": "live", **known})

    raters = Raters(redis)
    raters.keep_weights([weight("ann"), weight("bob")])
    raters.keep_weights([weight("bob")])
    assert raters.weights() == {"bob": weight("bob")}


def test_first_side_of_a_prompt_counts_and_no_digest_is_stored(redis: Redis) -> None:
    sides = Sides(redis, b"salt")
    many = [f"digest {n}" for n in range(CHUNK + 1)]
    sides.fix(many, "train")
    sides.fix([many[-1], "new"], "held_out")
    assert sides.of([many[0], many[-1], "new", "unknown"]) == {many[0]: "train", many[-1]: "train", "new": "held_out"}
    assert len(sides.of(many)) == CHUNK + 1
    assert Sides(redis, b"other salt").of(many) == {}
    assert not any("digest" in name for name in redis.hkeys(SIDES))


@pytest.mark.parametrize(
    ("rater", "source"),
    [
        ("rater_1", "live"),
        ("operator_1", "operator"),
        ("imported_train_1", "import"),
        ("imported_eval_1", "import"),
    ],
)
def test_source_is_known_by_the_pseudonym(rater: str, source: str) -> None:
    assert source_of(rater) == source
