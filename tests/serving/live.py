"""The gateway under uvicorn, the fake engine's process, and policies to swap: what the tests of serving hold."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import uvicorn

from feedback.people.keys import KeyRing
from feedback.policies.manifest import Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.app import create_app
from serving.engine.server import Engine
from serving.gateway import Gateway
from serving.http.patience import Patient
from serving.machine.probes import answers
from serving.machine.vllm_server import engine_command
from tests.conftest import wait_for

ENGINE_KEY = "engine-key"
GOLDEN = ((1, 5, 9, 7), (1, 4, 4))
PLAIN = False  # reading all certificates of the machine takes longer than the question
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class FakeEngine:
    """The fake engine's process, which may be killed and started again on its port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = Path(__file__).parent / "fake_engine.py"
        self.process = subprocess.Popen([sys.executable, str(script), str(self.port)])
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{self.url}/health")
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the fake engine did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def state(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/fake/state", verify=PLAIN).json())

    def set(self, **options: Any) -> None:
        httpx.post(f"{self.url}/fake/set", json=options, verify=PLAIN)

    def load_adapter(self, name: str, path: Path) -> None:
        """As another gateway would."""
        body, key = {"lora_name": name, "lora_path": str(path)}, {"authorization": f"Bearer {ENGINE_KEY}"}
        httpx.post(f"{self.url}/v1/load_lora_adapter", json=body, headers=key, verify=PLAIN).raise_for_status()


@contextmanager
def real_vllm(settings: Settings, model: Path, **more: str) -> Iterator[Callable[[], None]]:
    """vLLM on its way up with a model, `more` in its environment; what is yielded waits until it answers. It needs one
    core for most of the way: what else a test needs is made meanwhile."""
    command = engine_command(settings, model, settings.resolved_engine_dtype(), gpu=False)
    with (settings.home / "vllm.log").open("w") as log:
        process = subprocess.Popen(command.argv, env=os.environ | command.env | more, stdout=log, stderr=log)
        health = settings.resolved_engine_url() + "/health"
        try:
            yield lambda: wait_for(lambda: answers(health), seconds=240, what="vLLM start")
        finally:
            process.terminate()
            process.wait(timeout=30)


def trainer_logprobs(move: float) -> tuple[tuple[float, ...], ...]:
    """A policy's log-probs on GOLDEN: -1 at the base, moved by a fixed pattern."""
    pattern = ((1.0, -1.0, 0.5), (-0.5, 1.0))
    return tuple(tuple(-1.0 + move * step for step in row) for row in pattern)


def write_model(directory: Path, word: str, scores: Any, checksum: str, **more: Any) -> None:
    directory.mkdir(parents=True)
    weights = {"word": word, "checksums": {"model.norm.weight": checksum}, "scores": scores, **more}
    (directory / "weights.json").write_text(json.dumps(weights))
    added = [{"id": index, "content": token, "special": True} for index, token in enumerate(SPECIAL)]
    (directory / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))


@dataclass
class Shelf:
    """Publishes fake policies into a registry."""

    registry: PolicyRegistry

    def publish(
        self, version: int, *, move: float = 0.0, stable: bool = True, engine_scores: Any = None,
        engine_checksum: str | None = None, weights: dict[str, str] | None = None, word: str | None = None, **more: Any,
    ) -> Manifest:  # fmt: skip
        """`engine_*` are what the engine will really have, where that differs from what the manifest says."""
        directory = self.registry.directory(version)
        word, checksum = word or f"w{version}-", f"sum-{version}"
        scores = engine_scores or trainer_logprobs(move)
        for part in ("model", "adapter"):
            write_model(directory / part, word, scores, engine_checksum or checksum, **more)
        manifest = Manifest(
            version=version, parent=version - 1 if version else None, kind="trained" if version else "base",
            base_model="fake", dtype="float32", model_path="model", created=time.time(),
            adapter_path="adapter" if version else None,
            files=describe_files(directory),
            weights={"model.norm.weight": checksum} if weights is None else weights,
            golden=GOLDEN, golden_logprobs=trainer_logprobs(move),
        )  # fmt: skip
        write_manifest(directory, manifest)
        self.registry.publish(version, actor="test", reason="test")
        if stable:
            self.promote(version)
        return manifest

    def promote(self, version: int) -> None:
        self.registry.point_stable(version, expected=self.registry.stable(), actor="test", reason="test")


class Event(NamedTuple):
    """One server-sent event; `data` is parsed, but for "[DONE]"; None beside a comment."""

    id: str | None
    data: Any
    comment: str | None

    @classmethod
    def of(cls, text: str) -> "Event":
        fields = dict(line.split(": ", 1) if line[0] != ":" else ("", line[2:]) for line in text.split("\n"))
        assert set(fields) <= {"id", "data", ""}, text
        data = fields.get("data")
        return cls(fields.get("id"), data if data in ("[DONE]", None) else json.loads(data), fields.get(""))


@dataclass
class Live:
    """A running gateway and what a test needs around it."""

    url: str
    gateway: Gateway
    shelf: Shelf
    admin_key: str
    user_key: str
    http: httpx.AsyncClient
    sdk: openai.AsyncOpenAI
    engine: FakeEngine = field(init=False)

    @property
    def ledger(self) -> Ledger:
        return self.gateway.ledger

    @property
    def served(self) -> int | None:
        served = self.gateway.gate.served
        return served.version if served and not self.gateway.gate.swapping else None

    def body(self, text: str = "hi", **more: Any) -> dict[str, Any]:
        return {"model": "policy", "messages": [{"role": "user", "content": text}], **more}

    async def chat(self, text: str = "hi", *, key: str | None = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await self.http.post("/v1/chat/completions", json=self.body(text, **more), headers=headers)

    async def stream(self, text: str = "hi", **more: Any) -> list[Any]:
        """The payloads of a streamed chat, "[DONE]" as text."""
        return [payload async for payload in self.events(text, **more)]

    async def events(self, text: str = "hi", **more: Any) -> AsyncIterator[Any]:
        body = self.body(text, stream=True, **more)
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if payload := line.removeprefix("data: ").strip():
                    yield payload if payload == "[DONE]" else json.loads(payload)

    async def sse(self, path: str = "/v1/chat/completions", **options: Any) -> AsyncIterator["Event"]:
        """The events of a stream as they stand on the wire; a POST if there is `json`, else a GET."""
        method = "POST" if "json" in options else "GET"
        async with self.http.stream(method, path, **options) as response:
            assert response.status_code == 200, await response.aread()
            pending = ""
            async for text in response.aiter_text():
                *events, pending = (pending + text).split("\n\n")
                for event in events:
                    yield Event.of(event)
            assert pending == ""

    def engine_is_free(self) -> bool:
        """Nothing is left of any answer: not in the engine, nor in any list of the gateway's."""
        gateway = self.gateway
        held = [gateway.places.count, gateway.waiting.count, len(gateway.running), sum(gateway.gate.in_flight.values())]
        return not any(held) and self.engine.state()["active"] == 0

    async def completion_ids(self, text: str = "hi", n: int = 1, **more: Any) -> list[str]:
        answer = (await self.chat(text, n=n, max_tokens=2, **more)).json()
        return list(answer["ratchet"]["completion_ids"])


def free_socket() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    return server


@asynccontextmanager
async def running_gateway(settings: Settings) -> AsyncIterator[Live]:
    """The gateway under uvicorn, in the test's own event loop; its watcher polls fast."""
    redis = connect(settings.resolved_redis_url())
    registry, keys = PolicyRegistry(redis, settings.policies_dir), KeyRing(redis, "pepper")
    engine = Engine(settings.resolved_engine_url(), settings.resolved_engine_key())
    app = create_app(settings, engine, Ledger(redis), registry, RoundBook(redis), keys)
    app.state.gateway.watcher.poll_s = app.state.gateway.candidate_watcher.poll_s = 0.05
    listener = free_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, http=Patient, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    admin, user = keys.create(name="root", role="admin"), keys.create(name="joe", role="user")
    http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {admin}"}, timeout=60)
    sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=admin, max_retries=0)
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield Live(url, app.state.gateway, Shelf(registry), admin, user, http, sdk)
    finally:
        await http.aclose()
        await sdk.close()
        server.should_exit = True
        await task
