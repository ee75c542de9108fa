"""Lines of a file as judgements, or why they are none; streaming, nothing is kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from feedback.exchange.formats import FORMATS, UnknownFormat, recognised
from feedback.exchange.judged import Judged, Line, Origin
from feedback.exchange.lines import RawLine, decode, read_lines
from feedback.records import Completion

LINES_TO_RECOGNISE = 100
#: The pairs of the longest ranking.
MAX_GROUP = 120
#: What a line of another shape than its format's may raise while it is read.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)


class Rejected(NamedTuple):
    line: int
    reason: str


class Group(NamedTuple):
    """Lines that are read as one: what they say, or why each of them says nothing."""

    lines: Sequence[RawLine]
    judged: Sequence[Judged] = ()
    rejected: Sequence[Rejected] = ()


class _Read(NamedTuple):
    """A line as it was read: an object, or what is wrong with it."""

    raw: RawLine
    line: Line | None
    error: str | None
    group: str | None


def recognise(path: Path) -> str:
    """The format of a file, by its first good line. Raises UnknownFormat, BrokenFile or OSError."""
    for raw, _ in zip(read_lines(path), range(LINES_TO_RECOGNISE), strict=False):
        try:
            line = decode(raw.text)
        except ValueError:
            continue
        return recognised(line)
    raise UnknownFormat(tuple(FORMATS))


def read_judgements(path: Path, format: str, origin: Origin, *, after: int = 0, number: int = 0) -> Iterator[Group]:
    """What the lines from an offset on say; `number` of them stand before it. Raises BrokenFile or OSError."""
    for items in _groups(read_lines(path, after=after, number=number), format):
        lines = [item.raw for item in items]
        try:
            judged = FORMATS[format].read([item.line for item in items if item.line is not None], origin)
            _keepable(judged)
        except UNREADABLE as error:
            yield Group(lines, rejected=[Rejected(item.raw.number, item.error or reason(error)) for item in items])
        else:
            yield Group(lines, judged)


def _keepable(judged: Sequence[Judged]) -> None:
    """Raises ValueError for a completion that could not be written, or be written and never read again: where a record
    takes anything, that may be nested too deep or hold half a surrogate pair."""
    for item in judged:
        for completion in item.completions:
            Completion.model_validate_json(completion.model_dump_json())


def _groups(lines: Iterator[RawLine], format: str) -> Iterator[list[_Read]]:
    """Lines that follow each other and belong together."""
    pending: list[_Read] = []
    for raw in lines:
        item = _decoded(raw, format)
        together = pending and item.group is not None and item.group == pending[0].group
        if pending and not (together and len(pending) < MAX_GROUP):
            yield pending
            pending = []
        pending.append(item)
    if pending:
        yield pending


def _decoded(raw: RawLine, format: str) -> _Read:
    try:
        line = decode(raw.text)
    except ValueError as error:
        return _Read(raw, None, reason(error), None)
    return _Read(raw, line, None, FORMATS[format].group(line))


def reason(error: Exception) -> str:
    """Why a line was refused, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{place}: {first['msg']}" if place else first["msg"]
        return text.replace("Value error, ", "")[:300]
    if isinstance(error, ValueError):
        return " ".join(str(error).split())[:300]
    return "the line is not of this format"
