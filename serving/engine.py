"""The vLLM server as the gateway sees it: plain HTTP, errors that say whose fault it was.

vLLM has no authentication on its development routes (pause, collective_rpc, weight_checker), so the engine
listens on loopback or a private network only.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

SERVED_NAME = "policy"
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
NO_SUCH_ROUTE = (404, 405, 501)
Body = dict[str, Any]
Scores = tuple[tuple[float, ...], ...]

# A prompt may wait for its turn; this long without a byte means that the engine is stuck.
_TIMEOUT = httpx.Timeout(300.0, connect=2.0)


class EngineDown(RuntimeError):
    """No answer came, or it broke off in the middle. By itself this says nothing of other requests."""


class EngineUnreachable(EngineDown):
    """Nobody listens at the engine's address."""


class EngineSlow(EngineDown):
    """Not a byte came for too long."""


class EngineRefused(RuntimeError):
    """The engine answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"the engine answered {status}: {error_message(body)}")
        self.status, self.body = status, body


class Engine:
    """One vLLM OpenAI server."""

    def __init__(self, url: str, key: str, *, client: httpx.AsyncClient | None = None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.client = client or httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        await self.client.aclose()

    @asynccontextmanager
    async def stream(self, body: Body) -> AsyncIterator[AsyncIterator[Body]]:
        """The chunks of a streamed chat completion, without the closing [DONE].

        Leaving the context closes the connection, which frees the engine's slot at once. The chunks end with
        EngineDown if [DONE] never came.
        """
        request = self.client.build_request("POST", "/v1/chat/completions", json=body)
        try:
            response = await self.client.send(request, stream=True)
        except httpx.TransportError as error:
            raise down(error) from error
        try:
            if response.status_code != 200:
                raise EngineRefused(response.status_code, _parse(await _read(response)))
            yield _chunks(response)
        finally:
            await response.aclose()

    async def models(self) -> list[str]:
        """The names that the engine serves: the base and the adapters loaded."""
        return [model["id"] for model in (await self._request("GET", "/v1/models"))["data"]]

    async def health(self, deadline_s: float) -> None:
        """Raises EngineDown or EngineRefused unless the engine's process says that it lives."""
        await self._request("GET", "/health", timeout=deadline_s)

    async def generates(self, deadline_s: float) -> bool:
        """Whether one token comes within the deadline: a dead vLLM may look healthy for long."""
        body = {"model": SERVED_NAME, "prompt": [1], "max_tokens": 1, "temperature": 0}
        try:
            await self._post("/v1/completions", body, timeout=deadline_s)
        except (EngineDown, EngineRefused):
            return False
        return True

    async def pause(self) -> None:
        """Freeze running requests where they are; new ones wait inside the engine."""
        await self._post("/pause", None, params={"mode": "keep"}, timeout=30.0)

    async def resume(self) -> None:
        await self._post("/resume", None, timeout=30.0)

    async def reload(self, path: Path) -> None:
        """Read all weights anew from a model directory on the engine's disk."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(path)}}
        await self._post("/collective_rpc", body)

    async def reset_prefix_cache(self) -> bool:
        """False when running requests hold blocks; then nothing was reset."""
        return bool((await self._post("/reset_prefix_cache", None)).get("success"))

    async def mark(self, label: str) -> None:
        """Label the weights; the label is lost when the engine restarts. Nothing where there is no such route."""
        try:
            await self._post("/update_weight_version", {"new_version": label})
        except EngineRefused as error:
            if error.status not in NO_SUCH_ROUTE:
                raise

    async def marked(self, deadline_s: float) -> str | None:
        """The label of the weights, as the engine's core has it; None where there is no such route."""
        try:
            return str((await self._request("GET", "/weight_info", timeout=deadline_s))["weight_version"])
        except EngineRefused as error:
            if error.status not in NO_SUCH_ROUTE:
                raise
            return None

    async def checksums(self) -> dict[str, str]:
        """sha256 of each parameter's bytes by its name, or {} where the backend has no such route.

        vLLM prefixes names with the worker's place ("dp0:pp0:pcp0:tp0:"); shards of the same parameter are
        kept apart by that prefix, so it is taken off only when there is a single worker. A matrix that the CPU
        backend has packed away is an empty tensor there, and is left out.
        """
        try:
            raw = (await self._post("/weight_checker", {"action": "checksum"}))["checksums"]
        except EngineRefused as error:
            if error.status not in NO_SUCH_ROUTE:
                raise
            return {}
        known = {name: value for name, value in raw.items() if value != EMPTY_DIGEST}
        places = {name.rpartition(":")[0] for name in known}
        return {name.rpartition(":")[2]: value for name, value in known.items()} if len(places) == 1 else known

    async def score(self, sequences: tuple[tuple[int, ...], ...], *, model: str = SERVED_NAME) -> Scores:
        """Log-prob of token j+1 of each sequence given the tokens before it: row i has len(i) - 1 numbers."""
        if not sequences:
            return ()
        body = {
            "model": model,
            "prompt": [list(sequence) for sequence in sequences],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        choices = sorted((await self._post("/v1/completions", body))["choices"], key=lambda choice: choice["index"])
        return tuple(
            _prompt_logprobs(sequence, choice["prompt_logprobs"])
            for sequence, choice in zip(sequences, choices, strict=True)
        )

    async def load_adapter(self, name: str, path: Path) -> None:
        """Add a LoRA adapter under a name, or replace the one that has it."""
        await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path), "load_inplace": True})

    async def unload_adapter(self, name: str) -> None:
        await self._post("/v1/unload_lora_adapter", {"lora_name": name})

    async def _post(self, path: str, body: Body | None, **options: Any) -> Any:
        return await self._request("POST", path, json=body, **options)

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self.client.request(method, path, **options)
        except httpx.TransportError as error:
            raise down(error) from error
        if response.status_code != 200:
            raise EngineRefused(response.status_code, _parse(response.content))
        return _parse(response.content)


def error_message(body: Any) -> str:
    """The message inside an engine's error, whatever its shape."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("detail") or inner)
        return str(inner)
    return str(body)[:500]


def down(error: httpx.TransportError) -> EngineDown:
    """What a failed exchange says of the engine."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, httpx.ConnectError):
        return EngineUnreachable(text)
    return EngineSlow(text) if isinstance(error, httpx.TimeoutException) else EngineDown(text)


def _prompt_logprobs(sequence: tuple[int, ...], entries: list[dict[str, Any] | None]) -> tuple[float, ...]:
    scores = []
    for token, entry in zip(sequence[1:], entries[1:], strict=True):
        if entry is None:
            raise EngineRefused(200, "a prompt token came without a log-prob")
        scores.append(float(entry[str(token)]["logprob"]))
    return tuple(scores)


async def _chunks(response: httpx.Response) -> AsyncIterator[Body]:
    # Not aiter_lines: it also splits at U+2028 and U+0085, which JSON may carry unescaped.
    pending = b""
    try:
        async for data in response.aiter_bytes():
            *events, pending = (pending + data).split(b"\n\n")
            for event in events:
                payload = event.strip().removeprefix(b"data:").strip()
                if payload == b"[DONE]":
                    return
                if payload and not event.startswith(b":"):
                    yield json.loads(payload)
    except httpx.TransportError as error:
        raise down(error) from error
    raise EngineDown("the engine ended the stream without [DONE]")


async def _read(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    except httpx.TransportError as error:
        raise down(error) from error


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")
