"""What every version says to the same few prompts, kept in its directory, so that two can be read side by side.

The prompts are ours and never people's: what people said can be erased, and a version's directory stays as it is.
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from feedback.records import Record

ANSWERS = "answers.json"
MOST_BYTES = 2**18  # one that came with an imported version may be anything


class Answer(Record):
    """`cut` is whether it would have gone on; None where that was not written down."""

    prompt: str
    text: str
    cut: bool | None = None


class FixedAnswers(Record):
    """Each by the likeliest token at every step, and cut at `max_tokens`."""

    schema_version: Literal[1] = 1
    max_tokens: int
    answers: tuple[Answer, ...]


def write_answers(directory: Path, answers: FixedAnswers) -> None:
    """Before the manifest, which names the file's digest."""
    (directory / ANSWERS).write_bytes(answers.model_dump_json(indent=1).encode())


def read_answers(directory: Path) -> dict[str, Answer] | None:
    """By prompt. None of a version that was made without, or deleted, or whose file says nothing."""
    path = directory / ANSWERS
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        kept = FixedAnswers.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return {answer.prompt: answer for answer in kept.answers}
