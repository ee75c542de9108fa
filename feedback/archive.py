"""What was served, found again: responses, the conversations they form, and answers laid side by side."""

import json
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from feedback.judgements import compares
from feedback.records import Completion, Conversation, Offer, Response
from feedback.store import ERASED, REPEATS, Ledger, conversation_key

SCAN = 200
#: So many titles are looked at for one page; where few have the words, whoever asks goes on from there.
MOST_LOOKED_AT = 2000
PLACE = re.compile(r"(\d+\.\d+):(.*)", re.DOTALL)
T = TypeVar("T")

# Each changes what exists, never makes it: what was just erased must not come back as something empty.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], redis.call('HGET', KEYS[1], 'updated'), ARGV[1])
return 1
"""
_ANNOTATE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'metadata', ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'consent', ARGV[2]) end
return 1
"""
_OFFER = """
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then redis.call('INCR', KEYS[4]) return 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class Page(NamedTuple, Generic[T]):
    """Some of a list, and whether there is more of it."""

    items: list[T]
    has_more: bool


class Found(NamedTuple):
    """Some of a person's conversations; the next ones come after `last`, the place where these end: when the one there
    was last used or changed, and its id."""

    items: list[Conversation]
    last: str | None
    has_more: bool


class Archive:
    """Reads and annotates; what is in it was put there by `Ledger.append_answer`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.redis = ledger, ledger.redis
        self._change = self.redis.register_script(_CHANGE)
        self._annotate = self.redis.register_script(_ANNOTATE)
        self._offer = self.redis.register_script(_OFFER)

    def is_erased(self, response_id: str) -> bool:
        """Whether a response left the ledger for good."""
        return bool(self.redis.sismember(ERASED, response_id))

    def any_erased(self, response_ids: Sequence[str]) -> bool:
        """Whether one of them did."""
        return bool(response_ids) and any(self.redis.smismember(ERASED, list(response_ids)))

    def response(self, id: str) -> Response | None:
        """A chat response, or what answered a comparison."""
        return _response(self.redis.hgetall(f"response:{id}"))

    def responses(
        self, rater: str, *, metadata: Mapping[str, str], model: str | None, after: str | None, limit: int,
        newest_first: bool,
    ) -> Page[Response]:  # fmt: skip
        """A person's chat responses by age, those with all of `metadata` and of `model` (None = any).

        `after` is the id of a chat response, be it still there or not.
        """
        found: list[Response] = []
        while batch := self._ids(rater, after, newest_first):
            after = batch[-1]
            for response in self._responses(batch):
                if metadata.items() <= response.metadata.items() and model in (None, response.model):
                    found.append(response)
            if len(found) > limit:
                break
        return Page(found[:limit], len(found) > limit)

    def annotate(self, id: str, metadata: Mapping[str, str]) -> bool:
        """Replace a response's metadata; False when there is none. A consent in it counts until it is named again."""
        args = [json.dumps(dict(metadata)), metadata.get("consent", "").lower()]
        return bool(self.ledger.durably(self._annotate, [f"response:{id}"], args))

    def conversation(self, rater: str, id: str) -> Conversation | None:
        fields = self.redis.hgetall(conversation_key(rater, id))
        return _conversation(rater, id, fields) if fields else None

    def conversations(self, rater: str, *, after: str | None, limit: int, words: Sequence[str] = ()) -> Found:
        """A person's conversations, the one last used or changed first; those with all of `words` in their titles.

        `after` is a place, be the conversation still there or not, or the id of one that is. Raises KeyError for any
        other.
        """
        index, looked_at = f"conversations:{rater}", 0
        start = 0 if after is None else self._rank_after(index, after)
        wanted, step = [word.casefold() for word in words], SCAN if words else limit + 1
        found: list[tuple[Conversation, str]] = []
        while ranked := self.redis.zrevrange(index, start + looked_at, start + looked_at + step - 1, withscores=True):
            looked_at += len(ranked)
            places = [f"{score!r}:{id}" for id, score in ranked]
            rows = self._hashes(conversation_key(rater, id) for id, _ in ranked)
            for (id, _), place, fields in zip(ranked, places, rows, strict=True):
                if fields and _says(conversation := _conversation(rater, id, fields), wanted):
                    found.append((conversation, place))
            if len(found) > limit:
                return _found(found[:limit], found[limit - 1][1], has_more=True)
            if looked_at >= MOST_LOOKED_AT:
                return _found(found, places[-1], has_more=True)
        return _found(found, found[-1][1] if found else None, has_more=False)

    def _rank_after(self, index: str, after: str) -> int:
        """How many conversations stand before those after an id or a place. Raises KeyError."""
        if (rank := self.redis.zrevrank(index, after)) is not None:
            return int(rank) + 1
        if (place := PLACE.fullmatch(after)) is None:
            raise KeyError(after)
        score, id = place.groups()
        level = self.redis.zrangebyscore(index, score, score)
        return int(self.redis.zcount(index, f"({score}", "+inf") + sum(each >= id for each in level))

    def conversation_ids(self, rater: str) -> list[str]:
        """All of a person's conversations, the one last used or changed last."""
        return list(self.redis.zrange(f"conversations:{rater}", 0, -1))

    def judgement_ids(self, rater: str) -> list[str]:
        """All that a person said, oldest first, also what they revised or took back."""
        return list(self.redis.zrange(f"feedback:by:{rater}", 0, -1))

    def change_conversation(self, rater: str, id: str, **changes: Any) -> bool:
        """Set title, allow_training or head; False when there is no such conversation."""
        keys, now = [conversation_key(rater, id), f"conversations:{rater}"], time.time()
        fields = {name: _encoded(value) for name, value in changes.items()} | {"updated": now}
        return bool(self.ledger.durably(self._change, keys, [id, *_flat(fields)]))

    def branches(self, rater: str, id: str) -> list[Response]:
        """All responses of a conversation, oldest first."""
        return self._responses(self.redis.lrange(f"responses:{conversation_key(rater, id)}", 0, -1))

    def private(self, conversations: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those (rater, conversation) that their owners keep out of training, as of now."""
        ordered = list(conversations)
        with self.redis.pipeline(transaction=False) as pipe:
            for rater, id in ordered:
                pipe.hget(conversation_key(rater, id), "allow_training")
            return {one for one, allowed in zip(ordered, pipe.execute(), strict=True) if allowed == "0"}

    def withheld(self, completions: Collection[Completion]) -> set[str]:
        """The ids of those that must not train as of now.

        Their people did not consent when they asked, took it back since, or keep the conversation private.
        """
        private = self.private({(each.rater, each.conversation_id) for each in completions})
        taken_back = self._taken_back({each.response_id for each in completions})
        return {
            each.id
            for each in completions
            if not each.consent or each.response_id in taken_back or (each.rater, each.conversation_id) in private
        }

    def _taken_back(self, response_ids: Collection[str]) -> set[str]:
        ordered = list(response_ids)
        with self.redis.pipeline(transaction=False) as pipe:
            for id in ordered:
                pipe.hget(f"response:{id}", "consent")
            return {id for id, consent in zip(ordered, pipe.execute(), strict=True) if consent == "false"}

    def add_offer(self, offer: Offer) -> None:
        """Keep who wrote which, before any of it is shown to the end."""
        keys = [f"comparison:{offer.id}", f"responses:{offer.rater}", ERASED, REPEATS]
        self.ledger.durably(self._offer, keys, [offer.id, offer.model_dump_json()])

    def drop_offer(self, offer: Offer) -> None:
        """Forget one of which nothing was shown, and nothing is stored."""
        with self.redis.pipeline() as pipe:
            pipe.delete(f"comparison:{offer.id}").zrem(f"responses:{offer.rater}", offer.id)
            pipe.execute()

    def offer(self, id: str) -> Offer | None:
        return self.offers([id]).get(id)

    def offers(self, ids: Sequence[str]) -> dict[str, Offer]:
        """Those among `ids` that are there."""
        raw = self.redis.mget([f"comparison:{id}" for id in ids]) if ids else []
        return {id: Offer.model_validate_json(text) for id, text in zip(ids, raw, strict=True) if text}

    def offer_ids(self, rater: str) -> list[str]:
        """All that was laid side by side before a person."""
        return list(self.redis.zrangebylex(f"responses:{rater}", "[cmp_", "(cmp`"))

    def blind(self, responses: Sequence[Response]) -> set[str]:
        """The ids of those laid side by side that nobody voted on yet: who wrote which must not be told."""
        with self.redis.pipeline(transaction=False) as pipe:
            for response in responses:
                pipe.exists(f"comparison:{response.id}")
            offered = pipe.execute()
        return {
            each.id for each, is_offer in zip(responses, offered, strict=True) if is_offer and not self._voted(each)
        }

    def _voted(self, response: Response) -> bool:
        ids = response.completion_ids
        return any(compares(kept.feedback.judgement, ids) for id in ids for kept in self.ledger.about(id))

    def _ids(self, rater: str, after: str | None, newest_first: bool) -> list[str]:
        low, high = "[chatcmpl-", "(chatcmpl."
        if newest_first:
            start = f"({after}" if after else high
            return list(self.redis.zrevrangebylex(f"responses:{rater}", start, low, start=0, num=SCAN))
        start = f"({after}" if after else low
        return list(self.redis.zrangebylex(f"responses:{rater}", start, high, start=0, num=SCAN))

    def _responses(self, ids: list[str]) -> list[Response]:
        rows = self._hashes(f"response:{id}" for id in ids)
        return [response for fields in rows if (response := _response(fields))]

    def _hashes(self, keys: Iterable[str]) -> list[dict[str, str]]:
        with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            return list(pipe.execute())


def _flat(fields: Mapping[str, Any]) -> list[Any]:
    return [item for pair in fields.items() for item in pair]


def _encoded(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _says(conversation: Conversation, words: Sequence[str]) -> bool:
    title = conversation.title.casefold()
    return all(word in title for word in words)


def _found(placed: Sequence[tuple[Conversation, str]], last: str | None, *, has_more: bool) -> Found:
    return Found([conversation for conversation, _ in placed], last, has_more)


def _conversation(rater: str, id: str, fields: dict[str, str]) -> Conversation:
    return Conversation.model_validate({"id": id, "rater": rater, **fields})


def _response(fields: dict[str, str]) -> Response | None:
    if "data" not in fields:
        return None
    response = Response.model_validate_json(fields["data"])
    changes: dict[str, Any] = {"parent_id": fields.get("parent")}
    if "metadata" in fields:
        changes["metadata"] = json.loads(fields["metadata"])
    return response.model_copy(update=changes)
