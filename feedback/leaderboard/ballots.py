"""What people said in the ledger as votes on policy versions, and the leaderboard of them."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import NamedTuple

from pydantic import BaseModel

from feedback.judgements import Comparison, Feedback, Ranking, offer_behind
from feedback.leaderboard.board import leaderboard
from feedback.leaderboard.bradley_terry import Vote
from feedback.leaderboard.standings import Leaderboard, Whose
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry, UnknownPolicy
from feedback.store import Ledger

SPLITS: dict[Whose, tuple[str, ...]] = {"all": ("train", "eval"), "evaluation": ("eval",), "training": ("train",)}

CHUNK = 1000
#: Differences of length are kept to an eighth of an e-fold, and beyond e^3 they are all the same.
GRAIN, WIDEST = 8, 3 * 8


class Answer(NamedTuple):
    version: int
    tokens: int


class _Written(BaseModel):
    """What a vote needs to know of a completion: reading all of it takes ten times as long."""

    policy_version: int | None
    version_changed_at: int | None = None
    completion_token_ids: list[int]
    decoy: bool = False

    @property
    def version(self) -> int | None:
        """Whose it is; nobody's if several wrote it, it was imported, or answers another question."""
        return None if self.decoy or self.version_changed_at is not None else self.policy_version


def board_of(
    ledger: Ledger, registry: PolicyRegistry, *, whose: Whose = "all", blind: bool = False, anchor: int = 0,
    draws: int = 0,
) -> Leaderboard:  # fmt: skip
    """All versions by what people say now. Raises UnknownPolicy when there is no such anchor."""
    versions = registry.states()
    if versions and anchor not in versions:
        raise UnknownPolicy(f"policy-v{anchor} does not exist")
    quarantined = Raters(ledger.redis).quarantined()
    votes = votes_in(ledger, whose=whose, quarantined=quarantined, blind=blind)
    return leaderboard(votes, versions=versions, anchor=anchor, stable=registry.stable(), draws=draws)


def votes_in(
    ledger: Ledger, *, whose: Whose = "all", quarantined: Collection[str] = (), blind: bool = False
) -> list[Vote]:
    """The votes that stand, without those of raters in quarantine; `blind` leaves only those on answers laid blind, of
    which the first word counts: it was told who wrote what.

    An answer that two versions wrote, and one that was imported, is no version's. Checks of raters are no votes.
    """
    standing = [
        item
        for item in (_first_words(ledger) if blind else ledger.standing(ledger.watermark()))
        if isinstance(item.judgement, Comparison | Ranking)
        and not item.is_check
        and item.split in SPLITS[whose]
        and item.rater not in quarantined
        and (not blind or _laid_blind(item.judgement))
    ]
    known = _answers(ledger, {id for item in standing for id in item.judgement.targets})
    return [vote for item in standing for vote in votes_of(item, known)]


def _first_words(ledger: Ledger) -> list[Feedback]:
    """The first judgement of each slot, and of all on answers of one offer, whatever was said later."""
    first: dict[tuple[str, str], Feedback] = {}
    for _, said in ledger.said("0"):
        if isinstance(said, Feedback):
            offer = offer_behind(said.judgement)
            first.setdefault((said.rater, offer) if offer and not said.is_check else ("", said.slot), said)
    gone = ledger.gone(item.id for item in first.values())
    return [item for item in first.values() if item.id not in gone]


def _laid_blind(judgement: Comparison | Ranking) -> bool:
    return judgement.comparison_id is not None or offer_behind(judgement) is not None


def votes_of(item: Feedback, known: Mapping[str, Answer]) -> list[Vote]:
    """All pairs of a comparison's or ranking's answers by different versions, in the order in which they were shown.

    Those that a partial ranking left out are not compared with each other.
    """
    judgement = item.judgement
    if not isinstance(judgement, Comparison | Ranking):
        return []
    tiers = dict(zip(judgement.targets, judgement.tiers, strict=True))
    last = judgement.unplaced if isinstance(judgement, Ranking) and judgement.partial else None
    shown, side = _as_shown(item, judgement)
    return [
        Vote(
            known[a].version, known[b].version,
            result=0.5 if tiers[a] == tiers[b] else float(tiers[a] < tiers[b]),
            rater=item.rater, side=side, longer=_longer(known[a].tokens, known[b].tokens),
        )
        for a, b in combinations([id for id in shown if id in known], 2)
        if known[a].version != known[b].version and not tiers[a] == tiers[b] == last
    ]  # fmt: skip


def _as_shown(item: Feedback, judgement: Comparison | Ranking) -> tuple[Sequence[str], float]:
    """The answers as they stood from left to right, and 1; or 0 when nobody knows how they stood."""
    told = item.circumstances.presented_order
    if not judgement.comparison_id and {*told} == {*judgement.targets}:
        return told, 1.0
    if isinstance(judgement, Ranking) and not judgement.comparison_id and offer_behind(judgement):
        return sorted(judgement.targets, key=_place), 1.0
    return judgement.targets, float(isinstance(judgement, Comparison) or judgement.comparison_id is not None)


def _place(target: str) -> int:
    """Answers of an offer are numbered from left to right; those of files may be called anything."""
    number = target.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _longer(left: int, right: int) -> float:
    """The log of the ratio of two lengths, in steps of 1 / GRAIN."""
    steps = round(GRAIN * math.log((left + 1) / (right + 1)))
    return max(-WIDEST, min(WIDEST, steps)) / GRAIN


def _answers(ledger: Ledger, ids: Iterable[str]) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for chunk in _chunks(ids):
        for id, text in zip(chunk, ledger.redis.mget([f"completion:{id}" for id in chunk]), strict=True):
            written = None if text is None else _Written.model_validate_json(text)
            if written and written.version is not None:
                found[id] = Answer(written.version, len(written.completion_token_ids))
    return found


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
