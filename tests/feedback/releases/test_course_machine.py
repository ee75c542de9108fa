"""A release second by second, paused, frozen, without an engine, and while nothing runs: only time of its own takes
a step or ends it, and only votes that stand."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from feedback.releases.book import Release
from feedback.releases.clock import Timekeeper
from feedback.releases.course import End, Facts, Move, following
from feedback.releases.plan import Analysis, Pause, plan_of
from feedback.store import connect
from tests.feedback.releases.test_release_course import BREACHED, UNDECIDED

PLANS = (
    [{"set_weight": 5}, {"pause": 8}, {"set_weight": 50}, {"analysis": {}}, {"set_weight": 90}],
    [{"set_weight": 5}, {"analysis": {}}, {"set_weight": 50}, {"pause": 12}],
    [{"pause": 6}, {"pause": None}, {"pause": 6}],
)
PATIENCE, DEADLINE = 5, 30
OUTCOMES = ("undecided", "undecided", "promote", "promote", "roll back", "inconclusive")


class Course(RuleBasedStateMachine):
    """The model counts what may count at most; of each span between two changes the count may lose a second."""

    url: str

    @initialize(steps=st.sampled_from(PLANS))
    def start(self, steps: Any) -> None:
        self.begin("automatic", steps, DEADLINE)

    @precondition(lambda self: not self.is_open)
    @rule(
        mode=st.sampled_from(["automatic", "automatic", "manual"]), steps=st.sampled_from(PLANS),
        deadline=st.sampled_from([DEADLINE, None]),
    )  # fmt: skip
    def begin(self, mode: Any, steps: Any, deadline: float | None) -> None:
        plan = plan_of({"steps": steps, "patience": PATIENCE, "deadline": deadline})
        self.release = Release(
            id=7, candidate=1, stable=0, plan=plan, mode=mode, whose="all", former="candidate", actor="ann",
            reason="try", created=1000.0, stepped=1000.0,
        )  # fmt: skip
        self.now, self.end = 1000.0, None
        connect(self.url).flushall()
        self.nobody_has_looked()
        self.held, self.frozen, self.alarm, self.breached, self.outcome = True, False, False, False, "undecided"
        self.in_step = self.in_all = self.unheld = self.losses = self.all_losses = 0
        self.by_votes = False

    @property
    def is_open(self) -> bool:
        return getattr(self, "release", None) is not None and self.end is None

    @precondition(lambda self: self.is_open)
    @rule(what=st.sampled_from(["held", "held", "frozen", "frozen", "alarm"]))
    def changes(self, what: str) -> None:
        setattr(self, what, not getattr(self, what))
        self.cut()

    @precondition(lambda self: self.is_open)
    @rule(outcome=st.sampled_from(OUTCOMES), breached=st.sampled_from([False] * 9 + [True]))
    def people_vote(self, outcome: str, breached: bool) -> None:
        self.outcome, self.breached = outcome, breached

    @precondition(lambda self: self.is_open)
    @rule(seconds=st.integers(1, 8), left=st.sampled_from(["undecided", "inconclusive"]))
    def raters_are_set_aside(self, seconds: int, left: str) -> None:
        self.outcome = "promote"
        self.time_passes(seconds)
        self.outcome = left

    @precondition(lambda self: self.is_open)
    @rule()
    def pause_or_resume(self) -> None:
        release = self.release
        self.release = release.resumed(self.now) if release.paused else release.paused_now(self.now, "ann", "lunch")
        self.cut()

    @precondition(lambda self: self.is_open and self.release.state == "canary" and not self.release.proposed)
    @rule()
    def pass_the_step(self) -> None:
        self.release = self.release.resumed(self.now).skipped(self.now)
        self.in_step = 0
        self.cut()

    @precondition(lambda self: self.is_open)
    @rule(seconds=st.integers(1, 90))
    def nothing_runs(self, seconds: int) -> None:
        self.now += seconds
        self.nobody_has_looked()
        self.cut()

    def nobody_has_looked(self) -> None:
        self.keeper = Timekeeper(connect(self.url), lambda: self.now)

    @precondition(lambda self: self.is_open)
    @rule(seconds=st.integers(1, 8))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            if self.is_open:
                self.second()

    def second(self) -> None:
        self.now += 1
        goes = self.held and self.release.state == "canary" and not self.release.paused and not self.frozen
        self.in_step, self.in_all = self.in_step + goes, self.in_all + goes
        self.unheld = 0 if self.held else self.unheld + 1
        move = following(self.release, self.facts())
        if isinstance(move, Move):
            self.moved(move.changed)
        elif isinstance(move, End):
            self.ended(move)
        else:
            self.stayed()

    def facts(self) -> Facts:
        told = {"outcome": self.outcome, "guardrails": ()}
        if self.breached:
            told = {"outcome": "roll back", "guardrails": BREACHED.guardrails}
        return Facts(
            now=self.now, stable=0, candidate_is="canary", held=self.held, fault=None, frozen=self.frozen,
            alarm=self.alarm, decision=UNDECIDED.model_copy(update=told),
            passed=self.keeper.look(self.release, held=self.held, frozen=self.frozen),
        )  # fmt: skip

    def cut(self) -> None:
        self.losses, self.all_losses = self.losses + 1, self.all_losses + 1

    @property
    def said(self) -> str:
        """What the votes may do."""
        return "undecided" if self.alarm else self.outcome

    def moved(self, changed: Release) -> None:
        before, self.release = self.release, changed
        self.keeper.goes_on(changed)
        steps = before.plan.steps[before.step : changed.step]
        assert self.held and (not steps or not (self.frozen or before.paused))
        waited = self.in_step
        for step in steps:
            if isinstance(step, Pause):
                assert step.pause is not None and waited >= step.pause, "it waited for too short a time"
            if isinstance(step, Analysis):
                assert self.said == "promote", "no votes that count took this step"
                self.by_votes = True
            waited = 0
        if steps:
            self.in_step = self.losses = 0

    def ended(self, end: End) -> None:
        self.end, release = end, self.release
        if end.state == "rolled_back":
            assert self.breached or self.said == "roll back"
        elif end.state == "inconclusive":
            late = release.plan.deadline is not None and self.in_all > release.plan.deadline
            assert late or self.said == "inconclusive"
        elif end.state == "aborted":
            assert self.unheld > PATIENCE
        else:
            assert end.state == "promoted" and release.mode == "automatic" and release.proposed and self.held
            assert not (self.alarm or self.frozen or release.paused)
            assert self.said == "promote" or not self.by_votes, "the votes that took it so far are gone"

    def stayed(self) -> None:
        """Nor is it held up for longer than it has to."""
        release, step = self.release, self.release.plan.steps[self.release.step : self.release.step + 1]
        assert not self.breached or release.state == "pending"
        assert self.unheld <= PATIENCE + self.losses
        if self.held and not (self.frozen or release.paused) and step and isinstance(step[0], Pause):
            assert step[0].pause is None or self.in_step <= step[0].pause + self.losses
        assert release.proposed or release.plan.deadline is None or self.in_all <= DEADLINE + self.all_losses


def test_no_time_but_its_own_and_no_votes_but_those_that_stand_move_a_release(valkey_url: str) -> None:
    machine = type("CourseHere", (Course,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
