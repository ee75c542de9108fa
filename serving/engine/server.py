"""The vLLM server as the gateway sees it: plain HTTP, errors that say whose fault it was.

vLLM has no authentication on its development routes (pause, collective_rpc, weight_checker), so the engine
listens on loopback or a private network only.
"""

import errno
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

SERVED_NAME = "policy"
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
NO_SUCH_ROUTE = (404, 405, 501)
DONE = b"[DONE]"
Body = dict[str, Any]
Scores = tuple[tuple[float, ...], ...]

# A prompt may wait for its turn; this long without a byte means that the engine is stuck.
SILENCE_S = 300.0
CONNECT_S = 10.0
# Below the engine's own 5 s: a connection that it is about to close is not used again.
KEEP_ALIVE_S = 3.0


# What our own side lacks when it cannot connect.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS)

_decode = msgspec.json.Decoder().decode


class EngineDown(RuntimeError):
    """No answer came, or it broke off in the middle. By itself this says nothing of other requests."""


class EngineUnreachable(EngineDown):
    """Nobody listens at the engine's address."""


class NoSocketLeft(EngineDown):
    """The engine was not asked, for want of a socket here: this says nothing of the engine."""


class EngineSlow(EngineDown):
    """Not a byte came for too long."""


class EngineRefused(RuntimeError):
    """The engine answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"the engine answered {status}: {error_message(body)}")
        self.status, self.body = status, body


def is_clients(error: EngineRefused) -> bool:
    """Whether the request is at fault rather than the engine."""
    return error.status in (400, 413, 422)


class Engine:
    """One vLLM OpenAI server."""

    def __init__(self, url: str, key: str, *, silence_s: float = SILENCE_S) -> None:
        self._url, self._key = url, key
        self.patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made on first use: it belongs to the event loop that runs then."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                self._url,
                headers={"Authorization": f"Bearer {self._key}"},
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            )
        return self._opened

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    @asynccontextmanager
    async def stream(self, body: Body) -> AsyncIterator[AsyncIterator[list[Body]]]:
        """The chunks of a streamed chat completion, as many at a time as came together, without the closing [DONE].

        Leaving the context closes the connection, which frees the engine's slot at once. The chunks end with
        EngineDown if [DONE] never came.
        """
        try:
            response = await self._session.post("/v1/chat/completions", json=body, timeout=self.patience)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise down(error) from error
        try:
            if response.status != 200:
                raise EngineRefused(response.status, _parse(await _read(response)))
            yield _chunks(response)
        finally:
            response.close()

    async def models(self, deadline_s: float | None = None) -> dict[str, str]:
        """By the names that the engine serves, the base's and those of adapters: from which directory each is."""
        found = await self._request("GET", "/v1/models", timeout=deadline_s)
        return {model["id"]: model.get("root") or "" for model in found["data"]}

    async def health(self, deadline_s: float) -> None:
        """Raises EngineDown or EngineRefused unless the engine's process says that it lives."""
        await self._request("GET", "/health", timeout=deadline_s)

    async def generates(self, deadline_s: float) -> bool:
        """Whether one token comes within the deadline: a dead vLLM may look healthy for long. Raises NoSocketLeft."""
        body = {"model": SERVED_NAME, "prompt": [1], "max_tokens": 1, "temperature": 0}
        try:
            await self._post("/v1/completions", body, timeout=deadline_s)
        except NoSocketLeft:
            raise
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
        """Add a LoRA adapter under a name that no other has.

        Not in place of another: vLLM reads one loaded so from the disk again at every step.
        """
        await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload_adapter(self, name: str) -> None:
        await self._post("/v1/unload_lora_adapter", {"lora_name": name})

    async def _post(self, path: str, body: Body | None, **options: Any) -> Any:
        return await self._request("POST", path, json=body, **options)

    async def _request(self, method: str, path: str, *, timeout: float | None = None, **options: Any) -> Any:
        patience = self.patience if timeout is None else aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.request(method, path, timeout=patience, **options) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise down(error) from error
        if response.status != 200:
            raise EngineRefused(response.status, _parse(content))
        return _parse(content)


def error_message(body: Any) -> str:
    """The message inside an engine's error, whatever its shape."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("detail") or inner)
        return str(inner)
    return str(body)[:500]


def down(error: aiohttp.ClientError | TimeoutError) -> EngineDown:
    """What a failed exchange says of the engine."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return NoSocketLeft(text)
    if isinstance(error, aiohttp.ClientConnectorError):
        return EngineUnreachable(text)
    return EngineSlow(text) if isinstance(error, TimeoutError) else EngineDown(text)


def _prompt_logprobs(sequence: tuple[int, ...], entries: list[dict[str, Any] | None]) -> tuple[float, ...]:
    scores = []
    for token, entry in zip(sequence[1:], entries[1:], strict=True):
        if entry is None:
            raise EngineRefused(200, "a prompt token came without a log-prob")
        scores.append(float(entry[str(token)]["logprob"]))
    return tuple(scores)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[list[Body]]:
    # Events are split by hand: a reader of lines would also split at U+2028, which JSON may carry unescaped.
    pending = b""
    try:
        async for data in response.content.iter_any():
            *events, pending = (pending + data).split(b"\n\n")
            payloads = [event[5:].strip() for event in events if event.startswith(b"data:")]
            done = DONE in payloads
            if batch := [_decode(payload) for payload in payloads[: payloads.index(DONE) if done else None]]:
                yield batch
            if done:
                return
    except (aiohttp.ClientError, TimeoutError) as error:
        raise down(error) from error
    raise EngineDown("the engine ended the stream without [DONE]")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise down(error) from error


def _parse(content: bytes) -> Any:
    try:
        return _decode(content)
    except ValueError:
        return content.decode(errors="replace")
