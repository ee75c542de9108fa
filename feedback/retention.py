"""Which versions' weights are kept, and how others are deleted: the state first, then the bytes; the manifest stays.

So lineage, history and figures of a deleted version can be told for good, and what descends from it needs nothing of
it: adapters are changes to the base model, not to the parent.
"""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from feedback.policies.atomic import REVISION
from feedback.policies.registry import (
    AUDIT,
    BASE,
    PINNED,
    SERVABLE,
    STATES,
    PointerMoved,
    PolicyRegistry,
    UnknownPolicy,
)
from feedback.policies.shelf import clear, fault
from feedback.releases.book import ReleaseBook
from feedback.releases.scores import scored_by
from feedback.rounds.book import OPEN, RoundBook, RoundRecord

log = logging.getLogger("feedback.retention")

ACTOR = "retention"
UNNEEDED = ("candidate", "retired", "rolled_back", "rejected", "broken", "deleted")

# Only if neither the registry nor the open round has changed since it was decided.
_DELETE = """
local open = redis.call('GET', KEYS[4]) or ''
local restarts = redis.call('HGET', 'round:' .. open, 'restarts') or '0'
if revision(KEYS[2]) ~= ARGV[2] or open ~= ARGV[3] or restarts ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'deleted')
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[2], '*', 'version', ARGV[1], 'from', '', 'action', 'retire', 'actor', ARGV[5],
  'reason', ARGV[6], 'time', ARGV[7])
return 1
"""


class StillNeeded(RuntimeError):
    """The version's weights may not be deleted; the message says why."""


@dataclass(frozen=True)
class Retention:
    """What an installation keeps."""

    registry: PolicyRegistry

    def needed(self) -> dict[int, str]:
        """The versions whose weights must stay, each with a reason."""
        states = self.registry.states()
        needed = {version: f"it is {state}" for version, state in states.items() if state not in UNNEEDED}
        if (record := self._open()) is not None:
            needed |= dict.fromkeys(_versions_of(record, states), f"round {record.id} needs it, or may")
        release = ReleaseBook(self.registry).open()
        if release is not None and (scorer := scored_by(self.registry.redis, release)) is not None:
            needed[scorer] = f"its reward model scores release {release.id}"
        needed |= dict.fromkeys(self.registry.pinned(), "it is pinned")
        if (previous := self.registry.previous()) is not None:
            needed[previous] = "a rollback returns to it"
        if (stable := self.registry.stable()) is not None:
            needed[stable] = "it serves"
        return needed | {BASE: "all others come from it"}

    def retire(self, version: int, *, actor: str, reason: str) -> None:
        """Delete a version's weights for good. Raises StillNeeded, UnknownPolicy or PointerMoved."""
        registry, record = self.registry, self._open()
        seen: list[Any] = [registry.revision(), record.id if record else "", record.restarts if record else 0]
        state = registry.states().get(version)
        if state is None:
            raise UnknownPolicy(f"policy-v{version} does not exist")
        if state != "deleted":
            if (why := self.needed().get(version)) is not None:
                raise StillNeeded(f"policy-v{version} stays: {why}")
            delete = registry.redis.register_script(REVISION + _DELETE)
            if not delete(keys=[STATES, AUDIT, PINNED, OPEN], args=[version, *seen, actor, reason, time.time()]):
                raise PointerMoved("policies or rounds have changed meanwhile: look again", registry.stable())
        with suppress(FileNotFoundError):
            clear(registry.directory(version))

    def sweep(self, keep: int | None) -> list[int]:
        """Retire what is neither needed nor among the `keep` newest that can serve; returns these versions.

        None keeps all. Never fails: what could not be deleted now is the next sweep's.
        """
        retired: list[int] = []
        if keep is None:
            return retired
        try:
            for version in self._surplus(keep):
                self.retire(version, actor=ACTOR, reason=f"not among the {keep} newest")
                log.info("policy-v%d is deleted: it is not among the %d newest", version, keep)
                retired.append(version)
        except (StillNeeded, PointerMoved, RedisError, OSError) as error:
            log.warning("old policies were not deleted: %s", error)
        return retired

    def _surplus(self, keep: int) -> list[int]:
        """The rejected and broken first; never a candidate newer than what serves: its release may be awaited.

        Nor a broken one that is whole again, as after a disk was away: the next start makes it a candidate.
        """
        needed, states, stable = self.needed(), self.registry.states(), self.registry.stable()
        having = [version for version, state in states.items() if state != "deleted"]
        having.sort(key=lambda version: (states[version] in SERVABLE, version))
        awaited = {v for v, state in states.items() if state == "candidate" and (stable is None or v > stable)}
        surplus = [version for version in having[:-keep] if version not in needed.keys() | awaited]
        return [v for v in surplus if states[v] != "broken" or fault(self.registry.directory(v), v, digests=True)]

    def _open(self) -> RoundRecord | None:
        return RoundBook(self.registry.redis).open_round()


def _versions_of(record: RoundRecord, known: Iterable[int]) -> set[int]:
    """What an open round goes on from, and what it publishes; before it has collected that may be any version."""
    collected = record.metrics.get("collect")
    if collected is None:
        return set(known)
    found = (collected.get("parent"), collected.get("reward_origin"), record.policy_version)
    return {version for version in found if version is not None}
