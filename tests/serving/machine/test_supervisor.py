"""The supervisor with a real Valkey and with small stand-ins for the other parts."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from rich.console import Console

from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.machine.children import CannotStart, ChildSpec, Command
from serving.machine.supervisor import Stopped, Supervisor
from serving.machine.terminal import Terminal
from serving.machine.valkey import valkey_spec

# A part that is two processes, like vLLM's API server and its EngineCore; it writes both pids when it is up.
TWO_PROCESSES = """
import os, pathlib, signal, subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
path = pathlib.Path(sys.argv[1])
path.with_suffix(".tmp").write_text(f"{os.getpid()} {inner.pid}")
path.with_suffix(".tmp").rename(path)
time.sleep(600)
"""

# A whole supervisor: what a terminal's Ctrl-C or the kernel's SIGKILL would meet.
SUPERVISOR = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_supervisor import stand_in
from serving.machine.supervisor import Stopped, Supervisor
from serving.machine.terminal import Terminal
home = Path(sys.argv[1])
try:
    with Supervisor(home / "logs", Terminal()) as supervisor:
        supervisor.bring_up(stand_in(home / "engine", "engine", stop_phase=1))
        supervisor.bring_up(stand_in(home / "worker", "worker", *sys.argv[2].split()))
        supervisor.watch()
except Stopped:
    print("stopped", flush=True)
"""


def stand_in(path: Path, name: str, *arguments: str, **fields: object) -> ChildSpec:
    """A part whose pids appear in `path`, and which is ready then."""

    def command() -> Command:
        path.unlink(missing_ok=True)
        return Command((sys.executable, "-S", "-c", TWO_PROCESSES, str(path), *arguments))

    spec = ChildSpec(name=name, command=command, ready=path.exists, ready_timeout_s=20, hint="Look.", grace_s=2.0)
    return replace(spec, **fields)  # type: ignore[arg-type]


def pids(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def runs(pid: int) -> bool:
    """True for a process that has not ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "deadline passed"
        time.sleep(0.02)


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(tmp_path: Path, output: io.StringIO) -> Iterator[Supervisor]:
    terminal = Terminal(Console(file=output, soft_wrap=True, highlight=False))
    with Supervisor(tmp_path / "logs", terminal) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Settings(home=tmp_path / "home", redis_port=probe.getsockname()[1])


def valkey_pid(redis: Redis) -> int:
    return int(redis.info("server")["process_id"])  # type: ignore[index]


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except ConnectionError:
        return False


def test_killed_valkey_comes_back_with_its_data(
    supervisor: Supervisor, settings: Settings, output: io.StringIO
) -> None:
    supervisor.bring_up(valkey_spec(settings))
    redis = connect(settings.resolved_redis_url())
    Ledger(redis)  # raises unless it is durable
    redis.set("answer", "42")
    killed = valkey_pid(redis)
    os.kill(killed, signal.SIGKILL)
    supervisor.wait_until(lambda: "again\n" in output.getvalue(), "restart")
    assert redis.get("answer") == "42"
    assert valkey_pid(redis) != killed
    assert re.search(r"valkey ended with exit code -9; again in 1 s; log: .*valkey\.log", output.getvalue())


def test_valkey_password_is_in_a_private_file_only(supervisor: Supervisor, settings: Settings) -> None:
    supervisor.bring_up(valkey_spec(settings))
    password = settings.secrets().redis_password
    pid = valkey_pid(connect(settings.resolved_redis_url()))
    assert password not in Path(f"/proc/{pid}/cmdline").read_text()
    assert password not in Path(f"/proc/{pid}/environ").read_text()
    config = settings.home / "valkey" / "valkey.conf"
    assert config.stat().st_mode & 0o777 == 0o600
    assert Redis(port=settings.redis_port, password=password).ping()


def test_silent_valkey_is_restarted(
    supervisor: Supervisor, settings: Settings, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.machine.children.CHECK_EVERY_S", 0.1)
    supervisor.bring_up(replace(valkey_spec(settings), unresponsive_s=1.0))
    os.kill(valkey_pid(connect(settings.resolved_redis_url())), signal.SIGSTOP)
    supervisor.wait_until(lambda: "again\n" in output.getvalue(), "restart")
    assert "did not answer for 1 s" in output.getvalue()


def test_dead_leader_takes_its_group_along(supervisor: Supervisor, tmp_path: Path, output: io.StringIO) -> None:
    path = tmp_path / "engine"
    supervisor.bring_up(stand_in(path, "engine"))
    leader, inner = pids(path)
    os.kill(leader, signal.SIGKILL)
    supervisor.wait_until(lambda: "again\n" in output.getvalue(), "restart")
    wait_for(lambda: not runs(inner), 2)
    assert all(runs(pid) for pid in pids(path))


def test_child_that_never_gets_ready_is_given_up(supervisor: Supervisor, output: io.StringIO) -> None:
    script = "import sys; print('ValueError: no such model', file=sys.stderr); sys.exit(7)"
    command = Command((sys.executable, "-S", "-c", script))
    spec = ChildSpec(
        name="engine", command=lambda: command, ready=lambda: False, ready_timeout_s=60, hint="Try another model."
    )
    with pytest.raises(CannotStart, match=r"exit code 7 .*no such model\)\. Try another model\. Log: .*engine\.log"):
        supervisor.bring_up(spec)
    assert output.getvalue().count("engine ended with exit code 7") == 2  # again in 1 s, again in 2 s, given up


def test_child_that_is_not_ready_in_time_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "engine"
    with pytest.raises(CannotStart, match="engine not ready within 2 s"):
        supervisor.bring_up(stand_in(path, "engine", ready=lambda: False, ready_timeout_s=2.0))
    wait_for(lambda: not any(runs(pid) for pid in pids(path)), 2)


def test_failed_step_says_what_to_do(supervisor: Supervisor) -> None:
    with pytest.raises(CannotStart, match=r"fetching ended with exit code 3\. Give another model\."):
        supervisor.run("fetching", Command((sys.executable, "-S", "-c", "raise SystemExit(3)")), "Give another model.")


def test_stop_during_a_step_ends_it(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "step"
    command = stand_in(path, "step").command()
    script = f"import os, pathlib, time\nwhile not pathlib.Path({str(path)!r}).exists(): time.sleep(0.02)\n"
    script += f"os.kill({os.getpid()}, {int(signal.SIGTERM)})"
    with subprocess.Popen([sys.executable, "-S", "-c", script]), pytest.raises(Stopped):
        supervisor.run("step", command, "")
    wait_for(lambda: not any(runs(pid) for pid in pids(path)), 2)


@pytest.mark.parametrize(("worker", "at_most_s"), [("", 3.0), ("stubborn", 6.0)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals, worker: str, at_most_s: float) -> None:
    process, children = start_supervisor(tmp_path, worker)
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=15)
    assert time.monotonic() - began < at_most_s
    assert process.returncode == 0
    assert output.endswith("stopped\n")
    wait_for(lambda: not any(runs(pid) for pid in children), 2)


def test_a_killed_supervisor_leaves_nobody(tmp_path: Path) -> None:
    process, children = start_supervisor(tmp_path, "stubborn")
    process.kill()
    process.wait()
    wait_for(lambda: not any(runs(pid) for pid in children), 10)


def start_supervisor(home: Path, worker: str) -> tuple["subprocess.Popen[str]", list[int]]:
    """A supervisor of an engine and a worker in its own process, and the pids of all four processes."""
    argv = [sys.executable, "-c", SUPERVISOR, str(home), worker, str(Path(__file__).parent)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while line := process.stdout.readline():
        if "worker" in line:
            break
    return process, pids(home / "engine") + pids(home / "worker")
