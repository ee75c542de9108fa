"""What becomes of a release under all that may happen to it: pure moves from facts."""

from dataclasses import replace
from typing import Any

import pytest

from feedback.policies.registry import AuditLine
from feedback.releases.book import Release
from feedback.releases.clock import Passed
from feedback.releases.course import End, Facts, Fault, Move, following
from feedback.releases.decisions import Decision, decide
from feedback.releases.guardrails import Failures, failure_guardrail
from feedback.releases.plan import plan_of
from feedback.releases.votes import Vote

STEPS = [{"set_weight": 5}, {"pause": "1m"}, {"set_weight": 25}, {"analysis": {}}]
UNDECIDED = decide([])
BETTER, WORSE = (
    decide([Vote(f"r{n}", winner, candidate_left=False) for n in range(9)]) for winner in ("candidate", "stable")
)  # type: ignore[arg-type]
NO_DIFFERENCE = UNDECIDED.model_copy(update={"outcome": "inconclusive", "reason": "No difference was found."})
BREACHED = decide([], [failure_guardrail("errors", [Failures(0.5, 100, 100, 60, 1)])])
CALM = Facts(
    now=1000.0, stable=0, candidate_is="canary", held=True, fault=None, frozen=False, alarm=False, decision=UNDECIDED
)


def canary(**facts: Any) -> Release:
    told = {"state": "canary", "step": 3, "weight": 0.25, "mode": "automatic"} | facts
    plan = plan_of({"steps": STEPS, "deadline": "1h", "patience": "10m"})
    return Release(
        id=7, candidate=1, stable=0, plan=plan, whose="all", former="candidate", actor="ann", reason="try",
        created=990.0, stepped=995.0, **told,
    )  # fmt: skip


def pending(**facts: Any) -> Release:
    return canary(**({"state": "pending", "step": 0, "weight": 0.0} | facts))


def is_over(release: Release, state: str, why: str, **facts: Any) -> None:
    end = following(release, replace(CALM, **facts))
    assert isinstance(end, End) and end.state == state and why in end.reason


def goes_on(release: Release, **facts: Any) -> Release:
    move = following(release, replace(CALM, **facts))
    assert isinstance(move, Move)
    return move.changed


@pytest.mark.parametrize("release", [pending(), canary(), canary(paused_at=999.0), canary(proposed=True)])
def test_what_others_decided_ends_it_in_every_state(release: Release) -> None:
    is_over(release, "aborted", "policy-v2 was made stable outside of the release", stable=2)
    is_over(release, "aborted", "policy-v1 is broken", candidate_is="broken")
    is_over(release, "rolled_back", "other log-probs", fault=Fault("other log-probs", "rejected"))
    is_over(release, "aborted", "no memory", fault=Fault("no memory", None))


@pytest.mark.parametrize("release", [pending(), canary(proposed=True)])
@pytest.mark.parametrize(("stable", "action"), [(1, "rollback"), (1, "promote"), (2, "promote")])
def test_a_move_of_the_pointer_outside_of_it_is_no_promotion(release: Release, stable: int, action: str) -> None:
    """Nor are the votes its reason: whoever moved the pointer ended the release, and is named."""
    line = AuditLine(version=stable, from_version=0, action=action, actor="bob", reason="all is bad", time=999.0)
    end = following(release, replace(CALM, stable=stable, candidate_is="stable", pointed=line, decision=BETTER))
    why = f"policy-v{stable} was made stable outside of the release ({action}: all is bad)"
    assert end == End("aborted", why, actor="bob")
    elsewhere = replace(CALM, stable=stable, candidate_is="stable", pointed=line.model_copy(update={"version": 9}))
    assert following(release, elsewhere) == End("aborted", why.partition(" (")[0]), "bob did not move it there"


@pytest.mark.parametrize("blamed", ["rejected", "broken", None])
def test_a_move_of_the_pointer_does_not_hide_that_no_engine_can_hold_it(blamed: Any) -> None:
    line = AuditLine(version=2, from_version=0, action="promote", actor="bob", reason="a better one", time=999.0)
    end = following(canary(), replace(CALM, stable=2, pointed=line, fault=Fault("other log-probs", blamed)))
    moved = "policy-v2 was made stable outside of the release (promote: a better one)"
    why = f"{moved}; no engine can hold policy-v1: other log-probs"
    assert end == End("aborted", why, candidate_is=blamed, actor="bob")


def test_a_version_that_failed_its_proof_never_serves() -> None:
    for what in ("rejected", "broken"):
        end = following(canary(), replace(CALM, fault=Fault("why", what)))  # type: ignore[arg-type]
        assert end == End("rolled_back", "why", what)  # type: ignore[arg-type]


def test_it_begins_when_an_engine_holds_it() -> None:
    assert following(pending(), replace(CALM, held=False, decision=None)) is None
    begun = goes_on(pending(), decision=None)
    assert (begun.state, begun.step, begun.weight, begun.stepped) == ("canary", 1, 0.05, 1000.0)
    frozen = goes_on(pending(), decision=None, frozen=True)
    assert (frozen.state, frozen.step, frozen.weight) == ("canary", 0, 0.0)
    paused = goes_on(pending(paused_at=999.0), decision=None)
    assert (paused.state, paused.step, paused.weight) == ("canary", 0, 0.0)


def test_its_patience_ends() -> None:
    """Time in which nobody looked is none of it, as when the service was off."""
    assert following(pending(), replace(CALM, held=False, now=9e9, passed=Passed(unheld=600.0))) is None
    is_over(pending(), "aborted", "within 600 s", held=False, passed=Passed(unheld=600.1))


@pytest.mark.parametrize("decision", [WORSE, BREACHED])
@pytest.mark.parametrize("mode", ["manual", "assisted", "automatic"])
@pytest.mark.parametrize("how", [{}, {"paused_at": 999.0}, {"proposed": True, "step": 4}])
def test_a_worse_one_is_rolled_back_whatever_else(decision: Decision, mode: str, how: dict[str, Any]) -> None:
    is_over(canary(mode=mode, **how), "rolled_back", decision.reason, decision=decision)
    is_over(canary(mode=mode, **how), "rolled_back", decision.reason, decision=decision, frozen=True)
    is_over(canary(mode=mode, **how), "rolled_back", decision.reason, decision=decision, held=False)


def test_no_difference_ends_one_that_waits_for_votes_only() -> None:
    is_over(canary(), "inconclusive", "No difference", decision=NO_DIFFERENCE)
    assert following(canary(step=4, proposed=True, mode="manual"), replace(CALM, decision=NO_DIFFERENCE)) is None


def test_a_deadline_ends_what_is_not_decided() -> None:
    late = Passed(in_all=3600.1)
    assert following(canary(), replace(CALM, now=9e9, passed=Passed(in_all=3600.0))) is None
    is_over(canary(), "inconclusive", "nothing was decided within 3600 s: The candidate won 0", passed=late)
    is_over(canary(), "inconclusive", "3600 s: the votes' own test failed", passed=late, alarm=True, decision=BETTER)
    proposed: dict[str, Any] = {"step": 4, "proposed": True, "by_votes": True}
    assert following(canary(mode="manual", **proposed), replace(CALM, passed=late)) is None
    is_over(canary(**proposed), "promoted", "better", passed=late, decision=BETTER)
    is_over(canary(**proposed), "inconclusive", "nothing was decided", passed=late)


def test_steps_wait_for_votes_for_an_engine_and_for_the_thaw() -> None:
    assert following(canary(), CALM) is None
    proposed = goes_on(canary(), decision=BETTER)
    assert (proposed.step, proposed.proposed, proposed.weight) == (4, True, 0.25)
    for held_up in ({"held": False}, {"frozen": True}):
        assert following(canary(), replace(CALM, decision=BETTER, **held_up)) is None
    assert following(canary(paused_at=999.0), replace(CALM, decision=BETTER)) is None


def test_only_an_automatic_one_is_promoted_by_itself() -> None:
    proposed: dict[str, Any] = {"step": 4, "proposed": True}
    is_over(canary(**proposed), "promoted", "The candidate is better", decision=BETTER)
    is_over(canary(**proposed), "promoted", "All steps are taken.")
    for held_up in ({"frozen": True}, {"alarm": True}, {"held": False}):
        assert following(canary(**proposed), replace(CALM, decision=BETTER, **held_up)) is None
    assert following(canary(paused_at=999.0, **proposed), replace(CALM, decision=BETTER)) is None
    for mode in ("manual", "assisted"):
        assert following(canary(mode=mode, **proposed), replace(CALM, decision=BETTER)) is None


@pytest.mark.parametrize("release", [canary(), canary(paused_at=999.0), canary(proposed=True)])
def test_a_candidate_that_no_engine_holds_again_is_waited_for_as_long_as_at_first(release: Release) -> None:
    assert following(release, replace(CALM, held=False, passed=Passed(unheld=600.0))) is None
    is_over(release, "aborted", "no engine has held policy-v1 for 600 s", held=False, passed=Passed(unheld=600.1))
    is_over(release, "rolled_back", "worse", held=False, passed=Passed(unheld=600.1), decision=WORSE)


def test_the_votes_that_took_a_step_must_still_say_so_where_it_is_promoted_by_itself() -> None:
    """Their raters may have been set aside, or erased."""
    proposed = goes_on(canary(), decision=BETTER)
    assert proposed.by_votes and following(proposed, CALM) is None
    is_over(proposed, "promoted", "The candidate is better", decision=BETTER)
    is_over(proposed, "inconclusive", "No difference", decision=NO_DIFFERENCE)
    by_hand = canary().skipped(1000.0)
    assert not by_hand.by_votes
    is_over(by_hand, "promoted", "All steps are taken.")
    manual = goes_on(canary(mode="manual"), decision=BETTER)
    assert following(manual, replace(CALM, decision=NO_DIFFERENCE)) is None


def test_votes_that_prove_nothing_do_nothing() -> None:
    for decision in (BETTER, WORSE, NO_DIFFERENCE):
        assert following(canary(), replace(CALM, decision=decision, alarm=True)) is None
    is_over(canary(), "rolled_back", "guardrail", decision=BREACHED, alarm=True)


def test_a_wait_is_over_when_its_time_has_passed() -> None:
    waits = canary(step=1, weight=0.05)
    assert following(waits, replace(CALM, now=9e9, passed=Passed(in_step=59.9, in_all=99.0))) is None
    passed = goes_on(waits, passed=Passed(in_step=60.0))
    assert (passed.step, passed.weight, passed.stepped) == (3, 0.25, 1000.0)


def test_past_its_last_step_it_is_proposed_at_once_but_never_before_it_began() -> None:
    passed = canary().skipped(1000.0)
    assert (passed.step, passed.proposed) == (4, True)
    assert not canary(step=1).skipped(1000.0).proposed
    assert not pending(step=3).skipped(1000.0).proposed
