"""The right to be forgotten: what a person wrote and was answered leaves the ledger, and what learned from it is named.

Each step is repeatable: an erasure that was cut off is finished by asking for it again. Others' judgements of an erased
answer go with it. Policies that trained on it are listed, not unmade: the next rounds train without it. The open round
starts again if it has collected any of it, in the very step that erases; one that did so twice is listed as well.
"""

import time
from collections.abc import Iterable
from contextlib import suppress

from redis.exceptions import ResponseError

from feedback.archive import Archive
from feedback.judgements import COMPARED
from feedback.people.checks import repeat_id
from feedback.people.raters import WEIGHTS
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PolicyRegistry
from feedback.records import Record, Response, digest
from feedback.rounds.sources import RECALL
from feedback.store import (
    CLIENT_IDS,
    COMPLETIONS,
    CURRENT,
    ERASED,
    FEEDBACK,
    FEEDBACK_IDS,
    conversation_key,
    erased_at,
    title_of,
)

# No answer is under way for so long.
MARKS_S = 7 * 86_400
# Of earlier versions, with the names of conversations in it; what was under way then is not any more.
OLD_MARKS = "ledger:erased_at"

# The entries leave the stream, the item leaves every index; its number is never used again.
_ERASE_FEEDBACK = """
local item = redis.call('HGETALL', KEYS[1])
if #item == 0 then return 0 end
for i = 1, #item, 2 do
  local name, value = item[i], item[i + 1]
  if name == 'entry' or name == 'retraction' then redis.call('XDEL', KEYS[2], value) end
  if name == 'slot' and redis.call('HGET', KEYS[3], value) == ARGV[1] then redis.call('HDEL', KEYS[3], value) end
  if string.sub(name, 1, 7) == 'client:' then redis.call('HDEL', KEYS[4], string.sub(name, 8)) end
end
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
for i = 2, #ARGV do redis.call('SREM', 'feedback:on:' .. ARGV[i], ARGV[1]) end
redis.call('DEL', KEYS[1])
return recall(ARGV[1])
"""

# What went on from an erased response goes on from where that one did; a conversation without any ends. The erased set
# is written first and says for good what must not come back.
_ERASE_RESPONSE = """
local recalled = recall(ARGV[1])
local frame, branches, paths = 'response:' .. ARGV[1], 'responses:' .. KEYS[4], 'paths:' .. KEYS[4]
local parent, gone = redis.call('HGET', frame, 'parent'), {}
redis.call('SADD', KEYS[1], ARGV[1])
for i = 3, #ARGV do
  local entry = redis.call('HGET', frame, 'entry:' .. ARGV[i])
  if entry then redis.call('XDEL', KEYS[2], entry) end
  redis.call('DEL', 'completion:' .. ARGV[i])
  gone[ARGV[i]] = true
end
redis.call('DEL', frame, 'comparison:' .. ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('LREM', branches, 0, ARGV[1])
local left = redis.call('LRANGE', branches, 0, -1)
if #left == 0 then
  redis.call('DEL', KEYS[4], paths)
  redis.call('ZREM', KEYS[5], ARGV[2])
  return recalled
end
local ways = redis.call('HGETALL', paths)
for i = 1, #ways, 2 do
  if gone[ways[i + 1]] then redis.call('HDEL', paths, ways[i]) end
end
for _, id in ipairs(left) do
  if gone[redis.call('HGET', 'response:' .. id, 'parent') or ''] then
    redis.call('HDEL', 'response:' .. id, 'parent')
    if parent then redis.call('HSET', 'response:' .. id, 'parent', parent) end
  end
end
if gone[redis.call('HGET', KEYS[4], 'head') or ''] then
  local last = left[#left]
  redis.call('HSET', KEYS[4], 'head', parent or redis.call('HGET', 'response:' .. last, 'head') or last .. ':0')
end
return recalled
"""

# Answers that were laid side by side and never stored, or laid so again.
_ERASE_OFFER = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', 'comparison:' .. ARGV[1])
"""


class Erased(Record):
    """How much left the ledger, the ids of the judgements that did, the open rounds that start again, and those that do
    not: they learn from it."""

    conversations: int = 0
    completions: int = 0
    feedback: tuple[str, ...] = ()
    restarted: tuple[int, ...] = ()
    learning: tuple[int, ...] = ()

    @property
    def rounds(self) -> dict[str, list[int]]:
        return {"restarted": list(self.restarted), "learning": list(self.learning)}

    def __add__(self, other: "Erased") -> "Erased":
        return Erased(
            conversations=self.conversations + other.conversations,
            completions=self.completions + other.completions,
            feedback=(*self.feedback, *other.feedback),
            restarted=tuple(sorted({*self.restarted, *other.restarted})),
            learning=tuple(sorted({*self.learning, *other.learning})),
        )


class Traces(Record):
    """What had learned from something before it was erased."""

    rounds: tuple[int, ...]
    policies: tuple[str, ...]


class Eraser:
    """Takes things out of the ledger for good."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.ledger, self.redis = archive, archive.ledger, archive.redis
        self._feedback = self.redis.register_script(RECALL + _ERASE_FEEDBACK)
        self._response = self.redis.register_script(RECALL + _ERASE_RESPONSE)
        self._offer = self.redis.register_script(_ERASE_OFFER)

    def response(self, response: Response) -> Erased:
        """A response, its completions, and every judgement of them; the last one takes its conversation along."""
        rater, id = response.rater, response.conversation_id
        conversation, title = self.archive.conversation(rater, id), self._title(response)
        erased = self._erase(response)
        left = self.archive.branches(rater, id)
        # A title that nobody chose is the beginning of the question, which must not outlive it.
        if left and conversation and conversation.title == title != self._title(left[0]):
            self.archive.change_conversation(rater, id, title=self._title(left[0]))
        return erased if left else erased + Erased(conversations=1)

    def conversation(self, rater: str, id: str) -> Erased:
        """A conversation with all its branches, also those that are still being written."""
        self._end(rater, digest(id))
        return self._conversation(rater, id)

    def _conversation(self, rater: str, id: str) -> Erased:
        erased = Erased()
        while branches := self.archive.branches(rater, id):  # what is written meanwhile goes as well
            for response in reversed(branches):
                erased += self._erase(response)
        return erased + Erased(conversations=1)

    def person(self, rater: str) -> Erased:
        """Everything a rater asked, was answered or is being answered, and said."""
        self._end(rater, "")
        self.redis.hdel(WEIGHTS, rater)
        erased = Erased()
        for id in self.archive.conversation_ids(rater):
            erased += self._conversation(rater, id)
        for id in self.redis.zrange(f"responses:{rater}", 0, -1):
            self._forget_offer(rater, id)
        erased += self._judgements(self.archive.judgement_ids(rater))
        with suppress(ResponseError):  # one is under way already: the next will not hold it either
            self.redis.bgrewriteaof()  # until then the bytes are still in the file
        return erased

    def judgements(self, rater: str) -> set[str]:
        """The ids of all that goes with a person: what they said, and what was said of their answers."""
        conversations = (self.archive.branches(rater, id) for id in self.archive.conversation_ids(rater))
        on_theirs = {id for responses in conversations for response in responses for id in self._on(response)}
        return on_theirs | set(self.archive.judgement_ids(rater))

    def _forget_offer(self, rater: str, id: str) -> None:
        self.ledger.durably(self._offer, [ERASED, f"responses:{rater}"], [id])

    def _end(self, rater: str, of: str) -> None:
        """Answers under way to what was asked until now, in one of a person's conversations or in all (""), will not be
        stored."""
        with self.redis.pipeline() as pipe:
            pipe.unlink(OLD_MARKS)
            if not of:
                pipe.delete(erased_at(rater))
            pipe.hset(erased_at(rater), of, time.time())
            pipe.expire(erased_at(rater), MARKS_S)
            pipe.execute()

    def _erase(self, response: Response) -> Erased:
        erased = self._judgements(self._on(response))
        conversation = conversation_key(response.rater, response.conversation_id)
        keys = [ERASED, COMPLETIONS, f"responses:{response.rater}", conversation, f"conversations:{response.rater}"]
        ids = response.completion_ids
        if response.id.startswith(COMPARED):
            self._forget_offer(response.rater, repeat_id(response.id))
        recalled = self.ledger.durably(self._response, keys, [response.id, response.conversation_id, *ids])
        erased += Erased(completions=len(ids)) + _recalled(recalled)
        # Nothing more can be said of it from now on, but something may have been said meanwhile.
        return erased + self._judgements(self._on(response))

    def _on(self, response: Response) -> set[str]:
        return {id for completion in response.completion_ids for id in self.redis.smembers(f"feedback:on:{completion}")}

    def _judgements(self, ids: Iterable[str]) -> Erased:
        found = [kept.feedback for kept in self.ledger.kept(sorted(ids))]
        recalled = []
        for feedback in found:
            keys = [f"feedback:item:{feedback.id}", FEEDBACK, CURRENT, CLIENT_IDS, f"feedback:by:{feedback.rater}"]
            keys += [FEEDBACK_IDS]
            recalled.append(self.ledger.durably(self._feedback, keys, [feedback.id, *feedback.judgement.targets]))
        return Erased(feedback=tuple(feedback.id for feedback in found)) + _recalled(*recalled)

    def _title(self, response: Response) -> str:
        known = self.ledger.completions(tuple(response.completion_ids))
        return next((title_of(completion) for completion in known.values()), "")


def _recalled(*replies: int) -> Erased:
    """What `recall` replied."""
    each = (Erased(restarted=(id,)) if id > 0 else Erased(learning=(-id,)) for id in replies if id)
    return sum(each, Erased())


def traces(registry: PolicyRegistry, rater: str, feedback: Iterable[str]) -> Traces:
    """The rounds that trained on a rater or on one of the judgements, and their policies with all descendants."""
    judged = set(feedback)
    rounds: set[int] = set()
    policies: dict[int, str] = {}
    for version in sorted(registry.states()):
        with suppress(BrokenPolicy):  # nobody can say of these
            manifest = registry.manifest(version)
            lineage = manifest.lineage
            learned = rater in lineage.get("raters", ()) or bool(judged & set(lineage.get("feedback_ids", ())))
            if learned and "round" in lineage:
                rounds.add(lineage["round"])
            if learned or manifest.parent in policies:
                policies[version] = manifest.name
    return Traces(rounds=tuple(sorted(rounds)), policies=tuple(policies.values()))


def forget(eraser: Eraser, registry: PolicyRegistry, rater: str) -> tuple[Erased, Traces]:
    """Erase a person; also what learned from them, or goes on to.

    Looked for afterwards: a round that publishes meanwhile either restarts or is found.
    """
    judged = eraser.judgements(rater)
    erased = eraser.person(rater)
    found = traces(registry, rater, judged | set(erased.feedback))
    return erased, found.model_copy(update={"rounds": tuple(sorted({*found.rounds, *erased.learning}))})
