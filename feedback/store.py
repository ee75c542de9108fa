"""The ledger in Redis: completions as served, feedback as an append-only stream with revisions."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from feedback.atomic import APPEND, RETRACT, SERVE
from feedback.durability import Command, proof, proven
from feedback.judgements import Feedback, Judgement
from feedback.records import Completion, Response, digest, path_digest

COMPLETIONS = "completions"
FEEDBACK = "feedback"
CURRENT = "feedback:current"
CLIENT_IDS = "feedback:client_ids"
REPEATS = "ledger:repeats"
FEEDBACK_IDS = "feedback:ids"
ERASED = "ledger:erased"

#: A judgement and its client id.
Said = tuple[Feedback, str | None]
#: Keys and arguments of a script.
Call = tuple[list[str], list[Any]]


class Conflict(RuntimeError):
    """The same client id came with a different judgement."""


class Superseded(RuntimeError):
    """The judgement was revised since: only the last word can be taken back."""


class Appended(NamedTuple):
    """What became of a judgement; the last two of one that is repeated under its client id and stands no more."""

    id: str
    revision: int
    status: Literal["created", "revised", "same", "retracted", "replaced"]

    @property
    def stands(self) -> bool:
        return self.status not in ("retracted", "replaced")


def connect(url: str, *, timeout_s: float = 2.0) -> Redis:
    """A Redis client that answers or fails within `timeout_s`; it never hangs on a frozen server."""
    # The client's own default is to retry with backoff, which turns one timeout into half a minute.
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=64,
        retry=Retry(NoBackoff(), 0),
    )


class Kept(NamedTuple):
    """A judgement and what became of it; `replaces` is the id of the one that it revised."""

    feedback: Feedback
    revision: int
    replaces: str | None
    retracted: bool
    stands: bool


class Ledger:
    """Append and read. Every append returns only after the server fsynced it."""

    def __init__(self, redis: Redis) -> None:
        """Raises LedgerNotDurable unless the server runs AOF without eviction."""
        self.redis: Any = redis
        self._proof = proof(redis)
        self._serve = redis.register_script(SERVE)
        self._append = redis.register_script(APPEND)
        self._retract = redis.register_script(RETRACT)

    def check(self) -> None:
        """Write something, as durably as feedback. Raises LedgerNotDurable, or RedisError when it takes no writes."""
        self._proof = proof(self.redis)
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.set("ledger:checked", 1)
            pipe.execute_command(*self._proof)
            _whole(pipe.execute(raise_on_error=False))

    def append_answer(self, response: Response, completions: list[Completion]) -> bool:
        """Store finished completions of a response as served. Appending the same ones twice changes nothing.

        The conversation is made, or goes on from the completion whose words the new messages repeat, and then from the
        first of these that is no decoy. False if nothing was written: all were there, or the person or conversation was
        erased after they had been asked for.
        """
        first, now = completions[0], time.time()
        turns = [index for index, message in enumerate(first.messages) if message.role == "assistant"]
        prefix = path_digest(first.messages[: turns[-1] + 1]) if turns else ""
        conversation = conversation_key(response.rater, response.conversation_id)
        keys = [COMPLETIONS, REPEATS, f"response:{response.id}", f"responses:{response.rater}", conversation]
        keys += [f"paths:{conversation}", f"conversations:{response.rater}", ERASED, erased_at(response.rater)]
        args = [response.model_dump_json(), response.id, response.conversation_id, prefix, title_of(first), now]
        head = next((each.id for each in completions if not each.decoy), "")
        args += [response.created, digest(response.conversation_id), head]
        for each in completions:
            path = path_digest([*each.messages, each.answer])
            args += [each.id, "" if each.policy_version is None else each.policy_version, each.model_dump_json(), path]
        return bool(self.durably(self._serve, keys, args))

    def completions(self, ids: tuple[str, ...]) -> dict[str, Completion]:
        """The known ones among `ids`."""
        if not ids:
            return {}
        raw = self.redis.mget([f"completion:{id}" for id in ids])
        return {id: Completion.model_validate_json(text) for id, text in zip(ids, raw, strict=True) if text is not None}

    def completion_ids(self) -> list[str]:
        """All completions served, oldest first."""
        return [fields["id"] for _, fields in self.redis.xrange(COMPLETIONS)]

    def append_feedback(self, feedback: Feedback, *, client_id: str | None = None) -> Appended:
        """Store a judgement; raises Conflict when `client_id` was used for another one, or what it is about was erased.

        The same judgement again returns the first one's id; a different one in its slot is a revision. Under the same
        client id it is not made again, whatever became of it.
        """
        [outcome] = self.append_all([(feedback, client_id)])
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    def append_all(self, judgements: Sequence[Said]) -> list[Appended | Conflict]:
        """Many judgements under one fsync: what became of each."""
        return _outcomes(self._replies(self._append, _append_calls(judgements)))

    def appends(self, judgements: Sequence[Said]) -> list[Command]:
        """What appends them, for a connection of the caller's own; `appended` reads the replies, one to each."""
        return self._commands(self._append, _append_calls(judgements))

    def appended(self, replies: list[Any]) -> list[Appended | Conflict]:
        """What became of each. Raises what a reply says went wrong: NoScriptError on a server that has to be told by
        `append_all` first, where nothing was appended."""
        return _outcomes(_whole(replies))

    def check_client_id(self, rater: str, client_id: str, judgement: Judgement) -> None:
        """Raises the Conflict that appending would end in."""
        known = self.redis.hget(CLIENT_IDS, f"{rater}:{client_id}")
        if known is not None:
            id, body = known.split()
            if body != _body(judgement):
                raise _used(id)

    def retract(self, id: str) -> bool:
        """Take a judgement back; its history stays. False when there is none. Raises Superseded when it was revised."""
        outcome = self.durably(self._retract, [FEEDBACK, CURRENT, f"feedback:item:{id}", REPEATS], [id, time.time()])
        if outcome not in ("unknown", "retracted"):
            raise Superseded(f"{id} was revised since" + (f"; {outcome} stands now" if outcome else ""))
        return bool(outcome == "retracted")

    def kept(self, ids: Sequence[str]) -> list[Kept]:
        """The judgements among `ids` that exist, in that order, also those that were revised or taken back."""
        fields = "data", "revision", "replaces", "retracted", "slot"
        with self.redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hmget(f"feedback:item:{id}", fields)
            rows = [(id, *row) for id, row in zip(ids, pipe.execute(), strict=True) if row[0] is not None]
        standing = self.redis.hmget(CURRENT, [slot for *_, slot in rows]) if rows else []
        return [
            Kept(Feedback.model_validate_json(data), int(revision), replaces or None, retracted is not None, id == now)
            for (id, data, revision, replaces, retracted, _), now in zip(rows, standing, strict=True)
        ]

    def gone(self, ids: Iterable[str]) -> set[str]:
        """Those of some judgements that are not here any more: they were erased."""
        asked = list(ids)
        scores = self.redis.zmscore(FEEDBACK_IDS, asked) if asked else []
        return {id for id, score in zip(asked, scores, strict=True) if score is None}

    def about(self, completion_id: str) -> list[Kept]:
        """All judgements that name a completion, oldest first."""
        return self.kept(sorted(self.redis.smembers(f"feedback:on:{completion_id}")))

    def feedback_between(self, after: str, until: str = "+") -> Iterator[tuple[str, Feedback]]:
        """(cursor, judgement) in order of arrival, after one cursor ("0" = all) up to and including another."""
        return ((cursor, said) for cursor, said in self.said(after, until) if isinstance(said, Feedback))

    def watermark(self) -> str:
        """The cursor of the newest judgement; "0" when there is none."""
        newest = self.redis.xrevrange(FEEDBACK, count=1)
        return str(newest[0][0]) if newest else "0"

    def standing(self, until: str) -> list[Feedback]:
        """What people say as of a cursor: the last judgement of each slot, unless it was taken back."""
        last: dict[str, Feedback] = {}
        for _, said in self.said("0", until) if until != "0" else ():
            take(last, said)
        return list(last.values())

    def said(self, after: str, until: str = "+") -> Iterator[tuple[str, Feedback | str]]:
        """(cursor, a judgement, or the slot of one that was taken back), in order of arrival after a cursor."""
        for cursor, fields in self._entries("-" if after == "0" else f"({after}", until):
            yield cursor, Feedback.model_validate_json(fields["data"]) if "data" in fields else fields["slot"]

    def _entries(self, low: str, until: str) -> Iterator[tuple[str, dict[str, str]]]:
        while batch := self.redis.xrange(FEEDBACK, min=low, max=until, count=500):
            yield from batch
            low = f"({batch[-1][0]}"

    def durably(self, script: Any, keys: list[str], args: list[Any]) -> Any:
        """A script's reply, once the server has fsynced all that was written up to it."""
        return self._replies(script, [(keys, args)])[0]

    def _replies(self, script: Any, calls: Sequence[Call]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipe:  # one connection, which is the one WAITAOF looks at
            for command in self._commands(script, calls):
                pipe.execute_command(*command)
            replies = pipe.execute(raise_on_error=False)
        if isinstance(replies[0], NoScriptError):  # a new server: nothing was run
            self.redis.script_load(script.script)
            return self._replies(script, calls)
        return _whole(replies)

    def _commands(self, script: Any, calls: Sequence[Call]) -> list[Command]:
        return [*(("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls), self._proof]


def _whole(replies: list[Any]) -> list[Any]:
    """All but the last one, which proves them. Raises what any of them says went wrong."""
    *written, proof = replies
    for reply in written:
        if isinstance(reply, Exception):
            raise reply
    proven(proof)
    return written


def take(last: dict[str, Feedback], said: Feedback | str) -> None:
    """Keep the last judgement of each slot, in the place of the first, unless it was taken back."""
    if isinstance(said, Feedback):
        last[said.slot] = said
    else:
        last.pop(said, None)


def _append_calls(judgements: Sequence[Said]) -> list[Call]:
    return [_append_call(feedback, client_id) for feedback, client_id in judgements]


def _append_call(feedback: Feedback, client_id: str | None) -> Call:
    """Keys and arguments of APPEND."""
    dedupe = f"{feedback.rater}:{client_id}" if client_id else ""
    keys = [FEEDBACK, CURRENT, CLIENT_IDS, REPEATS, f"feedback:by:{feedback.rater}", FEEDBACK_IDS, ERASED]
    args = [feedback.id, feedback.slot, dedupe, _body(feedback.judgement), feedback.model_dump_json()]
    return keys, [*args, *feedback.judgement.targets]


def _outcomes(replies: list[Any]) -> list[Appended | Conflict]:
    return [_outcome(status, id, int(revision)) for status, id, revision in replies]


def _outcome(status: Any, id: str, revision: int) -> Appended | Conflict:
    if status == "erased":
        return Conflict(f"{id} was erased meanwhile")
    if status == "conflict":
        return _used(id)
    return Appended(id, revision, status)


def _body(judgement: Judgement) -> str:
    """Equal for two judgements that say the same."""
    return digest(judgement.model_dump(mode="json"))


def _used(id: str) -> Conflict:
    return Conflict(f"client_id was already used for {id} with another judgement")


def conversation_key(rater: str, id: str) -> str:
    """Everybody names their conversations as they like: names of two people never meet."""
    return f"conversation:{rater}:{id}"


def erased_at(rater: str) -> str:
    """Since when a conversation of a person is erased, by a digest of its name, which is erased as well; all, by ""."""
    return f"ledger:erased_at:{rater}"


def title_of(completion: Completion) -> str:
    """The beginning of what was asked first."""
    asked = next((message.content for message in completion.messages if message.role == "user"), "")
    return " ".join(asked.split())[:80]
