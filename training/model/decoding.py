"""Token after token: what the sampler has in hand between two of them.

On a CPU a batch shrinks as its rows end. A GPU would spend its time on starting the thousand small kernels of a token:
there the buffers stay where they are, so that all of these kernels are recorded once and replayed as one graph.

Letters: B rows, T tokens so far, L places for tokens, V vocabulary, H heads, E their size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from training.model.attention import sees_all_before
from training.model.roles import Role
from training.model.samples import left_padded
from training.model.trunk import Trunk

AT_ONCE = {"cpu": 64, "cuda": 512}  # prompts; a step of a GPU takes as long for one row as for hundreds
ROOM = 32  # places for tokens that are made at once
TOKENS_AT_ONCE = 2**16  # of prompts and completions, whose keys and values are held: 8 GB for a model of 8B


class Roomy(DynamicLayer):
    """Keys and values (B, H, T, E) with places for the next tokens: to grow by one, all of them need not be copied."""

    _places: tuple[Tensor, ...] = ()  # of both, some of them taken

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As attention calls it: takes the new tokens' (B, H, S, E), gives those of all so far."""
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if any(places.shape[-2] >= after for places in self._places):
            for places, new in zip(self._places, (key_states, value_states), strict=True):
                places[..., before:after, :] = new
        else:  # at first, when they are all taken, and after rows were dropped
            self._places = tuple(F.pad(held, (0, 0, 0, ROOM)) for held in super().update(key_states, value_states))
        self.keys, self.values = (places[..., :after, :] for places in self._places)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows go on."""
        super().batch_select_indices(indices)
        self._places = ()


class Growing:
    """Keys and values grow with each token, and rows that ended are dropped."""

    def __init__(self, trunk: Trunk, prompts: Sequence[Sequence[int]], role: Role | None) -> None:
        self._trunk, self._role = trunk, role
        self._ids, self._mask = (x.to(trunk.device) for x in left_padded(prompts, trunk.pad_id))
        self._cache = DynamicCache(config=trunk.model.config)
        self._cache.layers = [Roomy() if type(layer) is DynamicLayer else layer for layer in self._cache.layers]
        self.rows = list(range(len(prompts)))  # of `prompts`, that the logits are of

    def logits(self) -> Tensor:
        """Of the next token (B, V)."""
        return self._trunk.next_token_logits(self._ids, self._mask, self._cache, self._role)

    def go_on(self, tokens: Tensor, going: Sequence[bool]) -> None:
        """Each of the rows gets its token (B,), and only those that are `going` need another."""
        self._ids, self._mask = tokens.unsqueeze(1), F.pad(self._mask, (0, 1), value=1)
        if not all(going):
            kept = torch.tensor([i for i, goes in enumerate(going) if goes], device=tokens.device)
            self._ids, self._mask = self._ids[kept], self._mask[kept]
            self._cache.batch_select_indices(kept)
            self.rows = [row for row, goes in zip(self.rows, going, strict=True) if goes]


class Fixed:
    """Keys and values (B, H, L, E) in place; it is the cache that the model's attention writes into."""

    def __init__(self, trunk: Trunk, prompts: Sequence[Sequence[int]], role: Role | None, room: int) -> None:
        """With places for `room` tokens after the prompts."""
        self._trunk, self._role = trunk, role
        ids, mask = (x.to(trunk.device) for x in left_padded(prompts, trunk.pad_id))
        cache = DynamicCache(config=trunk.model.config)
        self._logits = trunk.next_token_logits(ids, mask, cache, role)
        self._keys, self._values = [], []
        for layer in cache.layers:  # one after the other, so that little is held twice
            self._keys.append(F.pad(layer.keys, (0, 0, 0, room)))
            self._values.append(F.pad(layer.values, (0, 0, 0, room)))
            layer.keys = layer.values = None
        self._ids = ids[:, -1:].clone()
        self._seen = F.pad(mask.bool(), (0, room))[:, None, None]  # (B, 1, 1, L)
        self._place = torch.tensor([ids.shape[1] - 1], device=trunk.device)  # among L, of the last token
        self._positions = mask.long().sum(-1, keepdim=True) - 1  # (B, 1) of the same
        self._step: Callable[[], Tensor] | None = None
        self.rows = list(range(len(prompts)))

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """As attention calls it: takes the last token's (B, H, 1, E), gives those of all places."""
        self._keys[layer].index_copy_(2, self._place, key)
        self._values[layer].index_copy_(2, self._place, value)
        return self._keys[layer], self._values[layer]

    def logits(self) -> Tensor:
        """Of the next token (B, V), until the next call."""
        return self._logits

    def go_on(self, tokens: Tensor, going: Sequence[bool]) -> None:
        """Each of the rows gets its token (B,). All need another: rows that ended write what nobody reads."""
        self._ids.copy_(tokens.unsqueeze(1))
        self._place += 1
        self._positions += 1
        self._seen.index_fill_(3, self._place, True)
        if self._step is None:
            self._step = replayed(self._forward) if tokens.is_cuda else self._forward
        self._logits = self._step()

    def _forward(self) -> Tensor:
        return self._trunk.next_token_logits(self._ids, self._seen, self, self._role, self._positions)


def at_once(device: torch.device, longest: int) -> int:
    """How many prompts are written to together, where the longest comes to so many tokens."""
    return max(1, min(AT_ONCE[device.type], TOKENS_AT_ONCE // longest))


def decoder(trunk: Trunk, prompts: Sequence[Sequence[int]], role: Role | None, max_new_tokens: int) -> Growing | Fixed:
    """What suits the device and the model."""
    longest = max(map(len, prompts)) + max_new_tokens
    if trunk.device.type == "cuda" and _same_kernels(trunk.model.config, longest):
        return Fixed(trunk, prompts, role, max_new_tokens)
    return Growing(trunk, prompts, role)


def _same_kernels(config: PreTrainedConfig, longest: int) -> bool:
    """Whether every token up to the `longest`-th takes the same kernels, and each sees all before it by a mask of bits.

    Only torch's attention takes such a mask; positions of some kinds depend on how long the sequence is.
    """
    facts = str(config.to_dict())
    changing = any(f"'rope_type': '{kind}'" in facts for kind in ("dynamic", "longrope"))
    return sees_all_before(config, longest) and not changing


def replayed(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`step` as one graph of kernels. It must give the same again when it is repeated, from buffers that stay in place.

    What it returns is overwritten by the next call.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is set up at a first call must not be recorded
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
