"""A file of prompts to practise on, as token ids: lines of `prompt` or `messages`, or what a judgement is about.

A last turn of the assistant is an answer, and no part of the prompt. What is only to measure by (`"split": "eval"`) and
what people keep out of training is passed over.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from feedback.exchange.formats import FORMATS, UnknownFormat
from feedback.exchange.judged import Line, messages_from
from feedback.exchange.lines import decode, read_lines
from feedback.exchange.reading import UNREADABLE, Rejected, read_judgements, reason, recognise
from feedback.records import Message
from training.lessons.answers import Ids
from training.offline.datafile import AUTO, BadLines, OnLines, origin_of, unheard

PLAIN = "prompts"

Dialogue = tuple[Message, ...]


class Prompts(NamedTuple):
    """Distinct prompts in the order of the file, and how many are missing since nothing can be made of them."""

    ids: tuple[Ids, ...]
    too_long: int = 0
    unencodable: int = 0
    rejected: int = 0  # lines


class _Read(NamedTuple):
    """A line, or several that are read as one."""

    number: int
    dialogues: Sequence[Dialogue] = ()
    rejected: Sequence[Rejected] = ()


def read_prompts(
    path: Path,
    format: str,
    encode: Callable[[Sequence[Message]], Ids],
    *,
    max_tokens: int,
    on_lines: OnLines = unheard,
    strict: bool = False,
) -> Prompts:
    """All in a file of at most `max_tokens`. Raises UnknownFormat, BrokenFile, OSError, BadLines if `strict`."""
    found: dict[Dialogue, Ids | None] = {}
    rejected = 0
    for read in _read(path, _format(path, format)):
        if strict and read.rejected:
            raise BadLines(f"{path}, line {read.rejected[0].line}: {read.rejected[0].reason}")
        rejected += len(read.rejected)
        for dialogue in read.dialogues:
            if dialogue not in found:
                found[dialogue] = _encoded(dialogue, encode)
        on_lines(read.number, tuple(read.rejected))
    distinct = dict.fromkeys(ids for ids in found.values() if ids is not None)
    fitting = tuple(ids for ids in distinct if len(ids) <= max_tokens)
    return Prompts(fitting, len(distinct) - len(fitting), sum(ids is None for ids in found.values()), rejected)


def _format(path: Path, format: str) -> str:
    """Recognised if it is to be. Lines of `messages` may end with an answer, as sft wants it, and need not."""
    if format == AUTO:
        try:
            format = recognise(path)
        except UnknownFormat:
            format = PLAIN
        return PLAIN if format == "sft" else format
    if format not in {PLAIN, *FORMATS}:
        raise UnknownFormat((AUTO, PLAIN, *FORMATS))
    return format


def _read(path: Path, format: str) -> Iterator[_Read]:
    if format == PLAIN:
        for raw in read_lines(path):
            try:
                yield _Read(raw.number, _asked(decode(raw.text)))
            except UNREADABLE as error:
                yield _Read(raw.number, rejected=[Rejected(raw.number, reason(error))])
        return
    for group in read_judgements(path, format, origin_of(path)):
        training = [judged for judged in group.judged if judged.feedback.split == "train"]
        dialogues = [each.messages for judged in training for each in judged.completions if each.consent]
        yield _Read(group.lines[-1].number, dialogues, group.rejected)


def _asked(line: Line) -> list[Dialogue]:
    """The prompt of a line, unless it is only to measure by. Raises ValueError."""
    name = next((name for name in ("prompt", "messages") if line.get(name) is not None), None)
    if name is None:
        raise ValueError("prompt or messages is missing")
    messages = messages_from(line[name], name)
    if messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages:
        raise ValueError("there is no prompt")
    return [] if line.get("split") == "eval" else [messages]


def _encoded(dialogue: Dialogue, encode: Callable[[Sequence[Message]], Ids]) -> Ids | None:
    try:
        return encode(dialogue)
    except ValueError:
        return None
