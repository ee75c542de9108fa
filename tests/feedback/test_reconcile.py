"""The registry and the disk made to agree at start: each way in which they can differ, and two restored backups."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.manifest import verify_files
from feedback.policies.registry import PolicyRegistry
from feedback.reconcile import reconcile
from feedback.retention import Retention
from feedback.rounds.book import RoundBook
from feedback.store import connect
from tests.conftest import ValkeyProcess
from tests.feedback.policies.test_registry import publish, write_policy


@pytest.fixture
def registry(valkey_url: str, tmp_path: Path) -> PolicyRegistry:
    """0 to 3; 2 serves, 1 did before."""
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    publish(registry, 4)
    for before, version in ((None, 0), (0, 1), (1, 2)):
        registry.point_stable(version, expected=before, actor="test", reason="better")
    return registry


def weights(registry: PolicyRegistry, version: int) -> Path:
    return registry.directory(version) / "model.safetensors"


def test_a_registry_that_agrees_with_the_disk_is_left_alone(registry: PolicyRegistry) -> None:
    Retention(registry).retire(3, actor="op", reason="disk")
    before = registry.audit()
    assert reconcile(registry) == []
    assert registry.audit() == before


def test_a_redis_that_forgot_learns_from_the_disk(registry: PolicyRegistry) -> None:
    Retention(registry).retire(3, actor="op", reason="disk")
    weights(registry, 1).write_bytes(b"weightz")
    registry.directory(7).mkdir()
    registry.redis.flushdb()
    assert [(found.version, found.state) for found in reconcile(registry)] == [
        (0, "candidate"), (1, "broken"), (2, "candidate"), (3, "deleted"), (7, None),
    ]  # fmt: skip
    assert registry.states() == {0: "candidate", 1: "broken", 2: "candidate", 3: "deleted"}
    assert registry.reserve() == 8, "a number is never used twice, whatever lies under it"
    assert [found.version for found in reconcile(registry)] == [7]


def remove(registry: PolicyRegistry, version: int) -> None:
    shutil.rmtree(registry.directory(version))


def cut(registry: PolicyRegistry, version: int) -> None:
    weights(registry, version).write_bytes(b"weight")


def lose_manifest(registry: PolicyRegistry, version: int) -> None:
    (registry.directory(version) / "manifest.json").unlink()


def swap(registry: PolicyRegistry, version: int) -> None:
    shutil.rmtree(registry.directory(version))
    shutil.copytree(registry.directory(0), registry.directory(version))


def leave_only_the_manifest(registry: PolicyRegistry, version: int) -> None:
    weights(registry, version).unlink()
    shutil.rmtree(registry.directory(version) / "adapter")


@pytest.mark.parametrize("damage", [remove, cut, lose_manifest, leave_only_the_manifest, swap])
def test_what_is_not_on_the_disk_cannot_serve_until_it_is_back(
    registry: PolicyRegistry, tmp_path: Path, damage: Callable[[PolicyRegistry, int], None]
) -> None:
    shutil.copytree(registry.directory(1), tmp_path / "kept")
    damage(registry, 1)
    assert [(found.version, found.state) for found in reconcile(registry)] == [(1, "broken")]
    assert (registry.states()[1], registry.stable(), registry.previous()) == ("broken", 2, None)
    assert registry.audit()[-1].actor == "reconciler"
    assert reconcile(registry) == []
    shutil.rmtree(registry.directory(1), ignore_errors=True)
    shutil.copytree(tmp_path / "kept", registry.directory(1))
    assert [(found.version, found.state) for found in reconcile(registry)] == [(1, "candidate")]
    registry.point_stable(1, expected=2, actor="op", reason="it is back")


@pytest.mark.parametrize("over", [True, False])
def test_deleted_weights_that_are_restored_from_a_backup_are_never_deleted_again(
    registry: PolicyRegistry, tmp_path: Path, over: bool
) -> None:
    shutil.copytree(registry.directory(3), tmp_path / "kept")
    Retention(registry).retire(3, actor="op", reason="disk")
    if not over:
        shutil.rmtree(registry.directory(3))
    shutil.copytree(tmp_path / "kept", registry.directory(3), dirs_exist_ok=True)
    assert [(found.version, found.state) for found in reconcile(registry)] == [(3, "candidate")]
    assert reconcile(registry) == []
    verify_files(registry.directory(3), registry.manifest(3))


def test_half_a_restored_version_waits_for_the_rest(registry: PolicyRegistry) -> None:
    Retention(registry).retire(3, actor="op", reason="disk")
    (registry.directory(3) / "deleted.txt").unlink()
    weights(registry, 3).write_bytes(b"weights")
    assert (reconcile(registry), registry.states()[3]) == ([], "deleted")
    assert weights(registry, 3).exists()
    (registry.directory(3) / "deleted.txt").touch()
    assert reconcile(registry) == []
    assert not weights(registry, 3).exists(), "a deletion that was begun is finished"


def flip(registry: PolicyRegistry, version: int) -> None:
    weights(registry, version).write_bytes(b"weightz")


@pytest.mark.parametrize("damage", [remove, cut, flip])
def test_if_what_serves_is_broken_the_one_before_serves(
    registry: PolicyRegistry, damage: Callable[[PolicyRegistry, int], None]
) -> None:
    damage(registry, 2)
    (found,) = reconcile(registry)
    assert str(found).startswith("policy-v2 is broken: ") and str(found).endswith("; policy-v1 serves")
    assert registry.states() == {0: "retired", 1: "stable", 2: "broken", 3: "candidate"}
    assert (registry.audit()[-1].action, registry.previous()) == ("lose", 0)


def test_if_the_one_before_is_broken_too_the_newest_that_has_served_serves(registry: PolicyRegistry) -> None:
    cut(registry, 1)
    flip(registry, 2)
    reconcile(registry)
    assert registry.states() == {0: "stable", 1: "broken", 2: "broken", 3: "candidate"}, "nobody has released 3"


def test_if_none_has_served_the_base_does(valkey_url: str, tmp_path: Path) -> None:
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    publish(registry, 3)
    registry.point_stable(1, expected=None, actor="test", reason="first")
    flip(registry, 1)
    reconcile(registry)
    assert registry.states() == {0: "stable", 1: "broken", 2: "candidate"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("opened", ["manifest.json", "model.safetensors"])
def test_a_disk_that_cannot_be_read_costs_no_version_its_state(
    registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch, code: int, opened: str
) -> None:
    really, unreadable, states = Path.open, registry.directory(2) / opened, registry.states()

    def fail(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == unreadable:
            raise OSError(code, os.strerror(code), str(path))
        return really(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        patch.setattr(Path, "read_text", lambda path: path.open().read())
        with pytest.raises(OSError, match=f"{os.strerror(code)}: '{unreadable}'"):
            reconcile(registry)
    assert (registry.states(), registry.stable()) == (states, 2)


def test_a_directory_that_cannot_be_listed_is_not_an_empty_one(
    registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, adapter = os.scandir, registry.directory(1) / "adapter"

    def fail(path: Any) -> Any:
        if Path(path) == adapter:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        with pytest.raises(PermissionError):
            reconcile(registry)
    assert registry.states()[1] == "retired"


def test_candidates_that_were_found_are_pinned_until_somebody_unpins_them(registry: PolicyRegistry) -> None:
    shutil.copytree(registry.directory(1), registry.policies_dir.parent / "kept")
    remove(registry, 1)
    write_policy(registry.directory(5), 5)
    reconcile(registry)
    assert registry.pinned() == {5}
    shutil.copytree(registry.policies_dir.parent / "kept", registry.directory(1))
    reconcile(registry)
    assert registry.pinned() == {1, 5}, "what was restored is not for the next sweep"
    registry.pin(5, pinned=False, actor="op", reason="seen")
    assert reconcile(registry) == []
    assert registry.pinned() == {1}


def test_if_nothing_is_whole_the_pointer_stays(registry: PolicyRegistry) -> None:
    shutil.rmtree(registry.policies_dir)
    assert str(reconcile(registry)[2]).endswith("there is no other to serve in its place")
    assert registry.stable() == 2


def test_half_written_directories_go_when_nobody_is_at_them(registry: PolicyRegistry) -> None:
    book = RoundBook(registry.redis)
    id, _ = book.request(trigger="count", actor="beat")
    token = book.claim(id, owner="w", lease_s=60) or 0
    book.write(id, token, policy_version=5)
    for name, age_s in ((".000004.0001", 7200), (".000005.0001", 7200), (".000006.0000", 60)):
        (registry.policies_dir / name).mkdir()
        os.utime(registry.policies_dir / name, (time.time() - age_s,) * 2)
    write_policy(registry.directory(5), 5)
    assert reconcile(registry) == [], "the open round registers its version itself"
    left = {path.name for path in registry.policies_dir.iterdir() if path.name.startswith(".")}
    assert left == {".000005.0001", ".000006.0000"}


def test_a_redis_restored_from_an_older_backup(tmp_path: Path, valkey: ValkeyProcess) -> None:
    """Fault 7: the counters and the registry are behind the disk, which has new versions and has lost old ones."""
    registry = PolicyRegistry(connect(valkey.url), tmp_path / "policies")
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="test", reason="first")
    valkey.kill()
    backup = tmp_path / "backup"
    shutil.copytree(valkey.directory, backup)
    valkey.start()
    publish(registry, 2)
    registry.point_stable(4, expected=0, actor="test", reason="better")
    Retention(registry).retire(1, actor="op", reason="disk")
    valkey.kill()
    shutil.rmtree(valkey.directory)
    shutil.copytree(backup, valkey.directory)
    valkey.start()
    assert (registry.states(), registry.stable()) == ({0: "stable", 1: "candidate", 2: "candidate"}, 0)
    reconcile(registry)
    assert registry.states() == {0: "stable", 1: "deleted", 2: "candidate", 3: "candidate", 4: "candidate"}
    assert registry.reserve() == 5
