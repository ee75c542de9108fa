"""Scores of many completions: each distinct one is forwarded once, and a prompt once for all of its completions."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.config import RewardConfig
from training.model.attention import sees_all_before
from training.model.packing import Row, collate_rows, pack, within_budget
from training.model.samples import Sample
from training.model.trunk import Trunk

CACHED_TOKENS = 250_000  # of lower hidden states; more than that is computed again in each epoch
Piece = tuple[int, ...] | Sample  # of a row: its prompt, or one of its completions


@torch.no_grad()
def shares_prompts(trunk: Trunk, max_tokens: int) -> bool:
    """Whether the completions of a prompt may stand in one row: asked of the config, then tried.

    A window that lets tokens see only so far back is unknown to the attention of rows: within `max_tokens` it must not
    bite. A layer that is not attention would read on from one completion into the next.
    """
    if not sees_all_before(trunk.model.config, max_tokens):
        return False
    ends = []
    for row_tokens in (32, 0):  # all in one row, each in its own
        rows = pack(
            [Sample((1, 2, 3), (4, 5, 6, 7)), Sample((1, 2, 3), (7, 6, 5)), Sample((1, 2, 3), (5,))], row_tokens
        )
        batch = collate_rows(rows, trunk.pad_id, trunk.device)
        states = trunk.upper(trunk.lower(batch.input_ids, batch.attention), batch.attention, None)
        ends.append(states[batch.rows, batch.ends])  # (3, D)
    shared, own = (end.float() for end in ends)
    rounding = 1e-4 if ends[0].dtype == torch.float32 else 0.05  # bf16 alone makes 0.01
    return bool((shared - own).norm() < rounding * own.norm())


class Scorer:
    """Scores of samples, with gradients. What lies below the adapters is computed once and kept, if not too much."""

    def __init__(self, trunk: Trunk, samples: Iterable[Sample], config: RewardConfig) -> None:
        self._trunk, self._config = trunk, config
        self._row_tokens = math.inf if shares_prompts(trunk, config.max_tokens) else 0
        self._hidden: dict[Piece, Tensor] = {}
        rows = self._pack(samples, config.token_budget)
        if sum(map(len, rows)) > CACHED_TOKENS:
            return
        for indices in within_budget([[row] for row in rows], config.token_budget):
            self._keep([rows[i] for i in indices])

    def by_head(self, samples: Sequence[Sample]) -> Tensor:
        """Scores (N, K) of each reward head, from one batch."""
        rows = self._pack(samples)
        places = {sample: i for i, sample in enumerate(s for row in rows for s in row.samples)}
        scores = self._scores(rows)
        return scores[torch.tensor([places[self._cut(s)] for s in samples], device=scores.device)]

    def batches(self, groups: Sequence[Sequence[Sample]]) -> list[list[int]]:
        """Indices of `groups` in batches within the token budget; like lengths together.

        A group is never torn apart, nor are the groups of one prompt, so that all of them share its rows.
        """
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for i, group in enumerate(groups):
            by_prompt.setdefault(group[0].prompt_ids, []).append(i)
        units = list(by_prompt.values())
        rows = [self._pack(s for i in unit for s in groups[i]) for unit in units]
        return [[i for u in batch for i in units[u]] for batch in within_budget(rows, self._config.token_budget)]

    def all(self, samples: Sequence[Sample]) -> list[float]:
        """Scores without gradients, of any number of samples."""
        scores: list[float] = self.all_by_head(samples).mean(-1).tolist() if samples else []
        return scores

    def log_odds(self, samples: Sequence[Sample]) -> list[float]:
        """Scores as the likelihood knows them: one that is higher by g is preferred with probability sigmoid(g)."""
        return [score / self._trunk.temperature for score in self.all(samples)]

    @torch.no_grad()
    def all_by_head(self, samples: Sequence[Sample]) -> Tensor:
        """Scores (N, K) of each reward head, on the CPU, of any number of samples but none."""
        rows = self._pack(samples, self._config.token_budget)
        scores: dict[Sample, Tensor] = {}
        for indices in within_budget([[row] for row in rows], self._config.token_budget):
            batch = [rows[i] for i in indices]
            scores |= dict(zip((s for row in batch for s in row.samples), self._scores(batch).cpu(), strict=True))
        return torch.stack([scores[self._cut(sample)] for sample in samples])

    def _cut(self, sample: Sample) -> Sample:
        return sample.truncated(self._config.max_tokens)

    def _pack(self, samples: Iterable[Sample], max_tokens: float = math.inf) -> list[Row]:
        """Completions that left different parts of their prompt behind have different prompts, hence rows."""
        return pack(map(self._cut, samples), min(max_tokens, self._row_tokens))

    def _scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores (N, K) of the completions of `rows`, in their order."""
        batch = collate_rows(rows, self._trunk.pad_id, self._trunk.device)
        hidden = self._kept(rows) if self._hidden else self._trunk.lower(batch.input_ids, batch.attention)
        return self._trunk.head_scores_at(hidden, batch.attention, batch.rows, batch.ends)

    def _keep(self, rows: Sequence[Row]) -> None:
        batch = collate_rows(rows, self._trunk.pad_id, self._trunk.device)
        for row, hidden in zip(rows, self._trunk.lower(batch.input_ids, batch.attention), strict=True):
            parts = hidden[: len(row)].split(row.lengths)
            # Copies: a view would hold on to the whole batch.
            self._hidden |= {piece: part.clone() for piece, part in zip(_pieces(row), parts, strict=True)}

    def _kept(self, rows: Sequence[Row]) -> Tensor:
        """Lower hidden states (B, T, D), put together again; a row need not hold all completions that were kept."""
        return pad_sequence(
            [torch.cat([self._hidden[piece] for piece in _pieces(row)]) for row in rows], batch_first=True
        )


def _pieces(row: Row) -> list[Piece]:
    return [row.prompt_ids, *row.samples]
