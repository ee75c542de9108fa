"""The completions of one prompt behind that prompt in one sequence, none of which sees another.

So the prompt is forwarded once for all of them, and every state is the one that it would have by itself.

Letters: B rows, T tokens of a row, N completions of a batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.data import Sample


@dataclass(frozen=True)
class Row:
    """A prompt and distinct completions of it."""

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.completions))

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(self.prompt_ids, completion) for completion in self.completions)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return sum(self.completions, self.prompt_ids)

    @property
    def segments(self) -> list[int]:
        """Of each token: 0 in the prompt, k in the k-th completion."""
        lengths = map(len, (self.prompt_ids, *self.completions))
        return [segment for segment, length in enumerate(lengths) for _ in range(length)]


def pack(samples: Iterable[Sample], max_tokens: float) -> list[Row]:
    """Every distinct sample once, in rows of at most `max_tokens`, or of one completion where that is longer."""
    rows: dict[tuple[int, ...], list[Row]] = {}
    for sample in dict.fromkeys(samples):
        own = rows.setdefault(sample.prompt_ids, [])
        if own and len(own[-1]) + len(sample.completion_ids) <= max_tokens:
            own[-1] = Row(sample.prompt_ids, (*own[-1].completions, sample.completion_ids))
        else:
            own.append(Row(sample.prompt_ids, (sample.completion_ids,)))
    return [row for own in rows.values() for row in own]


def within_budget(units: Sequence[Sequence[Row]], token_budget: int) -> list[list[int]]:
    """Indices of `units` in batches of at most `token_budget` tokens, padding included; like lengths together.

    The rows of a unit stay together, even where they alone are beyond the budget.
    """
    longest = [max(map(len, rows)) for rows in units]
    batches: list[list[int]] = []
    count = 0  # rows of the last batch
    for i in sorted(range(len(units)), key=lambda i: (longest[i], i)):
        if not batches or (count + len(units[i])) * longest[i] > token_budget:
            batches.append([])
            count = 0
        batches[-1].append(i)
        count += len(units[i])
    return batches


@dataclass(frozen=True)
class PackedBatch:
    """Rows padded on the right. Padding is known by the mask alone: the pad id may also be a real token."""

    input_ids: Tensor  # (B, T)
    mask: Tensor  # (B, T, T) True where a token (of the first T) sees another; (B, T), 1 = real, of single completions
    rows: Tensor  # (N,) the row of each completion
    ends: Tensor  # (N,) where in T its last token lies


def visibility(segments: Tensor) -> Tensor:
    """What each token sees (B, T, T): the prompt and its own segment, both up to itself.

    segments (B, T): 0 is the prompt, a positive number one of its completions, -1 padding, which sees itself alone: a
    softmax over nothing is NaN.
    """
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    related = (query >= 0) & ((key == 0) | (key == query))  # (B, T, T)
    return related.tril() | torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)


def collate_rows(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> PackedBatch:
    """Rows as one batch on `device`. The completions of the first row come first, in their order."""
    input_ids = pad_sequence([torch.tensor(row.token_ids) for row in rows], batch_first=True, padding_value=pad_id)
    segments = pad_sequence([torch.tensor(row.segments) for row in rows], batch_first=True, padding_value=-1)
    single = all(len(row.completions) == 1 for row in rows)
    counts = torch.tensor([len(row.completions) for row in rows])
    ends = [torch.tensor([len(row.prompt_ids), *map(len, row.completions)]).cumsum(0)[1:] - 1 for row in rows]
    return PackedBatch(
        input_ids=input_ids.to(device),
        mask=(segments >= 0).long().to(device) if single else visibility(segments.to(device)),
        rows=torch.arange(len(rows)).repeat_interleave(counts).to(device),
        ends=torch.cat(ends).to(device),
    )
