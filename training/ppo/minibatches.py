"""Minibatches of rollouts: every epoch draws its own, and each holds short ones and long ones as they come.

In their order of length the rollouts are cut into runs of as many as there are minibatches, and each run gives one to
each minibatch, at random (stratified sampling). So the nth of all minibatches are about as long as each other: cut by
length into microbatches, however large, a minibatch stays the same, and what computed one microbatch holds what the
same one of another epoch needs.

Letters: B rollouts of a microbatch.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.optimizing.parallel import share

T = TypeVar("T")


def drawn(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices in minibatches of `size`, each in order of length: a pure function of its arguments, for resuming."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    count = max(1, -(-len(order) // size))
    draw = random.Random(f"{seed}/minibatches/{epoch}")
    runs = [draw.sample(run, len(run)) for run in (order[i : i + count] for i in range(0, len(order), count))]
    return [[run[place] for run in runs if place < len(run)] for place in range(count)]


def redrawn(parts: Sequence[T], size: int, microbatch: int, seed: int, epoch: int) -> Iterator[list[T]]:
    """The minibatches of a further epoch, in microbatches; `parts` are those of the first, one after the other.

    Of several processes each has its share of every microbatch, in which no two have rollouts of one run.
    """
    per_step = size // microbatch
    steps = len(parts) // per_step
    for minibatch in drawn(range(steps * size), size, seed, epoch):
        homes = [place % steps for place in minibatch]  # for each run: the minibatch of `parts` that the rollout is in
        yield [
            mixed(parts[number::per_step], share(homes[start : start + microbatch], start))
            for number, start in enumerate(range(0, size, microbatch))
        ]


def mixed(parts: Sequence[Any], homes: Sequence[int]) -> Any:
    """A record of tensors (B, ...) like `parts`: its row i is row i of the `homes[i]`th, with the padding it has there.

    Rows are padded further, with zeros, to the widest. Whatever else a record holds must be the same in all.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        rows = [parts[home][i] for i, home in enumerate(homes)]
        return torch.stack(rows) if first.dim() == 1 else pad_sequence(rows, batch_first=True)
    if isinstance(first, tuple):
        return type(first)(*(mixed(each, homes) for each in zip(*parts, strict=True)))
    if not is_dataclass(first):
        return first
    names = [field.name for field in fields(first)]
    return replace(first, **{name: mixed([getattr(part, name) for part in parts], homes) for name in names})  # type: ignore[type-var]
