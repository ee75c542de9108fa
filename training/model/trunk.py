"""One base model in memory, and small LoRA adapters and heads that make it policy, reference, reward and value model.

The adapters sit in the top layers only. What lies below is the same for every role, so it runs once per batch
(`Trunk.lower`), and each role pays for its own layers alone (`Trunk.upper`). By option the reward model has layers to
itself and trains all their weights (`OwnLayers`).

Letters: B batch, T tokens, C completion tokens, D hidden size, V vocabulary, K reward heads.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from feedback.hardware import local_dtype
from training.config import AdapterConfig
from training.model.adapters import Adapters
from training.model.attention import SHARED, Blocks, attending
from training.model.attention_gradient import attend_densely
from training.model.heads import new_head
from training.model.layers import UnsupportedModel, in_both_forms, part_of, position_ids
from training.model.own_layers import OwnLayers
from training.model.roles import ROLES, Role, RoleWeights
from training.model.samples import Batch
from training.model.vocabulary import Beside, side_by_side, token_log_probs


class Trunk(RoleWeights):
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

        Raises UnsupportedModel when it does more than run its layers in order, or scales its logits.
        """
        if not isinstance(getattr(getattr(model, "model", None), "layers", None), nn.ModuleList):
            raise UnsupportedModel(f"{type(model).__name__} has no list of layers where it is looked for")
        attend_densely(model)
        self.adapter = adapter
        self.model = model.eval().requires_grad_(False)  # eval: dropout off, in every stage
        depth = len(model.model.layers)
        self._split = depth - min(adapter.lora_layers or depth, depth)
        own = OwnLayers(model.model, self._split, adapter, self._circumstances, seed) if full_reward else None
        adapters = Adapters(model, adapter, range(self._split, depth), ROLES, seed)
        generator, width = torch.Generator().manual_seed(seed), model.config.hidden_size
        heads: dict[Role, nn.Linear] = {
            "reward": new_head(width, reward_heads, generator).to(self.device),
            "value": new_head(width, 1, generator).to(self.device),
        }
        super().__init__(adapters, own, heads, base_dtype or model.dtype)
        self.gradient_checkpointing = adapter.gradient_checkpointing  # a stage may say otherwise
        self._role: Role | None = None  # the active one
        self.whole: Callable[[], AbstractContextManager[None]] = nullcontext  # all of the base, where it is in shares
        self.use(model.model.layers)
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
        """Raises UnsupportedModel where layers in order and the output matrix are not all that the model computes."""
        ids = torch.arange(8, device=self.device).remainder(self.model.config.vocab_size).unsqueeze(0)
        mask = torch.ones_like(ids)
        self._activate(None)
        full = self.model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        states = self.upper(self.lower(ids, mask), mask, None)
        if not torch.allclose(states, full, rtol=1e-3, atol=1e-3):
            raise UnsupportedModel(f"{type(self.model).__name__} does more than run its layers in order")
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        if not torch.allclose(self.model.lm_head(states).float(), logits.float(), rtol=1e-3, atol=1e-3):
            raise UnsupportedModel(f"{type(self.model).__name__} does more to its logits than multiply by a matrix")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def full_reward(self) -> bool:
        """Whether the reward model has layers to itself."""
        return self._own is not None

    def adapts(self, name: str) -> bool:
        """Whether the weight of that name is in a layer with adapters; any other is the base's in every role."""
        kind, _, rest = name.removeprefix("model.").partition(".")
        return kind == "layers" and int(rest.partition(".")[0]) >= self._split

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

    def beside(self, hidden: Tensor, batch: Batch, role: Role, other: Role | None, temperature: float = 1.0) -> Beside:
        """`role` beside `other` where each completion token is about to be chosen, (B, C); without gradients."""
        policy, reference = (batch.predictors(self.upper(hidden, batch.attention_mask, each)) for each in (role, other))
        tokens = batch.completion_ids[batch.completion_mask]
        return Beside(*map(batch.spread, side_by_side(policy, reference, tokens, self.model.lm_head, temperature)))

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
