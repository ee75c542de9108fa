"""Judgements page by page, by age, as somebody asks for them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from feedback.blinding import blind
from feedback.judgements import IMPORTED_ID, Feedback
from feedback.people.raters import Raters
from feedback.records import Lane, Message
from feedback.releases.ballots import written_of
from feedback.store import FEEDBACK_IDS, Kept, Ledger

BATCH = 200
#: So many are looked at for one page; where few are asked for, whoever asks goes on from there.
MOST_LOOKED_AT = 2000
#: By so much an id may be older or younger than what it names.
SLACK_S = 60.0
#: So many characters of a question tell which it was.
BEGINNING = 120


@dataclass(frozen=True)
class Sought:
    """Which judgements, and in which order; None is any. Times are Unix seconds, `until` excluded."""

    rater: str | None = None
    type: str | None = None
    completion_id: str | None = None
    policy_version: int | None = None
    split: str | None = None
    lane: Lane | None = None
    quarantined: bool | None = None
    since: float | None = None
    until: float | None = None
    newest_first: bool = False

    def fits(self, said: Feedback, aside: Collection[str]) -> bool:
        """But for the policy, which the judgement does not tell."""
        wanted = (self.rater, self.type, self.split, self.lane, self.quarantined)
        found = (said.rater, said.judgement.type, said.split, said.lane, said.rater in aside)
        same = all(wish in (None, fact) for wish, fact in zip(wanted, found, strict=True))
        return same and (self.since or 0.0) <= said.created and (self.until is None or said.created < self.until)


class Listed(NamedTuple):
    """A page; the next one comes after `last`, which need not be on it. `more`: there may be a next one."""

    items: list[Kept]
    last: str | None
    more: bool


def listed(ledger: Ledger, sought: Sought, after: str, limit: int) -> Listed:
    """Those that stand, after one of them ("" = from the first on). Imported ones come last, whatever the order."""
    aside = Raters(ledger.redis).quarantined().keys() if sought.quarantined is not None else ()
    found: list[Kept] = []
    looked_at = 0
    for ids in _batches(ledger, sought, after):
        fitting = [kept for kept in ledger.kept(ids) if kept.stands and sought.fits(kept.feedback, aside)]
        found += _by_policy(ledger, fitting, sought.policy_version)
        looked_at += len(ids)
        if len(found) > limit:
            return Listed(found[:limit], found[limit - 1].feedback.id, more=True)
        if looked_at >= MOST_LOOKED_AT:
            return Listed(found, ids[-1], more=True)
    return Listed(found, found[-1].feedback.id if found else None, more=False)


class Question(NamedTuple):
    """What was asked, its beginning, and in which of the rater's conversations; None is another person's."""

    conversation_id: str | None
    question: str


class _Answered(BaseModel):
    """What this needs of a completion."""

    rater: str
    conversation_id: str
    messages: tuple[Message, ...]


def questions_of(ledger: Ledger, items: Iterable[Feedback]) -> dict[str, Question]:
    """By a judgement's id; whose answer the ledger does not have has none."""
    said = list(items)
    if not said:
        return {}
    raw = ledger.redis.mget([f"completion:{each.judgement.targets[0]}" for each in said])
    found = {}
    for each, text in zip(said, raw, strict=True):
        if text is not None:
            answered = _Answered.model_validate_json(text)
            own = answered.conversation_id if answered.rater == each.rater else None
            found[each.id] = Question(own, _beginning(answered.messages))
    return found


def policies_of(ledger: Ledger, items: Iterable[Feedback]) -> dict[str, list[int]]:
    """By a judgement's id the policies that wrote what it judges, in its order; what was imported has none."""
    said = list(items)
    asked = dict.fromkeys(target for each in said for target in each.judgement.targets)
    written = written_of(ledger, list(asked))
    versions = {id: answer.policy_version for id, answer in written.items() if answer.policy_version is not None}
    judged = {each.id: [versions[id] for id in each.judgement.targets if id in versions] for each in said}
    return {id: list(dict.fromkeys(found)) for id, found in judged.items()}


def _beginning(messages: Sequence[Message]) -> str:
    """Of what was asked last."""
    asked = next((message.content for message in reversed(messages) if message.role == "user"), "")
    return " ".join(asked.split())[:BEGINNING]


def _by_policy(ledger: Ledger, items: list[Kept], version: int | None) -> list[Kept]:
    """Without what is still compared blind: to find it by who wrote it would tell who did."""
    if version is None:
        return items
    versions = policies_of(ledger, (kept.feedback for kept in items))
    fitting = [kept for kept in items if version in versions[kept.feedback.id]]
    unseen = blind(ledger, [kept.feedback for kept in fitting])
    return [kept for kept in fitting if kept.feedback.id not in unseen]


def _batches(ledger: Ledger, sought: Sought, after: str) -> Iterator[list[str]]:
    """Ids in order, without those that are too old or too young by what they tell."""
    index = FEEDBACK_IDS if sought.rater is None else f"feedback:by:{sought.rater}"
    for low, high in _spans(sought, after):
        if sought.completion_id is None:
            yield from _between(ledger, index, low, high, sought.newest_first)
        else:  # few, however many there are in all
            about = ledger.redis.smembers(f"feedback:on:{sought.completion_id}")
            if ids := sorted((id for id in about if _within(id, low, high)), reverse=sought.newest_first):
                yield ids


def _spans(sought: Sought, after: str) -> Iterator[tuple[str, str]]:
    """Low and high ends, as Redis writes them: of ids that tell a time, then of those that do not."""
    since = "-" if sought.since is None else f"[{_id_of(sought.since - SLACK_S)}"
    until = f"({IMPORTED_ID}" if sought.until is None else f"[{_id_of(sought.until + SLACK_S)}"
    begun, last = f"({after}", after >= IMPORTED_ID
    if not last:
        low = begun if after and not sought.newest_first and after > since[1:] else since
        high = begun if after and sought.newest_first and after < until[1:] else until
        yield low, high
    if sought.newest_first:
        yield f"[{IMPORTED_ID}", begun if last else "+"
    else:
        yield begun if last else f"[{IMPORTED_ID}", "+"


def _between(ledger: Ledger, index: str, low: str, high: str, newest_first: bool) -> Iterator[list[str]]:
    while True:
        if newest_first:
            ids = ledger.redis.zrevrangebylex(index, high, low, start=0, num=BATCH)
        else:
            ids = ledger.redis.zrangebylex(index, low, high, start=0, num=BATCH)
        if not ids:
            return
        yield ids
        low, high = (low, f"({ids[-1]}") if newest_first else (f"({ids[-1]}", high)


def _id_of(seconds: float) -> str:
    """What an id of that time begins with."""
    return f"fb_{max(int(seconds * 1000), 0):012x}"


def _within(id: str, low: str, high: str) -> bool:
    """Ends are written as Redis writes them."""
    above = low == "-" or id > low[1:] or id == low[1:] and low[0] == "["
    return above and (high == "+" or id < high[1:] or id == high[1:] and high[0] == "[")
