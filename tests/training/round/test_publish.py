"""Publishing on a real Valkey and a real disk: killed between any two steps, a round still publishes exactly once."""

import threading
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.manifest import BrokenPolicy, Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry, StaleToken
from feedback.policies.shelf import Build, place
from feedback.reconcile import reconcile
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.plan import Plan, SetWeight
from feedback.releases.start import begin_release
from feedback.retention import Retention
from feedback.rounds.book import LeaseLost, RoundBook
from feedback.settings import ReleaseMode, Settings
from feedback.store import Ledger, connect
from tests.killing import Killed, killing
from training import tasks
from training.round.origin import reward_origin
from training.round.publish import let_in, let_in_kept_back, publish_round
from training.round.round import Turn


def manifest(directory: Path, version: int) -> Manifest:
    return Manifest(
        version=version, parent=0 if version else None, kind="trained" if version else "base", base_model="tiny",
        dtype="float32", model_path=".", created=0.0,
        files=describe_files(directory), weights={}, golden=(), golden_logprobs=(),
    )  # fmt: skip


def build(directory: Path, version: int) -> Manifest:
    (directory / "adapter").mkdir()
    (directory / "adapter" / "weights.safetensors").write_bytes(b"weights")
    return manifest(directory, version)


class Publishing:
    """An installation whose base serves, with an open round."""

    def __init__(self, url: str, home: Path) -> None:
        self.redis, self.home = connect(url), home
        self.book = RoundBook(self.redis)
        self.registry = PolicyRegistry(self.redis, home / "policies")
        self.registry.directory(0).mkdir(parents=True)
        write_manifest(self.registry.directory(0), manifest(self.registry.directory(0), 0))
        reconcile(self.registry)
        self.registry.point_stable(0, expected=None, actor="test", reason="base")
        self.round_id, _ = self.book.request(trigger="count", actor="test")

    def claim(self) -> int:
        token = self.book.claim(self.round_id, owner="test", lease_s=0.0)
        assert token is not None
        return token

    def run(self, token: int, mode: ReleaseMode = "direct", build: Build = build) -> str:
        version = publish_round(self.registry, self.book, round_id=self.round_id, token=token, build=build)
        note = self.let_in(mode, version)
        self.book.finish(self.round_id, token, "published", reason=note)
        return note

    def settings(self, mode: ReleaseMode) -> Settings:
        return Settings(home=self.home, release_mode=mode)

    def let_in(self, mode: ReleaseMode, version: int = 1) -> str:
        return let_in(
            self.settings(mode), Ledger(self.redis), self.registry, version=version, parent=0, round_id=self.round_id
        )

    def published(self) -> list[int]:
        return [line.version for line in self.registry.audit() if line.action == "publish" and line.version]


@pytest.fixture
def publishing(valkey_url: str, tmp_path: Path) -> Publishing:
    return Publishing(valkey_url, tmp_path)


def test_every_crash_point_publishes_exactly_once(valkey_url: str, tmp_path: Path) -> None:
    """Kill before and after each step; the next token completes the round."""
    redis = connect(valkey_url)
    kill_at, completed = 0, False
    while not completed:
        kill_at += 1
        for after in (False, True):
            redis.flushall()
            installation = Publishing(valkey_url, tmp_path / f"{kill_at}-{after}")
            token = installation.claim()
            try:
                with killing(kill_at, after):
                    installation.run(token)
                completed = True
            except Killed:
                assert installation.published() == [] or len(installation.published()) == 1
                assert reconcile(installation.registry) == [], "what is registered is whole"
            record = installation.book.get(installation.round_id)
            assert record is not None
            if record.is_open:
                installation.run(installation.claim())
            assert installation.published() == [installation.registry.stable()]
            assert len([p for p in installation.registry.policies_dir.iterdir() if p.name.isdigit()]) == 2
            record = installation.book.get(installation.round_id)
            assert record is not None
            assert record.state == "published"
            assert record.policy_version == installation.registry.stable()
    assert kill_at > 15, "the kill points were not reached"


def test_old_token_cannot_publish(publishing: Publishing) -> None:
    zombie = publishing.claim()
    worker = publishing.claim()
    with pytest.raises(LeaseLost):
        publishing.run(zombie)
    publishing.book.write(publishing.round_id, worker, policy_version=7)
    with pytest.raises(StaleToken):  # the number is known already, so only the registry stands in the way
        publishing.run(zombie)
    assert publishing.published() == []
    assert publishing.registry.stable() == 0
    publishing.run(worker)
    assert publishing.published() == [7]


def test_two_tokens_at_once_publish_once(publishing: Publishing) -> None:
    tokens = [publishing.claim() for _ in range(4)]
    lost: list[int] = []

    def publish(token: int) -> None:
        try:
            publishing.run(token)
        except (LeaseLost, StaleToken, FileNotFoundError):  # the last: a newer token swept its directory away
            lost.append(token)

    threads = [threading.Thread(target=publish, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lost) == tokens[:-1]
    assert publishing.published() == [publishing.registry.stable()]


def test_manual_release_leaves_the_pointer(publishing: Publishing) -> None:
    note = publishing.run(publishing.claim(), "manual")
    assert publishing.registry.stable() == 0
    assert publishing.registry.states()[1] == "candidate"
    assert note == "policy-v1 waits for its release"


class Releasing:
    """A round's version is published; whatever comes next depends on the settings."""

    def __init__(self, publishing: Publishing) -> None:
        self.publishing, self.home = publishing, publishing.home
        self.book = ReleaseBook(publishing.registry)
        publishing.run(publishing.claim(), "manual")

    def note(self, mode: ReleaseMode) -> str:
        return self.publishing.let_in(mode)

    def freeze(self, frozen: bool = True) -> None:
        self.book.freeze(frozen, actor="test", reason="test")

    def begin(self, version: int) -> Release:
        """By hand."""
        ledger, registry = Ledger(self.publishing.redis), self.publishing.registry
        return begin_release(ledger, registry, version, Plan(), mode="manual", actor="ann", reason="a look", seen=None)

    def tick(self, mode: ReleaseMode) -> None:
        let_in_kept_back(self.publishing.settings(mode), self.publishing.redis)


@pytest.fixture
def releasing(publishing: Publishing) -> Releasing:
    return Releasing(publishing)


@pytest.mark.parametrize("mode", ["assisted", "automatic"])
def test_a_rounds_release_begins_once_however_often_its_stage_is_run(releasing: Releasing, mode: ReleaseMode) -> None:
    (releasing.home / "release.json").write_text('{"steps": [{"set_weight": 20}]}')
    assert {releasing.note(mode) for _ in range(3)} == {"policy-v1: release 1 has begun"}
    release = releasing.book.open()
    assert release is not None and releasing.book.latest() == [release]
    assert (release.candidate, release.mode, release.reason) == (1, mode, "round 1")
    assert release.plan.steps == (SetWeight(set_weight=20),)
    releasing.book.end(release, "aborted", actor="ann", reason="so")
    assert releasing.note(mode) == "policy-v1: release 1 has begun"
    assert releasing.book.open() is None


def test_what_keeps_a_release_from_beginning_is_said(releasing: Releasing) -> None:
    assert releasing.note("manual") == "policy-v1 waits for its release"
    releasing.freeze()
    assert releasing.note("automatic") == "policy-v1 waits for its release: releases are frozen"
    releasing.freeze(False)
    (releasing.home / "release.json").write_text('{"alpha": 7}')
    assert releasing.note("automatic").startswith("policy-v1 waits for its release: ")
    assert "alpha" in releasing.note("automatic")
    assert releasing.book.latest() == []


def test_releases_that_freeze_while_a_version_is_built_let_it_serve_no_more(publishing: Publishing) -> None:
    def slowly(directory: Path, version: int) -> Manifest:
        ReleaseBook(publishing.registry).freeze(True, actor="test", reason="test")
        return build(directory, version)

    note = publishing.run(publishing.claim(), build=slowly)
    assert note == "policy-v1 waits for its release: releases are frozen"
    assert publishing.registry.stable() == 0


def test_what_passed_its_gate_while_frozen_comes_in_afterwards(
    releasing: Releasing, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    releasing.freeze()
    releasing.note("automatic")
    releasing.tick("automatic")
    assert releasing.book.open() is None, "still frozen"
    releasing.freeze(False)
    monkeypatch.setenv("RATCHET_HOME", str(releasing.home))
    monkeypatch.setenv("RATCHET_REDIS_URL", valkey_url)
    monkeypatch.setenv("RATCHET_RELEASE_MODE", "automatic")
    for _ in range(2):
        tasks.tick()
    release = releasing.book.open()
    assert release is not None and (release.id, release.candidate, release.reason) == (1, 1, "round 1")
    releasing.book.end(release, "aborted", actor="ann", reason="so")
    releasing.tick("automatic")
    assert releasing.book.open() is None, "once"


def test_what_passed_its_gate_while_frozen_serves_afterwards_if_its_parent_still_does(releasing: Releasing) -> None:
    registry = releasing.publishing.registry
    releasing.freeze()
    releasing.note("direct")
    releasing.freeze(False)
    releasing.tick("direct")
    assert registry.stable() == 1
    registry.rollback(to=None, actor="ann", reason="worse")
    releasing.tick("direct")
    assert registry.stable() == 0, "once"


def test_what_was_kept_back_is_left_to_whoever_had_it_released_meanwhile(releasing: Releasing) -> None:
    releasing.freeze()
    releasing.note("direct")
    releasing.book.end(releasing.begin(1), "inconclusive", actor="controller", reason="no difference")
    releasing.freeze(False)
    releasing.tick("direct")
    assert releasing.publishing.registry.states() == {0: "stable", 1: "candidate"}


def test_what_was_kept_back_is_left_to_whoever_took_it_out_of_service_again(releasing: Releasing) -> None:
    registry = releasing.publishing.registry
    releasing.freeze()
    releasing.note("automatic")
    registry.point_stable(1, expected=0, actor="ann", reason="a try")
    registry.rollback(to=None, actor="ann", reason="worse")
    releasing.freeze(False)
    releasing.tick("automatic")
    assert releasing.book.open() is None


def test_what_was_kept_back_waits_for_the_end_of_a_release_that_a_hand_began(releasing: Releasing) -> None:
    make(releasing.publishing.registry, 2)
    releasing.freeze()
    releasing.note("assisted")
    by_hand = releasing.begin(2)
    releasing.freeze(False)
    releasing.tick("assisted")
    assert releasing.book.open() == by_hand
    releasing.book.end(by_hand, "aborted", actor="ann", reason="seen")
    releasing.tick("assisted")
    release = releasing.book.open()
    assert release is not None and release.candidate == 1


def test_what_was_kept_back_stays_back_once_a_later_round_has_come_in(releasing: Releasing) -> None:
    make(releasing.publishing.registry, 2)
    releasing.freeze()
    releasing.note("assisted")
    releasing.freeze(False)
    releasing.publishing.let_in("assisted", version=2)
    later = releasing.book.open()
    assert later is not None and later.candidate == 2
    releasing.book.end(later, "inconclusive", actor="controller", reason="no difference")
    releasing.tick("assisted")
    assert releasing.book.open() is None


def test_what_was_kept_back_is_an_operators_once_the_service_is_told_to_leave_it_to_one(releasing: Releasing) -> None:
    releasing.freeze()
    releasing.note("direct")
    releasing.freeze(False)
    for mode in ("manual", "direct"):
        releasing.tick(mode)  # type: ignore[arg-type]
    assert releasing.publishing.registry.states() == {0: "stable", 1: "candidate"}


def test_pointer_that_moved_meanwhile_is_respected(publishing: Publishing) -> None:
    other = publishing.registry.reserve()
    place(publishing.registry.directory(other), other, 1, build)
    publishing.registry.publish(other, actor="operator", reason="by hand")
    publishing.registry.point_stable(other, expected=0, actor="operator", reason="by hand")
    note = publishing.run(publishing.claim())
    assert publishing.registry.stable() == other
    assert note.startswith("policy-v2 stays a candidate")


def test_rejected_version_is_not_promoted_again(publishing: Publishing) -> None:
    """The worker dies after the promotion; the engine's proof fails before its successor looks."""
    token = publishing.claim()
    publish_round(publishing.registry, publishing.book, round_id=1, token=token, build=build)
    publishing.let_in("direct")
    publishing.registry.reject(1, actor="gateway", reason="golden log-probs differ")
    note = publishing.run(publishing.claim())
    assert publishing.registry.stable() == 0
    assert note == "policy-v1 is rejected"


def test_damaged_directory_is_refused(publishing: Publishing) -> None:
    token = publishing.claim()
    publishing.book.write(publishing.round_id, token, policy_version=1)
    place(publishing.registry.directory(1), 1, token, build)
    (publishing.registry.directory(1) / "adapter" / "weights.safetensors").write_bytes(b"wrights")
    with pytest.raises(BrokenPolicy):
        publishing.run(token)
    assert publishing.published() == []


def test_leftovers_of_a_killed_build_go_away(publishing: Publishing) -> None:
    leftover = publishing.registry.policies_dir / ".000001.0001"
    leftover.mkdir()
    (leftover / "half.safetensors").write_bytes(b"ha")
    publishing.run(publishing.claim())
    assert not leftover.exists()
    assert publishing.registry.stable() == 1


def make(registry: PolicyRegistry, version: int, **lineage: Any) -> None:
    """A version that descends from the one before it."""

    def described(directory: Path, number: int) -> Manifest:
        return build(directory, number).model_copy(update={"parent": number - 1, "lineage": lineage})

    place(registry.directory(version), version, 1, described)
    registry.publish(version, actor="test", reason="made")


def test_the_end_of_a_round_deletes_old_weights(publishing: Publishing, tmp_path: Path) -> None:
    registry = publishing.registry
    for version in (1, 2, 3):
        make(registry, version)
    registry.point_stable(1, expected=0, actor="test", reason="better")
    registry.point_stable(3, expected=1, actor="test", reason="better")
    registry.pin(0, pinned=True, actor="test", reason="the first")
    settings = Settings(home=tmp_path, keep_policies=1)
    turn = Turn(settings, publishing.book, publishing.round_id, publishing.claim(), threading.Event())
    turn._finish("refused", "no better")
    assert registry.states() == {0: "retired", 1: "retired", 2: "deleted", 3: "stable"}
    assert not (registry.directory(2) / "adapter").exists()
    assert registry.audit()[-1].reason == "not among the 1 newest"


def test_a_reward_model_whose_weights_are_gone_is_not_gone_on_from(publishing: Publishing) -> None:
    registry = publishing.registry
    for version, rater in ((1, "ann"), (2, "bob"), (3, "eve")):
        make(registry, version, raters=[rater])

    def origin() -> int:
        return reward_origin(registry, 3, quarantined=["eve"], gone=lambda _: set())

    assert origin() == 2
    publishing.book.finish(publishing.round_id, publishing.claim(), "refused", reason="no better")
    Retention(registry).retire(2, actor="test", reason="disk")
    assert origin() == 1
