"""At start the registry and the disk are made to agree, whichever of them was restored from an older backup.

| the disk has | the registry has | what is done |
|---|---|---|
| a whole version | nothing | it becomes a candidate |
| files that differ from the manifest, or are gone | nothing, or a version | it is broken, and cannot serve |
| nothing | a version | it is broken |
| a whole version | a broken or a deleted one | it becomes a candidate again |
| a tombstone, and not all the files | nothing, or a version | it is deleted, and the rest of its files are |
| no readable manifest | nothing | it is left; its number is never used |
| a version half written | whatever | it is deleted, unless the open round is at it or it is new |

So what is whole is never deleted, and what was lost can come back. Candidates that are found are pinned, as nobody can
say who needs them. If the version that serves is broken, the one before it serves, else the newest that has served,
else the base. Nothing else moves the pointer.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from feedback.policies.manifest import BrokenPolicy, read_manifest
from feedback.policies.registry import BASE, SERVABLE, WITHOUT_WEIGHTS, PointerMoved, PolicyRegistry, State
from feedback.policies.shelf import clear, fault, has_tombstone, remove_tombstone, unfinished
from feedback.rounds.book import RoundBook
from feedback.rounds.cancelling import uncleared

ACTOR = "reconciler"
ABANDONED_S = 3600.0


@dataclass(frozen=True)
class Found:
    """Something that did not agree, and what it is now."""

    version: int
    state: State | None
    reason: str

    def __str__(self) -> str:
        return f"policy-v{self.version} is {self.state or 'not a policy'}: {self.reason}"


def reconcile(registry: PolicyRegistry) -> list[Found]:
    """Do all that the table says. Killed anywhere, or another's change coming between, the next call completes it.

    Raises OSError when the disk cannot be read: that is no fault of a version, and none is lost for it.
    """
    open_round = RoundBook(registry.redis).open_round()
    at_work = {open_round.policy_version, open_round.abandoned} if open_round else set()
    at_work |= {round.abandoned for round in uncleared(registry.redis)}  # to be dropped, not found
    _sweep_unfinished(registry, at_work)
    known, present = registry.states(), set(registry.on_disk())
    found = [_adopt(registry, version) for version in sorted(present - set(known) - at_work)]
    for version, state in known.items():
        if (one := _recheck(registry, version, state)) is not None:
            found.append(one)
    return found


def _adopt(registry: PolicyRegistry, version: int) -> Found:
    """A directory that the registry does not know."""
    revision, directory = registry.revision(), registry.directory(version)
    try:
        read_manifest(directory)
    except BrokenPolicy as error:
        return Found(version, None, str(error))
    buried, wrong = has_tombstone(directory), fault(directory, version, digests=True)
    if buried and wrong is not None:
        return _bury(registry, version, None, revision)
    if buried:
        remove_tombstone(directory)
    state: State = "broken" if wrong else "candidate"
    return _settle(registry, version, state, revision, wrong or "found on disk")


def _recheck(registry: PolicyRegistry, version: int, state: State) -> Found | None:
    """A version that the registry knows. Only what serves, or may again, is read to the last byte."""
    revision, directory, lost = registry.revision(), registry.directory(version), state in WITHOUT_WEIGHTS
    buried = has_tombstone(directory)
    wrong = fault(directory, version, digests=lost or buried or state == "stable")
    if buried and wrong is None:
        remove_tombstone(directory)
    if lost and wrong is None:
        return _settle(registry, version, "candidate", revision, "its directory is whole again")
    if state == "stable" and wrong is not None:
        return _replace(registry, version, wrong)
    if buried and wrong is not None:
        found = _bury(registry, version, state, revision)
        return None if state == "deleted" else found
    if state in SERVABLE and wrong is not None:
        return _settle(registry, version, "broken", revision, wrong)
    return None


def _bury(registry: PolicyRegistry, version: int, state: State | None, revision: str) -> Found:
    """Its tombstone says that it was deleted; perhaps that was not finished."""
    found = Found(version, "deleted", "its weights were deleted")
    if state != "deleted":
        found = _settle(registry, version, "deleted", revision, found.reason)
    if found.state == "deleted":
        clear(registry.directory(version))
    return found


def _settle(registry: PolicyRegistry, version: int, state: State, revision: str, reason: str) -> Found:
    try:
        registry.settle(
            version, state, revision=revision, action="find", actor=ACTOR, reason=reason, pinned=state == "candidate"
        )
    except PointerMoved as error:
        return Found(version, None, f"{reason}; {error}")
    return Found(version, state, reason)


def _replace(registry: PolicyRegistry, version: int, wrong: str) -> Found | None:
    """What serves is broken: let the version before it serve, or else the newest that ever did, or the base.

    Never one that nobody has released.
    """
    states = registry.states()
    served = [v for v in sorted(registry.released() | {BASE}, reverse=True) if states.get(v) in SERVABLE]
    for target in (registry.previous(), *served):
        if target not in (None, version) and fault(registry.directory(target), target, digests=True) is None:
            try:
                registry.point_stable(target, expected=version, actor=ACTOR, reason=wrong, action="lose")
            except PointerMoved:
                return None
            return Found(version, "broken", f"{wrong}; policy-v{target} serves")
    return Found(version, "stable", f"{wrong}; there is no other to serve in its place")


def _sweep_unfinished(registry: PolicyRegistry, at_work: set[int | None]) -> None:
    """Whoever wrote them is dead, or has been at it for longer than anybody is."""
    for version, path in list(unfinished(registry.policies_dir)):
        if version not in at_work and _age(path) > ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
