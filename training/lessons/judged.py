"""What people said of answers, as records that a round trains on, and how a judgement becomes one."""

from collections.abc import Mapping

from feedback.judgements import Comparison, Demonstration, Feedback, Ranking, rates
from feedback.people.keys import source_of
from feedback.records import Completion, Message, Record
from training.lessons.answers import Encode, Ids
from training.lessons.prompts import question_of


class RankedAnswers(Record):
    """Completions of one prompt with their places: 0 is the best, equal places are ties.

    Those in the tier `unplaced` are worse than all others, and nothing is said among them.
    """

    feedback_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    tiers: tuple[int, ...]
    unplaced: int | None = None
    weight: float = 1.0  # of this judgement beside the others, 0 or more
    rater: str = ""  # pseudonym of who said it
    source: str = ""  # where it came from: live, operator or import
    kind: str = ""  # ranking, comparison or edit
    question: str = ""  # what the prompt asks


class RatedAnswer(Record):
    """A completion and its share of approval, 0 to 1."""

    feedback_id: str
    prompt_ids: Ids
    completion_ids: Ids
    label: float
    weight: float = 1.0
    rater: str = ""
    source: str = ""
    kind: str = ""  # rating, or the ranking or comparison in which none was good enough
    question: str = ""


class WrittenAnswer(Record):
    """What a person would have answered; text, because no engine ever tokenised it."""

    feedback_id: str
    messages: tuple[Message, ...]
    content: str
    new: bool = True  # no policy that serves has learned it yet


def ranked_answers(item: Feedback, known: Mapping[str, Completion]) -> list[RankedAnswers]:
    """A ranking or a comparison over the completions that are known; nothing when it compares none of them."""
    judgement = item.judgement
    if not isinstance(judgement, Ranking | Comparison) or _both_bad(item):
        return []
    shown = [(known[id], tier) for id, tier in zip(judgement.targets, judgement.tiers, strict=True) if id in known]
    # The same messages become other tokens when the chat template changes; tokens of two templates do not compare.
    shown = [place for place in shown if place[0].prompt_token_ids == shown[0][0].prompt_token_ids]
    last = judgement.unplaced if isinstance(judgement, Ranking) and judgement.partial else None
    if len(shown) < 2 or all(tier == last for _, tier in shown):
        return []
    return [
        RankedAnswers(
            feedback_id=item.id,
            prompt_ids=shown[0][0].prompt_token_ids,
            completions=tuple(completion.completion_token_ids for completion, _ in shown),
            tiers=tuple(tier for _, tier in shown),
            unplaced=last,
            rater=item.rater,
            source=source_of(item.rater),
            kind=judgement.type,
            question=question_of(shown[0][0]),
        )
    ]


def _both_bad(item: Feedback) -> bool:
    return isinstance(item.judgement, Comparison) and item.judgement.winner == "both_bad"


def _none_acceptable(item: Feedback) -> bool:
    return isinstance(item.judgement, Ranking) and item.judgement.none_acceptable


def rated_answers(item: Feedback, known: Mapping[str, Completion]) -> list[RatedAnswer]:
    """A rating as it is; "both bad" and "none acceptable" as thumbs down for each, which share the weight of one: a
    judgement of eight answers is worth no more than one of a single answer. No half answer, no other metric."""
    judgement = item.judgement
    if not rates(judgement) and not _both_bad(item) and not _none_acceptable(item):
        return []
    label = judgement.label if rates(judgement) else 0.0
    return [
        RatedAnswer(
            feedback_id=item.id,
            prompt_ids=known[id].prompt_token_ids,
            completion_ids=known[id].completion_token_ids,
            label=label,
            weight=1 / len(judgement.targets),
            rater=item.rater,
            source=source_of(item.rater),
            kind=judgement.type,
            question=question_of(known[id]),
        )
        for id in judgement.targets
        if id in known and not known[id].partial
    ]


def written_answer(item: Feedback, known: Mapping[str, Completion]) -> WrittenAnswer | None:
    judgement = item.judgement
    if not isinstance(judgement, Demonstration) or judgement.completion_id not in known:
        return None
    messages = known[judgement.completion_id].messages
    return WrittenAnswer(feedback_id=item.id, messages=messages, content=judgement.content)


def edited_answers(item: Feedback, known: Mapping[str, Completion], encode: Encode) -> RankedAnswers | None:
    """A demonstration is better than the finished answer that it stands for; nothing when it says the same."""
    written = item.judgement
    if not isinstance(written, Demonstration) or written.completion_id not in known:
        return None
    original = known[written.completion_id]
    # Half an answer would teach no more than that answers end.
    finished = not original.partial and original.finish_reason != "length"
    if not finished or written.content.strip() == original.text.strip():
        return None
    try:
        _, better = encode(original.messages, written.content)
    except ValueError:
        return None
    return RankedAnswers(
        feedback_id=item.id,
        prompt_ids=original.prompt_token_ids,
        completions=(better, original.completion_token_ids),
        tiers=(0, 1),
        rater=item.rater,
        source=source_of(item.rater),
        kind="edit",
        question=question_of(original),
    )
