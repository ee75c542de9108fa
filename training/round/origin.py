"""Where a round comes from: the line of its policy, and a reward model that learned from nobody put aside or erased."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from feedback.policies.manifest import BrokenPolicy, Manifest
from feedback.policies.registry import WITHOUT_WEIGHTS, PolicyRegistry, UnknownPolicy

#: Those of some judgements that the ledger no longer has.
Gone = Callable[[Iterable[str]], set[str]]


def reward_origin(registry: PolicyRegistry, parent: int, *, quarantined: Collection[str], gone: Gone) -> int:
    """The newest of the versions that the parent's reward model descends from which is clean, as are all before it.

    0 is the base, which learned from nobody. What a rater taught is still in what went on from it. One whose weights
    are gone cannot be gone on from.
    """
    clean, states = 0, registry.states()
    for manifest in reversed(_descent(registry, parent)):
        if set(manifest.lineage.get("raters", ())) & set(quarantined) or gone(manifest.lineage.get("feedback_ids", ())):
            break
        if states[manifest.version] not in WITHOUT_WEIGHTS:
            clean = manifest.version
    return clean


def line_of(registry: PolicyRegistry, version: int, generations: int) -> tuple[int, ...]:
    """The version, its parent, and so on, so many generations back or as far as is known.

    Not by number: after a rollback the numbers below are of policies that this one does not come from.
    """
    line = [version]
    with suppress(BrokenPolicy, UnknownPolicy):
        while len(line) <= generations and (parent := registry.manifest(line[-1]).parent) is not None:
            line.append(parent)
    return tuple(line)


def _descent(registry: PolicyRegistry, version: int | None) -> list[Manifest]:
    """The version and all before it, each the one that the reward model of the next went on from; newest first."""
    descent: list[Manifest] = []
    with suppress(BrokenPolicy):  # what lies before one that is lost cannot be gone on from either
        while version:
            descent.append(manifest := registry.manifest(version))
            version = manifest.lineage.get("reward_origin", manifest.parent)
    return descent
