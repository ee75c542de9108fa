"""People's judgements as token ids, split by prompt; every split can be made again from its seed."""

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from training.model.samples import RankedSamples, RatedSample, Sample, encode_demonstration

Row = dict[str, Any]


class Split(NamedTuple):
    """Rankings of prompts of which none is on both sides."""

    train: list[RankedSamples]
    held_out: list[RankedSamples]


def rows(path: Path) -> Iterator[Row]:
    """The lines of a gzipped JSONL file, split at line feeds alone: U+2028 occurs inside texts."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


def kwise(data: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int, at_least: int = 3) -> list[RankedSamples]:
    """Rankings of `at_least` answers or more, all of which fit into `max_tokens`, as they were ranked."""
    found = []
    for row in rows(data / "kwise.jsonl.gz"):
        if len(row["responses"]) >= at_least:
            found.append(_ranked(tokenizer, row["messages"], row["responses"], row["ranks"]))
    return [ranking for ranking in found if ranking and _fits(ranking, max_tokens)]


def pairwise(data: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int, source: str = "") -> list[RankedSamples]:
    """Pairs and ties of sources whose names begin with `source`; a ranking has no sides to randomise."""
    tiers = {"a": (0, 1), "b": (1, 0), "tie": (0, 0)}
    found = [
        _ranked(tokenizer, row["messages"], (row["a"], row["b"]), tiers[row["label"]])
        for row in rows(data / "pairwise.jsonl.gz")
        if row["source"].startswith(source)
    ]
    return [ranking for ranking in found if ranking and _fits(ranking, max_tokens)]


def thumbs(data: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[RatedSample]:
    """Answers with the share of people who liked them."""
    found = []
    for row in rows(data / "thumbs.jsonl.gz"):
        sample = _sample(tokenizer, row["messages"], row["response"])
        if sample is not None and len(sample) <= max_tokens:
            found.append(RatedSample(sample, row["up"] / (row["up"] + row["down"])))
    return found


def demonstrated(data: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[RankedSamples]:
    """What a person wrote, over the worst answer to the same prompt that people ranked."""
    worst = {
        ranking.prompt_ids: ranking.samples[ranking.tiers.index(max(ranking.tiers))]
        for ranking in kwise(data, tokenizer, max_tokens)
    }
    found = []
    for row in rows(data / "demonstrations.jsonl.gz"):
        sample = _sample(tokenizer, row["messages"], row["demonstration"])
        other = worst.get(sample.prompt_ids) if sample is not None else None
        if sample is not None and other is not None and other != sample and len(sample) <= max_tokens:
            found.append(RankedSamples((sample, other), (0, 1)))
    return found


def synthetic(count: int, k: int, prompt: int, completion: int, seed: int = 0) -> list[RankedSamples]:
    """Rankings of `k` random completions each, of these many tokens."""
    chance = random.Random(seed)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(100, 40_000) for _ in range(length))

    prompts = [tokens(prompt) for _ in range(count)]
    return [RankedSamples(tuple(Sample(own, tokens(completion)) for _ in range(k)), tuple(range(k))) for own in prompts]


def split(rankings: Sequence[RankedSamples], train: int, held_out: int, seed: int) -> Split:
    """Up to so many rankings for each side, drawn by prompt."""
    by_prompt: defaultdict[tuple[int, ...], list[RankedSamples]] = defaultdict(list)
    for ranking in rankings:
        by_prompt[ranking.prompt_ids].append(ranking)
    prompts = sorted(by_prompt)
    random.Random(f"split/{seed}").shuffle(prompts)
    sides: tuple[list[RankedSamples], list[RankedSamples]] = ([], [])
    for own in map(
        by_prompt.__getitem__, prompts
    ):  # held out first: it is the smaller, and the same whatever the size of the other
        side = sides[1] if len(sides[1]) < held_out else sides[0]
        side += own
    return Split(sides[0][:train], sides[1])


def pairs(rankings: Sequence[RankedSamples]) -> list[tuple[Sample, Sample]]:
    """(chosen, rejected) of every pair that is no tie, as peers take rankings."""
    return [
        (a, b) if p < q else (b, a)
        for ranking in rankings
        for (a, p), (b, q) in combinations(zip(ranking.samples, ranking.tiers, strict=True), 2)
        if p != q
    ]


def as_pairs(rankings: Sequence[RankedSamples]) -> list[RankedSamples]:
    """Each pair as a ranking of its own."""
    return [RankedSamples(pair, (0, 1)) for pair in pairs(rankings)]


def _sample(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Row], answer: str) -> Sample | None:
    """None where the chat template cannot say it."""
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return encode_demonstration(tokenizer, plain, answer)
    except ValueError:
        return None


def _ranked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Row], answers: Sequence[str], tiers: Sequence[int]
) -> RankedSamples | None:
    """None where the chat template cannot say it, or two answers are one."""
    samples = [_sample(tokenizer, messages, answer) for answer in answers]
    whole = tuple(sample for sample in samples if sample is not None)
    if len(set(whole)) < len(answers):
        return None
    return RankedSamples(whole, tuple(tiers))


def _fits(ranking: RankedSamples, max_tokens: int) -> bool:
    return max(map(len, ranking.samples)) <= max_tokens
