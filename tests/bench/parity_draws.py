"""Random batches to compare on, and how: each comparison has our tensors and the peer's.

Letters: B batch, T completion tokens, V vocabulary. All in fp64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EOS, PAD, VOCABULARY, WIDTH = 2, 0, 11, 7

Pairs = list[tuple[Any, Any]]  # ours, theirs
Case = Callable[["Draw"], Pairs]


@dataclass(frozen=True)
class Draw:
    """One random batch: ragged completions, log-probs of four policies, values old and new."""

    tokens: Tensor  # (B, T)
    mask: Tensor  # (B, T)
    finished: Tensor  # (B,) bool
    logits: Tensor  # (B, T, V)
    new: Tensor  # (B, T) each from here, zero in the padding
    old: Tensor
    ref: Tensor
    sampled: Tensor
    values: Tensor
    new_values: Tensor
    noise: Tensor
    scores: Tensor  # (B,)

    @classmethod
    def of(cls, seed: int, rows: int = 6) -> "Draw":
        g = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, WIDTH + 1, (rows,), generator=g)
        lengths[0], lengths[1] = WIDTH, WIDTH - 1  # one is cut, one is finished
        mask = torch.arange(WIDTH) < lengths[:, None]
        tokens = torch.randint(3, VOCABULARY, (rows, WIDTH), generator=g).masked_fill(~mask, PAD)
        finished = lengths < WIDTH
        tokens[finished, lengths[finished] - 1] = EOS

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, generator=g, dtype=torch.float64)

        base = -normal(rows, WIDTH).abs()
        near = [(base + normal(rows, WIDTH, scale=0.3)) * mask for _ in range(4)]
        own = [normal(rows, WIDTH) * mask for _ in range(3)]
        return cls(tokens, mask, finished, normal(rows, WIDTH, VOCABULARY), *near, *own, normal(rows))

    @property
    def far(self) -> Tensor:
        """Log-probs (B, T) so far from the old ones, both ways, that every clip is met."""
        return self.old + 8 * (self.new - self.old)

    @property
    def reals(self) -> Tensor:
        """The mask as numbers, which most peers want."""
        return self.mask.double()


def with_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    return [value.detach(), *torch.autograd.grad(value, x)]


def both(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> Pairs:
    """Loss and gradient."""
    return list(zip(with_gradient(ours, x), with_gradient(theirs, x), strict=True))
