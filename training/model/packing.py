"""Several completions in one row, none of which sees another: every state is the one that it would have by itself.

Those of one prompt stand behind it, so that it is forwarded once for all of them. Samples of any prompts stand end to
end, so that none of them is padded.

Letters: B rows, T tokens of a row, N completions of a batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.model.attention import Blocks, blocks_of, end_to_end
from training.model.samples import Batch, Sample


@dataclass(frozen=True)
class Row:
    """A prompt and distinct completions of it."""

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(self.prompt_ids, completion) for completion in self.completions)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return sum(self.completions, self.prompt_ids)

    @property
    def lengths(self) -> list[int]:
        """Of the prompt, then of each completion."""
        return [len(self.prompt_ids), *map(len, self.completions)]


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
    """Rows padded on the right. Padding is known by lengths alone: the pad id may also be a real token."""

    input_ids: Tensor  # (B, T)
    attention: Tensor | Blocks  # a mask (B, T), 1 = real, where every row has one completion, else which sees which
    rows: Tensor  # (N,) the row of each completion
    ends: Tensor  # (N,) where in T its last token lies


def collate_rows(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> PackedBatch:
    """Rows as one batch on `device`. The completions of the first row come first, in their order."""
    input_ids = pad_sequence([torch.tensor(row.token_ids) for row in rows], batch_first=True, padding_value=pad_id)
    counts = torch.tensor([len(row.completions) for row in rows])
    ends = [torch.tensor(row.lengths).cumsum(0)[1:] - 1 for row in rows]
    real = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)  # (B, T)
    shared = any(len(row.completions) > 1 for row in rows)
    return PackedBatch(
        input_ids=input_ids.to(device),
        attention=blocks_of([row.lengths for row in rows], device) if shared else real.to(device),
        rows=torch.arange(len(rows)).repeat_interleave(counts).to(device),
        ends=torch.cat(ends).to(device),
    )


def in_order(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of `lengths`, as they come, in rows of at most `token_budget` tokens, or of one that is longer."""
    rows: list[list[int]] = []
    tokens = 0  # of the last row
    for i, length in enumerate(lengths):
        if not rows or tokens + length > token_budget:
            rows.append([])
            tokens = 0
        rows[-1].append(i)
        tokens += length
    return rows


def collate_end_to_end(samples: Sequence[Sample], device: torch.device | str = "cpu") -> Batch:
    """Samples as a batch of one row on `device`: T and C are all their tokens, in their order, without padding."""
    lengths = [len(sample) for sample in samples]
    starts = accumulate(lengths, initial=0)
    completion_ids = torch.tensor([[token for sample in samples for token in sample.completion_ids]])
    # The state before a token predicts it.
    predicting = [
        torch.arange(len(sample.prompt_ids), len(sample)) + start - 1
        for sample, start in zip(samples, starts, strict=False)
    ]
    return Batch(
        input_ids=torch.tensor([[token for s in samples for token in s.prompt_ids + s.completion_ids]]).to(device),
        attention_mask=end_to_end([[length] for length in lengths], device),
        lengths=torch.tensor([sum(lengths)]).to(device),
        completion_ids=completion_ids.to(device),
        completion_mask=torch.ones_like(completion_ids, dtype=torch.bool).to(device),
        positions=torch.cat(predicting).unsqueeze(0).to(device),
    )
