"""Which prompts train, and which only measure: a prompt's side is drawn once, and no round trains on the others."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feedback.records import Completion, digest
from feedback.rounds.sides import Side
from training.lessons.answers import Ids

MIN_HELD_OUT = 2
MAX_PROMPTS_PER_RATER = 200

#: What earlier rounds fixed, of those digests that have a side.
SidesOf = Callable[[Iterable[str]], dict[str, Side]]


@dataclass(frozen=True)
class Split:
    """The prompts of a round by side; each is on one."""

    train: frozenset[Ids]
    held_out: frozenset[Ids]


def split(
    *, evaluated: set[Ids], ranked: set[Ids], asked: set[Ids], others: set[Ids], fraction: float, sides_of: SidesOf
) -> Split:
    """Held out: what was before, all `evaluated`, and of the others those with a digest below a threshold.

    What has trained before measures nothing any more, whoever asks or ranks it now: it stays in training. New prompts
    depend on nothing else, so it does not matter how many there come to be.
    """
    prompts = evaluated | ranked | asked | others
    fixed = sides_of(map(digest, prompts))
    trained = {prompt for prompt in prompts if fixed.get(digest(prompt)) == "train"}
    held_out = {prompt for prompt in prompts if fixed.get(digest(prompt)) == "held_out"}
    held_out |= evaluated | {prompt for prompt in prompts if int(digest(prompt)[:8], 16) < fraction * 2**32}
    held_out -= trained
    # In a small round chance may leave next to nothing below, and then the lowest above join: for good, like all.
    for kind in (ranked, asked):
        missing = min(MIN_HELD_OUT, len(kind) // 3) - len(kind & held_out)
        if missing > 0:
            held_out |= set(sorted(kind - held_out - trained, key=digest)[:missing])
    return Split(frozenset(prompts - held_out), frozenset(held_out))


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
