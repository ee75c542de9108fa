"""From a trained policy to a version in the registry, at most one per round, killed between any two steps or not.

Reserve a number and keep it in the round record; write the directory under another name and rename it; register it
under the fencing token; move the stable pointer, or begin its release. Each step finds what an earlier attempt left and
goes on from there.
"""

import shutil

from feedback.registry import PointerMoved, PolicyRegistry, in_words
from feedback.release_plan import BadPlan, load_plan
from feedback.release_start import begin_once
from feedback.releases import NotReleasable, ReleaseBook, ReleaseMoved
from feedback.rounds import RoundBook, key
from feedback.settings import Settings
from feedback.shelf import Build, place
from feedback.store import Ledger

ACTOR = "training"


def publish_round(
    registry: PolicyRegistry,
    book: RoundBook,
    *,
    round_id: int,
    token: int,
    parent: int,
    automatic: bool,
    build: Build,
) -> tuple[int, str]:
    """(the round's version, what became of it in words). `build` fills a directory for a version and describes it.

    Raises LeaseLost or StaleToken when another worker has the round.
    """
    version = _reserve_once(registry, book, round_id, token)
    place(registry.directory(version), version, token, build)
    reason = f"round {round_id}"
    registry.publish(version, actor=ACTOR, reason=reason, round_key=key(round_id), token=token)
    if not automatic:
        return version, f"policy-v{version} waits for its release"
    return version, _promote(registry, version, parent, reason)


def promotes(settings: Settings, registry: PolicyRegistry) -> bool:
    """Whether what a round publishes serves at once."""
    return settings.release_mode == "direct" and not ReleaseBook(registry).is_frozen()


def release_round(settings: Settings, ledger: Ledger, registry: PolicyRegistry, *, version: int, round_id: int) -> str:
    """Begin the release of a round's version where nobody has to ask for it; what became of it in words."""
    mode, waits = settings.release_mode, f"policy-v{version} waits for its release"
    if mode not in ("assisted", "automatic"):
        return waits
    try:
        release = begin_once(
            ledger, registry, version, load_plan(settings.home), mode=mode, actor=ACTOR, reason=f"round {round_id}"
        )
    except (BadPlan, OSError, NotReleasable, ReleaseMoved, PointerMoved) as error:
        return f"{waits}: {error}"
    if release is None:
        return f"{waits}: releases are frozen"
    return f"policy-v{version}: release {release.id} has begun"


def discard(registry: PolicyRegistry, version: int) -> None:
    """Drop a version that was never registered: nothing may find it on the disk and take it for a policy."""
    if version not in registry.states():
        target = registry.directory(version)
        for path in (target, *target.parent.glob(f".{target.name}.*")):
            shutil.rmtree(path, ignore_errors=not path.exists())


def _reserve_once(registry: PolicyRegistry, book: RoundBook, round_id: int, token: int) -> int:
    """The round's version. Killed before it is recorded, a number is lost: gaps are harmless, reuse is not."""
    record = book.get(round_id)
    if record is not None and record.policy_version is not None:
        return record.policy_version
    version = registry.reserve()
    book.write(round_id, token, policy_version=version)
    return version


def _promote(registry: PolicyRegistry, version: int, parent: int, reason: str) -> str:
    """Let a candidate serve if its parent still does. One that served before and was taken back since stays back."""
    if registry.states()[version] == "candidate":
        try:
            registry.point_stable(version, expected=parent, actor=ACTOR, reason=reason)
        except PointerMoved as error:
            return f"policy-v{version} stays a candidate: {error}"
    return f"policy-v{version} is {in_words(registry.states()[version])}"
