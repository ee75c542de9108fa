"""What a vote needs to know of an answer: remembered where it was written, or read once from the ledger."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool

from feedback.records import Completion
from feedback.store import Ledger

REMEMBERED = 20_000


class Shown(NamedTuple):
    """The facts of a completion that never change."""

    rater: str
    conversation_id: str
    prompt_digest: str
    finish_reason: str
    policy_version: int | None
    decoy: bool = False


class ShownAnswers:
    """The newest answers by id. One that was erased since may still be here: the ledger refuses judgements of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: OrderedDict[str, Shown] = OrderedDict()

    def remember(self, completions: Iterable[Completion]) -> None:
        for each in completions:
            facts = (each.rater, each.conversation_id, each.prompt_digest, each.finish_reason, each.policy_version)
            self._known[each.id] = Shown(*facts, each.decoy)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def find(self, ids: tuple[str, ...]) -> dict[str, Shown]:
        """Those among `ids` that were ever stored. Raises RedisError when it has to ask and nobody answers."""
        missing = tuple(id for id in ids if id not in self._known)
        if missing:
            self.remember((await run_in_threadpool(self._ledger.completions, missing)).values())
        return {id: self._known[id] for id in ids if id in self._known}
