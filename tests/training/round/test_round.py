"""Whole rounds with real workers and stage processes, which are really killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.policies.manifest import verify_files
from feedback.retention import Retention
from feedback.rounds.book import MAX_ATTEMPTS, STAGES, RoundBook, key
from feedback.rounds.cancelling import UNCLEARED, cancel, uncleared
from training.register import WrongBaseModel, register_base
from training.round.cancelled import clear_left
from training.round.round import LEASE_S, Lease, StageCrashed, Stopped, Turn, environment, run_round
from training.workspace import Outcome, Workspace

if TYPE_CHECKING:
    from tests.conftest import ValkeyProcess
    from tests.training.round.conftest import Installation

#: (stage, who is killed, once the stage is beyond this step; None = as soon as its process is there)
KILLS = [
    ("collect", "child", None),
    ("sft", "worker", 0),
    ("reward", "child", None),
    ("ppo", "child", 0),
    ("ppo", "both", 2),
    ("gate", "worker", None),
    ("publish", "child", None),
    ("publish", "worker", None),
]


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_killed_in_every_stage_a_round_publishes_once(installation: "Installation") -> None:
    """SIGKILL of the stage process, of the worker, of both; each time the round goes on where it was."""
    installation.configure(ppo={"iterations": 400})  # long enough to be killed inside of it on a fast machine
    installation.speak(24, demonstrations=4)
    beat, worker = installation.start("beat"), installation.start("worker")
    round_id = installation.open_round()
    for token, (stage, victim, beyond) in enumerate(KILLS, start=2):
        child = installation.child(worker, stage, beyond)
        if victim in ("child", "both"):
            os.kill(child, signal.SIGKILL)
        if victim in ("worker", "both"):
            worker.kill()
            worker.wait()
            worker = installation.start("worker")
        installation.wait_until_gone(child)  # when the worker alone was killed, its stage must go by itself
        installation.wait_until_claimed(round_id, token)
    record = installation.wait_for_end(round_id)
    assert (record.state, record.policy_version, record.reason) == ("published", 1, "policy-v1 is stable"), record
    assert record.token == 1 + len(KILLS)
    assert installation.published() == [1]
    assert set(record.metrics) == set(STAGES)
    assert record.metrics["sft"]["demonstrations"] == 4
    assert record.watermark == installation.ledger.watermark()
    check_version(installation, round_id, iterations=400)
    assert beat.poll() is None


def check_version(installation: "Installation", round_id: int, iterations: int = 6) -> None:
    """Version 1 is whole, serves, differs from the base and says where it came from."""
    base, manifest = installation.registry.manifest(0), installation.registry.manifest(1)
    directory = installation.registry.directory(1)
    verify_files(directory, manifest)
    assert installation.registry.stable() == 1
    assert (manifest.parent, manifest.kind) == (0, "trained")
    assert manifest.lineage["round"] == round_id
    assert manifest.config["ppo"]["iterations"] == iterations
    assert manifest.config["seed"] == manifest.lineage["seed"] == round_id
    assert manifest.golden == base.golden
    assert manifest.golden_logprobs != base.golden_logprobs
    assert manifest.weights.keys() == base.weights.keys()
    assert manifest.weights != base.weights
    assert (directory / manifest.model_path / "model.safetensors").exists()
    rounds = installation.settings.rounds_dir
    left = {"checkpoints", "data.json"}
    installation.wait_until(lambda: not left & {path.name for path in rounds.glob("*/*/*/*")}, "removal of both", 30)


def test_duplicate_hints_run_a_round_once(installation: "Installation") -> None:
    installation.speak(3)
    round_id = installation.open_round()
    for _ in range(4):
        installation.hint(round_id)
    for _ in range(2):
        installation.start("worker")
    record = installation.wait_for_end(round_id)
    assert record.state == "refused"
    assert record.reason == (
        "3 rankings, 2 of them may train (the others are of held-out people or prompts: a share of all prompts is held "
        "out); at least 8 are needed, on several prompts: comparisons, rankings or edits, since thumbs alone do not "
        "tell which answer is better"
    )
    assert record.token == 1
    assert installation.published() == []


def test_lost_hint_is_sent_again_by_beat(installation: "Installation") -> None:
    installation.start("worker")
    installation.start("beat")
    installation.wait_until(lambda: bool(installation.redis.exists("worker:alive")), "worker")
    assert 0 < installation.redis.ttl("worker:alive") <= 15
    assert installation.wait_for_end(installation.open_round()).state == "refused"


@pytest.mark.e2e
def test_worker_and_beat_outlive_redis(installation: "Installation", valkey: "ValkeyProcess") -> None:
    worker, beat = installation.start("worker"), installation.start("beat")
    installation.wait_until(lambda: bool(installation.redis.exists("worker:alive")), "worker")
    valkey.kill()
    valkey.start()
    assert installation.wait_for_end(installation.open_round()).state == "refused"
    assert (worker.poll(), beat.poll()) == (None, None)


def test_foreground_round_says_how_it_ended(installation: "Installation") -> None:
    process = installation.start("round")
    assert process.wait(timeout=120) == 1
    assert "round 1 refused: 0 rankings" in installation.log()


def test_round_after_redis_was_lost_takes_nothing_from_the_disk_for_its_own(installation: "Installation") -> None:
    """Its first number is that of a round which has published, if Redis is asked alone."""
    earlier = Workspace(installation.settings.rounds_dir, 1)
    for stage in STAGES:
        earlier.attempt(stage, 1)
        earlier.settle(stage, Outcome(state="done", token=1, metrics={"note": "policy-v1 is stable"}))
    assert installation.start("round").wait(timeout=120) == 1
    assert "round 2 refused: 0 rankings" in installation.log()


def test_stopping_worker_gives_the_round_back(installation: "Installation") -> None:
    """SIGTERM in the middle of a stage: the worker leaves within seconds and its stage with it."""
    installation.speak(24)
    worker = installation.start("worker")
    round_id = installation.open_round()
    installation.hint(round_id)
    child = installation.child(worker, "reward")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=15) == 0
    installation.wait_until_gone(child)
    record = installation.record(round_id)
    assert record.is_open
    assert record.attempts == 0
    assert installation.book.is_expired(record)


def test_interrupted_foreground_round_gives_the_round_back(installation: "Installation") -> None:
    installation.speak(24)
    process = installation.start("round")
    child = installation.child(process, "reward")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) == 130
    installation.wait_until_gone(child)
    assert installation.book.is_expired(installation.record(1))
    assert "Traceback" not in installation.log()


def test_cancelled_round_stops_its_stage_and_leaves_nothing_of_what_was_said(installation: "Installation") -> None:
    installation.speak(24)
    process = installation.start("round")
    child = installation.child(process, "reward")
    files = installation.settings.rounds_dir / "000001"
    assert list(files.glob("collect/*/data.json"))
    cancel(installation.redis, 1, actor="ann", reason="a test")
    installation.wait_until_gone(child)
    assert process.wait(timeout=15) == 1
    record = installation.record(1)
    assert (record.state, record.reason) == ("cancelled", "cancelled by ann: a test")
    assert installation.published() == [] and "Traceback" not in installation.log()
    assert files.exists() and not list(files.glob("*/*/data.json")) + list(files.glob("*/*/checkpoints"))
    assert uncleared(installation.redis) == []


def test_cancelled_round_whose_worker_is_gone_is_cleared_once_its_lease_is_over(installation: "Installation") -> None:
    id, book = installation.open_round(), installation.book
    token = book.claim(id, owner="dead:1", lease_s=60)
    assert token is not None
    version = installation.registry.reserve()
    book.write(id, token, policy_version=version)
    said = installation.settings.rounds_dir / "000001" / "collect" / "0001" / "data.json"
    policy = installation.registry.directory(version)
    for directory in (said.parent, policy):
        directory.mkdir(parents=True)
    said.write_text("{}")
    cancel(installation.redis, id, actor="ann", reason="a test")
    clear_left(installation.settings, installation.redis)
    assert said.exists() and policy.exists(), "its worker may be at it"
    installation.redis.zadd(UNCLEARED, {str(id): 1})
    clear_left(installation.settings, installation.redis)
    assert not said.exists() and not policy.exists() and uncleared(installation.redis) == []


def test_erasure_while_a_round_trains_has_it_collect_again(installation: "Installation") -> None:
    """Nothing of either data is left in files; the policy has learned from the rest."""
    installation.speak(24)
    process = installation.start("round")
    child = installation.child(process, "reward")
    collected = installation.settings.rounds_dir / "000001"
    assert list(collected.glob("collect/*/data.json"))
    archive = Archive(installation.ledger)
    response = archive.response("c0-0-a")
    assert response is not None
    erased = Eraser(archive).response(response)
    assert erased.restarted == (1,)
    installation.wait_until_gone(child)
    record = installation.wait_for_end(1)
    assert (record.state, record.policy_version, record.restarts) == ("published", 1, 1), record
    assert process.wait(timeout=60) == 0
    assert not collected.exists()
    [gone] = erased.feedback
    learned = installation.registry.manifest(1).lineage["feedback_ids"]
    assert learned and gone not in learned
    assert not list(installation.settings.rounds_dir.glob("*/collect/*/data.json")), (
        "what people said outlives no round"
    )


class Killed(BaseException):
    """As by SIGKILL: nothing comes after it."""


def _die(*_: Any, **__: Any) -> None:
    raise Killed


def at_its_end(installation: "Installation", state: str) -> int:
    """A round with what people said on the disk, that is to end so."""
    id, files = installation.open_round(), Workspace(installation.settings.rounds_dir, 1)
    (files.attempt("collect", 1) / "data.json").write_text("{}")
    (files.attempt("reward", 1) / "checkpoints").mkdir()
    for stage in STAGES if state == "published" else STAGES[:2]:
        files.attempt(stage, 1)
        files.settle(stage, Outcome(state="done", token=1, metrics={"note": "policy-v1 is stable"}))
    if state == "refused":
        files.settle("reward", Outcome(state="refused", token=1, reason="a test"))
    if state == "failed":
        installation.redis.hset(key(id), "attempts", MAX_ATTEMPTS)
    return id


@pytest.mark.parametrize("state", ["published", "refused", "failed"])
@pytest.mark.parametrize("step", [(Workspace, "tidy"), (RoundBook, "finish"), (Retention, "sweep")])
def test_killed_as_it_ends_a_round_ends_all_the_same_and_leaves_nothing_of_what_was_said(
    installation: "Installation", monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], state: str
) -> None:
    id, settings, redis = at_its_end(installation, state), installation.settings, installation.redis
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(*step, _die)
        run_round(settings, redis, id, owner="test:1")
    redis.hset(key(id), "lease_until", 0)  # as time does
    run_round(settings, redis, id, owner="test:2")
    assert installation.record(id).state == state
    assert not {"checkpoints", "data.json"} & {path.name for path in settings.rounds_dir.glob("*/*/*/*")}


def test_stage_that_always_crashes_is_given_up(installation: "Installation", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.round.round.MAX_ATTEMPTS", 2)
    (installation.settings.home / "secrets.json").write_text("{}")
    record = run_round(installation.settings, installation.redis, installation.open_round(), owner="test:1")
    assert record is not None
    assert record.state == "failed"
    assert record.reason is not None
    assert record.reason.startswith("collect given up after 2 attempts; last: collect: BrokenSecrets")


def test_later_stage_that_always_crashes_is_given_up_and_the_round_closed(
    installation: "Installation", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages before it have ended; that they have must not count as success again in each attempt."""
    monkeypatch.setattr("training.round.round.MAX_ATTEMPTS", 3)
    monkeypatch.setattr("training.round.round.PAUSE_S", 0.1)
    installation.speak(24)
    (Path(installation.settings.base_model) / "config.json").unlink()
    started: list[tuple[str, float]] = []
    spawn = Turn._spawn

    def noting(turn: Turn, stage: str) -> "subprocess.Popen[bytes]":
        started.append((stage, time.monotonic()))
        assert len(started) < 9, "it goes on for ever"
        return spawn(turn, stage)

    monkeypatch.setattr(Turn, "_spawn", noting)
    record = run_round(installation.settings, installation.redis, installation.open_round(), owner="test:1")
    assert [stage for stage, _ in started] == ["collect", "sft", "reward", "reward", "reward"]
    assert record is not None and record.state == "failed"
    assert record.reason is not None and "\n" not in record.reason
    assert record.reason.startswith("reward given up after 3 attempts; last: reward: ")
    assert installation.book.request(trigger="operator", actor="test") == (2, True)


def test_pauses_between_attempts_grow_and_end_when_the_worker_stops(
    installation: "Installation", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.round.round.PAUSE_S", 0.2)
    crashed: list[float] = []
    stopping = threading.Event()

    def crash(turn: Turn, stage: str, lease: Lease) -> Outcome:
        crashed.append(time.monotonic())
        if len(crashed) == 3:
            threading.Timer(0.1, stopping.set).start()
        raise StageCrashed("no memory")

    monkeypatch.setattr(Turn, "_stage", crash)
    round_id = installation.open_round()
    with pytest.raises(Stopped):
        run_round(installation.settings, installation.redis, round_id, owner="test:1", stopping=stopping)
    first, second = (after - before for before, after in pairwise(crashed))
    assert first >= 0.2 and second >= 0.4
    record = installation.record(round_id)
    assert (record.attempts, record.reason) == (0, "no memory")
    assert installation.book.is_expired(record)


def test_lease_outlives_a_server_that_takes_no_writes_for_a_while(
    installation: "Installation", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a full disk, the server answers, and refuses."""
    monkeypatch.setattr("training.round.round.RENEW_S", 0.05)
    book, redis = installation.book, installation.redis
    round_id = installation.open_round()
    token = book.claim(round_id, owner="test:1", lease_s=LEASE_S)
    assert token is not None
    refused, write = 0, book.write

    def counted(*arguments: Any, **changes: Any) -> None:
        nonlocal refused
        try:
            write(*arguments, **changes)
        except ResponseError:
            refused += 1
            raise

    monkeypatch.setattr(book, "write", counted)
    with Lease(book, round_id, token) as lease:
        redis.config_set("maxmemory", 1)
        installation.wait_until(lambda: refused >= 3, "three renewals that were refused", 60)
        until = installation.record(round_id).lease_until
        redis.config_set("maxmemory", 0)
        installation.wait_until(lambda: installation.record(round_id).lease_until > until, "renewal", 10)
        assert not lease.lost.is_set()


def test_held_round_is_left_alone(installation: "Installation") -> None:
    round_id = installation.open_round()
    assert installation.book.claim(round_id, owner="other:1", lease_s=60) == 1
    assert run_round(installation.settings, installation.redis, round_id, owner="test:1") is None
    assert installation.record(round_id).owner == "other:1"


def test_registering_again_changes_nothing_and_needs_no_torch(installation: "Installation") -> None:
    before = installation.registry.audit()
    script = (
        "import sys; from feedback.settings import Settings; from training.register import register_base;"
        " print(register_base(Settings())); sys.exit('torch' in sys.modules)"
    )
    environ = {**os.environ, **environment(installation.settings)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("policy-v0 is known")
    assert installation.registry.audit() == before


def test_a_new_directory_finds_nothing_and_pins_nothing(installation: "Installation") -> None:
    """What a first start says is no warning."""
    assert [(line.action, line.reason) for line in installation.registry.audit()] == [
        ("publish", "a new data directory"), ("promote", "the base model serves first"),
    ]  # fmt: skip
    assert installation.registry.pinned() == set()


def test_registry_lost_by_redis_comes_back_from_disk(installation: "Installation") -> None:
    installation.redis.flushall()
    register_base(installation.settings)
    assert installation.registry.stable() == 0


@pytest.mark.parametrize("fetched", [True, False])
def test_another_base_model_is_refused(installation: "Installation", tmp_path: Path, fetched: bool) -> None:
    other = tmp_path / "other"
    if fetched:
        other.mkdir()
    with pytest.raises(WrongBaseModel, match="another RATCHET_HOME"):
        register_base(installation.settings.model_copy(update={"base_model": str(other)}))


@pytest.mark.parametrize("content", ["", '{"version": 0}'])
def test_damaged_manifest_is_one_clear_line(installation: "Installation", content: str) -> None:
    manifest = installation.registry.directory(0) / "manifest.json"
    manifest.write_text(content)
    assert installation.start("register-base").wait(timeout=60) == 1
    (line,) = installation.log().splitlines()
    assert line.startswith(f"training register-base: {manifest}: ")
