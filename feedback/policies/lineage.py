"""Where a policy version comes from and what went on from it: answer → version → round → judgements, and back."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from feedback.policies.manifest import BrokenPolicy, Manifest
from feedback.policies.registry import PolicyRegistry, State
from feedback.records import Record


class Lineage(Record):
    """What a version's manifest and its neighbours' tell. `ancestors` are nearest first; `descendants` by number.

    `judgements` counts what its round collected, by kind; `feedback_ids` are those that trained. A version that came
    from another installation says so in `imported`.
    """

    version: int
    state: State
    ancestors: tuple[int, ...]
    descendants: tuple[int, ...]
    round: int | None
    trigger: str | None
    since: str | None
    watermark: str | None
    judgements: dict[str, int]
    feedback_ids: tuple[str, ...]
    raters: int
    live: int
    reward_model: str | None
    reward_origin: int | None
    imported: dict[str, Any] | None


def lineage_of(registry: PolicyRegistry, version: int) -> Lineage:
    """Raises UnknownPolicy or BrokenPolicy."""
    manifest, states = registry.manifest(version), registry.states()
    told, all_of = manifest.lineage, manifests(registry, states)
    return Lineage(
        version=version,
        state=states[version],
        ancestors=ancestors(all_of, version),
        descendants=tuple(other for other in all_of if version in ancestors(all_of, other)),
        round=told.get("round"),
        trigger=told.get("trigger"),
        since=told.get("since"),
        watermark=told.get("watermark"),
        judgements=told.get("feedback", {}),
        feedback_ids=tuple(told.get("feedback_ids", ())),
        raters=len(told.get("raters", ())),
        live=len(told.get("live", ())),
        reward_model=told.get("reward_model"),
        reward_origin=told.get("reward_origin"),
        imported=told.get("imported"),
    )


def manifests(registry: PolicyRegistry, versions: Iterable[int]) -> dict[int, Manifest]:
    """Those that can be read, by version."""
    found: dict[int, Manifest] = {}
    for version in versions:
        with suppress(BrokenPolicy, OSError):  # nobody can say where these come from
            found[version] = registry.manifest(version)
    return found


def ancestors(known: Mapping[int, Manifest], version: int) -> tuple[int, ...]:
    """The parent, its parent, and so on as far as is known."""
    line: list[int] = []
    while (manifest := known.get(version)) is not None and manifest.parent is not None:
        version = manifest.parent
        line.append(version)
    return tuple(line)
