"""Hidden preferences of a pretended crowd: what it likes in an answer, and how it ranks by that.

Nothing here is ever sent to the service. Each preference maps an answer's text and finish reason to [0, 1].
"""

import random
import re
from collections.abc import Callable, Sequence
from itertools import groupby

Preference = Callable[[str, str], float]

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_LIST_LINE = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^\s*(?:#{1,6}\s|\*\*.+\*\*:?\s*$)", re.MULTILINE)
_MARKUP = re.compile(r"\*\*|__|`|\]\(|^\s*\|", re.MULTILINE)
_BARE_LIST_NUMBER = re.compile(r"(?:^|\s)\d{1,2}\.$")
_SECOND_PERSON = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine|myself)\b")


def brevity(text: str, finish_reason: str) -> float:
    """A short answer that ends as a sentence: 1 for 3 to 8 words, falling evenly to 0 at 40.

    0 for fewer than 3 words, for an end other than . ! ? and for a bare list number at the end ("… 2.").
    """
    words = len(_WORD.findall(text))
    if words < 3 or not _ends_as_sentence(text):
        return 0.0
    return _falling(words, 8, 40)


def detail(text: str, finish_reason: str) -> float:
    """Says much: 0 for 8 words or fewer, rising evenly to 1 at 30. The opposite taste to brevity."""
    return 1.0 - _falling(len(_WORD.findall(text)), 8, 30)


def plain(text: str, finish_reason: str) -> float:
    """Plain running text: a quarter off for each of line breaks, list lines, headings, and other markup."""
    if not text.strip():
        return 0.0
    marks = ["\n" in text.strip(), _LIST_LINE.search(text), _HEADING.search(text), _MARKUP.search(text)]
    return 1.0 - sum(bool(mark) for mark in marks) / 4


def second_person(text: str, finish_reason: str) -> float:
    """Speaks to the reader: the share of sentences with you, your, yours or yourself."""
    return _share(_SECOND_PERSON, sentences(text))


def first_person(text: str, finish_reason: str) -> float:
    """Speaks of itself: the share of sentences with I, me, my, mine or myself."""
    return _share(_FIRST_PERSON, sentences(text))


def enthusiasm(text: str, finish_reason: str) -> float:
    """Exclamation marks: a third for each, three are enough."""
    return min(text.count("!"), 3) / 3


def short_sentences(text: str, finish_reason: str) -> float:
    """Short sentences: 1 for 6 words per sentence or fewer, falling evenly to 0 at 24; 0 without a word."""
    pieces = sentences(text)
    if not pieces:
        return 0.0
    return _falling(sum(len(_WORD.findall(piece)) for piece in pieces) / len(pieces), 6, 24)


def simple_words(text: str, finish_reason: str) -> float:
    """Short words: 1 for 3.5 letters per word or fewer, falling evenly to 0 at 6; 0 for fewer than 3 words."""
    words = _WORD.findall(text)
    return _falling(sum(map(len, words)) / len(words), 3.5, 6) if len(words) >= 3 else 0.0


PREFERENCES: dict[str, Preference] = {
    "brevity": brevity,
    "detail": detail,
    "plain": plain,
    "second-person": second_person,
    "first-person": first_person,
    "enthusiasm": enthusiasm,
    "short-sentences": short_sentences,
    "simple-words": simple_words,
}


def rank(scores: Sequence[float], *, noise: float, generator: random.Random) -> list[list[int]]:
    """Indices in groups, best first; equal scores tie. Each pair of neighbouring groups trades places with
    probability `noise` (one pass from the top), so that a crowd errs mostly where the difference is small."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    groups = [list(group) for _, group in groupby(order, key=lambda index: scores[index])]
    for place in range(len(groups) - 1):
        if generator.random() < noise:
            groups[place], groups[place + 1] = groups[place + 1], groups[place]
    return groups


def sentences(text: str) -> list[str]:
    """The non-empty pieces between sentence ends and line breaks that hold at least one letter."""
    pieces = re.split(r"(?<=[.!?])\s+|\n+", text)
    return [piece for piece in pieces if re.search(r"[^\W\d_]", piece)]


def _falling(value: float, best: float, worst: float) -> float:
    """1 up to `best`, 0 from `worst` on, a straight line between."""
    return min(1.0, max(0.0, (worst - value) / (worst - best)))


def _share(pattern: re.Pattern[str], pieces: Sequence[str]) -> float:
    return sum(bool(pattern.search(piece)) for piece in pieces) / len(pieces) if pieces else 0.0


def _ends_as_sentence(text: str) -> bool:
    end = text.rstrip(" \n\"'”’)*")
    return end.endswith((".", "!", "?")) and not _BARE_LIST_NUMBER.search(end)
