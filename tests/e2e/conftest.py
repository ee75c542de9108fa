"""The whole product as its user starts it: `ratchet up` with real Valkey, vLLM, Celery and SmolLM2."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from feedback.settings import Settings
from tests.conftest import free_port
from tests.conftest import wait_for as wait_closely
from training.base_model import DEFAULT_MODEL, fetch_base_model

wait_for = partial(wait_closely, every_s=0.5)  # a question over HTTP costs more than a look at a variable

# A short round: it goes through every stage for real, but need not learn much. The gate measures and refuses nothing.
SHORT_ROUND = {
    "reward": {"epochs": 1, "batch_rankings": 4, "lora_layers": 4},
    "ppo": {"iterations": 1, "rollouts_per_iteration": 8, "minibatch": 8, "microbatch": 8, "epochs": 4,
            "max_new_tokens": 16, "lora_layers": 4, "learning_rate": 5e-3},
    "sft": {"lora_layers": 4},
    "gate": {"prompts": 4, "min_score_gain_ci": -1e9, "min_held_out_accuracy": 0.0, "min_length_ratio": 0.0,
             "max_length_ratio": 1e9, "max_kl": 1e9, "max_repetition": 1.0,
             "max_repetition_rise": 1.0, "max_lm_loss_rise": 1e9},
}  # fmt: skip


class Service:
    """`ratchet up` on ports and a data directory of its own."""

    def __init__(self, home: Path, base_model: Path) -> None:
        self.home = home
        self.settings = Settings(
            home=home, base_model=str(base_model), port=free_port(), redis_port=free_port(), engine_port=free_port(),
            candidate_port=free_port(), min_rankings=10_000, max_model_len=1024,
        )  # fmt: skip
        self.env = os.environ | {
            f"RATCHET_{name.upper()}": str(getattr(self.settings, name))
            for name in (
                "home",
                "base_model",
                "port",
                "redis_port",
                "engine_port",
                "candidate_port",
                "min_rankings",
                "max_model_len",
            )
        }
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.key = ""
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "Service":
        before = len(self.lines)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", "up"], env=self.env, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        wait_for(lambda: self.ready() or self._gone(), seconds=400, what="ratchet up")
        assert not self._gone(), "\n".join(self.lines)
        wait_for(lambda: self._greeted(self.lines[before:]), seconds=120, what="all parts up")
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if key := re.search(r"rk-[\w-]{20,}", line):
                self.key = key[0]

    @staticmethod
    def _greeted(lines: list[str]) -> bool:
        """The last that a start says, once all parts run: how to go on, with the first key or with others."""
        return any(line.startswith(("Try:", "Keys:")) for line in lines)

    def _gone(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Ctrl-C."""
        before = self.processes()
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(timeout=20) == 0
        left = [title for pid, title in before.items() if title and title_of(pid) == title]
        assert left == [], "processes outlived ratchet up"

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, timeout=120, max_retries=0)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=self._headers, timeout=120)

    def get(self, path: str) -> dict[str, Any]:
        response = httpx.get(self.url + path, headers=self._headers, timeout=30)
        response.raise_for_status()
        data: dict[str, Any] = response.json()
        return data

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def cli(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "serving.cli", *arguments]
        done = subprocess.run(command, env=self.env, text=True, capture_output=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tracebacks(self) -> str:
        """What the gateway's log says of faults that nobody foresaw, each with where it came from."""
        lines = (self.home / "logs" / "gateway.log").read_text(errors="replace").splitlines()
        begun = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
        return "\n".join("\n".join(lines[max(0, at - 1) : at + 80]) for at in begun)

    def processes(self) -> dict[int, str]:
        """All that `ratchet up` started, and what that started, by pid with the title that each gave itself."""
        parents, titles = {}, {}
        for proc in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if proc.name.isdigit():
                    parents[int(proc.name)] = int((proc / "stat").read_text().rpartition(")")[2].split()[1])
                    titles[int(proc.name)] = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        assert self.process is not None
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return {pid: titles[pid] for pid in found if pid in titles}

    def pids(self, title: str) -> list[int]:
        """The processes whose title holds `title`."""
        return [pid for pid, found in self.processes().items() if title in found]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """SmolLM2, kept in the checkout's own data directory between runs."""
    return fetch_base_model(DEFAULT_MODEL, Path(".ratchet").absolute(), print)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    (home / "round.json").write_text(json.dumps(SHORT_ROUND))
    service = Service(home, base_model).start()
    yield service
    if service.process is not None and service.process.poll() is None:
        service.stop()


def title_of(pid: int) -> str | None:
    """What a process calls itself; None when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return None
