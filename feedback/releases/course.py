"""What is to become of an open release, from what is so at one moment: the same facts, the same move."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from feedback.policies.registry import AuditLine, in_words
from feedback.policies.registry import State as PolicyState
from feedback.releases.book import Release, State, describe
from feedback.releases.clock import Passed
from feedback.releases.decisions import Decision, Outcome


class Fault(NamedTuple):
    """Why no engine can hold the candidate; what that makes of the version, if it is the version's fault."""

    reason: str
    candidate_is: Literal["rejected", "broken"] | None


@dataclass(frozen=True)
class Facts:
    """`held`: an engine is proven to hold the candidate. `alarm`: the votes' own test failed, so they prove nothing.
    The decision may be missing while the release is pending. `pointed`: who moved the pointer, where `stable` is not
    the policy that the release began beside.
    """

    now: float
    stable: int | None
    candidate_is: PolicyState | None
    held: bool
    fault: Fault | None
    frozen: bool
    alarm: bool
    decision: Decision | None
    passed: Passed = Passed()
    pointed: AuditLine | None = None


@dataclass(frozen=True)
class Move:
    """The release goes on, changed."""

    changed: Release
    reason: str


@dataclass(frozen=True)
class End:
    """It is over; `actor`: by whose hand, None is the controller's own."""

    state: State
    reason: str
    candidate_is: PolicyState | None = None
    actor: str | None = None


def following(release: Release, facts: Facts) -> Move | End | None:
    """The next move, or none yet. What serves counts more than what was planned; a fall more than a step."""
    over = _overtaken(release, facts)
    if over is not None:
        return over if facts.fault is None else _blamed_too(over, release, facts.fault)
    if facts.fault is not None:
        return _unholdable(facts.fault)
    return _pending(release, facts) if release.state == "pending" else _canary(release, facts)


def _overtaken(release: Release, facts: Facts) -> End | None:
    """Somebody else has decided."""
    if facts.stable != release.stable:
        return _passed_by(facts)
    if facts.candidate_is != "canary":
        return End("aborted", f"policy-v{release.candidate} is {in_words(str(facts.candidate_is))}")
    return None


def _passed_by(facts: Facts) -> End:
    """The pointer was moved outside of the release. To its own candidate too: a promotion of a release ends it in the
    same step, so this is none, and no vote had a part in it."""
    what, by = f"policy-v{facts.stable} was made stable outside of the release", facts.pointed
    if by is None or by.version != facts.stable:  # moved again between the two looks
        return End("aborted", what)
    return End("aborted", f"{what} ({by.action}: {by.reason})", actor=by.actor)


def _blamed_too(over: End, release: Release, fault: Fault) -> End:
    """Who moved the pointer need not know of it, and the candidate would seem fit to be tried again."""
    reason = f"{over.reason}; no engine can hold policy-v{release.candidate}: {fault.reason}"
    return replace(over, reason=reason, candidate_is=fault.candidate_is)


def _unholdable(fault: Fault) -> End:
    """A version that cannot be served is put away for good; if it is the engine's fault it may come again."""
    reason, blamed = fault
    return End("rolled_back", reason, blamed) if blamed else End("aborted", reason)


def _pending(release: Release, facts: Facts) -> Move | End | None:
    if facts.held:
        canary = release.model_copy(update={"state": "canary", "stepped": facts.now})
        begun = canary if facts.frozen else canary.advanced(facts.now, "undecided")
        return Move(begun, f"an engine holds policy-v{release.candidate}: {describe(begun)}")
    if facts.passed.unheld > release.plan.patience:
        return End("aborted", f"no engine held policy-v{release.candidate} within {release.plan.patience:.0f} s")
    return None


def _canary(release: Release, facts: Facts) -> Move | End | None:
    decision = facts.decision
    if decision is None:
        return None
    outcome = _proven(decision, facts.alarm)
    if outcome == "roll back":
        return End("rolled_back", decision.reason)
    if outcome == "inconclusive" and release.awaits_votes:
        return End("inconclusive", decision.reason)
    if _late(release, facts.passed.in_all, outcome):
        so_far = "the votes' own test failed, so they prove nothing" if facts.alarm else decision.reason
        return End("inconclusive", f"nothing was decided within {release.plan.deadline:.0f} s: {so_far}")
    if facts.passed.unheld > release.plan.patience:
        return End("aborted", f"no engine has held policy-v{release.candidate} for {release.plan.patience:.0f} s")
    if facts.frozen or release.paused or not facts.held:
        return None
    if release.proposed:
        return None if facts.alarm else _confirmed(release, decision)
    changed = release.advanced(facts.now, outcome, facts.passed.in_step)
    return None if changed is release else Move(changed, describe(changed))


def _proven(decision: Decision, alarm: bool) -> Outcome:
    """Of votes that prove nothing, nothing; a guardrail needs none."""
    breached = any(guardrail.verdict == "breached" for guardrail in decision.guardrails)
    return decision.outcome if breached or not alarm else "undecided"


def _confirmed(release: Release, decision: Decision) -> End | None:
    """By itself, unless votes took a step that would not take it now: their raters were set aside, or erased."""
    better = decision.outcome == "promote"
    if release.mode != "automatic" or (release.by_votes and not better):
        return None
    return End("promoted", decision.reason if better else "All steps are taken.")


def _late(release: Release, passed: float, outcome: Outcome) -> bool:
    """One that waits for an operator has been decided; one whose votes lapsed has not."""
    deadline, waits = release.plan.deadline, release.awaits_votes and outcome != "promote"
    return deadline is not None and passed > deadline and (waits or not release.proposed)
