"""From the ledger to what a round trains on: fixed at one watermark, saved as one JSON file, repeatable from it.

Only completions whose people consented are taken, and none of a conversation that is private by now; a completion that
two policies wrote is left out, a truncated one is not, and one that was stopped is ranked only. Imported answers are
text, and are encoded here. What evaluation-only raters said never trains. Nor does anything about a held-out prompt, be
it a ranking, a rating, a demonstration or practice: those that evaluation-only raters asked or ranked are held out, and
a fixed share of all others. They are kept apart for good, and the gate decides by them: by answers to them, by their
rankings and demonstrations. Of raters in quarantine nothing is taken at all, neither what they said nor what they
asked; of nobody what was laid before them as a check. Completions to practise on as they are, the live ones, are
answers to the prompts that train; see training/lessons/received.py.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from feedback.judgements import Feedback, teaches
from feedback.people.raters import RaterWeight
from feedback.records import Completion, Record, digest
from feedback.store import Ledger
from training.config import RoundConfig
from training.lessons.answers import Answers, Encode, Ids
from training.lessons.diversity import prompt_weights
from training.lessons.judged import (
    RankedAnswers,
    RatedAnswer,
    WrittenAnswer,
    edited_answers,
    ranked_answers,
    rated_answers,
    written_answer,
)
from training.lessons.prompts import MIN_HELD_OUT, SidesOf, asked_prompts, questions_of, shuffled, split
from training.lessons.received import Received, TooFewLive, live_per_turn, received
from training.lessons.weights import weighted

MIN_RANKINGS = 8
MAX_COMPLETIONS = 20_000


class Refused(RuntimeError):
    """The round ends here without a policy; the message is the one-line reason."""

    def __init__(self, reason: str, metrics: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.metrics = metrics or {}


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
    held_out_demonstrations: tuple[WrittenAnswer, ...] = ()
    new_demonstrations: int
    prompts: tuple[Ids, ...]
    prompt_weights: tuple[float, ...] = ()  # how often each of them is practised on beside the others
    live: tuple[Received, ...] = ()  # completions to practise on that people received
    held_out_prompts: tuple[Ids, ...]
    trained: tuple[str, ...] = ()  # digests of all prompts on this side, also of those that nobody practises on
    held_out: tuple[str, ...] = ()
    trained_questions: tuple[str, ...] = ()  # the same of what they ask, which others may ask in other tokens
    held_out_questions: tuple[str, ...] = ()
    raters: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    weights: tuple[RaterWeight, ...] = ()
    quarantined: int = 0  # raters of whom something was left out
    reward_origin: int | None = None  # the version whose reward model this round's goes on from; None = the parent
    unencodable: int = 0  # imported answers without tokens
    unused: int = 0  # judgements that could teach or prove something, but nothing came of them

    @property
    def counts(self) -> dict[str, int]:
        """How much there is of each kind."""
        return {
            "rankings": len(self.rankings),
            "held_out_rankings": len(self.held_out_rankings),
            "ratings": len(self.ratings),
            "demonstrations": len(self.demonstrations),
            "held_out_demonstrations": len(self.held_out_demonstrations),
            "new_demonstrations": self.new_demonstrations,
            "prompts": len(self.prompts),
            "held_out_prompts": len(self.held_out_prompts),
            "live": len(self.live),
            "unencodable": self.unencodable,
            "unused": self.unused,
        }

    @property
    def too_few_demonstrations(self) -> str | None:
        """Why SFT has nothing to do; None when it has."""
        new, enough = self.new_demonstrations, RoundConfig.from_dict(self.config).min_demonstrations
        return f"{new} new demonstrations, {enough} are needed" if new < enough else None

    @property
    def feedback_ids(self) -> list[str]:
        """The judgements that trained: deleting one of them concerns every policy from this round on.

        Demonstrations train where SFT has enough of them or PPO mixes them in; as edits they are rankings besides.
        """
        mixed_in = RoundConfig.from_dict(self.config).ppo.ptx_coef > 0
        imitated = self.demonstrations if mixed_in or self.too_few_demonstrations is None else ()
        kinds = (self.rankings, self.ratings, imitated)
        return sorted({item.feedback_id for items in kinds for item in items})

    @property
    def judged_ids(self) -> list[str]:
        """The judgements that are in here at all."""
        kinds = (self.demonstrations, self.held_out_rankings, self.held_out_demonstrations)
        return sorted({*self.feedback_ids, *(item.feedback_id for items in kinds for item in items)})

    def refuse_if_too_little(self) -> None:
        """Raises Refused when there is not enough to learn from."""
        held_out, training = ({r.feedback_id for r in kind} for kind in (self.held_out_rankings, self.rankings))
        count = len(held_out) + len(training)
        if count < MIN_RANKINGS or not training:
            others = " (the others are of held-out people or prompts: a share of all prompts is held out)"
            raise Refused(
                f"{count} rankings, {len(training)} of them may train{others if len(training) < count else ''}; "
                f"at least {MIN_RANKINGS} are needed, on several prompts: comparisons, rankings or edits, since thumbs "
                "alone do not tell which answer is better"
            )
        if not self.prompts:
            raise Refused("no prompt to practise on: all are too long, held out, or without consent")
        try:
            live_per_turn(RoundConfig.from_dict(self.config).ppo, len(self.live))
        except TooFewLive as error:
            raise Refused(str(error)) from error
        if not self.held_out_rankings:
            raise Refused("no held-out ranking to prove the reward model by")
        if len(self.held_out_prompts) < MIN_HELD_OUT:
            raise Refused(f"{len(self.held_out_prompts)} held-out prompts; the gate needs at least {MIN_HELD_OUT}")


def collect(
    ledger: Ledger,
    *,
    watermark: str,
    since: str,
    parent: int,
    seed: int,
    config: RoundConfig,
    is_held_out: Callable[[str], bool],
    encode: Encode,
    sides_of: SidesOf = lambda _: {},
    quarantined: Collection[str] = (),
    writers: Sequence[int] = (),
) -> TrainingData:
    """What people say as of `watermark`; demonstrations after `since` are new; `is_held_out` asks about a rater.

    `encode` is asked about imported answers and demonstrations only. Imported answers that it cannot encode are left
    out and counted; such a demonstration is compared with nothing. Judgements of which nothing is left are counted too,
    as without consent, or ratings of what is held out. `sides_of` knows the prompts' sides from earlier rounds. Live
    completions are those by the policies among `writers`, of which the first count most.
    """
    standing = [item for item in ledger.standing(watermark) if not item.is_check]
    aside = {item.rater for item in standing} & set(quarantined)
    standing = [item for item in standing if item.rater not in aside]
    answers = Answers(ledger, encode)
    known = _without(quarantined, answers.usable({target for item in standing for target in item.judgement.targets}))
    completions = list(_without(quarantined, _newest(ledger, answers)).values())
    data = divided(
        standing,
        known,
        origin=Provenance(watermark, since, parent, seed, config),
        asked=asked_prompts(completions, config.reward.max_tokens - config.ppo.max_new_tokens),  # longer has no score
        evaluated={each.prompt_token_ids for each in completions if is_held_out(each.rater)},
        questions=questions_of([*known.values(), *completions]),
        fresh={item.id for _, item in ledger.feedback_between(since, watermark)} if since != watermark else set(),
        encode=encode,
        sides_of=sides_of,
    )
    live = received(
        completions if config.ppo.rollouts != "fresh" else (),
        prompts=set(data.prompts),
        writers=writers,
        max_new_tokens=config.ppo.max_new_tokens,
        may_train=lambda rater: not is_held_out(rater),
    )
    unused = {item.id for item in standing if teaches(item.judgement)} - set(data.judged_ids)
    left = {"quarantined": len(aside), "unencodable": len(answers.unencodable), "unused": len(unused)}
    return data.model_copy(update={**left, "live": live, **_sources(data, standing, known, completions)})


class Provenance(NamedTuple):
    """Where training data comes from, as it is told in it."""

    watermark: str
    since: str
    parent: int
    seed: int
    config: RoundConfig


def divided(
    standing: Sequence[Feedback],
    known: Mapping[str, Completion],
    *,
    origin: Provenance,
    questions: Mapping[Ids, str],
    encode: Encode,
    sides_of: SidesOf = lambda _: {},
    asked: Mapping[Ids, str] = MappingProxyType({}),
    evaluated: Collection[Ids] = (),
    fresh: Collection[str] = (),
) -> TrainingData:
    """What the judgements say of the completions that are known, by side and with their weights.

    `asked` are the prompts to practise on, and whose they are; all that is said of `evaluated` ones is held out. Of all
    these, and of those that are known, `questions` holds what they ask.
    """
    config = origin.config
    training = [item for item in standing if item.split == "train"]
    rankings = [ranked for item in training for ranked in ranked_answers(item, known)]
    proofs = [ranked for item in standing if item.split == "eval" for ranked in ranked_answers(item, known)]
    sides = split(
        evaluated={ranked.prompt_ids for ranked in proofs} | {*evaluated},
        ranked={ranked.prompt_ids for ranked in rankings + proofs},
        asked=set(asked),
        questions=questions,
        fraction=config.reward.held_out_fraction,
        sides_of=sides_of,
    )
    seen = {id: completion for id, completion in known.items() if completion.prompt_token_ids in sides.train}
    unseen = {id: completion for id, completion in known.items() if completion.prompt_token_ids in sides.held_out}
    demonstrations = _written(training, seen, fresh)
    taught = [ranked for ranked in rankings if ranked.prompt_ids in sides.train]
    taught += [edited for item in training if (edited := edited_answers(item, seen, encode))]
    rated = [rated for item in training for rated in rated_answers(item, seen)]
    taught, rated, weights = weighted(taught, rated, {item.id: item.created for item in training}, config.weights)
    prompts = shuffled(set(asked) & sides.train, origin.seed)
    return TrainingData(
        **origin._asdict() | {"config": config.to_dict()},
        rankings=tuple(taught),
        held_out_rankings=tuple(ranked for ranked in proofs + rankings if ranked.prompt_ids in sides.held_out),
        ratings=tuple(rated),
        demonstrations=tuple(demonstrations),
        held_out_demonstrations=tuple(_sampled(_written(standing, unseen, fresh))),
        new_demonstrations=sum(written.new for written in demonstrations),
        prompts=prompts,
        prompt_weights=prompt_weights(prompts, asked),
        # By digest, so that the first so many, which are all that the gate takes, are a sample.
        held_out_prompts=tuple(sorted(set(asked) & sides.held_out, key=digest)),
        trained=tuple(sorted(map(digest, sides.train))),
        held_out=tuple(sorted(map(digest, sides.held_out))),
        trained_questions=tuple(sorted({questions[prompt] for prompt in sides.train})),
        held_out_questions=tuple(sorted({questions[prompt] for prompt in sides.held_out})),
        weights=tuple(weights),
    )


def _written(items: Iterable[Feedback], known: Mapping[str, Completion], fresh: Collection[str]) -> list[WrittenAnswer]:
    found = [written for item in items if (written := written_answer(item, known))]
    return [written.model_copy(update={"new": written.feedback_id in fresh}) for written in found]


def _sampled(demonstrations: Iterable[WrittenAnswer]) -> list[WrittenAnswer]:
    """By digest, so that the first so many, by which a loss is measured, are a sample; the same ones in each round."""
    return sorted(demonstrations, key=lambda written: digest(written.feedback_id))


def _without(quarantined: Collection[str], known: dict[str, Completion]) -> dict[str, Completion]:
    return {id: completion for id, completion in known.items() if completion.rater not in quarantined}


def _sources(
    data: TrainingData, standing: Iterable[Feedback], known: dict[str, Completion], completions: Iterable[Completion]
) -> dict[str, tuple[str, ...]]:
    """Whose prompts or judgements train: who asked the same as somebody else is among them. And all responses in it."""
    taught, judged = set(data.feedback_ids), set(data.judged_ids)
    items = [item for item in standing if item.id in judged]
    lessons = [item for item in items if item.id in taught]
    training = _used(lessons, known, completions, set(data.prompts))
    used = _used(items, known, completions, {*data.prompts, *data.held_out_prompts})
    raters = {item.rater for item in lessons} | {completion.rater for completion in training}
    return {"raters": tuple(sorted(raters)), "responses": tuple(sorted({each.response_id for each in used}))}


def _used(
    items: Iterable[Feedback], known: dict[str, Completion], completions: Iterable[Completion], prompts: set[Ids]
) -> list[Completion]:
    """Those that the judgements are about, and those that answer the prompts."""
    judged = [known[id] for item in items for id in item.judgement.targets if id in known]
    return judged + [completion for completion in completions if completion.prompt_token_ids in prompts]


def _newest(ledger: Ledger, answers: Answers) -> dict[str, Completion]:
    """The newest usable completions, oldest of them first."""
    ids = ledger.completion_ids()[-MAX_COMPLETIONS:]
    known = answers.usable(ids)
    return {id: known[id] for id in ids if id in known}
