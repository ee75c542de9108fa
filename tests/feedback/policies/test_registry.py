import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.policies.manifest import (
    BrokenPolicy,
    Manifest,
    describe_files,
    read_manifest,
    verify_files,
    version_number,
    write_manifest,
)
from feedback.policies.registry import PointerMoved, PolicyRegistry, RejectedPolicy, StaleToken, UnknownPolicy
from feedback.retention import Retention
from feedback.rounds.book import RoundBook, key
from feedback.store import connect


def write_policy(directory: Path, version: int, content: bytes = b"weights") -> Manifest:
    (directory / "adapter").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(content)
    (directory / "adapter" / "config.json").write_text("{}")
    manifest = Manifest(
        version=version, parent=None, kind="base", base_model="m", dtype="float32", model_path=".", created=time.time(),
        files=describe_files(directory), weights={}, golden=(), golden_logprobs=(),
    )  # fmt: skip
    write_manifest(directory, manifest)
    return manifest


@pytest.fixture
def registry(valkey_url: str, tmp_path: Path) -> PolicyRegistry:
    return PolicyRegistry(connect(valkey_url), tmp_path / "policies")


def publish(registry: PolicyRegistry, count: int) -> list[int]:
    versions = []
    for _ in range(count):
        version = registry.reserve()
        write_policy(registry.directory(version), version)
        registry.publish(version, actor="test", reason="made")
        versions.append(version)
    return versions


def test_versions_are_numbered_from_zero_and_never_again(registry: PolicyRegistry) -> None:
    assert [registry.reserve() for _ in range(3)] == [0, 1, 2]
    write_policy(registry.directory(9), 9)
    assert registry.reserve() == 10


def test_pointer_moves_only_from_what_the_caller_saw(registry: PolicyRegistry) -> None:
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    registry.point_stable(1, expected=0, actor="a", reason="better")
    with pytest.raises(PointerMoved):
        registry.point_stable(2, expected=0, actor="b", reason="late")
    with pytest.raises(UnknownPolicy):
        registry.point_stable(7, expected=1, actor="b", reason="none such")
    assert registry.stable() == 1
    assert registry.states() == {0: "retired", 1: "stable", 2: "candidate"}


def test_twenty_operators_at_once_one_wins(registry: PolicyRegistry) -> None:
    publish(registry, 21)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    won: list[int] = []

    def move(version: int) -> None:
        try:
            registry.point_stable(version, expected=0, actor=str(version), reason="race")
        except PointerMoved:
            return
        won.append(version)

    threads = [threading.Thread(target=move, args=(version,)) for version in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [registry.stable()]


def test_rollback_goes_to_what_served_before(registry: PolicyRegistry) -> None:
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    registry.point_stable(2, expected=0, actor="a", reason="better")
    assert registry.rollback(to=None, actor="op", reason="worse") == 0
    assert registry.rollback(to=1, actor="op", reason="try") == 1
    line = registry.audit()[-1]
    assert (line.version, line.from_version, line.action, line.actor, line.reason) == (1, 0, "rollback", "op", "try")


def test_a_rollback_to_a_version_that_never_served_is_its_promotion(registry: PolicyRegistry) -> None:
    """So there is something before it, to return to and to be kept for that."""
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    registry.point_stable(1, expected=0, actor="a", reason="better")
    registry.rollback(to=2, actor="op", reason="it was kept")
    assert (registry.previous(), Retention(registry).needed()[1]) == (1, "a rollback returns to it")
    assert registry.rollback(to=None, actor="op", reason="worse") == 1
    registry.rollback(to=2, actor="op", reason="once more")
    assert registry.reject(2, actor="gateway", reason="proof failed") == registry.stable() == 1
    assert registry.previous() == 0, "they do not take turns"


def test_a_rejected_version_gives_way_to_the_one_before(registry: PolicyRegistry) -> None:
    publish(registry, 2)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    registry.point_stable(1, expected=0, actor="a", reason="better")
    assert registry.reject(1, actor="gateway", reason="proof failed") == 0
    assert registry.states() == {0: "stable", 1: "rejected"}
    assert registry.reject(1, actor="gateway", reason="again") == 0
    with pytest.raises(RejectedPolicy):
        registry.point_stable(1, expected=0, actor="op", reason="I insist")
    with pytest.raises(RejectedPolicy):
        registry.rollback(to=1, actor="op", reason="I insist")
    assert (registry.stable(), registry.states()) == (0, {0: "stable", 1: "rejected"})


def test_no_rollback_without_an_earlier_policy(registry: PolicyRegistry) -> None:
    publish(registry, 1)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    with pytest.raises(UnknownPolicy):
        registry.rollback(to=None, actor="op", reason="worse")


def test_publish_needs_the_newest_token_of_its_round(registry: PolicyRegistry) -> None:
    rounds = RoundBook(registry.redis)
    id, _ = rounds.request(trigger="test", actor="a")
    old = rounds.claim(id, owner="first", lease_s=0.0)
    new = rounds.claim(id, owner="second", lease_s=10)
    assert old is not None and new is not None
    version = registry.reserve()
    write_policy(registry.directory(version), version)
    with pytest.raises(StaleToken):
        registry.publish(version, actor="w", reason="r", round_key=key(id), token=old)
    registry.publish(version, actor="w", reason="r", round_key=key(id), token=new)
    registry.publish(version, actor="w", reason="r", round_key=key(id), token=new)
    assert [line.action for line in registry.audit()] == ["publish"]


def test_publish_refuses_half_a_directory(registry: PolicyRegistry) -> None:
    registry.directory(0).mkdir(parents=True)
    with pytest.raises(BrokenPolicy):
        registry.publish(0, actor="a", reason="r")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["model.safetensors", "adapter/config.json"]),
    where=st.floats(0, 1, exclude_max=True),
    flip=st.integers(0, 255),
)
def test_a_cut_or_a_changed_byte_anywhere_is_found(tmp_path: Path, name: str, where: float, flip: int) -> None:
    directory = tmp_path / "000001"
    if not directory.exists():
        write_policy(directory, 1, content=bytes(range(256)) * 40)
    manifest, whole = read_manifest(directory), (directory / name).read_bytes()
    at = int(where * len(whole))
    damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] if flip else whole[:at]
    (directory / name).write_bytes(damaged)
    try:
        with pytest.raises(BrokenPolicy):
            verify_files(directory, manifest)
    finally:
        (directory / name).write_bytes(whole)
    verify_files(directory, manifest)


@pytest.mark.parametrize("fault", ["flip", "cut", "extra", "missing", "symlink", "python"])
def test_a_directory_that_is_not_its_manifest_is_refused(tmp_path: Path, fault: str) -> None:
    directory = tmp_path / "000001"
    weights = directory / "model.safetensors"
    if fault == "python":
        directory.mkdir()
        (directory / "code.py").write_text("import os")
        manifest = Manifest(version=1, parent=None, kind="base", base_model="m", dtype="float32", model_path=".",
                            created=0.0,
                            files=describe_files(directory), weights={}, golden=(), golden_logprobs=())  # fmt: skip
        write_manifest(directory, manifest)
    else:
        manifest = write_policy(directory, 1)
        verify_files(directory, manifest)
    if fault == "flip":
        weights.write_bytes(b"weightz")
    elif fault == "cut":
        weights.write_bytes(b"weight")
    elif fault == "extra":
        (directory / "more.json").write_text("{}")
    elif fault == "missing":
        weights.unlink()
    elif fault == "symlink":
        (tmp_path / "copy").write_bytes(b"weights")
        weights.unlink()
        weights.symlink_to(tmp_path / "copy")
    with pytest.raises(BrokenPolicy):
        verify_files(directory, read_manifest(directory))


@pytest.mark.parametrize("name", [3, "3", "v3", "policy-v3", "policy-3", "003"])
def test_a_version_is_named_in_any_of_these_ways(name: str | int) -> None:
    assert version_number(name) == 3


@pytest.mark.parametrize("name", ["", "v", "policy-v", "vv3", "v-3", -3, True, 3.0, "\u0663", " 3", "9" * 10, None])
def test_nothing_else_is_a_version(name: Any) -> None:
    with pytest.raises(ValueError, match="is no version: write it like 3, v3 or policy-v3"):
        version_number(name)
