"""Which policy versions exist and which one serves. Redis holds states and the pointer; the disk holds the bytes."""

import time
from pathlib import Path
from typing import Any, Literal

from redis import Redis

from feedback.manifest import Manifest, directory_name, read_manifest
from feedback.records import Record

State = Literal["candidate", "stable", "retired", "rejected"]
#: What has something to serve with, and may.
SERVABLE = ("candidate", "stable", "retired")

STABLE = "policy:stable"
LAST = "policy:last"
STATES = "policy:states"
AUDIT = "policy:audit"

# Moves the pointer only from the version the caller saw, and never to one that was rejected. Replies what it found:
# the version that serves, the state of the one asked for, and whether it moved.
_POINT = """
local current = redis.call('GET', KEYS[1]) or ''
local state = redis.call('HGET', KEYS[2], ARGV[2]) or ''
if current ~= ARGV[1] then return {current, state, 0} end
if state ~= 'candidate' and state ~= 'stable' and state ~= 'retired' then return {current, state, 0} end
if current ~= '' then redis.call('HSET', KEYS[2], current, ARGV[5]) end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], 'stable')
redis.call('XADD', KEYS[3], '*', 'version', ARGV[2], 'from', current, 'action', ARGV[6], 'actor', ARGV[3],
  'reason', ARGV[4], 'time', ARGV[7])
return {current, state, 1}
"""

# Registers a version at most once, and only for the holder of the round's newest token.
_PUBLISH = """
if KEYS[3] ~= '' then
  if redis.call('HGET', KEYS[3], 'token') ~= ARGV[2] then return 0 end
  if redis.call('HGET', KEYS[3], 'state') ~= 'running' then return 0 end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 1 end
redis.call('HSET', KEYS[1], ARGV[1], 'candidate')
redis.call('XADD', KEYS[2], '*', 'version', ARGV[1], 'from', '', 'action', 'publish', 'actor', ARGV[3],
  'reason', ARGV[4], 'time', ARGV[5])
return 1
"""

_RESERVE = """
local last = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > last then last = tonumber(ARGV[1]) end
redis.call('SET', KEYS[1], last + 1)
return last + 1
"""


class UnknownPolicy(KeyError):
    """No such version is registered."""


class PointerMoved(RuntimeError):
    """Somebody else moved the stable pointer first; it is at `current` now."""

    def __init__(self, message: str, current: int | None = None) -> None:
        super().__init__(message)
        self.current = current


class RejectedPolicy(PointerMoved):
    """The version failed its proof in the engine: it never serves again."""


class StaleToken(RuntimeError):
    """The caller lost its round to another worker."""


class AuditLine(Record):
    version: int
    from_version: int | None
    action: str
    actor: str
    reason: str
    time: float


class PolicyRegistry:
    """Policy versions of one installation."""

    def __init__(self, redis: Redis, policies_dir: Path) -> None:
        self.redis: Any = redis
        self.policies_dir = policies_dir
        self._point = redis.register_script(_POINT)
        self._publish = redis.register_script(_PUBLISH)
        self._reserve = redis.register_script(_RESERVE)

    def reserve(self) -> int:
        """A version number never used before, neither in Redis nor on disk."""
        return int(self._reserve(keys=[LAST], args=[max(self._on_disk(), default=-1)]))

    def directory(self, version: int) -> Path:
        return self.policies_dir / directory_name(version)

    def manifest(self, version: int) -> Manifest:
        """Raises UnknownPolicy or BrokenPolicy."""
        if version not in self.states():
            raise UnknownPolicy(f"policy-v{version} does not exist")
        return read_manifest(self.directory(version))

    def publish(self, version: int, *, actor: str, reason: str, round_key: str = "", token: int = 0) -> None:
        """Register a complete directory as a candidate; a second publish of the same version changes nothing.

        With a `round_key`, raises StaleToken unless `token` is that round's newest.
        """
        read_manifest(self.directory(version))
        args: list[str | int | float] = [version, token, actor, reason, time.time()]
        if not self._publish(keys=[STATES, AUDIT, round_key], args=args):
            raise StaleToken(f"{round_key}: another worker has taken this round over")

    def stable(self) -> int | None:
        """The version that serves."""
        version = self.redis.get(STABLE)
        return None if version is None else int(version)

    def point_stable(
        self, version: int, *, expected: int | None, actor: str, reason: str, action: str = "promote"
    ) -> None:
        """Make `version` serve if `expected` still does; raises PointerMoved, RejectedPolicy or UnknownPolicy."""
        before = "" if expected is None else expected
        retired = "rejected" if action == "reject" else "retired"
        args: list[str | int | float] = [before, version, actor, reason, retired, action, time.time()]
        found, state, moved = self._point(keys=[STABLE, STATES, AUDIT], args=args)
        if not moved:
            raise _not_moved(version, state, expected, int(found) if found else None)

    def rollback(self, *, to: int | None, actor: str, reason: str, expected: int | None = None) -> int:
        """Return to `to`, or to the version that served before the present one. Returns the version.

        Raises PointerMoved when `expected` is given and something else serves.
        """
        current = self.stable()
        if expected is not None and current != expected:
            raise _not_moved(expected, "", expected, current)
        target = self.previous() if to is None else to
        if target is None:
            raise UnknownPolicy("there is no earlier policy to return to")
        if target != current:
            self.point_stable(target, expected=current, actor=actor, reason=reason, action="rollback")
        return target

    def reject(self, version: int, *, actor: str, reason: str) -> int | None:
        """A version failed its proof in the engine: go back to the one before. Returns what serves now."""
        target = self.previous()
        if target is None or self.stable() != version:
            return self.stable()
        self.point_stable(target, expected=version, actor=actor, reason=reason, action="reject")
        return target

    def previous(self) -> int | None:
        """The version that served before the present one was promoted; never a rejected one.

        Returns to a version (rollback, reject) do not count: what was left then was left for a reason, and
        two versions must not take turns.
        """
        current, states = self.stable(), self.states()
        for line in reversed(self.audit()):
            is_promotion = line.action not in ("publish", "rollback", "reject") and line.version == current
            if is_promotion and (line.from_version is None or states.get(line.from_version) in SERVABLE):
                return line.from_version
        return None

    def states(self) -> dict[int, State]:
        return {int(version): state for version, state in sorted(self.redis.hgetall(STATES).items(), key=_number)}

    def audit(self) -> list[AuditLine]:
        """Every transition, oldest first."""
        lines = [fields for _, fields in self.redis.xrange(AUDIT)]
        return [
            AuditLine(
                version=int(line["version"]),
                from_version=int(line["from"]) if line["from"] else None,
                action=line["action"],
                actor=line["actor"],
                reason=line["reason"],
                time=float(line["time"]),
            )
            for line in lines
        ]

    def adopt_from_disk(self) -> list[int]:
        """Register complete versions that the disk has and Redis lost; returns them."""
        missing = sorted(set(self._on_disk()) - set(self.states()))
        for version in missing:
            self.publish(version, actor="reconciler", reason="found on disk")
        return missing

    def _on_disk(self) -> list[int]:
        if not self.policies_dir.is_dir():
            return []
        return [int(path.name) for path in self.policies_dir.iterdir() if path.name.isdigit()]


def _not_moved(version: int, state: str, expected: int | None, current: int | None) -> Exception:
    """Why the pointer stayed at `current`."""
    if current != expected:
        return PointerMoved(f"the stable policy is no longer {_name(expected)}; it is {_name(current)}", current)
    if state == "rejected":
        reason = f"policy-v{version} was rejected: the engine could not be shown to hold it"
        return RejectedPolicy(reason, current)
    return UnknownPolicy(f"policy-v{version} does not exist")


def _name(version: int | None) -> str:
    return "none" if version is None else f"policy-v{version}"


def _number(item: tuple[str, str]) -> int:
    return int(item[0])
