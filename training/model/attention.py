"""Attention in rows of prompts and their completions: a completion meets its prompt and itself, and that is all.

A mask over whole rows says the same, but there all pairs of tokens are computed before most are thrown away: with nine
completions that costs more than sharing the prompt saves.

Letters: B rows, T tokens of a row, N segments (prompts or completions) of a block, Q tokens of a segment, L those that
they may see, H heads, E their size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig

from training.model.attention_gradient import DENSE, attention

SHARED = "shared_prompts"  # what configs call this attention
MAX_PADDING = 1.5  # computed pairs of tokens, over real ones


@contextmanager
def attending(kind: str, *configs: PreTrainedConfig) -> Iterator[None]:
    """Models of these configs attend in this way; SHARED is by blocks."""
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = kind
        yield
    finally:
        for config, former in zip(configs, before, strict=True):
            config._attn_implementation = former


def sees_all_before(config: PreTrainedConfig, tokens: int) -> bool:
    """Whether attention is torch's own, and no window of it bites within so many tokens."""
    facts = config.to_dict()
    windows = [facts.get("sliding_window"), facts.get("attention_chunk_size")]
    return config._attn_implementation in ("sdpa", DENSE) and not any(window and window < tokens for window in windows)


class Segment(NamedTuple):
    """A prompt, or a completion with its prompt. Places are among the B * T tokens of a batch."""

    start: int
    length: int
    prompt_start: int
    prompt_length: int  # 0 for a prompt: it sees itself alone

    @property
    def pairs(self) -> int:
        return self.length * (self.prompt_length + self.length)


@dataclass(frozen=True)
class Block:
    """Segments of like length, computed together."""

    queries: Tensor  # (N, Q) places among the B * T tokens
    keys: Tensor  # (N, L) the same: first the prompt, then the segment
    mask: Tensor  # (N, 1, Q, L) True where a query sees a key


@dataclass(frozen=True)
class Blocks:
    """All of a batch: which token sees which."""

    blocks: tuple[Block, ...]
    places: Tensor  # (B * T,) of each token's output among those of all blocks
    position_ids: Tensor  # (B, T): a completion's go on from its prompt's

    def __len__(self) -> int:
        return len(self.position_ids)


def _segments(lengths: Sequence[Sequence[int]], starts: Sequence[int]) -> Iterator[Segment]:
    for first, (prompt, *completions) in zip(starts, lengths, strict=True):
        yield Segment(first, prompt, first, 0)
        start = first + prompt
        for length in completions:
            yield Segment(start, length, first, prompt)
            start += length


def _alike(segments: Iterator[Segment]) -> list[list[Segment]]:
    """Groups of like length, so that padding them to one length costs little."""
    groups: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (s.length, s.prompt_length)):
        group = [*groups[-1], segment] if groups else [segment]
        longest, seen = max(s.length for s in group), max(s.prompt_length + s.length for s in group)
        if groups and len(group) * longest * seen <= MAX_PADDING * sum(s.pairs for s in group):
            groups[-1] = group
        else:
            groups.append([segment])
    return groups


def blocks_of(lengths: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Blocks:
    """Of right-padded rows, each with the length of its prompt and of its completions.

    What is padding, in a row or in a block, comes out as some number that nobody reads.
    """
    width = max(map(sum, lengths))
    return _blocks(lengths, range(0, len(lengths) * width, width), (len(lengths), width), device)


def end_to_end(lengths: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Blocks:
    """Of all these in a single row, one after the other, none of which sees another; there is no padding in it."""
    *starts, width = accumulate(map(sum, lengths), initial=0)
    return _blocks(lengths, starts, (1, width), device)


def _blocks(
    lengths: Sequence[Sequence[int]], starts: Sequence[int], shape: tuple[int, int], device: torch.device | str
) -> Blocks:
    """Of prompts with their completions that begin at `starts` among the tokens of a batch (B, T) of that shape."""
    tokens = shape[0] * shape[1]
    places, positions = torch.zeros(2, tokens, dtype=torch.long)
    blocks, computed = [], 0
    for group in _alike(_segments(lengths, starts)):
        firsts, sizes, prompt_starts, prompts = torch.tensor(group).T.unsqueeze(-1)  # (N, 1) each
        query = torch.arange(int(sizes.max()))  # (Q,)
        key = torch.arange(int((prompts + sizes).max()))  # (L,)
        queries, real = (firsts + query).clamp(max=tokens - 1), query < sizes  # (N, Q)
        keys = torch.where(key < prompts, prompt_starts + key, firsts + key - prompts).clamp(max=tokens - 1)  # (N, L)
        mask = key <= (prompts + query).unsqueeze(-1)  # (N, Q, L)
        blocks.append(Block(queries.to(device), keys.to(device), mask.unsqueeze(1).to(device)))
        places[queries[real]] = computed + torch.arange(real.numel()).view(real.shape)[real]
        positions[queries[real]] = (prompts + query)[real]
        computed += real.numel()
    return Blocks(tuple(blocks), places.to(device), positions.view(shape).to(device))


def _take(x: Tensor, places: Tensor) -> Tensor:
    """From (B * T, H, E) those at `places` (N, Q), as (N, H, Q, E)."""
    return x.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


def shared_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, blocks: Blocks, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention (B, T, H, E) within `blocks`; query, key and value are (B, H, T, E), keys maybe with fewer heads."""
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]  # (B * T, H, E)
    outputs = []
    for block in blocks.blocks:
        q, k, v = (_take(x, places) for x, places in zip(flat, (block.queries, block.keys, block.keys), strict=True))
        output, _ = attention(module, q, k, v, block.mask, **kwargs)  # (N, Q, H, E)
        outputs.append(output.flatten(0, 1))
    whole = torch.cat(outputs).index_select(0, blocks.places)  # (B * T, H, E)
    return whole.unflatten(0, (len(blocks), -1)), None


AttentionInterface.register(SHARED, shared_attention)
