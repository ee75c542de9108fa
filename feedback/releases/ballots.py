"""What people say while a candidate is released, as votes on it; and stable against itself, as a test of the votes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from feedback.archive import Archive
from feedback.e_values import Moments, bounded_difference
from feedback.judgements import Comparison, Feedback, Ranking, rates
from feedback.people.raters import Raters
from feedback.records import Arm
from feedback.releases.book import Release
from feedback.releases.votes import Vote, Winner
from feedback.statistics import Interval
from feedback.store import Ledger, take

DAY_S = 86400
#: Of two slots that the same policy fills, the one that plays the candidate.
SECOND = "policy@stable/2"
CHUNK = 1000
#: By so much the clocks of a gateway and of Redis may differ.
SLACK_S = 60.0


class Written(BaseModel):
    """What a vote needs to know of a completion."""

    response_id: str
    choice: int
    conversation_id: str
    policy_version: int | None
    version_changed_at: int | None = None
    release: int | None = None
    arm: Arm | None = None
    propensity: float | None = None


class Place(NamedTuple):
    """Where an answer stood among those laid side by side with it, and whose it is."""

    offer: str
    slot: int
    arm: Arm


class Standing:
    """What people say since a cursor, up to another, of what is `wanted`.

    Each look reads what is new, and forgets what was erased.
    """

    def __init__(self, ledger: Ledger, since: str, wanted: Callable[[Feedback], bool], until: str = "+") -> None:
        self.ledger, self.wanted, self.until, self._cursor = ledger, wanted, until, since
        self._last: dict[str, Feedback] = {}
        self._written: dict[str, Written] = {}

    def items(self) -> list[Feedback]:
        """What counts of each slot, in order of arrival, unless its rater was set aside."""
        for cursor, said in self.ledger.said(self._cursor, self.until):
            self._cursor = cursor
            if isinstance(said, str) or self.wanted(said):
                self._take(said)
        gone = self.ledger.gone(item.id for item in self._last.values())
        self._last = {slot: item for slot, item in self._last.items() if item.id not in gone}
        aside = Raters(self.ledger.redis).quarantined()
        return [item for item in self._last.values() if item.rater not in aside]

    def _take(self, said: Feedback | str) -> None:
        """Of what was judged blind the first word counts, and stays: its answer told who wrote what. Else the last."""
        before = self._last.get(said if isinstance(said, str) else said.slot)
        if before is None or before.lane is None:
            take(self._last, said)

    def written(self, items: Iterable[Feedback]) -> Mapping[str, Written]:
        """The answers that they judge, as far as the ledger has them and one policy wrote them."""
        asked = dict.fromkeys(id for item in items for id in item.judgement.targets)
        self._written |= written_of(self.ledger, [id for id in asked if id not in self._written])
        self._written = {id: self._written[id] for id in asked if id in self._written}
        return {id: answer for id, answer in self._written.items() if answer.version_changed_at is None}


def written_of(ledger: Ledger, ids: Sequence[str]) -> dict[str, Written]:
    """Those among some completions that the ledger has."""
    found: dict[str, Written] = {}
    for chunk in _chunks(ids):
        for id, text in zip(chunk, ledger.redis.mget([f"completion:{id}" for id in chunk]), strict=True):
            if text is not None:
                found[id] = Written.model_validate_json(text)
    return found


class ReleaseFeedback:
    """What people say of one release: votes, and thumbs."""

    def __init__(self, ledger: Ledger, release: Release) -> None:
        self.release = release
        self._standing = Standing(ledger, release.since, self._counts, _until(release))

    def read(self) -> tuple[list[Vote], Interval | None]:
        """Its votes in order of arrival, and by how much more of the candidate's answers are liked."""
        items = self._standing.items()
        written = self._standing.written(items)
        arms = {id: arm for id, answer in written.items() if (arm := self._arm(answer)) is not None}
        places = {id: Place(written[id].response_id, written[id].choice, arm) for id, arm in arms.items()}
        laid = [item for item in items if item.lane == "release" and item.release == self.release.id]
        return voted(laid, places), _thumbs(self._of_conversations(items, written, arms), self.release.plan.alpha)

    def _counts(self, item: Feedback) -> bool:
        if self.release.whose == "evaluation" and item.split != "eval":
            return False
        return rates(item.judgement) if item.lane is None else item.lane == "release"

    def _arm(self, answer: Written) -> Arm | None:
        sides: dict[int | None, Arm] = {self.release.candidate: "candidate", self.release.stable: "stable"}
        return sides.get(answer.policy_version)

    def _of_conversations(
        self, items: Iterable[Feedback], written: Mapping[str, Written], arms: Mapping[str, Arm]
    ) -> Iterator[tuple[tuple[str, str], Arm, float]]:
        """((rater, conversation), arm, approval) of every answer to a conversation that chance put on the arm."""
        for item in items:
            if item.lane is None and rates(item.judgement):
                id = item.judgement.completion_id
                if id in arms and self._put(written[id], arms[id]):
                    yield (item.rater, written[id].conversation_id), arms[id], item.judgement.label

    def _put(self, answer: Written, arm: Arm) -> bool:
        """What is laid side by side, blind, has an arm too, but no chance that put its conversation there."""
        return answer.release == self.release.id and answer.arm == arm and answer.propensity is not None


def _until(release: Release) -> str:
    """Whatever came later is none of its votes. A cursor is a time of Redis's, in milliseconds."""
    return "+" if release.ended is None else str(int((release.ended + SLACK_S) * 1000))


def votes_of_release(ledger: Ledger, release: Release) -> list[Vote]:
    """Its votes in order of arrival; whoever asks again and again keeps a ReleaseFeedback."""
    return ReleaseFeedback(ledger, release).read()[0]


class StableAgainstItself:
    """Votes on two answers of one policy since a cursor: neither may win. The second plays the candidate."""

    def __init__(self, ledger: Ledger, since: str) -> None:
        self._archive = Archive(ledger)
        self._standing = Standing(ledger, since, lambda item: item.lane == "aa")
        self._slots: dict[str, dict[str, Place]] = {}

    def votes(self) -> list[Vote]:
        """In order of arrival."""
        items = self._standing.items()
        written = self._standing.written(items)
        versions: defaultdict[str, set[int | None]] = defaultdict(set)
        for answer in written.values():
            versions[answer.response_id].add(answer.policy_version)
        one = [offer for offer, found in versions.items() if len(found) == 1]
        return voted(items, {id: place for offer in one for id, place in self._places(offer).items()})

    def _places(self, offer_id: str) -> dict[str, Place]:
        if offer_id not in self._slots:
            offer = self._archive.offer(offer_id)
            self._slots[offer_id] = {
                slot.completion_id: Place(offer_id, index, "candidate" if slot.arm == SECOND else "stable")
                for index, slot in enumerate(offer.slots if offer else ())
            }
        return self._slots[offer_id]


def aa_votes(ledger: Ledger, since: str) -> list[Vote]:
    """Stable against itself, in order of arrival."""
    return StableAgainstItself(ledger, since).votes()


def voted(items: Iterable[Feedback], places: Mapping[str, Place]) -> list[Vote]:
    """One for each rater and offer, in order of arrival; of several judgements of one offer the first counts.

    Also if it is no vote, as of two answers by one policy: from then on it is told who wrote all of them.
    """
    first: dict[tuple[str, str], Vote | None] = {}
    for item in items:
        targets = item.judgement.targets
        judged = [places[id] for id in targets if id in places]
        vote = vote_of(item, judged) if len(judged) == len(targets) else None
        first.setdefault((item.rater, targets[0].partition(":")[0]), vote)
    return [vote for vote in first.values() if vote is not None]


def vote_of(item: Feedback, places: list[Place]) -> Vote | None:
    """Whose answers have the better mean tier; `places` are those of the judgement's targets.

    Symmetric if the two were the same, also where one has an answer more: chance draws which. What a partial ranking
    leaves out shares the last tier. None unless answers of both, of one offer, were judged.
    """
    judgement = item.judgement
    if not isinstance(judgement, Comparison | Ranking) or len({place.offer for place in places}) > 1:
        return None
    tiers: dict[Arm, list[int]] = {"candidate": [], "stable": []}
    first: dict[Arm, int] = {}
    for place, tier in zip(places, judgement.tiers, strict=True):
        tiers[place.arm].append(tier)
        first[place.arm] = min(place.slot, first.get(place.arm, place.slot))
    if not all(tiers.values()):
        return None
    ours = sum(tiers["candidate"]) * len(tiers["stable"])
    theirs = sum(tiers["stable"]) * len(tiers["candidate"])
    winner: Winner = "tie" if ours == theirs else "candidate" if ours < theirs else "stable"
    left = first["candidate"] < first["stable"]
    return Vote(item.rater, winner, candidate_left=left, day=int(item.created // DAY_S), time=item.created)


def _thumbs(said: Iterable[tuple[tuple[str, str], Arm, float]], alpha: float) -> Interval | None:
    """Difference of the mean approval, candidate's less stable's; one conversation on one arm is one unit.

    At all times together with confidence 1 - alpha. None before both arms have one.
    """
    units: dict[Arm, defaultdict[tuple[str, str], list[float]]] = {
        "candidate": defaultdict(list), "stable": defaultdict(list),
    }  # fmt: skip
    for conversation, arm, approval in said:
        units[arm][conversation].append(approval)
    moments = {arm: Moments.of(*(sum(all_) / len(all_) for all_ in found.values())) for arm, found in units.items()}
    if not all(each.units for each in moments.values()):
        return None
    return bounded_difference(moments["candidate"], moments["stable"], alpha)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
