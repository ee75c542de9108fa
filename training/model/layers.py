"""Some of a decoder's layers as a decoder of their own, and what the backward pass costs them in memory.

Letters: B batch, T tokens, D hidden size.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class UnsupportedModel(ValueError):
    """The model's forward pass is not layer after layer, so it cannot be split into lower and upper."""


def part_of(model: Any, first: int, layers: nn.ModuleList, norm: nn.Module) -> Any:
    """The decoder `model` with `layers`, which stand where its own do from `first` on, and `norm`.

    It shares everything else with the original.
    """
    part = copy.copy(model)
    part._modules = dict(model._modules)
    part.layers = layers
    part.norm = norm
    part.config = copy.copy(model.config)
    part.config.num_hidden_layers = len(layers)
    layer_types = model.config.to_dict().get("layer_types")  # sliding or full attention, by position; not all have it
    if layer_types:
        part.config.layer_types = layer_types[first : first + len(layers)]
    return part


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions (B, T) counted over real tokens, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


class Recomputed(nn.Module):
    """A decoder layer that keeps nothing but its input for the backward pass, and is run again there.

    By then other adapters may be active, or tokens see others: `circumstances` gives those of now, for later.
    """

    def __init__(self, layer: nn.Module, circumstances: Callable[[], Callable[[], AbstractContextManager[None]]]):
        super().__init__()
        self.layer, self._circumstances = layer, circumstances

    def forward(self, hidden: Tensor, **inputs: Any) -> Any:
        """Hidden states (B, T, D) in and out, as the layer itself would."""
        as_now = self._circumstances()

        def run(hidden: Tensor) -> Any:
            with as_now():
                return self.layer(hidden, **inputs)

        if not torch.is_grad_enabled():
            return run(hidden)
        return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)  # no dropout: nothing is random


def in_both_forms(
    layers: nn.ModuleList, circumstances: Callable[[], Callable[[], AbstractContextManager[None]]]
) -> dict[bool, nn.ModuleList]:
    """The layers as they are, and by True as ones that are recomputed; the weights are the same."""
    return {False: layers, True: nn.ModuleList(Recomputed(layer, circumstances) for layer in layers)}
