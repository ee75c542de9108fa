"""What operators' orders say in their bodies; all of it raises ApiError 400 that names the field at fault."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from feedback.policies.manifest import version_number
from serving.http.errors import invalid

B = TypeVar("B", bound=BaseModel)


def read(model: type[B], body: dict[str, Any]) -> B:
    """A body that gives an order."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise invalid(f"{place}: {first['msg']}", place or None) from error


def expected_of(body: dict[str, Any]) -> int | None:
    """The version that the caller believes to serve; None when they do not say."""
    return None if body.get("expected") is None else version_of(body["expected"], "expected")


def version_of(value: Any, param: str) -> int:
    """The version that a field names."""
    try:
        return version_number(value)
    except ValueError:
        raise invalid(f"{param} must be a policy such as policy-v7", param) from None


def freeze_of(body: dict[str, Any]) -> tuple[bool, str]:
    """Whether to freeze or to go on, and why."""
    frozen = body.get("frozen")
    if not isinstance(frozen, bool):
        raise invalid("frozen must be true or false", "frozen")
    return frozen, reason_of(body)


def reason_of(body: dict[str, Any]) -> str:
    """Why, for the audit."""
    reason = body.get("reason")
    if reason is None or reason == "":
        return "asked for over the API"
    if not isinstance(reason, str) or len(reason) > 1024:
        raise invalid("reason must be text of at most 1024 characters", "reason")
    return reason
