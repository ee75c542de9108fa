"""JSON lines: one object a line, and nothing but a line feed ends one."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from feedback.exchange.judged import Line

MAX_LINE = 16 * 2**20
_GZIP = b"\x1f\x8b"
# Characters that some readers take for the end of a line, though JSON lets them stand inside a text.
_LINE_ENDS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x7f\x85\u2028\u2029"}


class RawLine(NamedTuple):
    """`end` is the offset behind the line in the unpacked file, `read` how much of the file itself has been read."""

    number: int
    end: int
    read: int
    text: bytes


class BrokenFile(ValueError):
    """The file ends or breaks where it should not; the message says which and where."""


def encode(line: Line) -> bytes:
    """A line with its end, safe for readers that split at U+2028 and its like."""
    return (json.dumps(line, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n").encode()


def decode(text: bytes) -> Line:
    """The object on a line. Raises ValueError with the reason."""
    if len(text) > MAX_LINE:
        raise ValueError(f"the line is longer than {MAX_LINE // 2**20} MiB")
    try:
        value: Any = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ValueError("the line is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("the line is nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("the line is not a JSON object")
    return value


def read_lines(path: Path, *, after: int = 0, number: int = 0) -> Iterator[RawLine]:
    """The lines of a file, gzip or plain, that begin at an offset; `number` of them stand before it.

    Empty ones are left out; one that is too long is cut, and `decode` refuses it. Raises BrokenFile, OSError.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        end = after
        try:
            file.seek(after)
            while text := file.readline(MAX_LINE + 1):
                number += 1
                end += len(text) + (0 if text.endswith(b"\n") else _skip_rest(file))
                if text.strip():
                    yield RawLine(number, end, raw.tell(), text)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BrokenFile(f"{path} is damaged after line {number}: {error}") from error


def _skip_rest(file: BinaryIO) -> int:
    skipped = 0
    while piece := file.readline(MAX_LINE):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
