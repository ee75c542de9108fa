"""Reward models asked for scores, outside of rounds: of the answers on lines, or of those judged in the ledger."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from feedback.exchange.formats import replies_of
from feedback.exchange.judged import Line, Reply
from feedback.exchange.lines import decode
from feedback.exchange.reading import UNREADABLE, Rejected, reason
from feedback.people.raters import Raters
from feedback.records import Completion
from feedback.store import Ledger
from training.lessons.answers import Answers, Encode, heard
from training.model.samples import Sample
from training.offline.datafile import ids_of
from training.offline.reward_models import RewardModel
from training.round.stages import TextEncoder

CHUNK = 64


class _Read(NamedTuple):
    """A line and its answers in order; None where one has no tokens or may not train."""

    line: Line
    samples: list[Sample | None]


def score_lines(
    model: RewardModel, lines: Iterable[tuple[int, bytes]], *, batch_size: int = CHUNK
) -> Iterator[Line | Rejected]:
    """Each numbered line with what its answers score, or why it has nothing; in order, `batch_size` lines at once.

    A line is of any format, or has `messages` or a `prompt` and a `completion` or a `response`. One answer has a
    `score`, several have `scores` in the order in which they stand in the line, None for those that cannot be encoded
    or whose people keep them out of training.
    """
    scorer, encode = model.scorer(), TextEncoder(model.base).encode
    rest = iter(lines)
    while batch := list(islice(rest, batch_size)):
        read = [_line(number, text, encode) for number, text in batch]
        asked = [each for item in read if isinstance(item, _Read) for each in item.samples if each]
        scores = iter(scorer.all(asked))
        yield from (item if isinstance(item, Rejected) else _scored(item, scores) for item in read)


def _line(number: int, text: bytes, encode: Encode) -> _Read | Rejected:
    try:
        line = decode(text)
        samples = [_sample(reply, encode) for reply in replies_of(line)]
        found = [each if isinstance(each, Sample) else None for each in samples]
        if not any(found):
            raise next((each for each in samples if isinstance(each, ValueError)), ValueError("there is no answer"))
        return _Read(line, found)
    except UNREADABLE as error:
        return Rejected(number, reason(error))


def _sample(reply: Reply, encode: Encode) -> Sample | ValueError:
    """What the model sees of an answer, or why it sees nothing."""
    try:
        if reply.completion is not None:
            return _kept(reply.completion, encode)
        if reply.answer.tool_calls:
            raise ValueError("calls of tools cannot be encoded")
        return Sample(*encode(reply.messages, reply.answer.content))
    except ValueError as error:
        return error


def _kept(completion: Completion, encode: Encode) -> Sample:
    if not completion.consent:
        raise ValueError("its person keeps it out of training")
    return Sample(*ids_of(completion, encode))


def _scored(item: _Read, scores: Iterator[float]) -> Line:
    found = [next(scores) if each else None for each in item.samples]
    return {**item.line, "score": found[0]} if len(found) == 1 else {**item.line, "scores": found}


def score_ledger(redis: Redis, model: RewardModel, base: Path, *, batch_size: int = CHUNK) -> Iterator[Line]:
    """The finished answers that somebody judged, each by `completion_id` with `policy_version` and `score`.

    In the order in which they were judged; those alone that a round would take: with consent, no decoys, nothing by
    raters in quarantine or of theirs. Raises ValueError when the ledger is of another base model.
    """
    model.require_base(base)
    scorer, encode, ledger = model.scorer(), TextEncoder(base).encode, Ledger(redis)
    quarantined = Raters(redis).quarantined()
    said = heard(ledger, ledger.watermark(), quarantined)
    ids = iter(dict.fromkeys(id for item in said for id in item.judgement.targets))
    while chunk := list(islice(ids, batch_size)):
        usable = Answers(ledger, encode).usable(chunk)
        known = [usable[id] for id in chunk if id in usable]
        whole = [each for each in known if not each.partial and each.rater not in quarantined]
        scores = scorer.all([Sample(each.prompt_token_ids, each.completion_token_ids) for each in whole])
        for each, score in zip(whole, scores, strict=True):
            yield {"completion_id": each.id, "policy_version": each.policy_version, "score": score}
