"""From the engine's chunks to the client's, with each answer in the ledger before its last chunk goes out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from serving.engine.server import SERVED_NAME, Body, EngineDown
from serving.engine.swap_gate import Served, SwapGate
from serving.ledger.recorder import Draft, Recorder, Ticket
from serving.metrics import Pace
from serving.streams.arrivals import Arrival, Arrivals, Chunk, End

# A stream that has nothing to say for so long says so, or proxies would cut it.
KEEP_ALIVE_S = 15.0
# Of what the engine says this goes on, beside what is rewritten: what else it tells of itself or of what it was asked
# might tell a decoy, or who writes.
CHUNK = ("object", "usage")
CHOICE = ("index", "delta", "logprobs", "finish_reason", "stop_reason", "token_ids")


class UnprovenWeights(RuntimeError):
    """Weights that failed their proof wrote into this answer."""


class Relay:
    """One answer on its way to the client; `taints` are its gates' from before the engines were asked."""

    def __init__(
        self, ticket: Ticket, arrivals: Arrivals, recorder: Recorder, pace: Pace, *, taints: Mapping[SwapGate, int]
    ) -> None:
        self.ticket, self.arrivals, self.recorder, self.pace = ticket, arrivals, recorder, pace
        self.served: Served | None = None
        self.fault: Exception | None = None
        self.drafts = {index: Draft() for index in range(ticket.choices)}
        self.settled = asyncio.Event()
        self._unstored: dict[int, Draft] = {}
        self._unfinished = set(self.drafts)
        self._cut_off: set[int] = set()
        self._keeping: asyncio.Future[bool] | None = None
        self._on_their_way: dict[int, asyncio.Future[bool]] = {}
        self._gates = tuple((gate, taints[gate]) for gate in arrivals.gates)
        self._announced = False
        self._owes_usage = ticket.wants_usage or not ticket.streamed

    async def batches(self) -> AsyncIterator[list[Body]]:
        """Chunks as the client sees them, as many at a time as came together; an empty batch after a long silence.

        Raises EngineDown, EngineRefused or UnprovenWeights, after all that was good.
        """
        end: Exception | End | None = None
        while end is None:
            arrived = await self.arrivals.take(KEEP_ALIVE_S)
            for gate, _ in self._gates:  # what has arrived by now was decided on when it lets through
                await gate.passage()
            try:
                batch, end = await self._rewritten(arrived)
            except Exception as error:  # a chunk that makes no sense: what came before it is no part of an answer
                batch, end = [], error
            if end is not None:
                self.settled.set()
            if batch or not arrived:
                yield batch
        if isinstance(end, Exception):
            self.fault = end
            raise end

    def stop(self) -> None:
        """End every choice here: what was written so far is kept as partial answers."""
        self.arrivals.stop()

    async def keep_partial(self) -> bool:
        """Store what was shown of the unfinished choices: nothing is added to them any more. True if the ledger has it.

        However often it is called, and even if the caller is cancelled, it is done once.
        """
        if self._keeping is None:
            self._cut_off, self._unfinished = self._unfinished, set()
            begun = {index: self.drafts[index] for index in self._cut_off if self.drafts[index].served}
            self._keeping = self._storing(self._unstored | begun)
        await asyncio.wait({self._keeping, *self._on_their_way.values()})
        return self._keeping.result()

    def _storing(self, drafts: dict[int, Draft]) -> asyncio.Future[bool]:
        """Choices on their way into the ledger: they get there even if the client leaves meanwhile."""
        storing = asyncio.ensure_future(self.recorder.store(self.ticket, drafts))
        self._on_their_way |= dict.fromkeys(drafts, storing)
        return storing

    def writes(self, completion_id: str) -> bool:
        """Whether a completion of this answer is unfinished, or not yet in the ledger."""
        under_way = {index for index, storing in self._on_their_way.items() if not storing.done()}
        return any(self.ticket.completion_ids[index] == completion_id for index in self._unfinished | under_way)

    def shows(self, completion_id: str) -> bool:
        """Whether anything was shown of a completion of this answer."""
        return any(
            draft.served is not None and self.ticket.completion_ids[index] == completion_id
            for index, draft in self.drafts.items()
        )

    @property
    def known(self) -> bool:
        """Whether somebody saw some of it, or the ledger gets some. Of a whole answer nobody sees a part."""
        return bool(self._on_their_way) or (self.ticket.streamed and self.served is not None)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens so far, as OpenAI counts: the prompt once, every choice. A decoy's prompt would tell what it is."""
        asked = [draft for index, draft in self.drafts.items() if index != self.ticket.decoy]
        prompt = max(len(draft.prompt_token_ids) for draft in asked)
        completion = sum(len(draft.token_ids) for draft in self.drafts.values())
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def _rewritten(self, arrived: list[Arrival]) -> tuple[list[Body], Exception | End | None]:
        """What the client gets of the arrivals, and how they end if they do."""
        for gate, taints in self._gates:
            if gate.taints != taints:
                return [], UnprovenWeights("a policy failed its proof while this was written; ask again")
        batch: list[Body] = []
        for arrival in arrived:
            if arrival is End.STOPPED or self._cut_off:
                return [*batch, *await self._cut()], End.STOPPED
            if arrival is End.FINISHED and self._unfinished:
                return batch, self._unfinished_end()
            if arrival is End.FINISHED and self._owes_usage:
                return [*batch, self._usage_chunk()], arrival
            if not isinstance(arrival, Chunk):
                return batch, arrival
            if chunk := await self._rewrite(*arrival):
                batch.append(chunk)
        return batch, None

    def _unfinished_end(self) -> EngineDown:
        error = EngineDown("the engine ended an answer before it was finished")
        for gate, _ in self._gates:
            gate.blame(error)
        return error

    async def _rewrite(self, said: Body, writer: Served) -> Body | None:
        """A chunk as the client may see it; None if it holds nothing for the client."""
        if self.served is None:
            self.served = writer
        prompt = said.get("prompt_token_ids")
        chunk = self._sign({**_only(CHUNK, said), "choices": [_only(CHOICE, each) for each in said["choices"]]})
        if prompt is not None and self.ticket.wants_token_ids:
            chunk["prompt_token_ids"] = prompt
        finishes, has_news = False, not chunk["choices"]
        if has_news and chunk.get("usage"):
            self._owes_usage = False
        for choice in chunk["choices"]:
            finishes |= self._take(choice, prompt, writer)
            has_news = has_news or any(choice["delta"].values()) or bool(choice.get("logprobs"))
        if not self._announced or finishes:
            self._announced = True
            chunk["ratchet"] = self._facts()
        if finishes and (self.ticket.streamed or not self._unfinished):
            finished, self._unstored = self._unstored, {}
            chunk["ratchet"]["stored"] = await asyncio.shield(self._storing(finished))
        return chunk if has_news or "ratchet" in chunk else None

    def _take(self, choice: Body, prompt: list[int] | None, writer: Served) -> bool:
        """Into its draft, and off the client's copy what the client did not ask for; whether the choice is finished."""
        index = choice["index"]
        draft = self.drafts[index]
        if prompt:
            draft.prompt_token_ids = prompt
        draft.add(choice, writer)
        if index == 0 and choice.get("token_ids"):
            self.pace.tick()
        if not self.ticket.wants_token_ids:
            choice.pop("token_ids", None)
        if not self.ticket.wants_logprobs:
            choice["logprobs"] = None
        draft.finish_reason = choice.get("finish_reason")
        if draft.finish_reason is None:
            return False
        self._unstored[index] = draft
        self._unfinished.discard(index)
        return True

    async def _cut(self) -> list[Body]:
        """The last chunks of an answer that was stopped."""
        stored = await self.keep_partial()
        last: list[Body] = []
        if self._cut_off:
            choices: list[Body] = [
                {"index": index, "delta": {}, "logprobs": None, "finish_reason": "stop"}
                for index in sorted(self._cut_off)
            ]
            chunk = self._sign({"object": "chat.completion.chunk", "choices": choices})
            last = [{**chunk, "ratchet": {**self._facts(), "partial": True, "stored": stored}}]
        return [*last, self._usage_chunk()] if self._owes_usage else last

    def _usage_chunk(self) -> Body:
        return self._sign({"object": "chat.completion.chunk", "choices": [], "usage": self.usage})

    def _sign(self, chunk: Body) -> Body:
        """Say who wrote it, unless that is to be judged blindly: then not even times may tell the writers apart."""
        chunk["id"], chunk["created"] = self.ticket.response_id, int(self.ticket.created)
        if self.ticket.blind or self.served is None:
            chunk["model"], chunk["system_fingerprint"] = SERVED_NAME, None
        else:
            chunk["model"], chunk["system_fingerprint"] = self.served.name, self.served.fingerprint
        return chunk

    def _facts(self) -> dict[str, Any]:
        """The extra object that names what wrote the answer and what to call it in feedback."""
        facts: dict[str, Any] = {
            "conversation_id": self.ticket.conversation_id, "completion_ids": self.ticket.completion_ids,
        }  # fmt: skip
        if self.ticket.blind:
            return {"comparison_id": self.ticket.response_id, **facts}
        if self.served is None:
            return facts
        if self.ticket.release is not None:
            facts = {"release": self.ticket.release, "arm": self.ticket.arms[0], **facts}
        return {"policy_version": self.served.version, **facts}


def _only(names: tuple[str, ...], said: Body) -> Body:
    return {name: said[name] for name in names if name in said}
