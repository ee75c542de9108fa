"""From a trained policy to a version in the registry, at most one per round, killed between any two steps or not.

Reserve a number and keep it in the round record; write the directory under another name and rename it; register it
under the fencing token; move the stable pointer. Each step finds what an earlier attempt left and goes on from there.
"""

import shutil

from feedback.registry import PointerMoved, PolicyRegistry
from feedback.rounds import RoundBook, key
from feedback.shelf import Build, place

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
    return f"policy-v{version} is {registry.states()[version]}"
