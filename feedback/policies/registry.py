"""Which policy versions exist and which one serves. Redis holds states and the pointer; the disk holds the bytes."""

import time
from pathlib import Path
from typing import Any, Literal

from redis import Redis

from feedback.policies.atomic import PIN, POINT, PUBLISH, RESERVE, REVISION, SETTLE
from feedback.policies.manifest import Manifest, directory_name, read_manifest
from feedback.records import Record

#: "rejected": no engine could be shown to hold it. "rolled_back": a release found it worse; it serves only if somebody
#: says so. "broken": the disk does not hold what the manifest says. "deleted": the weights are gone for good.
State = Literal["candidate", "canary", "stable", "retired", "rolled_back", "rejected", "broken", "deleted"]
SERVABLE = ("candidate", "canary", "stable", "retired", "rolled_back")
WITHOUT_WEIGHTS = ("broken", "deleted")

#: The base model's version: all others come from it.
BASE = 0

STABLE = "policy:stable"
LAST = "policy:last"
STATES = "policy:states"
AUDIT = "policy:audit"
PINNED = "policy:pinned"

# Lines of the audit that are no promotion: what returns to a version, and what leaves the pointer where it is.
_RETURNS = ("rollback", "reject", "lose")
_ASIDE = (
    "publish", "find", "retire", "pin", "unpin", "canary", "replaced", "aborted", "inconclusive", "rolled_back",
)  # fmt: skip


class UnknownPolicy(KeyError):
    """No such version is registered."""


class PointerMoved(RuntimeError):
    """Somebody else moved the stable pointer first; it is at `current` now."""

    def __init__(self, message: str, current: int | None = None) -> None:
        super().__init__(message)
        self.current = current


class RejectedPolicy(PointerMoved):
    """The version failed its proof in the engine: it never serves again."""


class LostPolicy(PointerMoved):
    """The version's weights are not on the disk: it cannot serve."""


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
        self._point = redis.register_script(POINT)
        self._publish = redis.register_script(PUBLISH)
        self._reserve = redis.register_script(RESERVE)
        self._settle = redis.register_script(REVISION + SETTLE)
        self._pin = redis.register_script(PIN)

    def reserve(self) -> int:
        """A version number never used before, neither in Redis nor on disk."""
        return int(self._reserve(keys=[LAST], args=[max(self.on_disk(), default=-1)]))

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
        """Make `version` serve if `expected` still does; raises PointerMoved or UnknownPolicy."""
        before = "" if expected is None else expected
        retired = {"reject": "rejected", "lose": "broken"}.get(action, "retired")
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

    def reject(self, version: int, *, actor: str, reason: str, lost: bool = False) -> int | None:
        """A version failed its proof in the engine: go back to the one before. Returns what serves now.

        `lost`: its directory is not what its manifest says, so that it was not tried, and may serve once it is whole.
        """
        target = self.previous()
        if target is None or self.stable() != version:
            return self.stable()
        self.point_stable(target, expected=version, actor=actor, reason=reason, action="lose" if lost else "reject")
        return target

    def previous(self) -> int | None:
        """The version that served before the present one was promoted; never a rejected one.

        Returns to a version (rollback, reject, lose) do not count, unless it had never served: what was left then was
        left for a reason, and two versions must not take turns.
        """
        current, states = self.stable(), self.states()
        came = [line for line in self.audit() if line.version == current and line.action not in _ASIDE]
        promotions = came[:1] + [line for line in came[1:] if line.action not in _RETURNS]
        for line in reversed(promotions):
            if line.from_version is None or states.get(line.from_version) in SERVABLE:
                return line.from_version
        return None

    def pointed(self) -> AuditLine | None:
        """Who moved the stable pointer last, and why."""
        return next((line for line in reversed(self.audit()) if line.action not in _ASIDE), None)

    def released(self) -> set[int]:
        """The versions that serve or have served."""
        retired = {version for version, state in self.states().items() if state in ("stable", "retired")}
        return retired | {line.version for line in self.audit() if line.action not in _ASIDE}

    def states(self) -> dict[int, State]:
        return {int(version): state for version, state in sorted(self.redis.hgetall(STATES).items(), key=_number)}

    def audit(self) -> list[AuditLine]:
        """Every transition, with who did it and why; oldest first."""
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

    def revision(self) -> str:
        """Changes with every change of the registry."""
        last = self.redis.xrevrange(AUDIT, count=1)
        return str(last[0][0]) if last else ""

    def settle(
        self, version: int, state: State, *, revision: str, action: str, actor: str, reason: str, pinned: bool = False
    ) -> None:
        """Give a version that does not serve another state, and pin it; PointerMoved if anything has changed since."""
        args: list[str | int | float] = [revision, version, state, action, actor, reason, time.time(), int(pinned)]
        if not self._settle(keys=[STABLE, STATES, AUDIT, PINNED], args=args):
            raise PointerMoved("the registry has changed meanwhile: look again", self.stable())

    def pin(self, version: int, *, pinned: bool, actor: str, reason: str) -> bool:
        """Keep a version whatever else is deleted, or no longer; whether that is new. Raises UnknownPolicy."""
        args: list[str | int | float] = [version, "pin" if pinned else "unpin", actor, reason, time.time()]
        changed = self._pin(keys=[STATES, AUDIT, PINNED], args=args)
        if changed < 0:
            raise UnknownPolicy(f"there are no weights of policy-v{version}")
        return bool(changed)

    def pinned(self) -> set[int]:
        return {int(version) for version in self.redis.smembers(PINNED)}

    def on_disk(self) -> list[int]:
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
    if state in WITHOUT_WEIGHTS:
        return LostPolicy(f"policy-v{version} is {state}: it cannot serve", current)
    return UnknownPolicy(f"policy-v{version} does not exist")


def _name(version: int | None) -> str:
    return "none" if version is None else f"policy-v{version}"


def _number(item: tuple[str, str]) -> int:
    return int(item[0])


def in_words(name: str) -> str:
    """A state, or what was done, for people: "rolled back"."""
    return name.replace("_", " ")
