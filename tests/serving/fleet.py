"""`python -m serving` with several workers, as a test sees it: each process by its own connection."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.settings import Settings
from feedback.store import Ledger
from serving.machine.installation import environment

WORKERS = 3


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def owner(port: int, pids: list[int]) -> int | None:
    """Which process holds the server's end of a connection from `port`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].split(":")[1], 16) != port or fields[3] != "01":
            continue
        for pid in pids:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
            if f"socket:[{fields[9]}]" in links:
                return pid
    return None


@dataclass
class Fleet:
    """`python -m serving` with several workers, and a client for each that is held to its process."""

    process: subprocess.Popen[bytes]
    settings: Settings
    shelf: Any
    engine: Any
    ledger: Ledger
    key: str
    stack: AsyncExitStack
    clients: dict[int, httpx.AsyncClient] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def workers(self) -> list[int]:
        return children(self.process.pid)

    async def connect(self) -> None:
        """A client for every process there is now: the kernel deals connections out by chance."""
        pids = self.workers()
        self.clients = {pid: client for pid, client in self.clients.items() if pid in pids}
        for _ in range(200):
            if len(self.clients) == WORKERS:
                return
            client = await self.stack.enter_async_context(self.client())
            stream = (await client.get("/health")).extensions["network_stream"]
            pid = owner(stream.get_extra_info("client_addr")[1], pids)
            assert pid is not None
            self.clients.setdefault(pid, client)
        raise AssertionError(f"only {len(self.clients)} processes answer")

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=1, keepalive_expiry=600)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=180, limits=limits, trust_env=False)

    async def versions(self) -> set[int | None]:
        """What the processes serve, asked one by one."""
        answers = [await client.get("/ready") for client in self.clients.values()]
        return {answer.json()["policy_version"] for answer in answers}

    async def serve(self, version: int) -> bool:
        try:
            return await self.versions() == {version}
        except httpx.TransportError:
            return False

    async def events(self, client: httpx.AsyncClient, **more: Any) -> AsyncIterator[Any]:
        body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield line[6:] if line == "data: [DONE]" else json.loads(line[6:])

    async def stream(self, client: httpx.AsyncClient, **more: Any) -> list[Any]:
        """The payloads of a stream, the error that broke it off being the last."""
        payloads: list[Any] = []
        try:
            async for payload in self.events(client, **more):
                payloads.append(payload)
        except httpx.TransportError as error:
            payloads.append(error)
        return payloads

    def streams(self, count: int, **more: Any) -> list["asyncio.Task[list[Any]]"]:
        """The payloads of streams over connections of their own."""

        async def one() -> list[Any]:
            async with self.client() as client:
                return await self.stream(client, **more)

        return [asyncio.create_task(one()) for _ in range(count)]


@asynccontextmanager
async def running(settings: Settings, *, files: int | None = None) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The processes, which may have so many files open; at their start only half of them."""
    few = f"ulimit -Sn {files // 2}; ulimit -Hn {files}; " if files else ""
    process = subprocess.Popen(
        ["bash", "-c", f'{few}exec "$0" -m serving', sys.executable],
        env=os.environ | environment(settings),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            else:
                if process.returncode is None:
                    process.wait()
                pytest.fail("a process outlived the one that led it")


def all_listen(fleet: Fleet) -> bool:
    """Whether each process has its listening socket."""
    suffix = f":{fleet.settings.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(line[1].endswith(suffix) and line[3] == "0A" for line in lines) == WORKERS


def text_of(payloads: list[Any]) -> str:
    chunks = [payload for payload in payloads if isinstance(payload, dict) and payload.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
