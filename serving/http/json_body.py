"""JSON that can be passed on: what Python's parser takes beyond the standard would fail further down."""

import json
import math
from collections.abc import Collection
from typing import Any

from serving.http.errors import ApiError, invalid

# Ours and the engine's code walk bodies recursively.
MAX_DEPTH = 64
# More than any judgement or order holds, or any chat. Each value may be at fault: to say so of a million takes seconds.
MANY = 1024
MANY_IN_CHAT = 2**16


def parse_json(raw: bytes, most: int) -> Any:
    """The value of a request body, which may hold so many others. Raises ApiError 400 naming the field at fault."""
    try:
        value = json.loads(raw)
    except ValueError as error:  # also UnicodeDecodeError
        raise invalid(f"the body is not JSON: {error}", None) from error
    except RecursionError:
        raise invalid("the body is nested too deeply", None) from None
    if _count(value, most) > most:
        raise invalid(f"the body holds more than {most} values", _field_of_many(value, most))
    _check_all(value, "")
    return value


def check_text(text: str, place: str, most: int) -> int:
    """How many values the engine would read in a text, if that is JSON. Raises ApiError 400 naming the field at fault,
    also for more than so many."""
    try:
        value = json.loads(text)
    except ValueError:
        return 0
    except RecursionError:
        raise invalid(f"{place} is nested too deeply", place) from None
    if (count := _count(value, most)) > most:
        raise invalid(f"{place} holds too many values", place)
    _check_all(value, place)
    return count


def _count(value: Any, most: int) -> int:
    """How many others a value holds, at any depth; where they are more than so many, no more are looked at."""
    count, rest = 0, [value]
    while rest and count <= most:
        held = rest.pop()
        inner: Collection[Any] = held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()
        count += len(inner)
        rest += inner
    return count


def _field_of_many(body: Any, most: int) -> str | None:
    """The field that holds too much by itself, if it is one; names that are not ASCII are none of ours."""
    fields = body.items() if isinstance(body, dict) and len(body) <= most else ()
    return next((name for name, item in fields if name.isascii() and _count(item, most) > most), None)


class _Fault(Exception):
    """What is wrong in a value. The steps to it are noted on the way out: to spell the place of each value that is
    right would take longer than all the rest."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.steps: list[str] = []

    def at(self, start: str) -> ApiError:
        place = (start + "".join(reversed(self.steps))).removeprefix(".")
        if len(self.steps) > MAX_DEPTH:
            place = place.split(".")[0].split("[")[0]
        return invalid(f"{place or 'the body'} {self}", place or None)


def _check_all(value: Any, place: str) -> None:
    try:
        _check(value, 0)
    except _Fault as fault:
        raise fault.at(place) from None


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _Fault(f"is nested deeper than {MAX_DEPTH} levels")
    match value:
        case str():
            _check_text(value)
        case float() if not math.isfinite(value):
            raise _Fault("must be a finite number")
        case list():
            for index, item in enumerate(value):
                try:
                    _check(item, depth + 1)
                except _Fault as fault:
                    fault.steps.append(f"[{index}]")
                    raise
        case dict():
            for name, item in value.items():
                _check_text(name)
                try:
                    _check(item, depth + 1)
                except _Fault as fault:
                    fault.steps.append(f".{name}")
                    raise


def _check_text(text: str) -> None:
    """JSON can spell half of a surrogate pair, which is no character and cannot be sent or stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Fault("holds half of a surrogate pair") from None
