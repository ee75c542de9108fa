"""Answers on their way into the ledger."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from feedback.durability import LedgerNotDurable
from feedback.records import Arm, Completion, Message, new_id
from feedback.store import Ledger
from serving.engine.server import SERVED_NAME, Body
from serving.engine.swap_gate import Served
from serving.ledger.shown import ShownAnswers
from serving.metrics import Metrics

log = logging.getLogger("serving.chat")

# What the ledger calls an answer that somebody stopped; clients are told "stop", the only fitting word they know.
STOPPED = "stopped"


@dataclass(frozen=True)
class Ticket:
    """One accepted request for `choices` answers.

    `blind` hides who writes until there is a vote; `keep` is whether the ledger may have it at all, and `plain` whether
    it is drawn from the policy as it is; `steered` is `is_steered` of engine/plain_draw.py. `arms` are the sides of its
    choices while a release is under way; under `release` chance put them there, all of them with `propensity` if there
    is one. The choice `decoy` answers another question.
    """

    messages: tuple[Message, ...]
    conversation_id: str
    rater: str
    consent: bool
    metadata: dict[str, str]
    keep: bool
    sampling: dict[str, Any]
    plain: bool
    choices: int
    streamed: bool
    wants_usage: bool
    wants_logprobs: bool
    wants_token_ids: bool
    steered: bool = False
    blind: bool = False
    release: int | None = None
    arms: tuple[Arm, ...] = ()
    propensity: float | None = None
    decoy: int | None = None
    response_id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: float = field(default_factory=time.time)

    @property
    def completion_ids(self) -> list[str]:
        return [f"{self.response_id}:{index}" for index in range(self.choices)]


@dataclass
class Draft:
    """A choice while it is being written; `served` is the policy that began it."""

    served: Served | None = None
    text: list[str] = field(default_factory=list)
    tool_calls: list[Body] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)
    version_changed_at: int | None = None
    finish_reason: str | None = None

    def add(self, choice: Body, writer: Served) -> None:
        """Take over a piece of the choice."""
        if self.served is None:
            self.served = writer
        elif writer.version != self.served.version and self.version_changed_at is None:
            self.version_changed_at = len(self.token_ids)
        delta = choice["delta"]
        if content := delta.get("content"):
            self.text.append(content)
        if calls := delta.get("tool_calls"):
            self.tool_calls += calls
        if ids := choice.get("token_ids"):
            self.token_ids += ids
        if logprobs := choice.get("logprobs"):
            self.logprobs += [entry["logprob"] for entry in logprobs.get("content") or ()]

    def completion(self, ticket: Ticket, index: int) -> Completion:
        assert self.served is not None
        return Completion(
            id=ticket.completion_ids[index],
            response_id=ticket.response_id,
            choice=index,
            conversation_id=ticket.conversation_id,
            rater=ticket.rater,
            messages=ticket.messages,
            text="".join(self.text),
            tool_calls=tuple(whole_calls(self.tool_calls)),
            prompt_token_ids=tuple(self.prompt_token_ids),
            completion_token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            sampling=ticket.sampling,
            plain=ticket.plain,
            finish_reason=self.finish_reason or STOPPED,
            policy_version=self.served.version,
            version_changed_at=self.version_changed_at,
            release=ticket.release,
            arm=ticket.arms[index] if ticket.arms else None,
            propensity=ticket.propensity,
            partial=self.finish_reason is None,
            decoy=index == ticket.decoy,
            consent=ticket.consent,
            created=ticket.created,
        )


class Recorder:
    """Writes answers to the ledger; chat goes on when it cannot."""

    def __init__(self, ledger: Ledger, shown: ShownAnswers, metrics: Metrics) -> None:
        self.ledger, self.shown, self.metrics = ledger, shown, metrics

    async def store(self, ticket: Ticket, drafts: dict[int, Draft]) -> bool:
        """Append choices by index, unfinished ones as partial; True once the ledger has fsynced them."""
        self._count(drafts)
        if not ticket.keep or not drafts:
            return False
        try:
            completions = [draft.completion(ticket, index) for index, draft in drafts.items()]
            served = next(iter(drafts.values())).served
            assert served is not None
            # A blind answer may have several writers; its completions know theirs.
            model, fingerprint = (SERVED_NAME, "") if ticket.blind else (served.name, served.fingerprint)
            frame = completions[0].frame(
                model=model, system_fingerprint=fingerprint, choices=ticket.choices, metadata=ticket.metadata
            )
            if not await run_in_threadpool(self.ledger.append_answer, frame, completions):
                return False  # erased meanwhile
        except (RedisError, LedgerNotDurable, ValidationError) as error:
            self.metrics.completions_lost.inc(len(drafts))
            log.warning("%s was not stored: %s", ticket.response_id, error)
            return False
        self.shown.remember(completions)
        self.metrics.completions_stored.inc(len(completions))
        return True

    def _count(self, drafts: dict[int, Draft]) -> None:
        for index, draft in drafts.items():
            assert draft.served is not None
            prompt = 0 if index else len(draft.prompt_token_ids)  # the choices share one prompt
            self.metrics.tokens(draft.served.version, prompt=prompt, completion=len(draft.token_ids))


def whole_calls(pieces: list[Body]) -> list[Body]:
    """Calls of functions, whose names and arguments come in pieces, put together in the order of their indices."""
    by_index: dict[int, list[Body]] = {}
    for piece in pieces:
        by_index.setdefault(piece["index"], []).append(piece)
    return [_whole_call(by_index[index]) for index in sorted(by_index)]


def _whole_call(pieces: list[Body]) -> Body:
    functions = [piece.get("function") or {} for piece in pieces]
    return {
        "id": next((piece["id"] for piece in pieces if piece.get("id")), None),
        "type": "function",
        "function": {name: "".join(one.get(name) or "" for one in functions) for name in ("name", "arguments")},
    }
