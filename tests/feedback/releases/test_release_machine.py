"""Whatever operators, the controller and the pointer do to releases, in any order: the book is what a model says."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from feedback.policies.registry import STABLE, STATES, PointerMoved, PolicyRegistry
from feedback.releases.book import RELEASABLE, NotReleasable, Release, ReleaseBook, ReleaseMoved
from feedback.releases.plan import Plan
from feedback.store import connect

VERSIONS = 4
REFUSED = (ReleaseMoved, NotReleasable, PointerMoved)


class Releases(RuleBasedStateMachine):
    url: str

    @initialize()
    def begin(self) -> None:
        redis = connect(self.url)
        redis.flushall()
        self.states = {0: "stable"} | {version: "candidate" for version in range(1, VERSIONS)}
        self.stable = 0
        redis.hset(STATES, mapping={str(version): state for version, state in self.states.items()})
        redis.set(STABLE, 0)
        self.book = ReleaseBook(PolicyRegistry(redis, Path("nowhere")))
        self.open: Release | None = None
        self.seen: list[Release] = []  # all that ever was, newest last

    def knows(self, release: Release) -> None:
        self.open = release if release.is_open else None
        self.seen.append(release)

    def leaves(self, version: int, state: str) -> None:
        if self.states[version] == "canary":
            self.states[version] = state

    @rule(candidate=st.integers(0, VERSIONS - 1))
    def start(self, candidate: int) -> None:
        former = self.states[candidate]
        again = self.open is not None and self.open.candidate == candidate
        if again and self.open is not None:
            former = self.open.former
        allowed = candidate != self.stable and former in RELEASABLE
        try:
            started = self.book.start(
                candidate, Plan(), mode="manual", whose="all", since="0", actor="ann", reason="try", seen=self.open
            )
        except REFUSED:
            assert not allowed
            return
        assert allowed and started.former == former
        if self.open is not None:
            self.leaves(self.open.candidate, self.open.former)
        self.states[candidate] = "canary"
        self.knows(started)

    @precondition(lambda self: self.open is not None)
    @rule(how=st.sampled_from(["canary", "pause", "resume", "propose"]))
    def move(self, how: str) -> None:
        assert self.open is not None
        changed = {
            "canary": lambda release: release.model_copy(update={"state": "canary", "weight": 0.1}),
            "pause": lambda release: release.paused_now(5.0),
            "resume": lambda release: release.resumed(9.0),
            "propose": lambda release: release.model_copy(update={"proposed": True}),
        }[how](self.open)
        self.knows(self.book.move(self.open, changed, actor="ann", reason=how))

    @precondition(lambda self: self.open is not None)
    @rule(state=st.sampled_from(["rolled_back", "aborted", "inconclusive"]), rejected=st.booleans())
    def end(self, state: Any, rejected: bool) -> None:
        assert self.open is not None
        left: Any = "rejected" if rejected else None
        try:
            ended = self.book.end(self.open, state, actor="ann", reason="so", candidate_is=left)
        except PointerMoved:
            assert state == "rolled_back" and self.stable != self.open.stable
            return
        assert state != "rolled_back" or self.stable == self.open.stable
        self.leaves(ended.candidate, left or ("rolled_back" if state == "rolled_back" else ended.former))
        self.knows(ended)

    @precondition(lambda self: self.open is not None)
    @rule()
    def promote(self) -> None:
        release = self.open
        assert release is not None
        allowed = self.stable == release.stable and self.states[release.candidate] == "canary"
        try:
            ended = self.book.end(release, "promoted", actor="ann", reason="better")
        except REFUSED:
            assert not allowed
            return
        assert allowed
        self.points_to(release.candidate)
        self.knows(ended)

    @precondition(lambda self: len(self.seen) > 1)
    @rule(data=st.data(), state=st.sampled_from(["promoted", "aborted", "paused", "started"]))
    def who_saw_what_is_past_changes_nothing(self, data: st.DataObject, state: Any) -> None:
        past = [release for release in self.seen if release != self.open]
        if not past:
            return
        stale = data.draw(st.sampled_from(past))
        try:
            if state == "paused":
                self.book.move(stale, stale.paused_now(1.0), actor="bob", reason="late")
            elif state == "started":
                self.book.start(
                    3, Plan(), mode="manual", whose="all", since="0", actor="bob", reason="late", seen=stale
                )
            else:
                self.book.end(stale, state, actor="bob", reason="late")
        except REFUSED as refused:
            if isinstance(refused, ReleaseMoved):
                assert refused.current == self.open
            return
        raise AssertionError("somebody who saw a release that is past changed it")

    @rule(version=st.integers(0, VERSIONS - 1))
    def point(self, version: int) -> None:
        if version != self.stable and self.states[version] != "rejected":
            self.book.registry.point_stable(version, expected=self.stable, actor="bob", reason="by hand")
            self.points_to(version)

    def points_to(self, version: int) -> None:
        if version != self.stable:
            self.states |= {self.stable: "retired", version: "stable"}
            self.stable = version

    @invariant()
    def the_book_is_what_the_model_says(self) -> None:
        if not hasattr(self, "states"):
            return
        assert self.book.registry.states() == self.states
        assert self.book.registry.stable() == self.stable
        assert self.book.open() == self.open
        on_their_way = {version for version, state in self.states.items() if state == "canary"}
        assert on_their_way <= ({self.open.candidate} if self.open else set())
        ids = {release.id for release in self.seen}
        for release in self.book.latest(100):
            revisions = [line.release.revision for line in self.book.history(release.id)]
            assert release.id in ids and revisions == list(range(release.revision + 1))
            assert release.is_open == (release == self.open)


def test_the_book_is_what_a_model_says(valkey_url: str) -> None:
    machine = type("ReleasesHere", (Releases,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
