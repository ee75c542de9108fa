"""Formats that are read only: pairwise, kwise, thumbs and demonstrations, one prompt and its answers a line.

Each raises ValueError with the reason where a line is not of its format.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from feedback.exchange.answers import demonstrated
from feedback.exchange.judged import (
    Answer,
    Judged,
    Line,
    Origin,
    Reply,
    answer_from,
    field,
    messages_from,
    named_model,
    ordered,
    text_field,
)
from feedback.judgements import Judgement, Rating
from feedback.records import digest

_TIERS = {"a": (0, 1), "b": (1, 0), "tie": (0, 0)}


def read_pairwise(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """{messages, a, b, label: a|b|tie, votes?, models?}: each vote is a rater's; without votes the label is one's.

    Some sources put the better answer first in every line, so sides are drawn by digest.
    """
    row = rows[0]
    models = _models(row, 2)
    replies = pairwise_replies(row)
    messages, answers = replies[0].messages, [Answer(r.answer, m) for r, m in zip(replies, models, strict=True)]
    if answers[0].message == answers[1].message:
        raise ValueError("both answers are the same")
    swapped = int(digest([m.plain for m in messages] + [a.message.plain for a in answers])[:8], 16) % 2 == 1
    votes = row.get("votes") or [field(row, "label")]
    if not isinstance(votes, list) or any(vote not in _TIERS for vote in votes):
        raise ValueError("votes must be a, b or tie")
    side = -1 if swapped else 1
    voices = [""] if len(votes) == 1 else [f"annotator {number}" for number in range(1, len(votes) + 1)]
    return [
        origin.judged(messages, answers[::side], partial(ordered, tiers=_TIERS[vote][::side]), row, voice=voice)
        for vote, voice in zip(votes, voices, strict=True)
    ]


def pairwise_replies(row: Line) -> list[Reply]:
    """a, b."""
    messages = messages_from(field(row, "messages"))
    return [Reply(messages, answer_from(text_field(row, side), side)) for side in "ab"]


def read_kwise(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """{messages, responses, ranks: 0 = best, equal = tie, models?}. Answers are shown in an order drawn by digest."""
    row = rows[0]
    replies, ranks = kwise_replies(row), field(row, "ranks")
    if not isinstance(ranks, list) or len(replies) != len(ranks):
        raise ValueError("ranks must be as many as responses")
    if len(replies) < 2 or not all(isinstance(rank, int | float) and rank == rank for rank in ranks):
        raise ValueError("two or more responses must each have a rank")
    answers = [Answer(r.answer, m) for r, m in zip(replies, _models(row, len(ranks)), strict=True)]
    shown = sorted(zip(answers, ranks, strict=True), key=lambda pair: digest([pair[0].message.plain, pair[0].model]))
    tiers = [rank for _, rank in shown]
    say = partial(ordered, tiers=tiers)
    return [origin.judged(replies[0].messages, [answer for answer, _ in shown], say, row)]


def kwise_replies(row: Line) -> list[Reply]:
    """The responses, as they stand."""
    messages, responses = messages_from(field(row, "messages")), field(row, "responses")
    if not isinstance(responses, list):
        raise ValueError("responses must be a list")
    return [Reply(messages, answer_from(response, "responses")) for response in responses]


def read_thumbs(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """{messages, response, up, down}: one rating with the share of those who liked it, up / (up + down).

    How many they were is lost: nothing tells one voter of a line from another, and a rating counts once.
    """
    row = rows[0]
    up, down = field(row, "up"), field(row, "down")
    if not all(isinstance(count, int) and count >= 0 for count in (up, down)) or up + down == 0:
        raise ValueError("up and down must be whole numbers, and somebody must have voted")
    answer = Answer(answer_from(text_field(row, "response"), "response"))
    return [origin.judged(messages_from(field(row, "messages")), [answer], partial(rated, value=up / (up + down)), row)]


def rated(ids: tuple[str, ...], value: float) -> Judgement:
    return Rating(completion_id=ids[0], value=value)


def read_demonstrations(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """{messages, demonstration}: what a person answered."""
    [(messages, answer, _)] = demonstration_reply(rows[0])
    return [demonstrated(messages, Answer(answer), rows[0], origin)]


def demonstration_reply(row: Line) -> list[Reply]:
    answer = answer_from(text_field(row, "demonstration"), "demonstration")
    return [Reply(messages_from(field(row, "messages")), answer)]


def _models(row: Line, count: int) -> list[str | None]:
    """Who wrote the answers; None for each where the line does not say."""
    models: Any = row.get("models")
    known = isinstance(models, list) and len(models) == count
    return [named_model(model) for model in models] if known else [None] * count
