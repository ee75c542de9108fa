"""The commands against a real Valkey; a small HTTP server stands in for the gateway's /ready."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from redis import Redis
from rich.table import Table
from typer.testing import CliRunner, Result

from feedback.audit import audit
from feedback.judgements import Feedback, Rating
from feedback.people.invites import Invites
from feedback.people.keys import KeyRing, Limits
from feedback.people.sessions import Sessions
from feedback.policies.manifest import Manifest, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.rounds.book import RoundBook, RoundRecord
from feedback.rounds.sources import RECALL, note_sources
from feedback.settings import Settings, load_secrets
from feedback.store import Ledger, connect
from serving.cli import app
from serving.commands.policies import summary
from serving.http.quotas import Quotas
from serving.machine import up
from serving.machine.installation import record_start, settings_of
from serving.machine.terminal import Terminal
from serving.views.round import in_full, line, live

COMMANDS = [
    "up",
    "status",
    "demo",
    "policies",
    "report",
    "rollback",
    "promote",
    "train",
    "rounds",
    "freeze",
    "keys",
    "model",
    "raters",
    "release",
    "rm",
    "user",
]

# As training/round/version.py writes them: by stage; a mean that is not finite is None.
METRICS = {
    "collect": {"rankings": 48},
    "sft": {"skipped": "no demonstrations"},
    "reward": {"updates": 12, "held_out": {"prompts": 9, "accuracy": {"mean": 0.7125, "low": 0.6, "high": 0.8}}},
    "ppo": {"iterations": 4},
    "gate": {
        "gate/score": 1.5, "gate/score_gain": 0.314, "gate/score_gain_low": 0.1, "gate/score_gain_high": 0.5,
        "gate/kl": 3.21, "gate/length": 20.0,
        "checks": [
            {"name": "KL to the reference", "value": 3.21, "sign": "<=", "threshold": 20.0, "passed": True},
            {"name": "reward model accuracy", "value": None, "sign": ">=", "threshold": 0.55, "passed": False},
            {"name": "of old", "value": 0.25, "threshold": 0.5, "passed": True},
        ],
    },
}  # fmt: skip


class Gateway:
    """Answers /ready as the gateway does, with the version that `serves` returns."""

    def __init__(self, serves: Callable[[], int | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                version = serves()
                body = {"ready": version is not None, "policy_version": version, "reasons": ["swapping"]}
                self.send_response(503 if version is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def home(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "home"
    load_secrets(directory)
    monkeypatch.setenv("RATCHET_HOME", str(directory))
    monkeypatch.setenv("RATCHET_REDIS_URL", valkey_url)
    monkeypatch.setenv("RATCHET_PORT", "1")  # nothing answers there
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    return directory


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return connect(valkey_url)


@pytest.fixture
def registry(redis: Redis, home: Path) -> PolicyRegistry:
    """policy-v0 and policy-v1; the second serves."""
    registry = PolicyRegistry(redis, home / "policies")
    for version in (0, 1):
        directory = registry.directory(version)
        directory.mkdir(parents=True)
        write_manifest(directory, manifest(version))
        registry.publish(version, actor="test", reason="made")
        registry.point_stable(version, expected=registry.stable(), actor="test", reason="made")
    return registry


@pytest.fixture
def gateway(registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    running = Gateway(registry.stable)
    monkeypatch.setenv("RATCHET_PORT", str(running.port))
    yield running
    running.server.shutdown()


def manifest(version: int) -> Manifest:
    return Manifest(
        version=version,
        parent=version - 1 if version else None,
        kind="trained" if version else "base",
        base_model="base",
        dtype="float32",
        model_path="model",
        created=1.7e9,
        files={},
        weights={},
        golden=(),
        golden_logprobs=(),
        metrics=METRICS if version else {},
    )


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = ratchet(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version() -> None:
    assert ratchet("--version").stdout.startswith("ratchet")


def test_no_installation_is_one_line(tmp_path: Path) -> None:
    result = ratchet("status", "--home", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert result.stderr.startswith("ratchet: there is no installation in")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("rm train --out rm1", "exec worker python -m training.rm train"),
        ("rm score 3", "exec worker python -m training.rm score"),
        ("sft train --out sft1", "exec worker python -m training.finetune sft"),
        ("ppo train --reward 3 --out ppo1", "exec worker python -m training.finetune ppo"),
        ("model fetch", "run --rm base python -m training.base_model fetch"),
    ],
)
def test_where_training_is_not_installed_it_is_said_how_it_is_asked_beside(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: str, instead: str
) -> None:
    monkeypatch.setattr("serving.commands.training_child.find_spec", lambda _: None)
    result = ratchet(*command.split())
    assert (result.exit_code, result.stdout) == (1, "")
    told = "ratchet: training is not installed here; with compose.yaml run `docker compose "
    assert result.stderr in (f"{told}{instead}`\n", f"{told}{instead} …`\n")
    asked = [sys.executable, *instead.partition(" python ")[2].split(), "--help"]
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 0, "there is no such command"


def test_dead_redis_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_REDIS_URL", "redis://127.0.0.1:1/0")
    result = ratchet("policies")
    assert result.exit_code == 1
    assert "is `ratchet up` running?" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("held", ["", "{}", '{"pepper": 1}', "\xff"])
@pytest.mark.parametrize("command", ["keys list", "user list", "feedback export --format trl"])
def test_broken_secrets_are_one_line(home: Path, held: str, command: str) -> None:
    (home / "secrets.json").write_text(held, encoding="latin-1")
    result = ratchet(*command.split())
    assert result.exit_code == 1, result.exception
    assert result.stderr.startswith(f"ratchet: {home}/secrets.json does not hold this installation's secrets: restore ")
    assert result.stderr.count("\n") == 1


def test_a_gateway_without_its_secrets_says_so(home: Path) -> None:
    (home / "secrets.json").write_text("")
    process = subprocess.run([sys.executable, "-m", "serving"], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith(f"ratchet gateway: {home}/secrets.json does not hold")
    assert process.stderr.count("\n") == 1


def by_hand(redis: Redis) -> list[str]:
    """What was done to keys on this machine, newest first."""
    return [line.action for line in audit(redis, only="key").entries if line.actor.startswith("cli:")]


def test_keys_are_made_listed_and_revoked(home: Path, redis: Redis) -> None:
    plain = ratchet("keys", "create", "anna", "--role", "rater").stdout.strip()
    ring = KeyRing(redis, load_secrets(home).pepper)
    record = ring.find(plain)
    assert record is not None and (record.name, record.role) == ("anna", "rater")
    assert [key["name"] for key in printed(ratchet("keys", "list", "--json"))] == ["anna"]
    assert plain not in ratchet("keys", "list").stdout
    assert ratchet("keys", "revoke", record.id).exit_code == 0
    assert ring.find(plain) is None
    assert ratchet("keys", "revoke", record.id).exit_code == 1
    assert by_hand(redis) == ["revoke", "create"]


def test_a_key_is_made_with_limits_which_can_be_changed(home: Path, redis: Redis) -> None:
    options = ("--expires", "30d", "--requests-per-minute", "60", "--tokens-per-day", "100000", "--streams", "2")
    ring = KeyRing(redis, load_secrets(home).pepper)
    key = ring.find(ratchet("keys", "create", "anna", *options, "--feedback-per-day", "50").stdout.strip())
    assert key is not None and key.expires is not None
    assert key.expires - key.created == pytest.approx(30 * 86_400, abs=60)
    assert key.limits == Limits(requests_per_minute=60, tokens_per_day=100_000, streams=2, feedback_per_day=50)
    listed = ratchet("keys", "list").stdout
    assert "60 requests/min, 100,000 tokens/day" in " ".join(listed.split())
    limited = ratchet("keys", "limit", key.id, "--streams", "0", "--tokens-per-day", "9", "--expires", "never")
    assert limited.stdout == f"{key.id} expires: never, limits: 60 requests/min, 9 tokens/day, 50 feedback/day\n"
    changed = ring.get(key.id)
    assert changed.limits == Limits(requests_per_minute=60, tokens_per_day=9, feedback_per_day=50)
    assert by_hand(redis) == ["change", "create"]


def test_used_and_expired_keys_are_listed_as_such(home: Path, redis: Redis) -> None:
    ring = KeyRing(redis, load_secrets(home).pepper, clock=lambda: 1e9)
    key = ring.find(ring.create(name="[bold]old", role="user", expires=1e9 + 60, limits=Limits(streams=1)))
    assert key is not None
    quotas = Quotas(redis)
    quotas._count_feedback(key, 3)
    [listed] = printed(ratchet("keys", "list", "--json"))
    assert (listed["usage"]["feedback"], listed["usage"]["requests"]) == (3, 0)
    table = ratchet("keys", "list").stdout
    assert "expired" in table and "3 feedback" in " ".join(table.split()) and "[bold]old" in table


def test_a_rotated_key_is_the_same_key(home: Path, redis: Redis) -> None:
    ring = KeyRing(redis, load_secrets(home).pepper)
    old = ratchet("keys", "create", "anna").stdout.strip()
    key = ring.find(old)
    assert key is not None
    new = ring.find(ratchet("keys", "rotate", key.id).stdout.strip())
    assert new is not None and new.id == key.id
    assert ring.find(old) is None
    assert by_hand(redis) == ["rotate", "create"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("create", "a", "--expires", "soon"), "--expires soon is no time: write 90m, 12h, 30d, 8w or never"),
        (("create", "a", "--expires", "0d"), "--expires 0d is no time"),
        (("create", ""), "name: String should have at least 1 character"),
        (("create", "a", "--streams", str(10**13)), "streams: Input should be less than or equal to"),
        (("rotate", "key_x"), "there is no key key_x; `ratchet keys list` shows them"),
        (("revoke", "key_x"), "there is no key key_x"),
        (("limit", "key_x", "--streams", "1"), "there is no key key_x"),
        (("limit", "key_x"), "nothing to change: give --expires or a limit"),
    ],
)
def test_mistakes_with_keys_are_one_line(home: Path, redis: Redis, arguments: tuple[str, ...], complaint: str) -> None:
    result = ratchet("keys", *arguments)
    assert (result.exit_code, redis.hlen("keys")) == (1, 0)
    assert result.stderr.startswith(f"ratchet: {complaint}")
    assert result.stderr.count("\n") == 1


def test_people_are_invited_by_a_link_that_can_be_withdrawn(home: Path, redis: Redis) -> None:
    shown = ratchet("user", "invite", "anna", "--role", "rater", "--expires", "12h").stdout.strip()
    assert shown.startswith("http://127.0.0.1:1/join#inv_")
    other = ratchet("user", "invite", "bob", "--url", "https://chat.example.org/").stdout.strip()
    assert other.startswith("https://chat.example.org/join#inv_")
    anna, bob = printed(ratchet("user", "list", "--json"))
    assert (anna["name"], anna["role"], bob["role"]) == ("anna", "rater", "user")
    assert anna["expires"] - anna["created"] == pytest.approx(43_200, abs=60)
    assert bob["expires"] - bob["created"] == pytest.approx(7 * 86_400, abs=60)
    assert "inv_" not in (table := ratchet("user", "list").stdout) and anna["id"] in table
    assert ratchet("user", "withdraw", bob["id"]).exit_code == 0
    assert by_hand(redis) == ["withdraw", "invite", "invite"]
    invites = Invites(Sessions(KeyRing(redis, load_secrets(home).pepper)))
    assert invites.accept(other.partition("#")[2]) is None
    new = invites.accept(shown.partition("#")[2])
    assert new is not None and (new.key.name, new.key.role) == ("anna", "rater")
    assert printed(ratchet("user", "list", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("invite", "a", "--expires", "soon"), "--expires soon is no time"),
        (("invite", "a", "--expires", "never"), "a link must expire"),
        (("invite", ""), "name: String should have at least 1 character"),
        (("invite", "a", "--role", "king"), "there is no role king"),
        (("withdraw", "invite_x"), "there is no open invite invite_x; `ratchet user list` shows them"),
    ],
)
def test_mistakes_with_invites_are_one_line(
    home: Path, redis: Redis, arguments: tuple[str, ...], complaint: str
) -> None:
    result = ratchet("user", *arguments)
    assert (result.exit_code, redis.hlen("invites")) == (1, 0)
    assert result.stderr.startswith(f"ratchet: {complaint}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "rounds",
            "there has been no round yet: `ratchet train` starts one\nnext one by itself: 0 of 48 new judgements",
        ),
        ("raters", "nobody has judged anything yet"),
        ("keys list", "there is no key: make one with `ratchet keys create NAME`"),
        ("user list", "no link is open: `ratchet user invite NAME` makes one"),
        ("policies", "there is no policy yet"),
        ("policies history", "nothing has become of any version yet"),
        ("release list", "there has been no release yet: `ratchet release start VERSION` begins one"),
        ("release history", "there has been no release yet: `ratchet release start VERSION` begins one"),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so(home: Path, command: str, told: str) -> None:
    result = ratchet(*command.split())
    assert (result.exit_code, result.stdout) == (0, f"{told}\n")


def test_what_is_to_be_copied_is_whole_on_a_narrow_terminal(
    registry: PolicyRegistry, home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.commands.shared.WIDE", 80)
    ring = KeyRing(redis, load_secrets(home).pepper)
    key = ring.find(ring.create(name="anna", role="user", limits=Limits(tokens_per_day=100_000, streams=2)))
    rating = Feedback(id="fb_1", judgement=Rating(completion_id="x", value=1), rater="r_" + "ab" * 16, split="train",
                      created=0.0)  # fmt: skip
    Ledger(redis).append_feedback(rating)
    RoundBook(redis).request(trigger="operator", actor="test")
    assert key is not None and f"id          {key.id}\n" in ratchet("keys", "list").stdout
    assert f"rater       {rating.rater}\n" in ratchet("raters").stdout
    for command, told in (("rounds", "operator"), ("policies", "policy-v1"), ("raters", "1")):
        shown = ratchet(command).stdout
        assert told in shown and "…" not in shown and max(map(len, shown.splitlines())) <= 80


def test_unknown_role_is_refused(home: Path, redis: Redis) -> None:
    result = ratchet("keys", "create", "anna", "--role", "king")
    assert (result.exit_code, redis.hlen("keys")) == (1, 0)
    assert "choose from user, rater, operator, admin" in result.stderr


def test_policies_show_what_is_stable_and_served(gateway: Gateway) -> None:
    listed = printed(ratchet("policies", "--json"))
    assert (listed["stable"], listed["served"]) == (1, 1)
    assert [(row["version"], row["state"], row["parent"]) for row in listed["policies"]] == [
        (0, "retired", ""),
        (1, "stable", "policy-v0"),
    ]
    assert "score gain +0.31 (+0.10 to +0.50), KL 3.21, reward model accuracy 0.71" in ratchet("policies").stdout


@pytest.mark.parametrize("options", [(), ("--json",), ("--json", "--home", "elsewhere")])
def test_policies_are_listed_under_that_word_too(gateway: Gateway, options: tuple[str, ...]) -> None:
    plain, listed = ratchet("policies", *options), ratchet("policies", "list", *options)
    assert "policy-v1" in plain.stdout or "elsewhere" in options
    assert (listed.exit_code, listed.stdout, listed.stderr) == (plain.exit_code, plain.stdout, plain.stderr)


def test_a_policy_is_shown_with_every_check_of_the_gate(gateway: Gateway) -> None:
    shown = ratchet("policies", "show", "1").stdout
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert "policy-v1" in shown and "stable" in shown
    assert "sft skipped no demonstrations" in lines
    assert "ppo iterations 4" in lines
    assert "KL to the reference 3.21 <= 20 passed" in lines
    assert "reward model accuracy unknown >= 0.55 failed" in lines
    assert "of old 0.25 0.5 passed" in lines
    assert printed(ratchet("policies", "show", "1", "--json"))["metrics"] == METRICS
    assert "the gate asked" not in ratchet("policies", "show", "0").stdout, "nothing was asked of the base"


def test_a_policy_that_does_not_exist_is_one_line(gateway: Gateway) -> None:
    result = ratchet("policies", "show", "7")
    assert (result.exit_code, result.stderr) == (1, "ratchet: there is no policy-v7\n")


def test_figures_that_were_not_measured_are_left_out() -> None:
    assert summary({}) == ""
    assert summary({"gate": {"gate/kl": None, "gate/score_gain": 0.2}, "reward": {"held_out": None}}) == (
        "score gain +0.20"
    )


def test_rollback_returns_and_waits(gateway: Gateway, registry: PolicyRegistry) -> None:
    result = ratchet("rollback", "--reason", "too terse")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("policy-v0 serves after ")
    assert registry.stable() == 0
    line = registry.audit()[-1]
    assert (line.action, line.reason, line.actor.partition(":")[0]) == ("rollback", "too terse", "cli")


def test_promote_moves_to_any_version(gateway: Gateway, registry: PolicyRegistry) -> None:
    assert ratchet("promote", "0").exit_code == 0
    assert registry.stable() == 0
    unknown = ratchet("promote", "9")
    assert (unknown.exit_code, unknown.stderr) == (1, "ratchet: policy-v9 does not exist\n")


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_an_operator_may_say_what_they_saw(gateway: Gateway, registry: PolicyRegistry, command: str) -> None:
    for asked in ("0", "1"):
        late = ratchet(command, asked, "--expect", "0")
        assert (late.exit_code, registry.stable()) == (1, 1)
        assert late.stderr == "ratchet: the stable policy is no longer policy-v0; it is policy-v1\n"
    assert ratchet(command, "1", "--expect", "1").exit_code == 0
    assert registry.stable() == 1
    assert ratchet(command, "0", "--expect", "1").exit_code == 0
    assert registry.stable() == 0


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_rejected_version_never_serves_again(gateway: Gateway, registry: PolicyRegistry, command: str) -> None:
    registry.reject(1, actor="engine", reason="failed its proof")
    refused = ratchet(command, "1")
    assert refused.exit_code == 1
    assert refused.stderr == "ratchet: policy-v1 was rejected: the engine could not be shown to hold it\n"
    assert registry.stable() == 0


def test_rollback_without_gateway_says_so(registry: PolicyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.commands.policies.SWAP_DEADLINE_S", 0.3)
    result = ratchet("rollback")
    assert result.exit_code == 1
    assert "policy-v0 is the stable policy, but the gateway does not report it" in result.stderr


def test_train_asks_once_and_follows_to_the_end(home: Path, redis: Redis) -> None:
    assert ratchet("train", "--no-wait").stdout == "round 1 is asked for\n"
    book = RoundBook(redis)
    token = book.claim(1, owner="test", lease_s=60)
    assert token is not None
    book.write(1, token, stage="ppo", progress={"step": 3, "steps": 8})
    timer = threading.Timer(0.6, lambda: book.finish(1, token, "refused", reason="not better"))
    timer.start()
    result = ratchet("train", "--now")
    assert result.stdout.splitlines() == ["round 1 is open already", "  ppo", "round 1 refused: not better"]
    assert result.exit_code == 3


def test_train_takes_no_number_that_is_on_the_disk(home: Path) -> None:
    (home / "rounds" / "000004").mkdir(parents=True)
    assert ratchet("train", "--no-wait").stdout == "round 5 is asked for\n"


def test_train_tells_what_ppo_measures(home: Path, redis: Redis) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    token = book.claim(1, owner="test", lease_s=60)
    assert token is not None
    metrics = {"objective/kl": 1.236, "objective/score": 0.5, "objective/entropy": 1.25, "completion/length": 22.375}
    at = {"stage": "ppo", "step": 3, "total": 400, "eta_s": 3725.0, "metrics": {"ppo/clipfrac": 0.1, **metrics}}
    book.write(1, token, stage="ppo", progress=at)
    threading.Timer(0.6, lambda: book.finish(1, token, "refused", reason="not better")).start()
    said = ratchet("train", "--now").stdout.splitlines()
    told = "  ppo 3/400, 1:02:05 to go, score 0.5, KL 1.24, entropy 1.25, length 22.4"
    assert said == ["round 1 is open already", "  ppo", told, "round 1 refused: not better"]


@pytest.mark.parametrize("alive", [True, False])
def test_train_says_once_that_nobody_is_there_to_train(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr("serving.commands.rounds.WITHOUT_WORKER_S", 0.0)
    if alive:
        redis.set("worker:alive", "host:1")
    book, looks = RoundBook(redis), iter(range(5))

    def wait(_: float) -> None:
        if next(looks, None) is None:
            token = book.claim(1, owner="test", lease_s=60)
            assert token is not None
            book.finish(1, token, "refused", reason="not better")

    monkeypatch.setattr("serving.commands.rounds.time.sleep", wait)
    said = ratchet("train").stdout.splitlines()
    assert said.count("no worker is alive: see `ratchet status`") == (0 if alive else 1)
    assert said[-1] == "round 1 refused: not better"


def test_train_says_why_a_round_starts_again(home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    token = book.claim(1, owner="test", lease_s=60)
    assert token is not None and note_sources(redis, 1, token, responses=["chatcmpl-1"], feedback=[])
    book.write(1, token, stage="gate")

    def erase() -> None:
        assert redis.eval(RECALL + "return recall(ARGV[1])", 0, "chatcmpl-1") == 1

    def end() -> None:
        again = book.claim(1, owner="test", lease_s=60)
        assert again is not None
        book.finish(1, again, "refused", reason="not better")

    between_looks = iter([erase, end])
    monkeypatch.setattr("serving.commands.rounds.time.sleep", lambda _: next(between_looks)())
    said = ratchet("train", "--now").stdout.splitlines()
    assert said[:3] == ["round 1 is open already", "  gate", "  data was erased; the round starts again"]
    assert said[-1] == "round 1 refused: not better"


def test_a_step_that_ends_says_no_more_how_long_it_takes() -> None:
    assert line({"step": 3, "total": 5, "eta_s": 7.0}) == "3/5, 0:07 to go"
    assert line({"step": 5, "total": 5, "eta_s": 0.0}) == line({"step": 5, "total": 5}) == "5/5"


def test_running_round_is_a_few_lines_that_move() -> None:
    at = {"stage": "ppo", "step": 3, "total": 6, "eta_s": 42.0, "metrics": {"objective/score": 0.5, "ppo/ratio": 1.0}}
    record = RoundRecord(
        id=7, state="running", stage="ppo", token=1, lease_until=0, attempts=1, trigger="count", actor="beat",
        created=100.0, finished=161.0, progress=at, metrics={"reward": {"loss": 0.6}},
    )  # fmt: skip

    def rows(table: Table) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in table.columns), strict=True))

    moving = [("state", "running"), ("stage", "ppo (4 of 6)"), ("time", "1:01"), ("step", "3/6, 0:42 to go")]
    assert rows(live(record)) == [*moving, ("score", "0.5")]
    assert rows(in_full(record))[-1] == ("reward", "loss 0.6")


def test_interrupted_train_leaves_the_round(home: Path, redis: Redis, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "serving.cli", "train"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "round 1 is asked for\n"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)
    assert rest == "round 1 goes on; see `ratchet rounds 1`\n"
    assert process.returncode == 130
    record = RoundBook(redis).get(1)
    assert record is not None and record.is_open


def test_rounds_are_listed_and_shown(home: Path, redis: Redis) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    token = book.claim(1, owner="test", lease_s=60)
    assert token is not None
    book.finish(1, token, "published", policy_version=4, metrics={"gate/win": 0.61})
    assert printed(ratchet("rounds", "--json"))[0]["policy_version"] == 4
    assert "policy-v4" in ratchet("rounds").stdout
    assert "gate/win" in ratchet("rounds", "1").stdout
    assert ratchet("rounds", "7").exit_code == 1


def test_options_of_rounds_may_come_before_what_they_are_for(home: Path, redis: Redis, tmp_path: Path) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    none = ratchet("rounds", "--home", str(tmp_path / "none"), "1")
    assert (none.exit_code, none.stderr.startswith("ratchet: there is no installation in ")) == (1, True)
    for words in (["1", "--json"], ["--json", "1"], ["show", "1", "--json"], ["--json"], ["list", "--json"]):
        assert [record["id"] for record in printed(ratchet("rounds", "--home", str(home), *words))] == [1]
    assert ratchet("rounds", "--home", str(home), "cancel", "1").exit_code == 0
    record = book.get(1)
    assert record is not None and record.state == "cancelled"


def test_a_word_that_rounds_do_not_know_is_named(home: Path) -> None:
    result = ratchet("rounds", "cancle", "3")
    assert result.exit_code == 2
    assert "No such command 'cancle'" in result.stderr


def test_a_round_is_cancelled_once(home: Path, redis: Redis) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    assert "round 1 is cancelled" in ratchet("rounds", "cancel", "1", "--reason", "a test").stdout
    record = book.get(1)
    assert record is not None and record.state == "cancelled"
    assert (record.reason or "").startswith("cancelled by cli:") and (record.reason or "").endswith(": a test")
    late = ratchet("rounds", "cancel", "1")
    assert (late.exit_code, late.stderr) == (1, "ratchet: round 1 is over: cancelled\n")
    none = ratchet("rounds", "cancel", "7")
    assert (none.exit_code, none.stderr) == (1, "ratchet: there is no round 7\n")
    assert printed(ratchet("rounds", "--json", "1"))[0]["state"] == "cancelled"


def test_the_next_round_is_told_as_the_service_that_starts_it_was_told(home: Path, gateway: Gateway) -> None:
    record_start(settings_of(home, min_rankings=200))
    assert "next one by itself: 0 of 200 new judgements" in ratchet("rounds").stdout
    assert printed(ratchet("status", "--json"))["next round"] == "0 of 200 new judgements"


def test_status_counts_and_freezing(gateway: Gateway, redis: Redis) -> None:
    redis.set("worker:alive", "{}", ex=5)
    assert ratchet("freeze").exit_code == 0
    facts = printed(ratchet("status", "--json"))
    assert facts["gateway"] == "ready"
    assert facts["worker"] == "alive"
    assert (facts["stable policy"], facts["served policy"], facts["judgements"]) == (1, 1, 0)
    assert (facts["learning"], facts["next round"]) == ("frozen", "0 of 48 new judgements")
    ratchet("unfreeze")
    assert printed(ratchet("status", "--json"))["learning"] == "on"


def test_status_tells_where_and_how_far_it_is(gateway: Gateway, redis: Redis) -> None:
    book = RoundBook(redis)
    book.request(trigger="operator", actor="test")
    token = book.claim(1, owner="test", lease_s=60)
    assert token is not None
    at = {"stage": "ppo", "step": 3, "total": 6, "eta_s": 42.0, "metrics": {"objective/score": 0.5}}
    book.write(1, token, stage="ppo", progress=at)
    redis.hset("engine:candidate", mapping={"wanted": 1, "release": 1, "state": "ready", "state_release": 1})
    lines = [" ".join(line.replace("│", " ").split()) for line in ratchet("status").stdout.splitlines()]
    assert f"url http://127.0.0.1:{gateway.port}" in lines
    assert "stable policy policy-v1" in lines and "served policy policy-v1" in lines
    assert "open round 1 (running, ppo 3/6, 0:42 to go, score 0.5)" in lines
    assert not any("candidate's engine" in line for line in lines), "no release is open: this one is about to end"


def test_status_fails_while_nothing_serves(home: Path) -> None:
    result = ratchet("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["gateway"] == "down"


def test_unreachable_engine_is_named(home: Path, registry: PolicyRegistry) -> None:
    (registry.directory(0) / "model").mkdir()
    result = ratchet("up", "--engine-url", "http://127.0.0.1:1", "--port", "0", "--model", "base")
    assert result.exit_code == 2
    assert "no vLLM answers at http://127.0.0.1:1 with our key" in result.stderr


def test_unreachable_redis_is_named(home: Path) -> None:
    result = ratchet("up", "--redis-url", "redis://127.0.0.1:1/0", "--port", "0", "--engine-port", "0")
    assert result.exit_code == 2
    assert "no Redis answers at --redis-url" in result.stderr


@pytest.mark.parametrize(
    ("single_user", "told"), [(False, "`ratchet user invite NAME`"), (True, "signed in, as admin")]
)
def test_a_start_says_where_the_page_is_and_how_to_come_in(
    valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], single_user: bool, told: str
) -> None:
    settings = Settings(home=tmp_path, redis_url=valkey_url, port=9123, single_user=single_user)
    up.greet(settings, Terminal())
    shown = " ".join(capsys.readouterr().out.split())
    assert "The page: http://127.0.0.1:9123/ (" in shown
    assert told in shown


def test_the_key_is_the_last_thing_that_a_start_says(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noting:
        said: ClassVar[list[str]] = []

        def bring_up(self, spec: Any) -> None:
            self.said.append(spec.name)

    noting: Any = Noting()
    monkeypatch.setattr(up, "prepare_policy", lambda *_: None)
    monkeypatch.setattr(up, "answers", lambda *_, **__: True)
    monkeypatch.setattr(up, "greet", lambda *_: noting.said.append("greeting"))
    settings = Settings(home=tmp_path, redis_url=valkey_url, engine_url="http://127.0.0.1:1", engine_key="k")
    up.start_all(settings, noting, Terminal(), gpu=False)
    assert noting.said == ["gateway", "worker", "beat", "greeting"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("up", ("(default: 127.0.0.1)", "(default: 8000)", "(default: 7379)", "(default: 8001)", "default: .ratchet)")),
        ("release start", ("(default: RATCHET_RELEASE_MODE, manual for direct)",)),
        ("demo", ("(default: this installation's)",)),
        ("train", ("which --now says too",)),
    ],
)
def test_help_tells_what_holds_without_an_option(command: str, told: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "250"}).stdout.split())
    assert [text for text in told if text not in shown] == []


def test_first_curl_line_can_be_pasted() -> None:
    line = up.curl_line("http://127.0.0.1:8000", "rk-secret")
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    arguments = words.stdout.splitlines()
    assert "Authorization: Bearer rk-secret" in arguments
    assert json.loads(arguments[-1])["messages"][0]["role"] == "user"
