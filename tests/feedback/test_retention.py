"""What may be deleted and what may not, and a deletion that is killed anywhere, on a real Valkey and a real disk."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from feedback.policies.manifest import read_manifest, verify_files
from feedback.policies.registry import SERVABLE, LostPolicy, PointerMoved, PolicyRegistry, UnknownPolicy
from feedback.reconcile import reconcile
from feedback.retention import Retention, StillNeeded
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import connect
from tests.feedback.policies.test_registry import publish
from tests.killing import Killed, killing


@pytest.fixture
def registry(valkey_url: str, tmp_path: Path) -> PolicyRegistry:
    """0 to 7, of which 2, 4 and 6 have served, in this order; 6 does."""
    return installed(valkey_url, tmp_path / "policies")


def installed(url: str, directory: Path) -> PolicyRegistry:
    registry = PolicyRegistry(connect(url), directory)
    publish(registry, 8)
    for before, version in ((None, 0), (0, 2), (2, 4), (4, 6)):
        registry.point_stable(version, expected=before, actor="test", reason="better")
    return registry


@pytest.fixture
def retention(registry: PolicyRegistry) -> Retention:
    return Retention(registry)


def has_weights(registry: PolicyRegistry, version: int) -> bool:
    return (registry.directory(version) / "model.safetensors").exists()


def left(registry: PolicyRegistry, version: int) -> list[str]:
    return sorted(path.name for path in registry.directory(version).iterdir())


def test_what_serves_is_pinned_or_may_be_returned_to_stays(retention: Retention, registry: PolicyRegistry) -> None:
    assert registry.pin(3, pinned=True, actor="op", reason="the paper's")
    assert not registry.pin(3, pinned=True, actor="op", reason="again")
    assert retention.needed() == {
        0: "all others come from it", 3: "it is pinned", 4: "a rollback returns to it", 6: "it serves",
    }  # fmt: skip
    for version in (0, 3, 4, 6):
        with pytest.raises(StillNeeded, match=f"policy-v{version} stays: "):
            retention.retire(version, actor="op", reason="disk")
        assert has_weights(registry, version)
    with pytest.raises(UnknownPolicy):
        retention.retire(9, actor="op", reason="disk")


def test_of_a_deleted_version_the_manifest_stays(retention: Retention, registry: PolicyRegistry) -> None:
    for _ in range(2):
        retention.retire(2, actor="op", reason="disk")
    assert left(registry, 2) == ["deleted.txt", "manifest.json"]
    assert (registry.states()[2], registry.manifest(2).version) == ("deleted", 2)
    line = registry.audit()[-1]
    assert (line.version, line.action, line.actor, line.reason) == (2, "retire", "op", "disk")
    with pytest.raises(LostPolicy, match="policy-v2 is deleted"):
        registry.point_stable(2, expected=6, actor="op", reason="back")
    with pytest.raises(UnknownPolicy):
        registry.pin(2, pinned=True, actor="op", reason="late")
    assert registry.previous() == 4
    assert registry.reserve() == 8


def test_a_sweep_keeps_the_newest_and_the_needed(retention: Retention, registry: PolicyRegistry) -> None:
    registry.pin(1, pinned=True, actor="op", reason="first of its kind")
    assert retention.sweep(8) == []
    assert retention.sweep(2) == [2, 3, 5]
    assert [v for v in range(8) if has_weights(registry, v)] == [0, 1, 4, 6, 7]
    assert retention.sweep(2) == []
    registry.pin(1, pinned=False, actor="op", reason="no more")
    registry.rollback(to=None, actor="op", reason="worse")
    assert retention.needed() == {0: "all others come from it", 4: "it serves"}, "2 served before it, and is gone"
    assert retention.sweep(2) == [1]
    assert registry.rollback(to=6, actor="op", reason="not worse") == 6


def test_unless_somebody_says_how_many_all_are_kept(
    retention: Retention, registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_KEEP_POLICIES", raising=False)
    assert Settings().keep_policies is None
    monkeypatch.setenv("RATCHET_KEEP_POLICIES", "")
    assert Settings().keep_policies is None, "compose.yaml hands it on so"
    monkeypatch.setenv("RATCHET_KEEP_POLICIES", "3")
    assert Settings().keep_policies == 3
    monkeypatch.setenv("RATCHET_KEEP_POLICIES", "0")
    with pytest.raises(ValidationError):
        Settings()
    assert retention.sweep(None) == []
    assert all(has_weights(registry, version) for version in range(8))


def test_what_cannot_serve_goes_first_and_counts_for_nothing(
    valkey_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """0 to 9, of which 9, 8 and 7 were rejected, or are broken."""
    registry = installed(valkey_url, tmp_path / "policies")
    publish(registry, 2)
    for version in (8, 9):
        registry.point_stable(version, expected=6, actor="test", reason="better")
        registry.reject(version, actor="engine", reason="failed its proof")
    (registry.directory(7) / "model.safetensors").unlink()
    reconcile(registry)
    assert [v for v, state in registry.states().items() if state not in SERVABLE] == [7, 8, 9]
    with caplog.at_level("INFO", "feedback.retention"):
        assert Retention(registry).sweep(8) == [7, 8]
        assert Retention(registry).sweep(3) == [9, 1, 2, 3], "4, 5 and 6 are the newest that can serve"
    assert "policy-v9 is deleted: it is not among the 3 newest" in caplog.messages


def test_a_broken_version_that_is_back_is_left_for_the_next_start(
    retention: Retention, registry: PolicyRegistry, tmp_path: Path
) -> None:
    for version in (2, 3):
        registry.directory(version).rename(tmp_path / str(version))
    reconcile(registry)
    (tmp_path / "2").rename(registry.directory(2))
    assert [v for v in (2, 3) if registry.states()[v] == "broken"] == [2, 3]
    assert retention.sweep(1) == [3, 1, 5]
    assert has_weights(registry, 2)


def test_a_candidate_that_may_wait_for_its_release_stays(retention: Retention, registry: PolicyRegistry) -> None:
    registry.rollback(to=2, actor="op", reason="worse")
    publish(registry, 3)
    assert retention.sweep(1) == [1, 4, 6], "3, 5, 7, 8 and 9 are candidates newer than what serves"
    retention.retire(3, actor="op", reason="by hand it may go")


def test_what_the_open_round_goes_on_from_stays(retention: Retention, registry: PolicyRegistry) -> None:
    book = RoundBook(registry.redis)
    id, _ = book.request(trigger="count", actor="beat")
    assert set(retention.needed()) == set(range(8)), "it may still choose any"
    token = book.claim(id, owner="w", lease_s=60) or 0
    book.write(id, token, metrics={"collect": {"parent": 5, "reward_origin": 1}}, policy_version=7)
    assert {v for v, why in retention.needed().items() if why == f"round {id} needs it, or may"} == {1, 5, 7}
    assert retention.sweep(1) == [2, 3]
    book.finish(id, token, "refused", reason="no better")
    assert retention.sweep(1) == [1, 5]


@pytest.mark.parametrize("change", ["promote", "pin", "open a round"])
def test_what_comes_to_be_needed_meanwhile_stays(
    retention: Retention, registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    decided = Retention.needed

    def then_changed(self: Retention) -> dict[int, str]:
        needed = decided(self)
        if change == "promote":
            registry.point_stable(5, expected=6, actor="other", reason="at the same time")
        elif change == "pin":
            registry.pin(5, pinned=True, actor="other", reason="at the same time")
        else:
            RoundBook(registry.redis).request(trigger="count", actor="beat")
        return needed

    monkeypatch.setattr(Retention, "needed", then_changed)
    with pytest.raises(PointerMoved):
        retention.retire(5, actor="op", reason="disk")
    assert has_weights(registry, 5) and registry.states()[5] != "deleted"


def test_a_deletion_killed_anywhere_is_finished_at_the_next_start(valkey_url: str, tmp_path: Path) -> None:
    kill_at, completed, outcomes = 0, False, set()
    while not completed:
        kill_at += 1
        for after in (False, True):
            connect(valkey_url).flushall()
            registry = installed(valkey_url, tmp_path / f"{kill_at}-{after}")
            try:
                with killing(kill_at, after) as killer:
                    Retention(registry).retire(2, actor="op", reason="disk")
                completed = killer.steps < kill_at  # a step that fails, as of a script not yet loaded, ends nothing
            except Killed:
                pass
            reconcile(registry)
            state, directory = registry.states()[2], registry.directory(2)
            outcomes.add(state)
            if state == "deleted":
                assert left(registry, 2) == ["deleted.txt", "manifest.json"]
            else:
                assert state in ("retired", "candidate")
                verify_files(directory, read_manifest(directory))
            assert registry.stable() == 6
    assert outcomes == {"retired", "candidate", "deleted"}, "what is still whole stays: it may have been restored"
    assert kill_at > 8, "the kill points were not reached"
