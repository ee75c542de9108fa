"""A reward model that trains all weights of the top layers instead of an adapter: its own copy of them, in fp32.

The value role stands on the same copy with an adapter of its own: it begins as the reward model, and PPO needs neither
a second copy nor Adam's moments of whole layers. What lies below, the embeddings among it, stays shared and frozen.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from training.config import AdapterConfig
from training.model.adapters import ADAPTER_FILE, lora
from training.model.layers import in_both_forms, part_of

LAYERS_FILE = "layers.safetensors"
OWN_ROLES = ("reward", "value")


def weights_file(directory: Path) -> Path:
    """Where a saved role has its weights: whole layers, or an adapter."""
    layers = directory / LAYERS_FILE
    return layers if layers.exists() else directory / ADAPTER_FILE


class OwnLayers:
    """The decoder's layers from `first` on and its last norm, for the roles reward and value; fp32, trainable."""

    def __init__(
        self,
        decoder: Any,
        first: int,
        adapter: AdapterConfig,
        circumstances: Callable[[], Callable[[], AbstractContextManager[None]]],
        seed: int,
    ):
        """Copies what `decoder` has, which must be without adapters yet; `adapter` is the value role's.

        `circumstances` are what a layer needs to be recomputed, see `Recomputed`.
        """
        self._first, self._dtype = first, decoder.dtype
        shared = {id(decoder.config): decoder.config}  # where the attention of all layers is switched at once
        layers = copy.deepcopy(nn.ModuleList(list(decoder.layers)[first:]), shared)
        self._own = nn.ModuleDict({"layers": layers, "norm": copy.deepcopy(decoder.norm)}).float()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(lora(adapter), self._own, "value")
        self._lora = [module for module in self._own.modules() if isinstance(module, LoraLayer)]
        self.decoder = part_of(decoder, first, layers, self._own["norm"])
        self.forms = in_both_forms(layers, circumstances)

    def activate(self, role: str | None) -> None:
        """Make the decoder that of `role`. The value's adapter stands on layers that are frozen then.

        So a graph of the reward must have run backward before the value is activated; the reverse does not matter.
        """
        for module in self._lora:
            module.enable_adapters(role == "value")
        for weight in self.parameters("reward").values():
            weight.requires_grad_(role != "value")
        for weight in self.parameters("value").values():  # PEFT freezes what it disables
            weight.requires_grad_(True)

    def precision(self) -> AbstractContextManager[object]:
        """To multiply in the base model's dtype, whatever the weights are kept in."""
        device = next(self._own.parameters()).device.type
        return nullcontext() if self._dtype == torch.float32 else torch.autocast(device, self._dtype)

    def parameters(self, role: str) -> dict[str, nn.Parameter]:
        """The reward's layers under the base model's names, or the value's adapter."""
        return dict(self._named(adapter=role == "value"))

    def _named(self, adapter: bool) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self._own.named_parameters():
            if ("lora_" in name) != adapter:
                continue
            kind, _, rest = name.replace(".value.", ".").replace(".base_layer.", ".").partition(".")
            if kind == "layers":
                index, _, rest = rest.partition(".")
                rest = f"{self._first + int(index)}.{rest}"
            yield f"model.{kind}.{rest}", parameter

    @torch.no_grad()
    def begin_value(self) -> None:
        """The value role's states become the reward's: an adapter of which one factor is 0 adds nothing."""
        for name, parameter in self.parameters("value").items():
            if "lora_B" in name:
                parameter.zero_()
