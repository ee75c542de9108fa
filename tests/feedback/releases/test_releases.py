"""Releases on a real Valkey: steps, and transitions of which one of two at once wins."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.registry import PointerMoved, PolicyRegistry
from feedback.releases.book import NotReleasable, Release, ReleaseBook, ReleaseMoved
from feedback.releases.plan import BadPlan, Pause, Plan, SetWeight, plan_of
from feedback.store import connect
from tests.feedback.policies.test_registry import publish

STEPS = [{"set_weight": 5}, {"pause": "1m"}, {"set_weight": 25}, {"pause": None}, {"analysis": {}}]


@pytest.fixture
def book(valkey_url: str, tmp_path: Path) -> ReleaseBook:
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    publish(registry, 4)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    return ReleaseBook(registry)


def begin(book: ReleaseBook, candidate: int, seen: Release | None = None, **plan: Any) -> Release:
    return book.start(
        candidate, plan_of(plan), mode="automatic", whose="all", since="0", actor="ann", reason="try", seen=seen
    )


def canary(book: ReleaseBook, candidate: int, **plan: Any) -> Release:
    release = begin(book, candidate, **plan)
    begun = release.model_copy(update={"state": "canary", "stepped": 100.0})
    return book.move(release, begun, actor="engine", reason="proven")


def test_steps_are_taken_when_they_are_due(book: ReleaseBook) -> None:
    release = canary(book, 1, steps=STEPS)
    at = release.advanced(100.0, "undecided")
    assert (at.step, at.weight, at.stepped) == (1, 0.05, 100.0)
    assert at.advanced(9e9, "undecided", 59.9) is at
    at = at.advanced(160.0, "undecided", 60.0)
    assert (at.step, at.weight, at.paused) == (3, 0.25, True)
    assert at.advanced(9e9, "promote", 9e9) is at
    at = at.resumed(200.0)
    assert (at.step, at.paused, at.stepped) == (4, False, 200.0)
    assert at.advanced(300.0, "undecided", 100.0) is at
    at = at.advanced(301.0, "promote", 101.0)
    assert (at.step, at.proposed, at.by_votes, at.weight) == (5, True, True, 0.25)


def test_what_one_step_waited_is_none_of_the_next_ones(book: ReleaseBook) -> None:
    at = canary(book, 1, steps=[{"pause": "1m"}, {"pause": "1m"}]).advanced(100.0, "undecided", 120.0)
    assert (at.step, at.proposed) == (1, False)


def test_a_pause_takes_no_step_and_moves_none(book: ReleaseBook) -> None:
    at = canary(book, 1, steps=STEPS).advanced(100.0, "undecided").paused_now(130.0, "ann", "lunch")
    assert at.advanced(1000.0, "undecided", 870.0) is at
    going = at.resumed(1000.0)
    assert (going.step, going.stepped, going.paused, going.paused_by, going.paused_why) == (1, 100.0, False, "", "")


def test_one_that_was_kept_before_votes_were_told_from_hands_is_read(book: ReleaseBook) -> None:
    kept = json.loads(canary(book, 1).model_dump_json())
    del kept["by_votes"]
    assert not Release.model_validate(kept).by_votes


def test_a_promotion_moves_the_pointer_with_it(book: ReleaseBook) -> None:
    release = canary(book, 1)
    assert book.registry.states()[1] == "canary"
    ended = book.end(release, "promoted", actor="ann", reason="better")
    assert (book.open(), ended.state, book.get(release.id)) == (None, "promoted", ended)
    assert (book.registry.stable(), book.registry.states()[0], book.registry.states()[1]) == (1, "retired", "stable")
    assert book.registry.previous() == 0


@pytest.mark.parametrize(
    ("state", "left"), [("rolled_back", "rolled_back"), ("aborted", "candidate"), ("inconclusive", "candidate")]
)
def test_an_end_without_promotion_leaves_the_pointer(book: ReleaseBook, state: Any, left: str) -> None:
    book.end(canary(book, 1), state, actor="ann", reason="so")
    assert (book.registry.stable(), book.registry.states()[1], book.open()) == (0, left, None)
    assert book.registry.previous() is None


def test_what_is_over_is_paused_by_nobody(book: ReleaseBook) -> None:
    seen = canary(book, 1)
    ended = book.end(book.move(seen, seen.paused_now(1.0, "ann", "lunch"), actor="ann", reason="lunch"), "aborted",
                     actor="bob", reason="so")  # fmt: skip
    assert (ended.paused_at, ended.paused_by, ended.paused_why) == (None, "", "")


def test_who_saw_an_old_revision_changes_nothing(book: ReleaseBook) -> None:
    seen = canary(book, 1)
    book.move(seen, seen.paused_now(1.0), actor="ann", reason="wait")
    with pytest.raises(ReleaseMoved, match="release 1 is paused, step 1 of 2") as told:
        book.end(seen, "promoted", actor="bob", reason="go")
    assert told.value.current == book.open()
    assert book.registry.stable() == 0
    assert [line.actor for line in book.history(1)] == ["ann", "engine", "ann"]


def test_a_new_candidate_takes_the_place_of_the_running_one(book: ReleaseBook) -> None:
    first = canary(book, 1)
    second = begin(book, 2, seen=first)
    former = book.get(first.id)
    assert former is not None and (former.state, former.why) == ("replaced", "release 2 of policy-v2 took its place")
    assert (book.registry.states()[1], book.registry.states()[2], book.open()) == ("candidate", "canary", second)
    with pytest.raises(ReleaseMoved):
        begin(book, 3, seen=first)
    with pytest.raises(ReleaseMoved):
        begin(book, 3)
    again = begin(book, 2, seen=second)
    assert (book.open(), book.registry.states()[2]) == (again, "canary")
    book.end(again, "aborted", actor="ann", reason="so")
    assert book.registry.states()[2] == "candidate"


@pytest.mark.parametrize("state", ["promoted", "rolled_back"])
def test_what_it_is_measured_against_must_still_serve(book: ReleaseBook, state: Any) -> None:
    release = canary(book, 1)
    book.registry.point_stable(2, expected=0, actor="bob", reason="by hand")
    with pytest.raises(PointerMoved):
        book.end(release, state, actor="ann", reason="so")
    assert (book.registry.stable(), book.registry.states()[1], book.open()) == (2, "canary", release)


def test_a_candidate_that_serves_by_other_ways_was_not_promoted_by_its_release(book: ReleaseBook) -> None:
    release = canary(book, 1)
    book.registry.point_stable(1, expected=0, actor="bob", reason="by hand")
    with pytest.raises(PointerMoved, match="no longer policy-v0; it is policy-v1"):
        book.end(release, "promoted", actor="ratchet", reason="it serves")
    assert (book.registry.stable(), book.open()) == (1, release)
    book.end(release, "aborted", actor="bob", reason="by hand")
    assert (book.registry.stable(), book.registry.states()[1], book.open()) == (1, "stable", None)


def test_only_what_may_serve_is_released(book: ReleaseBook) -> None:
    for version in (0, 3):
        if version:
            book.registry.settle(
                version, "rejected", revision=book.registry.revision(), action="reject", actor="engine", reason="no"
            )
        with pytest.raises(NotReleasable):
            begin(book, version)
    assert book.open() is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [{"set_weight": 95}]}, "set_weight"),
        ({"steps": [{"pause": "soon"}]}, "pause"),
        ({"steps": [{"pause": "9" * 400 + "d"}]}, "pause"),
        ({"alpha": 2}, "alpha"),
        ({"alpha": 1e-320}, "alpha"),
        ({"limits": {"errors": math.inf}}, "limits.errors"),
        ({"limits": {"score": math.inf}}, "limits.score"),
        ({"max_votes": 10**400}, "max_votes"),
        ({"step": []}, "step"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(BadPlan, match=named):
        plan_of(given)


def test_a_complaint_about_a_plan_is_in_the_words_of_who_wrote_it() -> None:
    with pytest.raises(BadPlan, match=r"^steps\.0\.set_weight: Input should be"):
        plan_of({"steps": [{"set_weight": "much"}]})
    with pytest.raises(BadPlan, match="^stepz: there is no such field$"):
        plan_of({"stepz": []})


def test_a_plan_is_written_as_people_write(book: ReleaseBook) -> None:
    plan = plan_of({"steps": STEPS, "deadline": "2h"})
    assert plan.steps[:2] == (SetWeight(set_weight=5), Pause(pause=60.0))
    assert (plan.deadline, plan_of({})) == (7200.0, Plan())
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
