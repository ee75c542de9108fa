"""One base model in memory, and small LoRA adapters and heads that make it policy, reference, reward and value model.

The adapters sit in the top layers only. What lies below is the same for every role, so it runs once per batch
(`Trunk.lower`), and each role pays for its own layers alone (`Trunk.upper`).

Letters: B batch, T tokens, C completion tokens, D hidden size, V vocabulary, K reward heads.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from feedback.hardware import local_dtype
from training.attention import Blocks, shared_prompts
from training.config import AdapterConfig
from training.data import Batch
from training.heads import fitted, new_head
from training.losses import completion_log_probs, entropy

# "ref" is what KL is measured from, "stable" what a candidate must beat; where they are the base, None stands for it.
Role = Literal["policy", "ref", "stable", "reward", "value"]
ROLES: tuple[Role, ...] = get_args(Role)
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class UnsupportedModel(ValueError):
    """The model's forward pass is not layer after layer, so it cannot be split into lower and upper."""


def _view(model: Any, first: int, last: int, norm: nn.Module) -> Any:
    """The decoder `model` with layers[first:last] and `norm` only. It shares all weights with the original."""
    view = copy.copy(model)
    view._modules = dict(model._modules)
    view.layers = nn.ModuleList(list(model.layers)[first:last])
    view.norm = norm
    view.config = copy.copy(model.config)
    view.config.num_hidden_layers = last - first
    layer_types = model.config.to_dict().get("layer_types")  # sliding or full attention, by position; not all have it
    if layer_types:
        view.config.layer_types = layer_types[first:last]
    return view


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions (B, T) counted over real tokens, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


class Trunk:
    """The base model with one adapter per role. Base weights are frozen; adapters and heads are fp32 and trainable."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: AdapterConfig,
        *,
        base_dtype: torch.dtype | None = None,
        reward_heads: int = 1,
        seed: int = 0,
    ):
        """Takes over `model` and puts adapters into it. `base_dtype` is what merged weights are written in."""
        self.adapter, self.base_dtype = adapter, base_dtype or model.dtype
        self.model = model.eval().requires_grad_(False)  # eval: dropout off, in every stage
        depth = len(model.model.layers)
        split = depth - min(adapter.lora_layers or depth, depth)
        self._inject(range(split, depth), seed)
        self._lower = _view(model.model, 0, split, nn.Identity())
        self._upper = _view(model.model, split, depth, model.model.norm)
        generator, width = torch.Generator().manual_seed(seed), model.config.hidden_size
        self.heads: dict[Role, nn.Linear] = {
            "reward": new_head(width, reward_heads, generator).to(self.device),
            "value": new_head(width, 1, generator).to(self.device),
        }
        # Scores over log-odds: a is preferred to b with probability sigmoid((a - b) / temperature).
        self.temperature = 1.0
        self.value_role: Role = "value"  # whose states the value head reads
        self._check_split()

    @classmethod
    def load(
        cls,
        directory: str | Path,
        adapter: AdapterConfig,
        *,
        base_dtype: torch.dtype | None = None,
        reward_heads: int = 1,
        seed: int = 0,
    ) -> "Trunk":
        """The base model in `directory` (Hugging Face format), in the dtype native to this machine."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", local_files_only=True)
        base_dtype = base_dtype or model.dtype
        for weight in model.parameters():  # those alone: in bf16 the frequencies of the positions would be others
            weight.data = weight.data.to(getattr(torch, local_dtype()))
        model = model.to(device)
        return cls(model, adapter, base_dtype=base_dtype, reward_heads=reward_heads, seed=seed)

    def _inject(self, layers: range, seed: int) -> None:
        config = LoraConfig(
            r=self.adapter.lora_rank,
            lora_alpha=self.adapter.lora_alpha,
            lora_dropout=0.0,
            target_modules=LORA_TARGETS,
            layers_to_transform=list(layers),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._peft = get_peft_model(self.model, config, adapter_name=ROLES[0])
            for role in ROLES[1:]:
                self._peft.add_adapter(role, config)
        self._lora = [module for module in self.model.modules() if isinstance(module, LoraLayer)]
        self._weights = [p for name, p in self.model.named_parameters() if "lora_" in name]

    @torch.no_grad()
    def _check_split(self) -> None:
        ids = torch.arange(8, device=self.device).remainder(self.model.config.vocab_size).unsqueeze(0)
        mask = torch.ones_like(ids)
        self._activate(None)
        full = self.model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        if not torch.allclose(self.upper(self.lower(ids, mask), mask, None), full, rtol=1e-3, atol=1e-3):
            raise UnsupportedModel(f"{type(self.model).__name__} does more than run its layers in order")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def pad_id(self) -> int:
        """What padding is filled with. It may be any token: padding is known by masks."""
        return 0

    def _activate(self, role: Role | None) -> None:
        for module in self._lora:
            module.enable_adapters(role is not None)
            if role is not None:
                module.set_adapter([role])
        # PEFT freezes what it deactivates, and would drop the gradients of a graph that is still to run backward.
        for weight in self._weights:
            weight.requires_grad_(True)

    def _states(self, view: Any, attention: Tensor | Blocks, **inputs: Tensor) -> Tensor:
        if isinstance(attention, Tensor):
            positions = position_ids(attention)
            return view(attention_mask=attention, position_ids=positions, use_cache=False, **inputs).last_hidden_state
        with shared_prompts(self.model.config, view.config):
            return view(
                position_ids=attention.position_ids, blocks=attention, use_cache=False, **inputs
            ).last_hidden_state

    @torch.no_grad()
    def lower(self, input_ids: Tensor, attention: Tensor | Blocks) -> Tensor:
        """Hidden states (B, T, D) below the first adapter: one for all roles, constant in training.

        `attention` is a mask (B, T), 1 = real, or says what each token sees.
        """
        return self._states(self._lower, attention, input_ids=input_ids)

    def upper(self, hidden: Tensor, attention: Tensor | Blocks, role: Role | None) -> Tensor:
        """Final, normed hidden states (B, T, D) of `role` from `lower`'s; None is the base model itself."""
        self._activate(role)
        return self._states(self._upper, attention, inputs_embeds=hidden)

    def next_token_logits(
        self, input_ids: Tensor, attention_mask: Tensor, cache: DynamicCache, role: Role | None
    ) -> Tensor:
        """Logits (B, V) after the last token. input_ids (B, S) are new to `cache`, which takes them up.

        attention_mask (B, T) covers what is cached as well; padding is on the left.
        """
        self._activate(role)
        states = self.model.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask)[:, -input_ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.model.lm_head(states[:, -1])

    def log_probs(
        self, hidden: Tensor, batch: Batch, role: Role | None, temperature: float = 1.0, with_entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs (B, C) of the completion tokens under `role`, 0 in the padding, and their entropies if asked.

        `hidden` is `lower`'s. Only the states that predict a completion token meet the (large) output matrix.
        """
        states = batch.predictors(self.upper(hidden, batch.attention_mask, role))  # (N, D)
        logits = self.model.lm_head(states)  # (N, V)
        tokens = batch.completion_ids[batch.completion_mask]
        log_probs = batch.spread(completion_log_probs(logits, tokens, temperature))
        return log_probs, batch.spread(entropy(logits, temperature)) if with_entropy else None

    def values(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Values (B, C): the value head where the token is about to be chosen; 0 in the padding."""
        states = batch.predictors(self.upper(hidden, batch.attention_mask, self.value_role))
        return batch.spread(self.heads["value"](states.float()).squeeze(-1))

    def scores(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Scores (B,): the mean of the reward heads."""
        return self.head_scores(hidden, batch).mean(-1)

    def head_scores(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Scores (B, K) of each reward head at the last real token, found by length and not by pad id."""
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.head_scores_at(hidden, batch.attention_mask, rows, batch.lengths - 1)

    def head_scores_at(self, hidden: Tensor, attention: Tensor | Blocks, rows: Tensor, ends: Tensor) -> Tensor:
        """Scores (N, K) of each reward head at the tokens `ends` (N,) of `rows` (N,)."""
        states = self.upper(hidden, attention, "reward")
        return self.heads["reward"](states[rows, ends].float())

    def score(self, batch: Batch) -> Tensor:
        """Scores (B,) from token ids, without gradients."""
        with torch.no_grad():
            return self.scores(self.lower(batch.input_ids, batch.attention_mask), batch)

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Rescale the reward heads, and with them all scores; the log-odds stay as they are."""
        for parameter in self.heads["reward"].parameters():
            parameter.mul_(temperature / self.temperature)
        self.temperature = temperature

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The trainable weights of `role`: its adapter, and its head if it has one."""
        named = {n.replace(f".{role}.", "."): p for n, p in self.model.named_parameters() if f".{role}." in n}
        head = self.heads.get(role)
        return named | ({f"head.{n}": p for n, p in head.named_parameters()} if head else {})

    def state(self, role: Role) -> dict[str, Tensor]:
        """A copy of the trainable weights of `role` on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters(role).items()}

    @torch.no_grad()
    def load_state(self, role: Role, state: Mapping[str, Tensor]) -> None:
        """The reverse of `state`. ValueError when names or shapes differ: half an adapter is never loaded."""
        parameters = self.parameters(role)
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state.items()}:
            raise ValueError(f"these weights do not fit the {role} adapter")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

    def copy_role(self, source: Role, target: Role) -> None:
        """Give `target` the adapter of `source`, and its heads' mean where both have one (reward -> value)."""
        state = {n: t for n, t in self.state(source).items() if not n.startswith("head.")}
        if (own := self.heads.get(target)) is not None:
            state |= {f"head.{n}": t for n, t in fitted(self.heads.get(source, own).state_dict(), own).items()}
        self.load_state(target, state)

    def save_adapter(self, role: Role, directory: Path) -> None:
        """Write the adapter in PEFT format, and its head, if any, with the scores' temperature as head.safetensors."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = get_peft_model_state_dict(self._peft, adapter_name=role)
        save_file({n: t.contiguous().cpu() for n, t in weights.items()}, directory / "adapter_model.safetensors")
        config = copy.copy(self._peft.peft_config[role])
        config.inference_mode = True
        config.save_pretrained(str(directory))
        if role in self.heads:
            temperature = torch.tensor(self.temperature, dtype=torch.float64)
            save_file({**self.heads[role].state_dict(), "temperature": temperature}, directory / "head.safetensors")

    def load_adapter(self, role: Role, directory: Path) -> None:
        """Read what `save_adapter` wrote, for this or another role. A head is read only where `role` has one.

        Another number of reward heads than was saved begins as `heads.fitted` says.
        """
        weights = load_file(directory / "adapter_model.safetensors")
        state = {name.removeprefix("base_model.model."): t for name, t in weights.items()}
        if (own := self.heads.get(role)) is not None:
            head = load_file(directory / "head.safetensors")
            temperature = head.pop("temperature", torch.tensor(1.0)).item()
            state |= {f"head.{n}": t for n, t in fitted(head, own).items()}
            self.temperature = temperature if role == "reward" else self.temperature
        self.load_state(role, state)

    def merged(self, role: Role = "policy", dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """The weights of base + adapter as new ones under the base's own names, in `dtype` (default: `base_dtype`)."""
        layers = dict(self.model.named_modules())
        tied = self.model.config.tie_word_embeddings
        for name, weight in self.model.state_dict().items():
            if "lora_" in name or (tied and name == "lm_head.weight"):
                continue
            module, dot, leaf = name.partition(".base_layer.")
            if dot and leaf == "weight":
                weight = weight.float() + layers[module].get_delta_weight(role).float()
            yield name.replace(".base_layer.", "."), weight.detach().to(dtype or self.base_dtype).cpu().contiguous()

    def merge_policy(self) -> dict[str, Tensor]:
        """`merged` policy weights as one state dict."""
        return dict(self.merged("policy"))
