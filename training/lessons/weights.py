"""What a judgement is worth to the reward model: how far its rater agrees with others, its age, where it came from.

And no rater has more than a share of the whole. Pure arithmetic; held-out judgements have no part in it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import log, sqrt
from statistics import fmean
from typing import Any

from feedback.people.raters import RaterWeight
from training.config import WeightsConfig
from training.lessons.answers import Ids
from training.lessons.judged import RankedAnswers, RatedAnswer

DAY_S = 86_400.0
#: What is assumed of all raters together is worth so many times what is assumed of one.
POPULATION = 10
TOP = 3

#: What was judged: two answers to a prompt in a fixed order, or one answer.
Topic = tuple[int, ...]


@dataclass(frozen=True)
class Opinion:
    """One term of the reward model's loss, by whom it was said and when.

    `says` holds of each pair of answers the first one's share of the win (1, 0.5 or 0), and of a rated answer its share
    of approval.
    """

    rater: str
    source: str
    created: float
    says: Mapping[Topic, float]
    worth: float = 1.0  # its part of the judgement that it is from


class Topics:
    """Numbers answers by what they say: equal answers to equal prompts are one topic, whoever got them."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Ids, Ids], int] = {}  # long texts are hashed once

    def ranked(
        self, prompt: Ids, completions: Sequence[Ids], tiers: Sequence[int], unplaced: int | None = None
    ) -> dict[Topic, float]:
        """What a ranking says; 0 is the best tier, equal ones are ties, except among the unplaced."""
        numbers = [self._number(prompt, completion) for completion in completions]
        said: dict[Topic, float] = {}
        for (a, i), (b, j) in combinations(sorted(zip(numbers, tiers, strict=True)), 2):
            if a != b and not i == j == unplaced:  # an answer that was sampled twice says nothing against itself
                said[a, b] = 0.5 if i == j else float(i < j)
        return said

    def rated(self, prompt: Ids, completion: Ids, label: float) -> dict[Topic, float]:
        """What a thumb or a mark says."""
        return {(self._number(prompt, completion),): label}

    def _number(self, prompt: Ids, completion: Ids) -> int:
        return self._numbers.setdefault((prompt, completion), len(self._numbers))


@dataclass(frozen=True)
class Agreement:
    """`total` / `count` is a rater's mean agreement with the others, over `count` judgements that can be compared."""

    total: float
    count: int


def weighted(
    rankings: Sequence[RankedAnswers],
    ratings: Sequence[RatedAnswer],
    created: Mapping[str, float],
    config: WeightsConfig,
) -> tuple[list[RankedAnswers], list[RatedAnswer], list[RaterWeight]]:
    """The same with their weights, without those that have none, and what came out for each rater. The weight that one
    comes with is its part of a judgement.

    `created` knows when each judgement was made.
    """
    topics = Topics()
    said = [topics.ranked(r.prompt_ids, r.completions, r.tiers, r.unplaced) for r in rankings]
    said += [topics.rated(r.prompt_ids, r.completion_ids, r.label) for r in ratings]
    terms: list[RankedAnswers | RatedAnswer] = [*rankings, *ratings]
    opinions = [
        Opinion(r.rater, r.source, created[r.feedback_id], says, r.weight) for r, says in zip(terms, said, strict=True)
    ]
    weights, raters = weigh(opinions, config)
    first, rest = weights[: len(rankings)], weights[len(rankings) :]
    ranked = [r.model_copy(update={"weight": w}) for r, w in zip(rankings, first, strict=True) if w > 0]
    rated = [r.model_copy(update={"weight": w}) for r, w in zip(ratings, rest, strict=True) if w > 0]
    return ranked, rated, raters


def weigh(opinions: Sequence[Opinion], config: WeightsConfig) -> tuple[list[float], list[RaterWeight]]:
    """The weight of each opinion, and what came out for each rater.

    A weight is worth x reliability x recency x source, then capped.

    The cap holds within each source: an imported file without names is a single rater, and so is an operator.
    """
    agreed = agreements(opinions)
    reliability = reliability_weights(agreed, config.prior_agreement, config.prior_judgements)
    newest = max((opinion.created for opinion in opinions), default=0.0)
    plain = [
        opinion.worth
        * reliability.get(opinion.rater, 1.0)
        * recency(newest - opinion.created, config.recency_half_life_days)
        * config.source_weights.get(opinion.source, 1.0)
        for opinion in opinions
    ]
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # by source and rater
    for opinion, weight in zip(opinions, plain, strict=True):
        totals[opinion.source][opinion.rater] += weight
    capped = {source: water_filled(by_rater, config.rater_cap) for source, by_rater in totals.items()}
    factors = {
        (source, rater): capped[source][rater] / total if total else 0.0
        for source, by_rater in totals.items()
        for rater, total in by_rater.items()
    }
    weights = [w * factors[opinion.source, opinion.rater] for opinion, w in zip(opinions, plain, strict=True)]
    judgements = Counter((opinion.source, opinion.rater) for opinion in opinions)
    whole = sum(weights)
    return weights, [
        RaterWeight(
            rater=rater,
            source=source,
            judgements=count,
            compared=agreed[rater].count if rater in agreed else 0,
            agreement=agreed[rater].total / agreed[rater].count if rater in agreed else None,
            reliability=reliability.get(rater, 1.0),
            share=capped[source][rater] / whole if whole else 0.0,
            capped=capped[source][rater] < totals[source][rater],
        )
        for (source, rater), count in sorted(judgements.items())
    ]


def in_short(raters: Sequence[RaterWeight]) -> dict[str, Any]:
    """What a round's record says of its raters: the largest shares, and who is doubted most."""
    largest = sorted(raters, key=lambda each: -each.share)[:TOP]
    doubted = sorted((each for each in raters if each.reliability < 1), key=lambda each: each.reliability)[:TOP]
    return {
        "count": len(raters),
        "capped": sum(each.capped for each in raters),
        "largest_share": {each.rater: each.share for each in largest},
        "least_reliable": {each.rater: each.reliability for each in doubted},
    }


def agreements(opinions: Iterable[Opinion]) -> dict[str, Agreement]:
    """How far each rater says what the others say (leave one out); nothing of those who judged alone.

    Two values agree to 1 - |x - y|. The others on a topic count alike, the topics of one judgement share its vote, and
    whoever spoke more than once on a topic holds the mean there.
    """
    opinions = list(opinions)
    spoken: dict[Topic, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for opinion in opinions:
        for topic, value in opinion.says.items():
            spoken[topic][opinion.rater].append(value)
    held = {
        topic: {rater: fmean(values) for rater, values in voices.items()}
        for topic, voices in spoken.items()
        if len(voices) > 1
    }
    found: dict[str, list[float]] = defaultdict(list)
    for opinion in opinions:
        shared = [
            fmean(1 - abs(value - other) for rater, other in held[topic].items() if rater != opinion.rater)
            for topic, value in opinion.says.items()
            if topic in held
        ]
        if shared:
            found[opinion.rater].append(fmean(shared))
    return {rater: Agreement(sum(values), len(values)) for rater, values in found.items()}


def reliability_weights(agreed: Mapping[str, Agreement], prior: float, strength: float) -> dict[str, float]:
    """The weight in [0, 1] of each rater whose agreement is known.

    A rater's agreement is the posterior mean under a Beta prior worth `strength` judgements around that of all raters:
    few judgements stay near it. Theirs has one around `prior`, worth more: else a handful of disputes, in which nobody
    knows who is right, would make both sides worthless.
    """
    total, count = sum(each.total for each in agreed.values()), sum(each.count for each in agreed.values())
    population = (total + POPULATION * strength * prior) / (count + POPULATION * strength)
    return {
        rater: log_odds_weight((each.total + strength * population) / (each.count + strength), population)
        for rater, each in agreed.items()
    }


def log_odds_weight(agreement: float, population: float) -> float:
    """A rater's log-odds of being right over those of a typical rater, within [0, 1].

    One-coin model (Dawid & Skene 1979): who is right with probability q agrees with one who is right with m in
    q m + (1 - q)(1 - m) of the cases, and two typical ones in m^2 + (1 - m)^2 = `population`. Votes weigh log q/(1 - q)
    (Nitzan & Paroush 1982); at a coin's q and below nothing, and nobody more than the typical rater.
    """
    skill = sqrt(max(2 * population - 1, 0.0))  # 2 m - 1
    if skill == 0:
        return 1.0  # nobody agrees with anybody: that says nothing about one of them
    typical, right = (1 + skill) / 2, 0.5 + (agreement - 0.5) / skill
    if right >= typical:
        return 1.0
    return log(right / (1 - right)) / log(typical / (1 - typical)) if right > 0.5 else 0.0


def recency(age_s: float, half_life_days: float | None) -> float:
    """1 for the newest, half of it after each half-life; None = age does not matter."""
    return 1.0 if half_life_days is None else 0.5 ** (age_s / (half_life_days * DAY_S))


def water_filled(totals: Mapping[str, float], cap: float) -> dict[str, float]:
    """Each total, cut to one common level where it is above: then no cut one exceeds `cap` of the new sum.

    But twice an equal share is always allowed (2 / raters, so that one or two are never cut). With c totals at the
    level L and the others summing to U, L = cap (U + c L), so L = cap U / (1 - c cap); c is the least that fits. One
    of which another would have the whole fits always: L is then U or more, which rounding must not hide.
    """
    descending = sorted((total for total in totals.values() if total > 0), reverse=True)
    cap = max(cap, 2 / len(descending)) if descending else cap
    remaining = list(accumulate(reversed(descending)))[::-1]  # the sum of each total and all below it
    level = 0.0
    for count, (largest, rest) in enumerate(zip(descending, remaining, strict=True)):
        level = cap * rest / (1 - count * cap)
        if largest <= level or (count + 1) * cap >= 1 - 1e-9:
            break
    return {rater: min(total, level) for rater, total in totals.items()}
