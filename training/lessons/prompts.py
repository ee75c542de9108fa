"""Which prompts train, and which only measure: a prompt's side is drawn once, and no round trains on the others.

Drawn is the side of a question: of the messages, without a date. Some clients and templates put one into the system
message, so the same question comes as other tokens every day, and all of them are on one side.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from feedback.records import Completion, digest, path_digest
from feedback.rounds.sides import Side
from training.lessons.answers import Ids

MIN_HELD_OUT = 2
# Of two prompts the gate can prove next to nothing: a gain has to be nine times its own spread.
WANTED_HELD_OUT = 6
WORD = re.compile(r"\w+")
# Numbers, and words that begin as the names of days and months do.
DATE = re.compile(
    r"\d+(?:st|nd|rd|th|am|pm)?|\b(?:[ap]m|"
    r"(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)\b"
)
MAX_PROMPTS_PER_RATER = 200

#: What earlier rounds fixed, of those digests that have a side.
SidesOf = Callable[[Iterable[str]], dict[str, Side]]


@dataclass(frozen=True)
class Split:
    """The prompts of a round by side; each is on one, with all that ask the same question."""

    train: frozenset[Ids]
    held_out: frozenset[Ids]


def questions_of(completions: Iterable[Completion]) -> dict[Ids, str]:
    """What each prompt asks."""
    return {each.prompt_token_ids: question_of(each) for each in completions}


def question_of(completion: Completion) -> str:
    """A digest of what it answers. System messages may hold a document, which counts, and a date, which does not."""
    told = [message.content.lower() for message in completion.messages if message.role in ("system", "developer")]
    if len(told) == len(completion.messages):
        return completion.prompt_digest
    words, turns = WORD.findall(DATE.sub(" ", " ".join(told))), path_digest(completion.messages)
    return digest([turns, words]) if words else turns


def split(
    *,
    evaluated: set[Ids],
    ranked: set[Ids],
    asked: set[Ids],
    questions: Mapping[Ids, str],
    fraction: float,
    sides_of: SidesOf,
) -> Split:
    """Held out: what was before, all `evaluated`, and of the others those with a digest below a threshold.

    Of all prompts `questions` knows what they ask, and one that must be on a side takes along whatever asks the same.
    What has trained before measures nothing any more, whoever asks or ranks it now: it stays in training. New prompts
    depend on nothing else, so it does not matter how many there come to be. Sides that were fixed are those of
    questions, and of prompts: once there was nothing else.
    """
    names = {prompt: (digest(prompt), question) for prompt, question in questions.items()}
    fixed = sides_of({name for both in names.values() for name in both})
    trained, held_out = (
        {names[prompt][1] for prompt in names if any(fixed.get(name) == side for name in names[prompt])}
        for side in ("train", "held_out")
    )
    held_out |= {questions[prompt] for prompt in evaluated}
    held_out |= {question for question in questions.values() if int(question[:8], 16) < fraction * 2**32}
    held_out -= trained
    # In a small round chance may leave next to nothing below, and then the lowest above join: for good, like all.
    for kind in (ranked, asked):
        own = {questions[prompt] for prompt in kind}
        missing = min(WANTED_HELD_OUT, len(own) // 3) - len(own & held_out)
        if missing > 0:
            held_out |= set(sorted(own - held_out - trained)[:missing])
    unseen = frozenset(prompt for prompt, question in questions.items() if question in held_out)
    return Split(frozenset(questions) - unseen, unseen)


def asked_prompts(completions: Sequence[Completion], max_tokens: int) -> dict[Ids, str]:
    """The distinct prompts up to a length, of each rater the newest, with who asked last; completions oldest first."""
    by_rater: dict[str, int] = {}
    asked: dict[Ids, str] = {}
    for completion in reversed(completions):
        ids, count = completion.prompt_token_ids, by_rater.get(completion.rater, 0)
        if ids not in asked and len(ids) <= max_tokens and count < MAX_PROMPTS_PER_RATER:
            by_rater[completion.rater] = count + 1
            asked[ids] = completion.rater
    return asked


def shuffled(prompts: Iterable[Ids], seed: int) -> tuple[Ids, ...]:
    """The order in which a round practises on its prompts."""
    ordered = sorted(prompts)
    random.Random(seed).shuffle(ordered)
    return tuple(ordered)
