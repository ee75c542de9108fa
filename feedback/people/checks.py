"""What is known of whether raters read: pairs with a decoy, pairs that come again with their sides swapped, and sides.

It proposes; to put somebody aside is an operator's act.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from feedback.archive import Archive
from feedback.e_values import flagged, log_e, log_e_below, log_e_better
from feedback.judgements import COMPARED, Comparison, Feedback, Judgement, Ranking
from feedback.records import CHECKS, Offer, Record, digest

#: Of decoys a careful rater passes over at least so many, when preferring anything at all.
LEAST_PASSED = 0.8
#: Younger judgements are remembered rather than made again.
REPEAT_AFTER_S = 600.0
#: A rater's newest judgements, among which one to repeat is looked for.
NEWEST = 1000
ALPHA = 0.05


class Checked(Record):
    """What became of a rater's checks: what it says, and each e-value's logarithm.

    `passed` and `failed` count pairs in which the decoy lost and won, `same` and `other` pairs that were judged alike
    and otherwise with sides swapped, `left` and `right` who won of what was laid blind, the sides drawn by chance. Ties
    are in none of them.
    """

    passed: int = 0
    failed: int = 0
    same: int = 0
    other: int = 0
    left: int = 0
    right: int = 0

    @property
    def log_e_careless(self) -> float:
        """Against passing over at least `LEAST_PASSED` of the decoys."""
        return log_e_below(self.passed, self.failed, LEAST_PASSED)

    @property
    def log_e_fickle(self) -> float:
        """Against saying the same again at least every second time, as who draws lots does."""
        return log_e_better(self.other, self.same)

    @property
    def log_e_side(self) -> float:
        """Against choosing left and right alike."""
        return log_e(self.left, self.right)

    @property
    def told(self) -> dict[str, float]:
        """Counts, and e-values' logarithms."""
        names = ("log_e_careless", "log_e_fickle", "log_e_side")
        return {**self.model_dump(), **{name: getattr(self, name) for name in names}}


def checked(standing: Sequence[Feedback], archive: Archive) -> dict[str, Checked]:
    """What became of each rater's checks, by what stands."""
    gold = {id.partition(":")[0] for item in standing if item.lane == "gold" for id in item.judgement.targets}
    offers = archive.offers(sorted(gold))
    decoys = {slot.completion_id for offer in offers.values() for slot in offer.slots if slot.arm == "gold"}
    return counted(standing, decoys)


def counted(standing: Iterable[Feedback], decoys: Collection[str]) -> dict[str, Checked]:
    """What each rater's judgements come to; `decoys` are the completions that answer another question."""
    chosen = [
        (item, item.judgement.comparison_id, best)
        for item in standing
        if isinstance(item.judgement, Comparison | Ranking) and (best := preferred(item.judgement))
    ]
    first = {_pair(item): best for item, _, best in chosen if not item.is_check}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item, comparison_id, best in chosen:
        said, targets = counts[item.rater], item.judgement.targets
        if item.lane == "gold":
            said["failed" if best in decoys else "passed"] += 1
        if item.lane == "repeat" and (earlier := first.get(_pair(item))):
            said["same" if best == earlier else "other"] += 1
        if item.lane != "repeat" and comparison_id and len(targets) == 2:  # otherwise nobody drew the sides
            said["left" if best == targets[0] else "right"] += 1
    return {rater: Checked(**count) for rater, count in counts.items()}


def _pair(item: Feedback) -> tuple[str, frozenset[str]]:
    """The same for two judgements of one rater on the same answers, however these stood."""
    return item.rater, frozenset(item.judgement.targets)


def preferred(judgement: Judgement) -> str | None:
    """The one answer that is better than all others, if there is one."""
    if not isinstance(judgement, Comparison | Ranking):
        return None
    best = [id for id, tier in zip(judgement.targets, judgement.tiers, strict=True) if tier == 0]
    return best[0] if len(best) == 1 else None


def suspects(raters: Mapping[str, Checked], alpha: float = ALPHA) -> dict[str, list[str]]:
    """Whom to put aside and why. Of those named for one reason on average at most alpha are innocent."""
    careless = flagged({rater: each.log_e_careless for rater, each in raters.items()}, alpha)
    fickle = flagged({rater: each.log_e_fickle for rater, each in raters.items()}, alpha)
    sided = flagged({rater: each.log_e_side for rater, each in raters.items()}, alpha)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for rater in careless:
        failed = raters[rater].failed
        found[rater].append(f"preferred {failed} of {failed + raters[rater].passed} decoys")
    for rater in fickle:
        other = raters[rater].other
        found[rater].append(f"said otherwise {other} of {other + raters[rater].same} times with sides swapped")
    for rater in sided:
        left, right = raters[rater].left, raters[rater].right
        found[rater].append(f"chose {'left' if left > right else 'right'} {max(left, right)} of {left + right} times")
    return dict(found)


def repeatable(archive: Archive, rater: str, before: float) -> list[Offer]:
    """Pairs laid blind that a rater chose between before that time, and was not asked of again."""
    said = archive.ledger.kept(archive.judgement_ids(rater)[-NEWEST:])
    standing = [kept.feedback for kept in said if kept.stands]
    asked_again = {frozenset(item.judgement.targets) for item in standing if item.lane == "repeat"}
    chosen = [
        comparison_id
        for item in standing
        if isinstance(item.judgement, Comparison)
        and item.judgement.winner in ("left", "right")
        and (comparison_id := item.judgement.comparison_id)
        and item.lane not in CHECKS
        and item.created <= before
        and frozenset(item.judgement.targets) not in asked_again
    ]
    offers = archive.offers(chosen)
    return [offers[id] for id in chosen if id in offers]


def again(offer: Offer, now: float) -> Offer:
    """The same answers in the other order. Its id is the pair's own, so a pair comes again once."""
    changes = {"id": repeat_id(offer.id), "slots": offer.slots[::-1], "lane": "repeat", "release": None}
    return offer.model_copy(update={**changes, "propensity": 1.0, "created": now})


def repeat_id(comparison_id: str) -> str:
    """What an offer is called when it comes again."""
    return COMPARED + digest(["repeat", comparison_id])[:32]
