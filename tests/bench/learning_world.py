"""A pretended crowd whose taste is known: what it asks, how it judges, and what it would have written.

The gold reward is the crowd's own: a rule about the answer's text (serving/demo/preferences.py), or a reward model in a
directory of `ratchet rm train`. Training never sees it, only rankings by it, of which some are wrong.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from reward_data import rows
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from serving.demo.preferences import PREFERENCES, rank
from training.model.samples import RankedSamples, Sample, encode_demonstration
from training.offline.promptfile import read_prompts
from training.offline.reward_models import in_directory
from training.round.stages import TextEncoder

Prompt = tuple[int, ...]


class Gold(Protocol):
    """What the crowd thinks of completions."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]: ...


def gold_of(name: str, base: Path, eos_ids: frozenset[int]) -> Gold:
    """The rule of this name, or the reward model in this directory, whose base may be another with this tokenizer."""
    if name in PREFERENCES:
        rule, tokenizer = PREFERENCES[name], AutoTokenizer.from_pretrained(base)

        def by_rule(samples: Sequence[Sample]) -> list[float]:
            texts = tokenizer.batch_decode([s.completion_ids for s in samples], skip_special_tokens=True)
            ends = ["stop" if s.completion_ids[-1] in eos_ids else "length" for s in samples]
            return [rule(text, end) for text, end in zip(texts, ends, strict=True)]

        return by_rule
    return in_directory(Path(name)).scorer().log_odds


def ranking(samples: Sequence[Sample], gold: Gold, noise: float, seed: int) -> RankedSamples | None:
    """The crowd's of one prompt's completions; None where it has nothing to choose from."""
    distinct = tuple(dict.fromkeys(samples))
    if len(distinct) < 2:
        return None
    groups = rank(gold(distinct), noise=noise, generator=random.Random(f"{seed}/{distinct[0].prompt_ids}"))
    place = {index: tier for tier, group in enumerate(groups) for index in group}
    return RankedSamples(distinct, tuple(place[i] for i in range(len(distinct))))


class Asked(NamedTuple):
    """Prompts and demonstrations on two sides; no prompt is on both."""

    prompts: list[Prompt]
    held_out: list[Prompt]
    demonstrations: list[Sample]
    held_out_demonstrations: list[Sample]


def asked(
    base: Path, data: Path, prompts: Path | None, *, longest: int, completion: int, held_out: int, demonstrations: int
) -> Asked:
    """People's demonstrations and, unless `prompts` is a file of others, their prompts, none of more than `longest`.

    `held_out` prompts and as many demonstrations only measure.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    written = [sample for sample in _written(data, tokenizer) if len(sample.prompt_ids) <= longest]
    random.Random("demonstrations").shuffle(written)
    own = list(dict.fromkeys(sample.prompt_ids for sample in written))
    written = [sample for sample in written if len(sample.completion_ids) <= completion]
    if prompts is not None:
        own = list(read_prompts(prompts, "auto", TextEncoder(base).prompt, max_tokens=longest).ids)
        random.Random("prompts").shuffle(own)
    kept = set(own[:held_out]) | {sample.prompt_ids for sample in written[:held_out]}
    taught = [sample for sample in written if sample.prompt_ids not in kept]
    measured = [sample for sample in written if sample.prompt_ids in kept]
    return Asked([p for p in own if p not in kept], own[:held_out], taught[:demonstrations], measured[:held_out])


def _written(data: Path, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    found = []
    for row in rows(data / "demonstrations.jsonl.gz"):
        try:
            found.append(encode_demonstration(tokenizer, row["messages"], row["demonstration"]))
        except ValueError:  # the chat template cannot say it
            continue
    return found
