"""From the engine's chunks to the client's, with each answer in the ledger before its last chunk goes out."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from feedback.records import Completion, Message, new_id
from feedback.store import Ledger, LedgerNotDurable
from serving.engine import Body, EngineDown, EngineRefused
from serving.gate import Served, SwapGate

log = logging.getLogger("serving.chat")


@dataclass(frozen=True)
class Ticket:
    """One accepted chat request."""

    body: Body  # as sent to the engine, but for the policy's own fields
    messages: tuple[Message, ...]
    conversation_id: str
    rater: str
    consent: bool
    sampling: dict[str, Any]
    choices: int
    streamed: bool
    wants_logprobs: bool
    wants_token_ids: bool
    response_id: str = field(default_factory=lambda: new_id("chatcmpl-"))

    @property
    def completion_ids(self) -> list[str]:
        return [f"{self.response_id}:{index}" for index in range(self.choices)]

    def facts(self, served: Served) -> dict[str, Any]:
        """The extra object that names what wrote the answer and what to call it in feedback."""
        return {
            "policy_version": served.version,
            "conversation_id": self.conversation_id,
            "completion_ids": self.completion_ids,
        }


class UnprovenWeights(RuntimeError):
    """Weights that failed their proof wrote into this answer."""


@dataclass
class Draft:
    """A choice while it is being written."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)
    version_changed_at: int | None = None

    def add(self, choice: Body, content: str | None) -> None:
        self.text.append(content or "")
        self.token_ids += choice.get("token_ids") or []
        self.logprobs += [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or []]

    def completion(self, ticket: Ticket, index: int, served: Served, finish_reason: str) -> Completion:
        return Completion(
            id=ticket.completion_ids[index],
            response_id=ticket.response_id,
            choice=index,
            conversation_id=ticket.conversation_id,
            rater=ticket.rater,
            messages=ticket.messages,
            text="".join(self.text),
            prompt_token_ids=tuple(self.prompt_token_ids),
            completion_token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            sampling=ticket.sampling,
            finish_reason=finish_reason,
            policy_version=served.version,
            version_changed_at=self.version_changed_at,
            consent=ticket.consent,
            created=time.time(),
        )


class Recorder:
    """Writes answers to the ledger; chat goes on when it cannot."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.stored = 0
        self.lost = 0

    async def store(self, ticket: Ticket, served: Served, finished: dict[int, tuple[Draft, str]]) -> bool:
        """Append the finished choices; True once the ledger has fsynced them."""
        try:
            completions = [
                draft.completion(ticket, index, served, finish) for index, (draft, finish) in finished.items()
            ]
            await run_in_threadpool(self.ledger.append_completions, completions)
        except (RedisError, LedgerNotDurable, ValidationError) as error:
            self.lost += len(finished)
            log.warning("%s was not stored: %s", ticket.response_id, error)
            return False
        self.stored += len(finished)
        return True


class Arrivals:
    """The engine's chunks as they come, each with the policy that wrote it.

    They are read even while the gate holds them back: only so does a chunk written just before a swap carry
    the old version.
    """

    def __init__(self, chunks: AsyncIterator[Body], gate: SwapGate, admitted: Served) -> None:
        self._queue: asyncio.Queue[tuple[Body, Served] | Exception | None] = asyncio.Queue()
        self._gate, self._admitted = gate, admitted
        self._task = asyncio.create_task(self._read(chunks))

    async def _read(self, chunks: AsyncIterator[Body]) -> None:
        try:
            async for chunk in chunks:
                self._gate.heard()
                self._queue.put_nowait((chunk, self._gate.writer(self._admitted)))
        except Exception as error:  # whatever it is: somebody waits for the queue
            self._queue.put_nowait(error)
        else:
            self._queue.put_nowait(None)

    async def get(self) -> tuple[Body, Served] | None:
        """The next chunk; None after the last one. Raises what reading raised, such as EngineDown."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class Relay:
    """One answer on its way to the client, chunk by chunk; `taints` are the gate's from before the engine was asked."""

    def __init__(self, ticket: Ticket, arrivals: Arrivals, gate: SwapGate, recorder: Recorder, *, taints: int) -> None:
        self.ticket, self.arrivals, self.gate, self.recorder = ticket, arrivals, gate, recorder
        self._drafts = [Draft() for _ in range(ticket.choices)]
        self._taints = taints
        self._announced = False
        self._unstored: dict[int, tuple[Draft, str]] = {}
        self._unfinished = set(range(ticket.choices))
        self.served: Served | None = None

    async def first(self) -> list[Body]:
        """Wait for the first chunk; from then on `served` names the policy that began the answer."""
        return await self._next() or []

    async def chunks(self) -> AsyncIterator[Body]:
        """The chunks after the first, as the client sees them. Raises EngineDown, EngineRefused or UnprovenWeights."""
        while (batch := await self._next()) is not None:
            for chunk in batch:
                yield chunk

    async def _next(self) -> list[Body] | None:
        arrival = await self.arrivals.get()
        await self.gate.passage()
        if self.gate.taints != self._taints:
            raise UnprovenWeights("a policy failed its proof while this answer was written; ask again")
        if arrival is None:
            if self._unfinished:
                raise EngineDown("the engine ended an answer before it was finished")
            return None
        chunk, writer = arrival
        self.served = self.served or writer
        return await self._rewrite(chunk, writer, self.served)

    async def _rewrite(self, chunk: Body, writer: Served, served: Served) -> list[Body]:
        """The chunk as the client may see it; none if it holds nothing for the client."""
        if "error" in chunk:
            raise EngineRefused(status_in(chunk), chunk)
        prompt = chunk.pop("prompt_token_ids", None)
        chunk.update(id=self.ticket.response_id, model=served.name, system_fingerprint=served.fingerprint)
        if prompt is not None and self.ticket.wants_token_ids:
            chunk["prompt_token_ids"] = prompt
        finishes, has_news = False, not chunk["choices"]
        for choice in chunk["choices"]:
            self._take(choice, prompt, changed=writer.version != served.version)
            finishes |= bool(choice.get("finish_reason"))
            has_news |= any(choice["delta"].values()) or bool(choice.get("logprobs") or choice.get("token_ids"))
        if not self._announced or finishes:
            self._announced = True
            chunk["ratchet"] = self.ticket.facts(served)
        if finishes and (self.ticket.streamed or not self._unfinished):
            finished, self._unstored = self._unstored, {}
            chunk["ratchet"]["stored"] = await self.recorder.store(self.ticket, served, finished)
        return [chunk] if has_news or "ratchet" in chunk else []

    def _take(self, choice: Body, prompt: list[int] | None, *, changed: bool) -> None:
        draft = self._drafts[choice["index"]]
        draft.prompt_token_ids = prompt or draft.prompt_token_ids
        if changed and draft.version_changed_at is None:
            draft.version_changed_at = len(draft.token_ids)
        draft.add(choice, choice["delta"].get("content"))
        strip(choice, self.ticket)
        if finish_reason := choice.get("finish_reason"):
            self._unstored[choice["index"]] = (draft, finish_reason)
            self._unfinished.discard(choice["index"])


def status_in(chunk: Body) -> int:
    """The HTTP status that an error in the middle of a stream would have had at its beginning."""
    code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def strip(choice: Body, ticket: Ticket) -> None:
    """Take off what the gateway asked the engine for and the client did not."""
    if not ticket.wants_token_ids:
        choice.pop("token_ids", None)
    if not ticket.wants_logprobs:
        choice["logprobs"] = None
