"""From a trained policy to a version in the registry, at most one per round, killed between any two steps or not.

Reserve a number and keep it in the round record; write the directory under another name and rename it; register it
under the fencing token; move the stable pointer, or begin its release, or keep it back while releases are frozen. Each
step finds what an earlier attempt left and goes on from there.
"""

import logging
import shutil

from redis import Redis

from feedback.policies.registry import PointerMoved, PolicyRegistry, in_words
from feedback.policies.shelf import Build, place
from feedback.releases.book import Mode, NotReleasable, ReleaseBook, ReleaseMoved
from feedback.releases.plan import BadPlan, load_plan
from feedback.releases.start import begin_once
from feedback.rounds.book import RoundBook, key
from feedback.settings import Settings
from feedback.store import Ledger

log = logging.getLogger("training.publish")

ACTOR = "training"
#: What passed its gate while releases were frozen: version, parent, round_id.
KEPT_BACK = "release:kept_back"


def publish_round(registry: PolicyRegistry, book: RoundBook, *, round_id: int, token: int, build: Build) -> int:
    """The round's version, registered. `build` fills a directory for a version and describes it.

    Raises LeaseLost or StaleToken when another worker has the round.
    """
    version = _reserve_once(registry, book, round_id, token)
    place(registry.directory(version), version, token, build)
    registry.publish(version, actor=ACTOR, reason=f"round {round_id}", round_key=key(round_id), token=token)
    return version


def let_in(
    settings: Settings, ledger: Ledger, registry: PolicyRegistry, *, version: int, parent: int, round_id: int
) -> str:
    """Let a round's version serve, or begin its release, where nobody has to ask for it; what became of it in words."""
    mode, waits = settings.release_mode, f"policy-v{version} waits for its release"
    if mode == "manual":
        registry.redis.delete(KEPT_BACK)
        return waits
    reason = f"round {round_id}"
    if mode == "direct":
        note = _promoted(registry, version, parent, reason)
    else:
        note = _begun(settings, ledger, registry, version, mode, reason)
    if note is None:
        registry.redis.hset(KEPT_BACK, mapping={"version": version, "parent": parent, "round_id": round_id})
        return f"{waits}: releases are frozen"
    registry.redis.delete(KEPT_BACK)
    return note


def let_in_kept_back(settings: Settings, redis: Redis) -> None:
    """Let in what would have come in but for the freeze, the newest of it, once that is over.

    A release that is open then goes on to its end first: a hand began it, knowing of the freeze, or it has votes.
    """
    registry, known = PolicyRegistry(redis, settings.policies_dir), redis.hgetall(KEPT_BACK)
    book = ReleaseBook(registry)
    if not known or book.is_frozen():
        return
    version, parent, round_id = (int(known[name]) for name in ("version", "parent", "round_id"))
    if _is_dealt_with(book, version):
        redis.delete(KEPT_BACK)
    elif book.open() is None:
        ledger = Ledger(redis)
        note = let_in(settings, ledger, registry, version=version, parent=parent, round_id=round_id)
        log.info("releases go on: %s", note)


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


def _promoted(registry: PolicyRegistry, version: int, parent: int, reason: str) -> str | None:
    """Let a candidate serve if its parent still does; None while releases are frozen.

    One that served before and was taken back since stays back.
    """
    if registry.states()[version] == "candidate":
        if ReleaseBook(registry).is_frozen():
            return None
        try:
            registry.point_stable(version, expected=parent, actor=ACTOR, reason=reason)
        except PointerMoved as error:
            return f"policy-v{version} stays a candidate: {error}"
    return f"policy-v{version} is {in_words(registry.states()[version])}"


def _is_dealt_with(book: ReleaseBook, version: int) -> bool:
    """Whether somebody has made something of a candidate, or had it released, however that ended."""
    released = any(line.release.candidate == version for line in book.history())
    return released or book.registry.states().get(version) != "candidate"


def _begun(
    settings: Settings, ledger: Ledger, registry: PolicyRegistry, version: int, mode: Mode, reason: str
) -> str | None:
    """Begin a version's release; None while releases are frozen."""
    try:
        plan = load_plan(settings.home)
        release = begin_once(ledger, registry, version, plan, mode=mode, actor=ACTOR, reason=reason)
    except (BadPlan, NotReleasable, ReleaseMoved, PointerMoved) as error:
        return f"policy-v{version} waits for its release: {error}"
    return None if release is None else f"policy-v{version}: release {release.id} has begun"
