"""Real processes to measure: Valkey, the fast engine, the gateway, its peers, and the client that loads them."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
from feedback.people.keys import KeyRing  # noqa: E402
from feedback.policies.registry import PolicyRegistry  # noqa: E402
from feedback.settings import Settings  # noqa: E402
from feedback.store import connect  # noqa: E402
from tests.conftest import ValkeyProcess, free_port, wait_for  # noqa: E402
from tests.serving.live import Shelf  # noqa: E402

HOST, ENGINE_KEY = "127.0.0.1", "engine-key"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# What is measured has a core to itself; everything around it shares the others.
MEASURED, AROUND = (CORES[:1], CORES[1:]) if len(CORES) > 1 else (CORES, CORES)


@dataclass(frozen=True)
class Server:
    """A process that answers on a port, and what the kernel says of it."""

    name: str
    port: int
    pid: int
    key: str = ENGINE_KEY
    host: str = HOST

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def cpu_s(self) -> float:
        """CPU seconds of all its threads, in user and in kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def rss(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@contextmanager
def process(
    name: str, arguments: list[str], cores: list[int], port: int, *, ready: str = "/health", key: str = ENGINE_KEY,
    env: dict[str, str] | None = None,
) -> Iterator[Server]:  # fmt: skip
    """A Python process from when it answers `ready` until SIGINT has ended it."""
    child = subprocess.Popen([sys.executable, *arguments], env=environment(**(env or {})))
    try:
        os.sched_setaffinity(child.pid, cores)
        server = Server(name, port, child.pid, key)
        wait_for(lambda: child.poll() is not None or answers(server.url + ready), seconds=30, what=f"start of {name}")
        assert child.poll() is None, f"{name} ended at once"
        yield server
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """The URL of a Valkey that fsyncs every write before it answers."""
    (home / "valkey").mkdir(parents=True)
    server = ValkeyProcess(home / "valkey").start()
    assert server.process is not None
    os.sched_setaffinity(server.process.pid, AROUND)
    try:
        yield server.url
    finally:
        server.kill()


@contextmanager
def engine() -> Iterator[Server]:
    port = free_port()
    with process("engine", [str(HERE / "fast_engine.py"), str(port)], AROUND, port) as server:
        yield server


@contextmanager
def peer(kind: str, target: str) -> Iterator[Server]:
    port = free_port()
    with process(kind, [str(HERE / "peers.py"), kind, str(port), target], MEASURED, port) as server:
        yield server


@contextmanager
def gateway(home: Path, redis_url: str, engine: Server, profile: Path | None = None) -> Iterator[Server]:
    """`python -m serving` as it ships, ready with a published policy; with `profile`, under tests/bench/profiled.py."""
    settings = Settings(home=home, redis_url=redis_url)
    redis = connect(redis_url)
    Shelf(PolicyRegistry(redis, settings.policies_dir)).publish(0)
    key, port = KeyRing(redis, settings.secrets().pepper).create(name="bench", role="admin"), free_port()
    env = {
        "RATCHET_MAX_REQUESTS": "100000",  # the bound is not what is measured
        "RATCHET_HOME": str(home), "RATCHET_REDIS_URL": redis_url, "RATCHET_PORT": str(port),
        "RATCHET_ENGINE_URL": engine.url, "RATCHET_ENGINE_KEY": ENGINE_KEY,
    }  # fmt: skip
    how = [str(HERE / "profiled.py"), str(profile)] if profile else ["-m", "serving"]
    with process("gateway", how, MEASURED, port, ready="/ready", key=key, env=env) as server:
        yield server


@dataclass(frozen=True)
class Stage:
    """What every measurement needs around it."""

    redis_url: str
    engine: Server
    gateway: Server


@contextmanager
def stage(profile: Path | None = None) -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory() as directory,
        valkey(Path(directory)) as redis_url,
        engine() as fast_engine,
        gateway(Path(directory) / "home", redis_url, fast_engine, profile) as server,
    ):
        yield Stage(redis_url, fast_engine, server)


@dataclass(frozen=True)
class Round:
    """What the client saw, and the CPU seconds that the server took for it."""

    seen: dict[str, Any]
    cpu_s: float


def load(server: Server, kind: str, *, watched: bool = True, **job: Any) -> Round:
    """Run the client against a server to its end; fails when the client does."""
    before = server.cpu_s() if watched else 0.0
    asked = {"kind": kind, "host": server.host, "port": server.port, "key": server.key, **job}
    client = subprocess.Popen(
        [sys.executable, str(HERE / "load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if watched:
        os.sched_setaffinity(client.pid, AROUND)
    try:
        out, _ = client.communicate(json.dumps(asked))
    finally:
        client.kill()
    assert client.returncode == 0, f"the client failed against {server.name}"
    return Round(json.loads(out), (server.cpu_s() if watched else 0.0) - before)


def chats(
    server: Server, concurrency: int, *, waves: int = 1, tokens: int = 200, content: str = "hello",
    gap_s: float = 0, opening: int = 1_000_000, watched: bool = True, **body: Any,
) -> Round:  # fmt: skip
    """Streamed chats. Where `watched`, those that ended well have `tokens` tokens, each in an event of its own."""
    asked = {
        "model": "policy", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": tokens, **body,
    }  # fmt: skip
    done = load(
        server, "streams", concurrency=concurrency, waves=waves, content=content, gap_s=gap_s, opening=opening,
        nonce=secrets.token_hex(4), body=asked, watched=watched,
    )  # fmt: skip
    if watched:
        # The role, the tokens, the usage, [DONE].
        assert done.seen["tokens"] == tokens * done.seen["streams"], f"{server.name}: tokens are missing"
        assert done.seen["events"] >= (tokens + 3) * done.seen["streams"], f"{server.name}: events are missing"
    return done


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model, "cores": len(CORES), "load_before": os.getloadavg()[0], "python": sys.version.split()[0],
        "pinned": len(CORES) > 1, "time": time.strftime("%Y-%m-%d %H:%M"),
    }  # fmt: skip
