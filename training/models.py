"""One base model in memory, and small LoRA adapters and heads that make it policy, reference, reward and value model.

The adapters sit in the top layers only. What lies below is the same for every role, so it runs once per batch
(`Trunk.lower`), and each role pays for its own layers alone (`Trunk.upper`). By option the reward model has layers to
itself and trains all their weights (`OwnLayers`).

Letters: B batch, T tokens, C completion tokens, D hidden size, V vocabulary, K reward heads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from feedback.hardware import local_dtype
from training.adapters import ADAPTER_FILE, Adapters
from training.attention import SHARED, Blocks, attending
from training.config import AdapterConfig
from training.data import Batch
from training.heads import fitted, new_head
from training.layers import UnsupportedModel, in_both_forms, part_of, position_ids
from training.own_layers import LAYERS_FILE, OWN_ROLES, OwnLayers, weights_file
from training.vocabulary import token_log_probs

# "ref" is what KL is measured from, "stable" what a candidate must beat; where they are the base, None stands for it.
Role = Literal["policy", "ref", "stable", "reward", "value"]
ROLES: tuple[Role, ...] = get_args(Role)


class Trunk:
    """The base model with one adapter per role. Base weights are frozen; adapters and heads are fp32 and trainable.

    With `full_reward` the reward model has its own copy of the top layers, and the value role an adapter on that.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: AdapterConfig,
        *,
        base_dtype: torch.dtype | None = None,
        reward_heads: int = 1,
        full_reward: bool = False,
        seed: int = 0,
    ):
        """Takes over `model` and puts adapters into it. `base_dtype` is what merged weights are written in.

        Raises UnsupportedModel when it does not run its layers in order.
        """
        if not isinstance(getattr(getattr(model, "model", None), "layers", None), nn.ModuleList):
            raise UnsupportedModel(f"{type(model).__name__} has no list of layers where it is looked for")
        self.adapter, self.base_dtype = adapter, base_dtype or model.dtype
        self.model = model.eval().requires_grad_(False)  # eval: dropout off, in every stage
        depth = len(model.model.layers)
        self._split = depth - min(adapter.lora_layers or depth, depth)
        self._own = OwnLayers(model.model, self._split, adapter, self._circumstances, seed) if full_reward else None
        self._adapters = Adapters(model, adapter, range(self._split, depth), ROLES, seed)
        self.gradient_checkpointing = adapter.gradient_checkpointing  # a stage may say otherwise
        self._role: Role | None = None  # the active one
        self.whole: Callable[[], AbstractContextManager[None]] = nullcontext  # all of the base, where it is in shares
        self.use(model.model.layers)
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
        full_reward: bool = False,
        seed: int = 0,
        device: str | None = None,
    ) -> "Trunk":
        """The base model in `directory` (Hugging Face format), in the dtype native to this machine.

        On its GPU, if it has one and no `device` is named. Raises UnsupportedModel.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", local_files_only=True)
        base_dtype = base_dtype or model.dtype
        for weight in model.parameters():  # those alone: in bf16 the frequencies of the positions would be others
            weight.data = weight.data.to(getattr(torch, local_dtype()))
        model = model.to(device)
        return cls(model, adapter, base_dtype=base_dtype, reward_heads=reward_heads, full_reward=full_reward, seed=seed)

    def use(self, layers: Iterable[nn.Module]) -> None:
        """Compute with these decoder layers, which hold this trunk's adapters."""
        decoder = self.model.model
        decoder.layers = nn.ModuleList(layers)
        self._lower = part_of(decoder, 0, decoder.layers[: self._split], nn.Identity())
        self._upper = part_of(decoder, self._split, decoder.layers[self._split :], decoder.norm)
        self._forms = in_both_forms(self._upper.layers, self._circumstances)

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
    def full_reward(self) -> bool:
        """Whether the reward model has layers to itself."""
        return self._own is not None

    @property
    def pad_id(self) -> int:
        """What padding is filled with. It may be any token: padding is known by masks."""
        return 0

    def _activate(self, role: Role | None) -> None:
        self._role = role
        (self._layers_of(role) or self._adapters).activate(role)

    def _circumstances(self) -> Callable[[], AbstractContextManager[None]]:
        """What an upper layer needs to give in the backward pass what it gives now: its role, and who sees whom."""
        return partial(self._as, self._role, self.model.config._attn_implementation)

    @contextmanager
    def _as(self, role: Role | None, attention: str) -> Iterator[None]:
        if role != self._role:
            self._activate(role)
        with attending(attention, self.model.config):
            yield

    def _states(self, view: Any, attention: Tensor | Blocks, **inputs: Tensor) -> Tensor:
        if isinstance(attention, Tensor):
            positions = position_ids(attention)
            return view(attention_mask=attention, position_ids=positions, use_cache=False, **inputs).last_hidden_state
        with attending(SHARED, self.model.config, view.config):
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
        own = self._layers_of(role)
        if own is not None:
            own.decoder.layers = own.forms[self.gradient_checkpointing]
            with own.precision():
                return self._states(own.decoder, attention, inputs_embeds=hidden.float())
        self._upper.layers = self._forms[self.gradient_checkpointing]
        return self._states(self._upper, attention, inputs_embeds=hidden)

    def next_token_logits(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, role: Role | None, positions: Tensor | None = None
    ) -> Tensor:
        """Logits (B, V) after the last token. input_ids (B, S) are new to `cache`, which takes them up.

        attention_mask (B, T) covers what is cached as well; padding is on the left. Or it says whom each token sees,
        (B, 1, S, T), and `positions` (B, S) where the new ones stand.
        """
        self._activate(role)
        if positions is None:
            positions = position_ids(attention_mask)[:, -input_ids.shape[1] :]
        states = self.model.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
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
        tokens = batch.completion_ids[batch.completion_mask]
        log_probs, entropies = token_log_probs(states, tokens, self.model.lm_head, temperature, with_entropy)
        return batch.spread(log_probs), None if entropies is None else batch.spread(entropies)

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
        """The trainable weights of `role`: its adapter or its own layers, and its head if it has one."""
        own = self._layers_of(role)
        named = self._adapters.parameters(role) if own is None else own.parameters(role)
        head = self.heads.get(role)
        return named | ({f"head.{n}": p for n, p in head.named_parameters()} if head else {})

    def _layers_of(self, role: Role | None) -> OwnLayers | None:
        return self._own if role in OWN_ROLES else None

    def state(self, role: Role) -> dict[str, Tensor]:
        """A copy of the trainable weights of `role` on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters(role).items()}

    def load_state(self, role: Role, state: Mapping[str, Tensor]) -> None:
        """The reverse of `state`. ValueError when names or shapes differ: half an adapter is never loaded."""
        self._put(self.parameters(role), role, state)

    @staticmethod
    @torch.no_grad()
    def _put(parameters: Mapping[str, Tensor], role: Role, state: Mapping[str, Tensor]) -> None:
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state.items()}:
            raise ValueError(f"these weights do not fit the {role} adapter")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

    def copy_role(self, source: Role, target: Role) -> None:
        """Give `target` the adapter of `source`, and its heads' mean where both have one (reward -> value).

        Where the reward model has its own layers, value is on them already, and its adapter is made to add nothing.
        """
        if self._own is not None and (source, target) == ("reward", "value"):
            self._own.begin_value()
            state = self.state(target)
        else:
            state = self.state(source)
        state = {n: t for n, t in state.items() if not n.startswith("head.")}
        if (own := self.heads.get(target)) is not None:
            state |= {f"head.{n}": t for n, t in fitted(self.heads.get(source, own).state_dict(), own).items()}
        self.load_state(target, state)

    def save_adapter(self, role: Role, directory: Path) -> None:
        """Write the adapter in PEFT format, and its head, if any, with the scores' temperature as head.safetensors.

        A reward model that has its own layers is written with these, whole, in place of an adapter.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if (own := self._layers_of(role)) is not None:
            save_file({n: p.detach().cpu() for n, p in own.parameters(role).items()}, directory / LAYERS_FILE)
        else:
            self._adapters.save(role, directory)
        if role in self.heads:
            temperature = torch.tensor(self.temperature, dtype=torch.float64)
            save_file({**self.heads[role].state_dict(), "temperature": temperature}, directory / "head.safetensors")

    def load_adapter(self, role: Role, directory: Path) -> None:
        """Read what `save_adapter` wrote, for this or another role. A head is read only where `role` has one.

        Another number of reward heads than was saved begins as `heads.fitted` says. Layers of its own go on from an
        adapter, too; the reverse is a ValueError.
        """
        path = weights_file(directory)
        state = {name.removeprefix("base_model.model."): t for name, t in load_file(path).items()}
        own_layers = self._layers_of(role) is not None
        if own_layers and path.name == ADAPTER_FILE:
            state = self._with_adapter(role, state)
        elif path.name == LAYERS_FILE and not own_layers:
            raise ValueError('whole layers are no adapter: they need reward.trains "full"')
        if (own := self.heads.get(role)) is not None:
            head = load_file(directory / "head.safetensors")
            temperature = head.pop("temperature", torch.tensor(1.0)).item()
            state |= {f"head.{n}": t for n, t in fitted(head, own).items()}
            self.temperature = temperature if role == "reward" else self.temperature
        self.load_state(role, state)

    def _with_adapter(self, role: Role, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The top layers of the base with `adapter` in them, as own layers; `role` is lent its place for it."""
        self._put(self._adapters.parameters(role), role, adapter)
        names = self.parameters(role).keys()
        return {name: weight for name, weight in self._adapters.merged(role, torch.float32) if name in names}

    def merged(self, role: Role = "policy", dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """The weights of base + adapter as new ones under the base's own names, in `dtype` (default: `base_dtype`)."""
        own = self._layers_of(role)
        assert own is None or role == "reward", "the value's adapter stands on the reward model's layers"
        layers = {} if own is None else own.parameters(role)
        for name, weight in self._adapters.merged(role, dtype or self.base_dtype):
            yield name, layers[name].detach().to(weight).contiguous() if name in layers else weight
