"""How likely tokens are in a large vocabulary, and how far two policies are apart there, without ever holding the
logits of all positions.

The output matrix is frozen, and a position's log-prob depends on its own state alone. So its gradient is one vector of
the state's size, times whatever comes down in the backward pass: it is found right away, chunk by chunk, while the
logits are there. Nothing of the vocabulary's size is kept, and nothing computed twice.

Letters: N positions, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training.losses import all_log_probs, completion_log_probs, entropy

#: Logits of a chunk, 128 MiB in fp32; with softmax and gradients there are at most four tensors of that size. Far
#: fewer positions would leave a GPU waiting for the output matrix, which every chunk reads.
CHUNK_LOGITS = 2**25
#: Of them a CPU goes over so many at a time, 2 MiB in fp32, which stay in its cache: that takes a quarter of the time.
CACHED_LOGITS = 2**19


def token_log_probs(
    states: Tensor, tokens: Tensor, output: nn.Linear, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probs (N,) of `tokens` (N,) by the states (N, D) that predict them, and the entropies (N,) if asked.

    The weights of `output`, which makes logits, get no gradient; numbers are the same with gradients or without.
    """
    log_probs, *entropies = _TokenLogProbs.apply(states, tokens, output, temperature, with_entropy)
    return log_probs, entropies[0] if with_entropy else None


class _TokenLogProbs(torch.autograd.Function):
    """In the forward pass also d log-prob / d state and d entropy / d state, where the states have a gradient."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, tokens: Tensor, output: nn.Linear, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, ...]:
        positions = max(1, CHUNK_LOGITS // output.weight.shape[0])
        chunks = zip(states.split(positions), tokens.split(positions), strict=True)
        asked = (temperature, with_entropy, ctx.needs_input_grad[0])
        parts = [_of_chunk(output(s), t, output.weight, *asked) for s, t in chunks]
        found, gradients = ([torch.cat(each) for each in zip(*kind, strict=True)] for kind in zip(*parts, strict=True))
        ctx.save_for_backward(*gradients)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(upstream, ctx.saved_tensors, strict=True)
        total = sum(g.unsqueeze(-1) * gradient for g, gradient in pairs)  # (N, D)
        return total.to(ctx.saved_tensors[0].dtype), None, None, None, None


def _of_chunk(
    logits: Tensor, tokens: Tensor, weight: Tensor, temperature: float, with_entropy: bool, with_gradients: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probs and entropies (N,), and their gradients (N, D), of logits (N, V), which it writes over."""
    slopes = [logits, *([torch.empty_like(logits)] if with_entropy else [])] if with_gradients else []
    parts = []
    for some, chosen, *places in _in_cache(logits, tokens, *slopes):
        log_p = all_log_probs(some, temperature)
        parts.append([completion_log_probs(log_p, chosen), *([entropy(log_p)] if with_entropy else [])])
        if with_gradients:
            _write_slopes(places, log_p, chosen, *parts[-1][1:])
    return [torch.cat(each) for each in zip(*parts, strict=True)], [slope @ weight / temperature for slope in slopes]


def _in_cache(logits: Tensor, *beside: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of logits (N, V) and of what lies beside them, so many at a time as are best gone over together."""
    rows = max(1, CACHED_LOGITS // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    return zip(*(each.split(rows) for each in (logits, *beside)), strict=True)


def _write_slopes(places: Sequence[Tensor], log_p: Tensor, tokens: Tensor, entropies: Tensor | None = None) -> None:
    """How log-probs and entropies change with tempered logits z (N, V), to `places`; `log_p` is written over.

    With p = softmax(z): d log p[token] / dz = onehot(token) - p, and dH / dz = -p * (log p + H).
    """
    p = log_p.exp_() if entropies is None else log_p.exp()
    if entropies is not None:
        places[1].copy_(log_p.add_(entropies.unsqueeze(-1)).mul_(p).neg_())
    p.neg_()[torch.arange(len(p), device=p.device), tokens] += 1
    places[0].copy_(p)


class Beside(NamedTuple):
    """What two policies make of the same places; each (N,), fp32 or more, without gradients."""

    log_probs: Tensor
    other_log_probs: Tensor
    entropies: Tensor  # of the policy, over the whole vocabulary
    kl: Tensor  # KL(policy || other), over the whole vocabulary


@torch.no_grad()
def side_by_side(states: Tensor, others: Tensor, tokens: Tensor, output: nn.Linear, temperature: float = 1.0) -> Beside:
    """A policy's states (N, D) that predict `tokens` (N,) beside another's; log-probs are `token_log_probs`', to the
    bit."""
    positions = max(1, CHUNK_LOGITS // output.weight.shape[0])
    chunks = zip(*(each.split(positions) for each in (states, others, tokens)), strict=True)
    parts = [_beside(p, q, t, temperature) for s, o, t in chunks for p, q, t in _in_cache(output(s), output(o), t)]
    return Beside(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _beside(logits: Tensor, others: Tensor, tokens: Tensor, temperature: float) -> Beside:
    """Of logits (N, V) each."""
    log_p, log_q = (all_log_probs(each, temperature) for each in (logits, others))
    chosen, other_chosen = (completion_log_probs(each, tokens) for each in (log_p, log_q))
    p = log_p.exp()
    entropies = -torch.linalg.vecdot(p, log_p)
    return Beside(chosen, other_chosen, entropies, -torch.linalg.vecdot(p, log_q.sub_(log_p)))
