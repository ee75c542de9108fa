"""A pretended crowd: it asks, ranks and chats, through the public HTTP API and nothing else."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from serving.demo.preferences import Preference, rank

NEXT_CHAT_AFTER_S = 0.3
NOT_RATCHET = "what answers there is not Ratchet: it speaks otherwise"


class ServiceError(RuntimeError):
    """The service could not be reached, or answered a request with an error."""


@dataclass(frozen=True)
class Answer:
    """One choice of a response."""

    completion_id: str
    text: str
    finish_reason: str
    policy_version: int


@dataclass(frozen=True)
class Asked:
    """A prompt, the answers to it, and the user who asked."""

    prompt: str
    user: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Chat:
    """One streamed chat; times are seconds on the monotonic clock. `error` says why it failed, if it did."""

    started: float
    finished: float
    first_token_s: float
    longest_gap_s: float
    policy_version: int | None
    error: str | None


class Service:
    """The routes that the demo uses. Every method raises ServiceError when the service does not do as asked."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def ask(
        self, prompt: str, *, user: str, n: int, max_tokens: int, seed: int | None = None, consent: bool = True
    ) -> Asked:
        """`n` answers at temperature 1. Without `consent` the service must not train on prompt or answers."""
        body = {**_body(prompt, user, max_tokens), "n": n}
        if seed is not None:
            body["seed"] = seed
        if not consent:
            body["metadata"] = {"consent": "false"}
        response = await self._send("POST", "/v1/chat/completions", body)
        try:
            return Asked(prompt, user, _answers(response))
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"POST /v1/chat/completions: {NOT_RATCHET}") from error

    async def judge(self, judgement: dict[str, Any]) -> None:
        await self._send("POST", "/v1/feedback", judgement)

    async def open_round(self) -> dict[str, Any]:
        """The round that is open now; a new one if there was none."""
        return await self._send("POST", "/v1/rounds", {})

    async def round(self, id: int) -> dict[str, Any]:
        return await self._send("GET", f"/v1/rounds/{id}")

    async def policies(self) -> dict[str, Any]:
        return await self._send("GET", "/v1/policies")

    async def chat(self, prompt: str, *, user: str, max_tokens: int) -> Chat:
        """Stream one chat to its end. Never raises for the service's faults: they are in the result."""
        stream = _StreamReader()
        body = {**_body(prompt, user, max_tokens), "stream": True}
        try:
            async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    return stream.result(_message(response))
                async for line in response.aiter_lines():
                    stream.read(line)
        except (httpx.HTTPError, ValueError, KeyError) as error:  # the last two: a chunk that is none
            return stream.result(f"{type(error).__name__}: {error}")
        return stream.result()

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = await self.client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ServiceError(f"{method} {path}: {type(error).__name__}: {error}") from error
        if not response.is_success:
            raise ServiceError(f"{method} {path}: {_message(response)}")
        try:
            found = response.json()
        except ValueError as error:
            raise ServiceError(f"{method} {path}: {NOT_RATCHET}") from error
        if not isinstance(found, dict):
            raise ServiceError(f"{method} {path}: {NOT_RATCHET}")
        return found


class _StreamReader:
    """What a streamed chat showed so far: its tokens' times, and whether it ended as it must."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.token_times: list[float] = []
        self.version: int | None = None
        self.finish_reason: str | None = None
        self.done = False
        self.error: str | None = None

    def read(self, line: str) -> None:
        """One line of the event stream; raises ValueError or KeyError when its data is no chunk."""
        if not line.startswith("data:"):
            return
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            self.error = str(chunk["error"]["message"])
        self.version = chunk.get("ratchet", {}).get("policy_version", self.version)
        for choice in chunk.get("choices", []):
            if choice["delta"].get("content"):
                self.token_times.append(time.monotonic())
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def result(self, error: str | None = None) -> Chat:
        finished = time.monotonic()
        times = self.token_times
        return Chat(
            started=self.started,
            finished=finished,
            first_token_s=(times[0] if times else finished) - self.started,
            longest_gap_s=max((after - before for before, after in zip(times, times[1:], strict=False)), default=0.0),
            policy_version=self.version,
            error=error or self.error or self._missing(),
        )

    def _missing(self) -> str | None:
        if self.finish_reason is None:
            return "the stream ended without a finish_reason"
        return None if self.done else "the stream ended without [DONE]"


class BackgroundChats:
    """Clients that chat one stream after another for as long as the context lasts; none is cut off at its end."""

    def __init__(self, service: Service, prompts: Sequence[str], *, clients: int, max_tokens: int) -> None:
        self.chats: list[Chat] = []
        self._service = service
        self._prompts = prompts
        self._clients = clients
        self._max_tokens = max_tokens
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "BackgroundChats":
        self._tasks = [asyncio.create_task(self._keep_chatting(client)) for client in range(self._clients)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    async def _keep_chatting(self, client: int) -> None:
        turn = client
        while not self._over.is_set():
            prompt = self._prompts[turn % len(self._prompts)]
            user = f"demo-guest-{client}"
            self.chats.append(await self._service.chat(prompt, user=user, max_tokens=self._max_tokens))
            turn += self._clients
            await asyncio.sleep(NEXT_CHAT_AFTER_S)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why each failed chat failed."""
        return tuple(chat.error for chat in self.chats if chat.error is not None)

    def during_swap(self, before: int, after: int) -> list[Chat]:
        """The chats under way between the last start under version `before` and the first end under `after`."""
        old = [chat.started for chat in self.chats if chat.policy_version == before]
        new = [chat.finished for chat in self.chats if chat.policy_version == after]
        if not old or not new:
            return []
        return [chat for chat in self.chats if chat.finished >= max(old) and chat.started <= min(new)]


def judgements(
    asked: Asked, preference: Preference, *, place: int, noise: float, generator: random.Random
) -> Iterator[dict[str, Any]]:
    """Bodies for POST /v1/feedback: a ranking of all answers; every fourth prompt (counted by `place`) also a
    comparison of two of them, and every fourth a thumb for one. Ids that depend on the answers make a repeat safe.
    """
    scores = [round(preference(answer.text, answer.finish_reason), 6) for answer in asked.answers]
    ids = [answer.completion_id for answer in asked.answers]
    groups = rank(scores, noise=noise, generator=generator)
    ranking = [[ids[index] for index in group] for group in groups]
    yield _judgement(asked, f"ranking-{ids[0]}", type="ranking", candidates=ids, ranking=ranking)
    left, right = generator.sample(range(len(ids)), 2)
    if place % 4 == 1:
        pair = {"left": ids[left], "right": ids[right], "winner": _winner(scores[left], scores[right])}
        yield _judgement(asked, f"comparison-{ids[0]}", type="comparison", **pair)
    if place % 4 == 3:
        value = 1 if scores[left] >= 0.5 else -1
        yield _judgement(asked, f"rating-{ids[0]}", type="rating", completion_id=ids[left], value=value)


def _judgement(asked: Asked, client_id: str, **fields: Any) -> dict[str, Any]:
    return {**fields, "user": asked.user, "client_id": client_id}


def _answers(response: dict[str, Any]) -> tuple[Answer, ...]:
    ratchet = response["ratchet"]
    choices = sorted(response["choices"], key=lambda choice: int(choice["index"]))
    return tuple(
        Answer(id, choice["message"]["content"] or "", choice["finish_reason"], ratchet["policy_version"])
        for id, choice in zip(ratchet["completion_ids"], choices, strict=True)
    )


def _winner(left: float, right: float) -> str:
    if left == right:
        return "both_bad" if left == 0 else "tie"
    return "left" if left > right else "right"


def _body(prompt: str, user: str, max_tokens: int) -> dict[str, Any]:
    """`model` is the alias for whichever policy serves."""
    messages = [{"role": "user", "content": prompt}]
    return {"model": "policy", "messages": messages, "user": user, "max_tokens": max_tokens, "temperature": 1.0}


def _message(response: httpx.Response) -> str:
    """The message of an error object; else the status alone (a proxy's page helps nobody)."""
    try:
        return f"{response.status_code}: {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"
