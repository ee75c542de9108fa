"""LoRA adapters in the top layers of a model (Hu et al. 2021), one for each role, by way of PEFT."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.config import AdapterConfig
from training.model.lora import Active, Adapted

ADAPTER_FILE = "adapter_model.safetensors"
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(adapter: AdapterConfig, layers: range | None = None) -> LoraConfig:
    """As PEFT has it; for all layers, or those of a causal language model."""
    return LoraConfig(
        r=adapter.lora_rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
        layers_to_transform=None if layers is None else list(layers),
        task_type=None if layers is None else "CAUSAL_LM",
    )


class Adapters:
    """Those of `roles` in `layers` of `model`, fp32 and trainable; one is active, or none."""

    def __init__(self, model: PreTrainedModel, adapter: AdapterConfig, layers: range, roles: Sequence[str], seed: int):
        self._model, config = model, lora(adapter, layers)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._peft = get_peft_model(model, config, adapter_name=roles[0])
            for role in roles[1:]:
                self._peft.add_adapter(role, config)
        self._active = Active()
        for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
            layer.forward = Adapted(layer, self._active)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)  # PEFT freezes all adapters but the active one

    def activate(self, role: str | None) -> None:
        """Make the model that of `role`; None is the base model itself."""
        self._active.role = role

    def parameters(self, role: str) -> dict[str, nn.Parameter]:
        """The weights of one adapter, named alike for every role."""
        return {n.replace(f".{role}.", "."): p for n, p in self._model.named_parameters() if f".{role}." in n}

    def save(self, role: str, directory: Path) -> None:
        """Write the adapter in PEFT format."""
        weights = get_peft_model_state_dict(self._peft, adapter_name=role)
        save_file({n: t.contiguous().cpu() for n, t in weights.items()}, directory / ADAPTER_FILE)
        config = copy.copy(self._peft.peft_config[role])
        config.inference_mode = True
        config.save_pretrained(str(directory))

    def merged(self, role: str, dtype: torch.dtype, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """The weights of base + adapter as new ones under the base's own names, in `dtype`; those `wanted` by name."""
        layers = dict(self._model.named_modules())
        tied = self._model.config.tie_word_embeddings
        for name, weight in self._model.state_dict().items():
            own = name.replace(".base_layer.", ".")
            if "lora_" in name or (tied and name == "lm_head.weight") or not wanted(own):
                continue
            module, dot, leaf = name.partition(".base_layer.")
            if dot and leaf == "weight":
                weight = weight.float() + layers[module].get_delta_weight(role).float()
            yield own, weight.detach().to(dtype).cpu().contiguous()
