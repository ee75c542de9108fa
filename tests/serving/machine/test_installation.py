"""A home directory: checks before a start, and what is remembered of it."""

import errno
import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from feedback.settings import Settings
from serving.cli import app
from serving.machine import installation
from serving.machine.children import CannotStart
from serving.machine.installation import settings_as_started, settings_of
from serving.machine.probes import answers, gateway_url, readiness
from tests.conftest import free_port


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_second_up_is_refused(tmp_path: Path) -> None:
    with installation.exclusive(tmp_path):
        result = ratchet("up", "--home", str(tmp_path))
    assert result.exit_code == 2
    pid = os.getpid()
    assert result.stderr == f"ratchet: ratchet already runs in {tmp_path} (pid {pid}): end it, or give another --home\n"


@pytest.mark.parametrize(("option", "name"), [("--port", "gateway"), ("--engine-port", "engine")])
def test_taken_port_is_named(tmp_path: Path, option: str, name: str) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        ports = {"--port": free.getsockname()[1], option: taken.getsockname()[1]}
        free.close()
        places = ("--home", str(tmp_path), "--redis-url", "redis://127.0.0.1:1/0")
        result = ratchet("up", *places, *(str(word) for pair in ports.items() for word in pair))
    assert result.exit_code == 2
    assert f"port {ports[option]} on 127.0.0.1 is taken, and the {name} needs one" in result.stderr
    assert f"give {option}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_taken_port_of_the_other_family_is_seen(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    others = {"engine_url": "http://x", "redis_url": "redis://x/0"}
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen()
        settings = Settings(home=tmp_path, host="::1", port=taken.getsockname()[1], **others)
        with pytest.raises(CannotStart, match=rf"^port {settings.port} on ::1 is taken, and the gateway needs one: "):
            installation.check_ports(settings)
    installation.check_ports(settings)


@pytest.mark.parametrize(
    ("number", "port", "told"),
    [
        (errno.EACCES, 80, r"\(Permission denied; ports below 1024 are for root\)"),
        (errno.EACCES, 8000, r"\(Permission denied\)"),
        (errno.EADDRNOTAVAIL, 80, r"\(Cannot assign requested address\)"),
    ],
)
def test_a_port_is_called_taken_only_if_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, port: int, told: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(installation, "try_to_bind", refused)
    words = rf"^the gateway cannot listen on port {port} of 192\.0\.2\.1 {told}: give another --host or --port$"
    with pytest.raises(CannotStart, match=words):
        installation.check_ports(Settings(home=tmp_path, host="192.0.2.1", port=port))


def test_an_address_of_another_machine_is_none_to_listen_on() -> None:
    with pytest.raises(OSError) as raised:
        installation.try_to_bind("192.0.2.1", 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("chat.example.org", "http://chat.example.org:8000"),
    ],
)
def test_the_gateway_has_a_url_whatever_it_listens_on(host: str, url: str) -> None:
    assert gateway_url(Settings(host=host)) == url


def test_what_is_no_url_does_not_answer() -> None:
    assert not answers("http://127.0.0.1:none")
    assert readiness(Settings(host="no:address")) == (False, {})


def test_a_demo_of_what_is_no_url_is_one_line() -> None:
    result = ratchet("demo", "--url", "http://127.0.0.1:none", "--key", "rk-x")
    assert result.exit_code == 1, result.exception
    assert result.stderr.startswith("ratchet: nothing answers at http://127.0.0.1:none (Invalid port: 'none')")


def test_the_port_of_a_candidates_engine_is_kept_free_where_we_would_start_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ports = {"port": free_port(), "engine_port": free_port(), "redis_port": free_port(), "candidate_port": port}
        settings = Settings(home=tmp_path, **ports)
        with pytest.raises(CannotStart, match=rf"port {port} .* candidate's engine .* give RATCHET_CANDIDATE_PORT"):
            installation.check_ports(settings)
        for none_of_ours in ({"engine_mode": "adapter"}, {"candidate_url": "http://x"}, {"engine_url": "http://x"}):
            installation.check_ports(settings.model_copy(update=none_of_ours))


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = ratchet("up", "--home", str(tmp_path / "file" / "home"))
    assert result.exit_code == 2
    assert "give another directory with --home" in result.stderr


def test_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"GiB are free at .*, 1048576\.0 are needed: make room"):
        installation.check_disk(tmp_path, needed_bytes=2**50)


def test_later_commands_know_how_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = settings_of(tmp_path, port=9123, redis_url="redis://elsewhere/0", release_mode="assisted")
    installation.record_start(told)
    assert (tmp_path / "started.json").stat().st_mode & 0o777 == 0o600
    assert settings_as_started(tmp_path).port == 9123
    monkeypatch.setenv("RATCHET_PORT", "9124")
    settings = settings_as_started(tmp_path)
    assert (settings.port, settings.redis_url, settings.release_mode) == (9124, "redis://elsewhere/0", "assisted")


def test_commands_count_hold_out_and_train_as_the_service_does(tmp_path: Path) -> None:
    rounds = {"min_rankings": 200, "round_every_minutes": 30.0, "evaluation_share": 0.25, "training_processes": 2}
    told = settings_of(tmp_path, candidate_url="http://127.0.0.1:9", **rounds)
    installation.record_start(told)
    assert settings_as_started(tmp_path) == told


def test_a_crash_while_it_is_recorded_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.record_start(settings_of(tmp_path, port=9123))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("serving.machine.installation.json.dump", crash)
        installation.record_start(settings_of(tmp_path, port=9124))
    assert settings_as_started(tmp_path).port == 9123


def test_children_see_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path, port=9123, base_model="some/model", host="localhost", single_user=True)
    for name, value in installation.environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--redis-url", "localhost:6379"], {}, "--redis-url or RATCHET_REDIS_URL cannot be used: "),
        (["--redis-url", "redis://localhost:port"], {}, "--redis-url or RATCHET_REDIS_URL cannot be used: "),
        (["--engine-url", "localhost:8001"], {}, "--engine-url or RATCHET_ENGINE_URL cannot be used: "),
        (["--port", "70000"], {}, "--port or RATCHET_PORT cannot be used: a port is a number from 0 to 65535"),
        (["--host", "a..b"], {}, "--host or RATCHET_HOST cannot be used: a..b is no name of a host"),
        ([], {"RATCHET_PORT": "abc"}, "--port or RATCHET_PORT cannot be used: "),
        ([], {"RATCHET_ENGINE_MODE": "fast"}, "RATCHET_ENGINE_MODE cannot be used: "),
        (["--single-user", "--host", "0.0.0.0"], {}, "--single-user or RATCHET_SINGLE_USER cannot be used: whoever "),
        (["--host", "10.0.0.7"], {"RATCHET_SINGLE_USER": "1"}, "--single-user or RATCHET_SINGLE_USER cannot be used: "),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = ratchet("up", "--home", str(tmp_path / "home"), *arguments)
    assert result.exit_code == 2, result.exception
    assert result.stderr.startswith(f"ratchet: {message}")
    assert result.stderr.count("\n") == 1


def test_a_damaged_record_of_the_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "started.json").touch()
    result = ratchet("status", "--home", str(tmp_path))
    assert result.exit_code == 2, result.exception
    assert "started.json cannot be read" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_demo_that_could_not_save_its_report_does_not_begin(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "x.json", tmp_path):
        result = ratchet("demo", "--url", "http://127.0.0.1:1", "--key", "rk-x", "--json", str(path))
        assert result.exit_code == 1
        assert result.stderr == f"ratchet: --json {path} is no file that can be written\n"
