"""What operators order of a release, over the API or on the command line: each order is one transition, or none."""

from typing import Any, Literal

from feedback.releases.book import Mode, Release, ReleaseBook, ReleaseMoved, describe
from feedback.releases.judge import decision_of
from feedback.releases.plan import Plan, SetWeight, plan_of
from feedback.settings import Settings

Order = Literal["promote", "pause", "resume", "abort", "rollback"]
#: Orders to stop mean the release at whichever step it is, so a step taken meanwhile does not refuse them.
STOPS = ("pause", "abort", "rollback")
ATTEMPTS = 10


class UnknownRelease(LookupError):
    """There is no such release."""


def found(book: ReleaseBook, id: int | None) -> Release:
    """A release by its number; None is the open one. Raises UnknownRelease."""
    release = book.open() if id is None else book.get(id)
    if release is None:
        raise UnknownRelease("no release is open" if id is None else f"there is no release {id}")
    return release


def changed(plan: Plan, asked: dict[str, Any]) -> Plan:
    """A plan but for the fields that were asked for; of `limits` each by itself. Raises BadPlan."""
    known = plan.model_dump()
    limits = asked.get("limits")
    both = {"limits": known["limits"] | limits} if isinstance(limits, dict) else {}
    return plan_of(known | asked | both)


def default_mode(settings: Settings) -> Mode:
    """Whoever starts a release where versions otherwise serve at once wants to confirm it."""
    return "manual" if settings.release_mode == "direct" else settings.release_mode


def to_replace(book: ReleaseBook, *, named: bool, id: int | None) -> Release | None:
    """The open release, for whose candidate another one comes; `named`: the caller said which it is, None for none.

    Raises ReleaseMoved if that is not how it is.
    """
    seen = book.open()
    if named and id != (None if seen is None else seen.id):
        what = "no release is open" if seen is None else f"release {seen.id} is open: {describe(seen)}"
        raise ReleaseMoved(what, seen)
    return seen


def give(
    book: ReleaseBook, order: Order, id: int | None, *, actor: str, reason: str, now: float,
    revision: int | None = None, full: bool = False,
) -> Release:  # fmt: skip
    """The release as it is after an order; with a `revision` only if it is still the one that the caller saw.

    Raises UnknownRelease, ReleaseMoved, NotReleasable or PointerMoved.
    """
    seen = found(book, id)
    for _ in range(ATTEMPTS if revision is None and order in STOPS else 1):
        if not seen.is_open:
            raise ReleaseMoved(f"release {seen.id} is over: {describe(seen)}", seen)
        if revision not in (None, seen.revision):
            raise ReleaseMoved(f"release {seen.id} has changed since revision {revision}: {describe(seen)}", seen)
        try:
            return _given(book, seen, order, full, actor, reason, now)
        except ReleaseMoved as error:
            refusal, seen = error, found(book, seen.id)
    raise refusal


def past_step(release: Release, now: float) -> Release:
    """Beyond what the step under way waits for, also if it is paused there. A weight is set, not left out."""
    going = release.resumed(now)
    if going.step > release.step:  # it waited for an operator, so to resume it is to pass it
        return going
    at = going.step < len(going.plan.steps) and going.plan.steps[going.step]
    return going.advanced(now, "undecided") if isinstance(at, SetWeight) else going.skipped(now)


def _given(book: ReleaseBook, seen: Release, order: Order, full: bool, actor: str, reason: str, now: float) -> Release:
    match order:
        case "pause":
            changed = seen.paused_now(now, actor, reason)
        case "resume":
            changed = seen.resumed(now)
        case "promote" if not full and not seen.proposed:
            if seen.state == "pending":
                raise ReleaseMoved(
                    f"release {seen.id} is pending: no engine holds policy-v{seen.candidate} yet; it can be promoted "
                    "in full, and is proven before it serves",
                    seen,
                )
            changed = past_step(seen, now)
        case _:
            state: Literal["promoted", "aborted", "rolled_back"] = (
                "promoted" if order == "promote" else "aborted" if order == "abort" else "rolled_back"
            )
            decision = decision_of(book.redis, seen)
            return book.end(seen, state, actor=actor, reason=reason, decision=decision)
    return seen if changed is seen else book.move(seen, changed, actor=actor, reason=reason)
