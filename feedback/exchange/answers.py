"""Formats of single answers: kto, sft, and Ratchet's own, which loses nothing.

Each `write_…` gives the lines of one judgement; each `read_…` the judgements of a line, and raises ValueError.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter

from feedback.exchange.judged import (
    Answer,
    Judged,
    Line,
    Origin,
    Reply,
    answer_from,
    field,
    messages_from,
    prompt_of,
    told,
)
from feedback.judgements import Demonstration, Feedback, Rating, rates
from feedback.records import Completion, Message

_completions: TypeAdapter[tuple[Completion, ...]] = TypeAdapter(tuple[Completion, ...])


def write_kto(judged: Judged) -> Iterator[Line]:
    """TRL's unpaired preferences: ratings from a half up are good; what was not acceptable beside others is not."""
    judgement = judged.feedback.judgement
    if not rates(judgement) and not judged.none_acceptable:
        return
    label = rates(judgement) and judgement.label >= 0.5
    for completion in judged.completions:
        yield {
            "prompt": prompt_of(completion),
            "completion": [completion.answer.plain],
            "label": label,
            **told(judged),
        }


def read_kto(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    label = field(rows[0], "label")
    if not isinstance(label, bool):
        raise ValueError("label must be true or false")
    messages = messages_from(field(rows[0], "prompt"), "prompt")
    answer = Answer(answer_from(field(rows[0], "completion"), "completion"))
    value = 1 if label else -1
    return [origin.judged(messages, [answer], lambda ids: Rating(completion_id=ids[0], value=value), rows[0])]


def plain_reply(row: Line) -> list[Reply]:
    """{messages or prompt, completion or response}: an answer of which nothing need be said."""
    asked = next((name for name in ("messages", "prompt") if row.get(name) is not None), "messages")
    answered = next((name for name in ("completion", "response") if row.get(name) is not None), "completion")
    return [Reply(messages_from(row.get(asked), asked), answer_from(row.get(answered), answered))]


def write_sft(judged: Judged) -> Iterator[Line]:
    """Dialogues that end with what a person wrote, as TRL's SFTTrainer and OpenAI's fine-tuning take them."""
    judgement = judged.feedback.judgement
    if isinstance(judgement, Demonstration):
        for completion in judged.completions:
            answer = {"role": "assistant", "content": judgement.content}
            yield {"messages": [*prompt_of(completion), answer], **told(judged)}


def read_sft(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    [(messages, answer, _)] = sft_reply(rows[0])
    return [demonstrated(messages, Answer(answer), rows[0], origin)]


def sft_reply(row: Line) -> list[Reply]:
    messages = messages_from(field(row, "messages"))
    if messages[-1].role != "assistant":
        raise ValueError("messages must end with the assistant's turn")
    return [Reply(messages[:-1], messages[-1])]


def demonstrated(messages: Sequence[Message], answer: Answer, row: Line, origin: Origin) -> Judged:
    """A demonstration without an original stands on itself: the answer shown is the one that the person wrote."""
    content = answer.message.content
    return origin.judged(messages, [answer], lambda ids: Demonstration(completion_id=ids[0], content=content), row)


def write_ratchet(judged: Judged) -> Iterator[Line]:
    """The judgement and its completions as the ledger keeps them. Left out when a completion may not be shown."""
    if len(judged.completions) == len(judged.feedback.judgement.targets):
        completions = [completion.model_dump(mode="json") for completion in judged.completions]
        feedback = judged.feedback.model_dump(mode="json")
        yield {"feedback": feedback, "completions": completions, "installation": judged.installation}


def parse_ratchet(line: Line) -> Judged:
    """The records of a line as they were written."""
    feedback = Feedback.model_validate(field(line, "feedback"))
    judged = Judged(feedback, _completions.validate_python(field(line, "completions")), line.get("installation"))
    if tuple(completion.id for completion in judged.completions) != feedback.judgement.targets:
        raise ValueError("completions must be those that the judgement is about, in its order")
    if len({completion.prompt_digest for completion in judged.completions}) > 1:
        raise ValueError("the completions answer different prompts")
    return judged


def ratchet_replies(row: Line) -> list[Reply]:
    """The completions in the order of the judgement's targets."""
    return [Reply(each.messages, each.answer, each) for each in parse_ratchet(row).completions]


def read_ratchet(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """Records keep their ids and tokens, and policy versions where they are this installation's: this restores a
    backup. Raters get names of this ledger.

    Versions are numbered anew in each installation: an answer from elsewhere is by none of them, nor are its
    probabilities one's. Releases too, and those of a backup are over: what is imported is no vote on one, nor tests the
    votes.
    """
    feedback, completions, installation = parse_ratchet(rows[0])
    split = origin.split or feedback.split
    names = {name: origin.pseudonym(name, split) for name in {feedback.rater, *(c.rater for c in completions)}}
    outside: dict[str, Any] = {"release": None, "arm": None, "propensity": None}
    if installation is None or installation != origin.installation:
        outside |= {"policy_version": None, "plain": False}
    renamed = tuple(each.model_copy(update={"rater": names[each.rater], **outside}) for each in completions)
    lane = feedback.lane if feedback.is_check else None
    facts = {"rater": names[feedback.rater], "split": split, "lane": lane, "release": None}
    return [Judged(feedback.model_copy(update=facts), renamed)]
