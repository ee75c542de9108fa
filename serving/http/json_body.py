"""JSON that can be passed on: what Python's parser takes beyond the standard would fail further down."""

import json
import math
from typing import Any

from serving.http.errors import invalid

# Ours and the engine's code walk bodies recursively.
MAX_DEPTH = 64


def parse_json(raw: bytes) -> Any:
    """The value of a request body. Raises ApiError 400 naming the field at fault."""
    try:
        value = json.loads(raw)
    except ValueError as error:  # also UnicodeDecodeError
        raise invalid(f"the body is not JSON: {error}", None) from error
    except RecursionError:
        raise invalid("the body is nested too deeply", None) from None
    _check(value, "", 0)
    return value


def check_text(text: str, place: str) -> None:
    """What the engine would read in a text, if that is JSON. Raises ApiError 400 naming the field at fault."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    except RecursionError:
        raise invalid(f"{place} is nested too deeply", place) from None
    _check(value, place, 0)


def _check(value: Any, place: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        top = place.split(".")[0].split("[")[0]
        raise invalid(f"{top} is nested deeper than {MAX_DEPTH} levels", top)
    match value:
        case str():
            _check_text(value, place)
        case float() if not math.isfinite(value):
            raise invalid(f"{place} must be a finite number", place)
        case list():
            for index, item in enumerate(value):
                _check(item, f"{place}[{index}]", depth + 1)
        case dict():
            for name, item in value.items():
                _check_text(name, place)
                _check(item, f"{place}.{name}" if place else name, depth + 1)


def _check_text(text: str, place: str) -> None:
    """JSON can spell half of a surrogate pair, which is no character and cannot be sent or stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(f"{place or 'the body'} holds half of a surrogate pair", place or None) from None
