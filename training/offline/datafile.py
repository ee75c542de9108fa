"""A file of judgements as records with tokens, as if they had been imported into a ledger; no Redis is asked.

Answers are encoded by the base model's chat template. Those that a ledger wrote with their tokens keep them where the
template makes the same prompt; an answer that was cut has no other form.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from feedback.exchange.formats import FORMATS, UnknownFormat
from feedback.exchange.judged import Origin, Split
from feedback.exchange.reading import Rejected, read_judgements, recognise
from feedback.judgements import Feedback
from feedback.people.keys import IMPORTED
from feedback.records import Completion, digest
from training.lessons.answers import Encode, Ids

AUTO = "auto"

#: Told the number of the last line that was read, and what was wrong with some since the one before.
OnLines = Callable[[int, tuple[Rejected, ...]], None]


def unheard(line: int, rejected: tuple[Rejected, ...]) -> None:
    """Who is told, and does nothing."""


class BadLines(ValueError):
    """A line cannot be used, and all were to be; the message names it."""


class Said(NamedTuple):
    """Judgements as they stand, and what is known of the completions that they are about."""

    standing: tuple[Feedback, ...]
    known: dict[str, Completion]
    unencodable: int = 0  # completions that are left out
    rejected: int = 0  # lines


def read_file(path: Path, format: str, encode: Encode, *, on_lines: OnLines = unheard, strict: bool = False) -> Said:
    """All that a file says. Of what one rater says of the same answers, the last word counts.

    A line's own `split` is kept, all others may train. Raises UnknownFormat, BrokenFile, OSError, BadLines if `strict`.
    """
    format = recognise(path) if format == AUTO else format
    if format not in FORMATS:
        raise UnknownFormat((AUTO, *FORMATS))
    tokens = _Tokens(encode)
    standing: dict[str, Feedback] = {}
    rejected = 0
    for group in read_judgements(path, format, origin_of(path)):
        if strict and group.rejected:
            raise BadLines(f"{path}, line {group.rejected[0].line}: {group.rejected[0].reason}")
        rejected += len(group.rejected)
        for judged in group.judged:
            standing[judged.feedback.slot] = judged.feedback
            for completion in judged.completions:
                tokens.add(completion)
        on_lines(group.lines[-1].number, tuple(group.rejected))
    return Said(tuple(standing.values()), tokens.known, len(tokens.unencodable), rejected)


def origin_of(path: Path) -> Origin:
    """Raters are named within the file, as its import would name them within a ledger."""

    def pseudonym(name: str, split: Split) -> str:
        return IMPORTED[split] + digest(name)[:24]

    return Origin(path.name.split(".")[0], pseudonym, lambda key: "train", None, created=0.0)


class _Tokens:
    """Completions, each with its tokens; encoded once, however many judge it."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self.known: dict[str, Completion] = {}
        self.unencodable: set[str] = set()

    def add(self, completion: Completion) -> None:
        usable = completion.consent and completion.version_changed_at is None
        if not usable or completion.id in self.known or completion.id in self.unencodable:
            return
        try:
            prompt, answer = ids_of(completion, self._encode)
        except ValueError:
            self.unencodable.add(completion.id)
        else:
            ids = {"prompt_token_ids": prompt, "completion_token_ids": answer}
            self.known[completion.id] = completion.model_copy(update=ids)


def ids_of(completion: Completion, encode: Encode) -> tuple[Ids, Ids]:
    """Prompt and completion by the template, or as they were where it makes the same prompt. Raises ValueError."""
    if completion.tool_calls and not completion.completion_token_ids:
        raise ValueError("calls of tools cannot be encoded")
    prompt, answer = encode(completion.messages, completion.text)
    if completion.completion_token_ids and completion.prompt_token_ids == prompt:
        return prompt, completion.completion_token_ids
    if completion.tool_calls or completion.partial or completion.finish_reason == "length":
        raise ValueError("these are tokens of another model")
    return prompt, answer
