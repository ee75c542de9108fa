"""Releases: a candidate on its way into service beside the stable policy. Each transition is one atomic step in Redis.

At most one release is open. Whoever changes it names the revision they saw, so of two at once one wins.
"""

import time
from itertools import islice
from typing import Any, Literal

from feedback.freezes import is_frozen, set_frozen
from feedback.policies.registry import AUDIT, STABLE, STATES, PointerMoved, PolicyRegistry, UnknownPolicy, in_words
from feedback.policies.registry import State as PolicyState
from feedback.records import Arm, Record
from feedback.releases.atomic import MOVE, START
from feedback.releases.decisions import Decision, Outcome
from feedback.releases.plan import Analysis, Pause, Plan, SetWeight

Mode = Literal["manual", "assisted", "automatic"]
State = Literal["pending", "canary", "promoted", "rolled_back", "inconclusive", "aborted", "replaced"]
FINAL = ("promoted", "rolled_back", "inconclusive", "aborted", "replaced")
RELEASABLE = ("candidate", "retired", "rolled_back")

OPEN = "release:open"
LAST = "release:last"
HISTORY = "release:history"
_KEYS = [OPEN, STABLE, STATES, AUDIT, HISTORY]


class ReleaseMoved(RuntimeError):
    """Somebody else changed it first, or it is over; `current` is the release as it is now, if there is one."""

    def __init__(self, message: str, current: "Release | None" = None) -> None:
        super().__init__(message)
        self.current = current


class NotReleasable(RuntimeError):
    """The version cannot be released: it serves already, or never may."""


class Release(Record):
    """One candidate beside one stable policy, under one plan. `step` is the index of the step under way.

    `weight` is the candidate's share of conversations. While `paused` no step is taken. A `proposed` one has taken all
    of its steps and waits for an operator. `whose` votes decide; `by_votes`: they have taken a step. `former` is the
    candidate's policy state from before.
    """

    id: int
    revision: int = 0
    candidate: int
    stable: int
    plan: Plan
    mode: Mode
    whose: Literal["evaluation", "all"]
    former: PolicyState
    actor: str
    reason: str
    created: float
    since: str = "0"  # of the feedback: what came before says nothing of this release
    voters: int | None = None  # who could have voted when it began; None of those from before that was kept
    state: State = "pending"
    step: int = 0
    stepped: float
    weight: float = 0.0
    paused_at: float | None = None
    paused_by: str = ""  # nobody, where the plan itself waits for an operator
    paused_why: str = ""
    proposed: bool = False
    by_votes: bool = False
    ended: float | None = None
    why: str = ""
    decision: Decision | None = None

    @property
    def is_open(self) -> bool:
        return self.state not in FINAL

    def version(self, arm: Arm) -> int:
        """The policy that answers on an arm."""
        return self.candidate if arm == "candidate" else self.stable

    @property
    def paused(self) -> bool:
        return self.paused_at is not None

    @property
    def awaits_votes(self) -> bool:
        """Whether only votes can bring it to a good end: by a step to come, or since they have to go on saying so."""
        to_come = any(isinstance(step, Analysis) for step in self.plan.steps[self.step :])
        return to_come or (self.by_votes and self.mode == "automatic")

    @property
    def waiting(self) -> bool:
        """Paused by a step of its plan, not by a hand."""
        return self.paused and self._waits_for_somebody and not self.paused_by

    def paused_now(self, now: float, by: str = "", why: str = "") -> "Release":
        told = {"paused_at": now, "paused_by": by, "paused_why": why}
        return self if self.paused else self.model_copy(update=told)

    def resumed(self, now: float) -> "Release":
        """A pause without end is over; any other step goes on."""
        if self.paused_at is None:
            return self
        going = self.model_copy(update={"paused_at": None, "paused_by": "", "paused_why": ""})
        return going.skipped(now) if self._waits_for_somebody else going

    def skipped(self, now: float) -> "Release":
        """The step under way is taken, whatever it waits for; after the last one it is proposed."""
        step = min(self.step + 1, len(self.plan.steps))
        proposed = self.proposed or (self.state == "canary" and step == len(self.plan.steps))
        return self.model_copy(update={"step": step, "stepped": now, "proposed": proposed})

    def advanced(self, now: float, outcome: Outcome, waited: float = 0.0) -> "Release":
        """All steps taken that are due, and `proposed` after the last; itself if there is none. `waited`: how long the
        step under way has been, but for the time that it stood still."""
        release = self
        while release.state == "canary" and not release.paused and not release.proposed:
            following = release._next(now, outcome, waited)
            if following is release:
                break
            release, waited = following, 0.0
        return release

    @property
    def _waits_for_somebody(self) -> bool:
        return self.step < len(self.plan.steps) and self.plan.steps[self.step] == Pause(pause=None)

    def _next(self, now: float, outcome: Outcome, waited: float) -> "Release":
        if self.step == len(self.plan.steps):
            return self.model_copy(update={"proposed": True})
        match self.plan.steps[self.step]:
            case SetWeight(set_weight=percent):
                return self.model_copy(update={"weight": percent / 100}).skipped(now)
            case Pause(pause=None):
                return self.paused_now(now)
            case Pause(pause=seconds) if seconds is not None and waited < seconds:
                return self
            case Analysis():
                by_votes = self.model_copy(update={"by_votes": True})
                return by_votes.skipped(now) if outcome == "promote" else self
        return self.skipped(now)


class Transition(Record):
    """A line of a release's history: the release as it became, who did it, and why."""

    release: Release
    actor: str
    reason: str
    time: float


class ReleaseBook:
    """All releases of one installation."""

    def __init__(self, registry: PolicyRegistry) -> None:
        self.registry, self.redis = registry, registry.redis
        self._start = self.redis.register_script(START)
        self._move = self.redis.register_script(MOVE)

    def start(
        self, candidate: int, plan: Plan, *, mode: Mode, whose: Literal["evaluation", "all"], since: str, actor: str,
        reason: str, seen: Release | None, voters: int | None = None,
    ) -> Release:  # fmt: skip
        """Begin to release `candidate` in place of `seen`, the open release if there is one.

        Raises ReleaseMoved when another one is open, UnknownPolicy, NotReleasable, or PointerMoved.
        """
        stable, states, now = self.registry.stable(), self.registry.states(), time.time()
        if candidate not in states:
            raise UnknownPolicy(f"policy-v{candidate} does not exist")
        again = seen is not None and seen.candidate == candidate
        former = seen.former if seen is not None and again else states[candidate]
        if stable is None or candidate == stable or former not in RELEASABLE:
            if self.open() != seen:  # somebody else's release began, maybe of the same version
                raise self._refusal("open", candidate, seen.stable if seen else -1)
            raise NotReleasable(f"policy-v{candidate} is {states[candidate]}: it cannot be released")
        release = Release(
            id=int(self.redis.incr(LAST)), candidate=candidate, stable=stable, plan=plan, mode=mode, whose=whose,
            former=former, actor=actor, reason=reason, created=now, stepped=now, since=since, voters=voters,
        )  # fmt: skip
        before: list[Any] = ["", "", "", "", ""]
        if seen is not None:
            why = f"release {release.id} of policy-v{candidate} took its place"
            over = _ended(seen, "replaced", why, now)
            before = [seen.id, seen.revision, over.model_dump_json(), seen.candidate, seen.former]
        told = self._start(
            keys=_KEYS, args=[release.id, release.model_dump_json(), *before, stable, candidate, actor, reason, now]
        )
        if told != "ok":
            raise self._refusal(told, candidate, stable)
        return release

    def move(self, seen: Release, changed: Release, *, actor: str, reason: str) -> Release:
        """Replace `seen` by `changed`, both open. Raises ReleaseMoved."""
        return self._moved(seen, changed, "", actor, reason, None)

    def end(
        self, seen: Release, state: State, *, actor: str, reason: str, decision: Decision | None = None,
        candidate_is: PolicyState | None = None,
    ) -> Release:  # fmt: skip
        """End `seen`; promoted it serves from this moment on, otherwise it is what it was before unless `candidate_is`
        says else. Raises ReleaseMoved, PointerMoved or NotReleasable."""
        left = candidate_is or ("rolled_back" if state == "rolled_back" else seen.former)
        return self._moved(seen, _ended(seen, state, reason, time.time(), decision), left, actor, reason, state)

    def open(self) -> Release | None:
        id = self.redis.get(OPEN)
        return None if id is None else self.get(int(id))

    def get(self, id: int) -> Release | None:
        data = self.redis.hget(key(id), "data")
        return None if data is None else Release.model_validate_json(data)

    def latest(self, limit: int = 20, before: int | None = None) -> list[Release]:
        """Newest first, of those before one if it is named; numbers of releases that never began are left out."""
        last = int(self.redis.get(LAST) or 0)
        found = (self.get(id) for id in range(last if before is None else min(last, before - 1), 0, -1))
        return list(islice((release for release in found if release is not None), limit))

    def history(self, id: int | None = None) -> list[Transition]:
        """Every transition, oldest first."""
        lines = [
            Transition(
                release=Release.model_validate_json(fields["data"]), actor=fields["actor"], reason=fields["reason"],
                time=float(fields["time"]),
            )
            for _, fields in self.redis.xrange(HISTORY)
        ]  # fmt: skip
        return [line for line in lines if id in (None, line.release.id)]

    def freeze(self, frozen: bool, *, actor: str, reason: str) -> bool:
        """While frozen nothing is released or promoted by itself; what is worse is still rolled back.

        False when that is so already.
        """
        return set_frozen(self.redis, "releases", frozen, actor=actor, reason=reason)

    def is_frozen(self) -> bool:
        return is_frozen(self.redis, "releases")

    def _moved(
        self, seen: Release, changed: Release, left: str, actor: str, reason: str, state: State | None
    ) -> Release:
        after = changed.model_copy(update={"revision": seen.revision + 1})
        args: list[Any] = [seen.id, seen.revision, after.model_dump_json(), state or "", seen.candidate, left]
        told = self._move(keys=_KEYS, args=[*args, seen.stable, actor, reason, time.time()])
        if told != "ok":
            raise self._refusal(told, seen.candidate, seen.stable)
        return after

    def _refusal(self, told: str, candidate: int, stable: int) -> Exception:
        if told == "stable":
            current = self.registry.stable()
            return PointerMoved(f"the stable policy is no longer policy-v{stable}; it is policy-v{current}", current)
        if told == "state":
            state = self.registry.states().get(candidate)
            return NotReleasable(f"policy-v{candidate} is {state}: it cannot be released")
        now = self.open()
        message = "no release is open any more" if now is None else f"release {now.id} is {describe(now)} now"
        return ReleaseMoved(message, now)


def key(id: int) -> str:
    return f"release:{id}"


def describe(release: Release) -> str:
    """Where it is, in a few words."""
    if not release.is_open:
        return in_words(release.state)
    where = f"step {min(release.step + 1, len(release.plan.steps))} of {len(release.plan.steps)}"
    held = "waiting" if release.waiting else "paused" if release.paused else release.state
    what = "proposed" if release.proposed else held
    return f"{what}, {where}, policy-v{release.candidate} at {release.weight:.0%}"


def _ended(seen: Release, state: State, why: str, now: float, decision: Decision | None = None) -> Release:
    known = decision or seen.decision
    return seen.model_copy(
        update={"state": state, "revision": seen.revision + 1, "weight": 0.0, "ended": now, "why": why,
                "paused_at": None, "paused_by": "", "paused_why": "", "decision": known}
    )  # fmt: skip
