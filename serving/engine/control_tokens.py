"""Keeps text that people wrote from turning into control tokens of the chat template."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from feedback.policies.manifest import BrokenPolicy


@dataclass(frozen=True)
class ControlTokens:
    """The added tokens of one tokenizer, special or not (Qwen's <think> is not, yet the template gives it meaning)."""

    tokens: tuple[str, ...]

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        alternatives = "|".join(re.escape(token) for token in sorted(self.tokens, key=len, reverse=True))
        return re.compile(alternatives) if alternatives else None

    @classmethod
    def of(cls, model_dir: Path) -> "ControlTokens":
        """Raises BrokenPolicy when the directory has no readable tokenizer.json: guessing would open the door."""
        try:
            added = json.loads((model_dir / "tokenizer.json").read_text())["added_tokens"]
            return cls(tuple(token["content"] for token in added if token["content"]))
        except (OSError, ValueError, KeyError) as error:
            raise BrokenPolicy(f"{model_dir}: the tokenizer's added tokens cannot be read: {error!r}") from error

    def neutralise(self, text: str) -> str:
        """The same text to the eye, with no control token in it.

        The tokenizer turns the characters "<|im_end|>" into the one token that ends a turn, wherever they stand.
        A user could so end their own turn and speak as the system or the assistant, and training would learn
        from it. A zero-width space after the first character makes it ordinary text.
        """
        # Again until nothing is left: a token may hold another one.
        while self._pattern is not None and self._pattern.search(text):
            text = self._pattern.sub(_broken, text)
        return text

    def neutralise_all(self, value: Any) -> Any:
        """Every string inside a JSON value, keys too."""
        if isinstance(value, str):
            return self.neutralise(value)
        if isinstance(value, list):
            return [self.neutralise_all(item) for item in value]
        if isinstance(value, dict):
            return {self.neutralise(key): self.neutralise_all(item) for key, item in value.items()}
        return value

    def neutralise_json(self, text: str) -> str:
        """The same of a text that the engine reads as JSON, if it is JSON: escapes may spell a control token there."""
        try:
            value = json.loads(text)
        except ValueError:
            return self.neutralise(text)
        plain = self.neutralise_all(value)
        return self.neutralise(text if plain == value else json.dumps(plain, ensure_ascii=False))


def _broken(match: re.Match[str]) -> str:
    token = match[0]
    return f"{token[0]}\u200b{token[1:]}" if len(token) > 1 else "\ufffd"
