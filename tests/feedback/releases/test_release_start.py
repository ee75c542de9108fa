"""Who decides a release, and that a round's release begins once."""

from pathlib import Path

import pytest

from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.judge import rules_of
from feedback.releases.plan import Plan
from feedback.releases.start import able, begin_once, begin_release, electorate
from tests.feedback.booth import Booth
from tests.feedback.policies.test_registry import publish


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


@pytest.fixture
def registry(booth: Booth, tmp_path: Path) -> PolicyRegistry:
    registry = PolicyRegistry(booth.ledger.redis, tmp_path / "policies")
    publish(registry, 4)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    return registry


def test_the_evaluation_raters_decide_where_enough_of_them_compare(booth: Booth) -> None:
    plan = Plan(least_evaluators=2)
    for rater, split in (("ann", "eval"), ("ann", "eval"), ("bob", "train"), ("cay", "train")):
        booth.compare(0, 1, rater=rater, split=split)
    assert electorate(booth.ledger, plan) == "all"
    booth.compare(0, 1, rater="dan", split="eval")
    assert electorate(booth.ledger, plan) == "evaluation"
    assert electorate(booth.ledger, plan.model_copy(update={"raters": "all"})) == "all"
    Raters(booth.ledger.redis).quarantine("dan", actor="op", reason="bought")
    assert electorate(booth.ledger, plan) == "all"


def test_what_was_said_before_counts_for_nothing(booth: Booth, registry: PolicyRegistry) -> None:
    booth.compare(0, 1)
    before = booth.ledger.watermark()
    release = begin_release(booth.ledger, registry, 1, Plan(), mode="manual", actor="ann", reason="try", seen=None)
    assert (release.since, release.whose, release.mode) == (before, "all", "manual")


def test_the_first_release_knows_who_ranked_for_the_round_before_it(booth: Booth, registry: PolicyRegistry) -> None:
    """So the bar against plots is not the one for votes of nobody knows how many."""
    for rater in ("ann", "bob", "bob", "cay"):
        booth.compare(0, 0, rater=rater)
    Raters(booth.ledger.redis).quarantine("cay", actor="op", reason="bought")
    release = begin_release(booth.ledger, registry, 1, Plan(), mode="manual", actor="ann", reason="try", seen=None)
    assert release.voters == 2
    assert rules_of(booth.ledger, release).raters == 2


def test_where_nobody_has_compared_whoever_has_chatted_may_vote(booth: Booth, registry: PolicyRegistry) -> None:
    for rater in ("ann", "bob", "bob", "cay", "imported_train_1"):
        booth.answers(0, rater=rater)
    Raters(booth.ledger.redis).quarantine("cay", actor="op", reason="bought")
    assert (able(booth.ledger, "all"), able(booth.ledger, "evaluation")) == (2, 0)
    release = begin_release(booth.ledger, registry, 1, Plan(), mode="manual", actor="ann", reason="try", seen=None)
    assert release.voters == 2


def once(booth: Booth, registry: PolicyRegistry, candidate: int) -> Release | None:
    return begin_once(
        booth.ledger, registry, candidate, Plan(), mode="automatic", actor="training", reason=f"round {candidate}"
    )


def test_a_round_begins_one_release_however_often_its_stage_is_run(booth: Booth, registry: PolicyRegistry) -> None:
    book = ReleaseBook(registry)
    first = once(booth, registry, 1)
    assert first is not None and once(booth, registry, 1) == first == book.open()
    book.end(first, "aborted", actor="ann", reason="so")
    again = once(booth, registry, 1)
    assert again is not None and (again.id, again.state, book.open()) == (first.id, "aborted", None)
    second = once(booth, registry, 2)
    third = once(booth, registry, 3)
    assert second is not None and book.open() == third
    replaced = once(booth, registry, 2)
    assert replaced is not None and (replaced.id, replaced.state) == (second.id, "replaced")


def test_while_frozen_nothing_begins_by_itself(booth: Booth, registry: PolicyRegistry) -> None:
    ReleaseBook(registry).freeze(True, actor="test", reason="test")
    assert once(booth, registry, 1) is None
    assert ReleaseBook(registry).open() is None
