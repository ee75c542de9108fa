"""From the ledger to what a round trains on: fixed at one watermark, saved as one JSON file, repeatable from it.

Only completions whose people consented are taken; a completion that two policies wrote is left out, a truncated one is
not. What evaluation-only raters said and asked never trains, nor does anything said about a fixed share of the prompts:
it is kept apart, and the gate decides by it.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from feedback.records import Comparison, Completion, Demonstration, Feedback, Message, Ranking, Rating, Record, digest
from feedback.store import Ledger
from training.config import RoundConfig

MIN_RANKINGS = 8
MAX_PROMPTS_PER_RATER = 200
MAX_COMPLETIONS = 20_000
CHUNK = 500

Ids = tuple[int, ...]


class Refused(RuntimeError):
    """The round ends here without a policy; the message is the one-line reason."""

    def __init__(self, reason: str, metrics: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.metrics = metrics or {}


class RankedAnswers(Record):
    """Completions of one prompt with their places: 0 is the best, equal places are ties."""

    feedback_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    tiers: tuple[int, ...]


class RatedAnswer(Record):
    """A completion and its share of approval, 0 to 1."""

    feedback_id: str
    prompt_ids: Ids
    completion_ids: Ids
    label: float


class WrittenAnswer(Record):
    """What a person would have answered; text, because no engine ever tokenised it."""

    feedback_id: str
    messages: tuple[Message, ...]
    content: str


class TrainingData(Record):
    """Everything a round learns from and is judged by, and where it came from."""

    schema_version: int = 1
    watermark: str
    since: str
    parent: int
    seed: int
    config: dict[str, Any]
    rankings: tuple[RankedAnswers, ...]
    held_out_rankings: tuple[RankedAnswers, ...]
    ratings: tuple[RatedAnswer, ...]
    demonstrations: tuple[WrittenAnswer, ...]
    new_demonstrations: int
    prompts: tuple[Ids, ...]
    held_out_prompts: tuple[Ids, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How much there is of each kind."""
        return {
            "rankings": len(self.rankings),
            "held_out_rankings": len(self.held_out_rankings),
            "ratings": len(self.ratings),
            "demonstrations": len(self.demonstrations),
            "new_demonstrations": self.new_demonstrations,
            "prompts": len(self.prompts),
            "held_out_prompts": len(self.held_out_prompts),
        }

    @property
    def feedback_ids(self) -> list[str]:
        """The judgements that trained: deleting one of them concerns every policy from this round on."""
        kinds = (self.rankings, self.ratings, self.demonstrations)
        return sorted({item.feedback_id for items in kinds for item in items})

    def refuse_if_too_little(self) -> None:
        """Raises Refused when there is not enough to learn from."""
        count = len(self.rankings) + len(self.held_out_rankings)
        if count < MIN_RANKINGS or not self.rankings:
            raise Refused(
                f"{count} rankings, {len(self.rankings)} of them may train; at least {MIN_RANKINGS} are needed"
            )
        if not self.prompts:
            raise Refused("no prompt to practise on: all are too long, held out, or without consent")
        if not self.held_out_rankings:
            raise Refused("no held-out ranking to prove the reward model by")
        if len(self.held_out_prompts) < 2:
            raise Refused(f"{len(self.held_out_prompts)} held-out prompts; the gate needs at least 2")


def collect(
    ledger: Ledger,
    *,
    watermark: str,
    since: str,
    parent: int,
    seed: int,
    config: RoundConfig,
    is_held_out: Callable[[str], bool],
) -> TrainingData:
    """What people say as of `watermark`; `since` is the previous round's, `is_held_out` asks about a rater."""
    standing = ledger.standing(watermark)
    known = _usable(ledger, {target for item in standing for target in item.judgement.targets})
    training = [item for item in standing if item.split == "train"]
    evaluation = [item for item in standing if item.split == "eval"]
    demonstrations = [written for item in training if (written := _written(item, known))]
    fresh = {item.id for _, item in ledger.feedback_between(since, watermark)} if since != watermark else set()
    rankings = [ranked for item in training if (ranked := _ranked(item, known))]
    unseen = _first_by_digest((ranked.prompt_ids for ranked in rankings), config.reward.held_out_fraction)
    max_prompt = config.reward.max_tokens - config.ppo.max_new_tokens  # longer ones could not be scored whole
    prompts, held_out = _prompts(_newest(ledger), is_held_out, max_prompt, config.gate.prompts, seed)
    return TrainingData(
        watermark=watermark,
        since=since,
        parent=parent,
        seed=seed,
        config=config.to_dict(),
        rankings=tuple(ranked for ranked in rankings if ranked.prompt_ids not in unseen),
        held_out_rankings=(
            *(ranked for item in evaluation if (ranked := _ranked(item, known))),
            *(ranked for ranked in rankings if ranked.prompt_ids in unseen),
        ),
        ratings=tuple(rated for item in training for rated in _rated(item, known) if rated.prompt_ids not in unseen),
        demonstrations=tuple(demonstrations),
        new_demonstrations=sum(written.feedback_id in fresh for written in demonstrations),
        prompts=prompts,
        held_out_prompts=held_out,
    )


def _usable(ledger: Ledger, ids: Iterable[str]) -> dict[str, Completion]:
    """The completions among `ids` that may train and can be attributed to one policy."""
    ordered = sorted(ids)
    found: dict[str, Completion] = {}
    for start in range(0, len(ordered), CHUNK):
        found |= ledger.completions(tuple(ordered[start : start + CHUNK]))
    return {id: completion for id, completion in found.items() if _is_usable(completion)}


def _is_usable(completion: Completion) -> bool:
    return (
        completion.consent
        and completion.version_changed_at is None
        and bool(completion.prompt_token_ids)
        and bool(completion.completion_token_ids)
    )


def _newest(ledger: Ledger) -> list[Completion]:
    """The newest usable completions, oldest of them first."""
    ids = ledger.completion_ids()[-MAX_COMPLETIONS:]
    known = _usable(ledger, ids)
    return [known[id] for id in ids if id in known]


def _ranked(item: Feedback, known: dict[str, Completion]) -> RankedAnswers | None:
    """A ranking or a comparison over the completions that are known; None when fewer than two are left."""
    judgement = item.judgement
    if not isinstance(judgement, Ranking | Comparison) or _both_bad(item):
        return None
    placed = [(known[id], tier) for id, tier in zip(judgement.targets, judgement.tiers, strict=True) if id in known]
    # The same messages become other tokens when the chat template changes; tokens of two templates do not compare.
    placed = [(completion, tier) for completion, tier in placed if _same_prompt(completion, placed[0][0])]
    if len(placed) < 2:
        return None
    return RankedAnswers(
        feedback_id=item.id,
        prompt_ids=placed[0][0].prompt_token_ids,
        completions=tuple(completion.completion_token_ids for completion, _ in placed),
        tiers=tuple(tier for _, tier in placed),
    )


def _same_prompt(a: Completion, b: Completion) -> bool:
    return a.prompt_token_ids == b.prompt_token_ids


def _both_bad(item: Feedback) -> bool:
    return isinstance(item.judgement, Comparison) and item.judgement.winner == "both_bad"


def _rated(item: Feedback, known: dict[str, Completion]) -> list[RatedAnswer]:
    """A rating as it is; "both bad" as two thumbs down."""
    judgement = item.judgement
    if not isinstance(judgement, Rating) and not _both_bad(item):
        return []
    label = judgement.label if isinstance(judgement, Rating) else 0.0
    return [
        RatedAnswer(
            feedback_id=item.id,
            prompt_ids=known[id].prompt_token_ids,
            completion_ids=known[id].completion_token_ids,
            label=label,
        )
        for id in judgement.targets
        if id in known
    ]


def _written(item: Feedback, known: dict[str, Completion]) -> WrittenAnswer | None:
    judgement = item.judgement
    if not isinstance(judgement, Demonstration) or judgement.completion_id not in known:
        return None
    messages = known[judgement.completion_id].messages
    return WrittenAnswer(feedback_id=item.id, messages=messages, content=judgement.content)


def _first_by_digest(prompts: Iterable[Ids], fraction: float) -> set[Ids]:
    """A share of the distinct prompts, nearly the same ones in every round: what is held out stays unseen for good."""
    distinct = sorted(set(prompts), key=digest)
    return set(distinct[: round(fraction * len(distinct))])


def _prompts(
    completions: Sequence[Completion], is_held_out: Callable[[str], bool], max_tokens: int, held_out: int, seed: int
) -> tuple[tuple[Ids, ...], tuple[Ids, ...]]:
    """(prompts to practise on, shuffled; prompts that only the gate sees), all distinct.

    The gate's are those of evaluation-only raters. Where they are fewer than `held_out`, up to a third of the others
    joins them, chosen by digest: so a prompt is the gate's in nearly every round, or in none.
    """
    by_rater: dict[str, int] = {}
    training: dict[Ids, None] = {}
    evaluation: dict[Ids, None] = {}
    for completion in reversed(completions):  # a rater's newest prompts count
        ids = completion.prompt_token_ids
        kind = evaluation if is_held_out(completion.rater) else training
        if ids in kind or len(ids) > max_tokens or by_rater.get(completion.rater, 0) >= MAX_PROMPTS_PER_RATER:
            continue
        by_rater[completion.rater] = by_rater.get(completion.rater, 0) + 1
        kind[ids] = None
    shared = [ids for ids in training if ids not in evaluation]
    missing = max(0, held_out - len(evaluation))
    moved = sorted(shared, key=digest)[: min(missing, len(shared) // 3)]
    practised = sorted(set(shared) - set(moved))
    random.Random(seed).shuffle(practised)
    return tuple(practised), (*sorted(evaluation), *moved)
