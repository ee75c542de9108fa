"""The gradient of attention in bf16 on a CPU: against torch's own of the same attention in fp64."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.training.conftest import ModelMaker
from training.config import AdapterConfig
from training.model import attention_gradient
from training.model.attention import blocks_of
from training.model.attention_gradient import attention
from training.model.samples import Sample, collate
from training.model.trunk import Trunk

HEADS, GROUPS, SIZE, SCALE = 6, 2, 8, 0.3
MODULE: Any = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, is_causal=True)


def problem(rows: int, queries: int, keys: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Queries, keys and values as a model has them, and a gradient for what comes out."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(queries, HEADS), (keys, GROUPS), (keys, GROUPS), (queries, HEADS)]
    *inputs, gradient = (
        torch.randn(rows, *shape, SIZE, generator=generator).bfloat16().transpose(1, 2) for shape in shapes
    )
    return inputs, gradient.transpose(1, 2)


def gradients(of: Any, inputs: list[Tensor], gradient: Tensor, **arguments: Any) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    output, _ = of(MODULE, *leaves, scaling=SCALE, **arguments)
    return output, list(torch.autograd.grad(output, leaves, gradient.to(output.dtype)))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5), queries=st.integers(1, 9), before=st.integers(0, 4), at_once=st.integers(1, 3),
    masked=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_what_torch_finds_in_fp64(
    rows: int, queries: int, before: int, at_once: int, masked: bool, seed: int
) -> None:
    """Some rows at a time, of queries that see all keys `before`, those to themselves, or not all of these."""
    keys = queries + (before if masked else 0)
    inputs, gradient = problem(rows, queries, keys, seed)
    mask = None
    if masked:
        some = torch.rand(rows, 1, queries, keys, generator=torch.Generator().manual_seed(seed)) < 0.7
        mask = (some | torch.eye(queries, keys, dtype=torch.bool)).tril(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_gradient, "CHUNK_WEIGHTS", at_once * HEADS * queries * keys)
        output, ours = gradients(attention, inputs, gradient, attention_mask=mask)
    torchs, theirs = gradients(sdpa_attention_forward, inputs, gradient, attention_mask=mask)
    assert output.grad_fn is not None and output.grad_fn.name() == "_AttentionBackward"
    assert torch.equal(output, torchs), "the forward pass is torch's, to the bit"
    _, exact = gradients(sdpa_attention_forward, [x.double() for x in inputs], gradient, attention_mask=mask)
    for own, other, right in zip(ours, theirs, exact, strict=True):
        assert own.dtype is torch.bfloat16 and own.shape == right.shape
        assert (own - right).norm() <= 2 * (other - right).norm() + 0.004 * right.norm() + 1e-6


def test_what_all_keys_share_hides_no_difference_between_scores() -> None:
    """A bias of queries and keys makes all scores some 270, for which bf16 has eight bits: a third of the gradient."""
    inputs, gradient = problem(4, 40, 40, 0)
    for x in inputs[:2]:
        x[..., 0] += 30
    _, ours = gradients(attention, inputs, gradient, attention_mask=None)
    _, exact = gradients(sdpa_attention_forward, [x.double() for x in inputs], gradient, attention_mask=None)
    off = [((own - right).norm() / right.norm()).item() for own, right in zip(ours, exact, strict=True)]
    assert max(off) < 0.05


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5), keys=st.integers(1, 70), places=st.integers(0, 9), masked=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]), long=st.sampled_from([SIZE, 3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_one_query_is_what_torch_finds_head_by_head(
    rows: int, keys: int, places: int, masked: bool, dtype: torch.dtype, long: int, seed: int
) -> None:
    """But for the order of sums, with places for more; no key is copied where values are as long as these."""
    (query, key, value), _ = problem(rows, 1, keys + places, seed)
    query, key, value = query.to(dtype), key.to(dtype)[:, :, :keys], value.to(dtype)[:, :, :keys, :long]
    mask = None
    if masked:
        mask = torch.rand(rows, 1, 1, keys, generator=torch.Generator().manual_seed(seed)) < 0.7
        mask[..., -1] = True
    with torch.no_grad(), Called() as called:
        ours, _ = attention(MODULE, query, key, value, mask, scaling=SCALE)
    assert called.names["clone"] == 0 or long != SIZE  # then torch has another way
    with torch.no_grad():
        theirs, _ = sdpa_attention_forward(MODULE, query, key, value, mask, scaling=SCALE)
    assert ours.dtype is dtype and ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=1e-6 if dtype is torch.float32 else 2**-7, atol=1e-6)


ADDED = torch.zeros(2, 1, 5, 5, dtype=torch.bfloat16)
UNLIKE: list[dict[str, Any]] = [
    {"dtype": torch.float32}, {"with_gradient": False}, {"dropout": 0.1}, {"longest": 4}, {"attention_mask": ADDED},
    {"is_causal": False}, {"position_bias": ADDED},
]  # fmt: skip


@pytest.mark.parametrize("unlike", [{}, *UNLIKE], ids=lambda unlike: next(iter(unlike), "as usual"))
def test_elsewhere_it_is_left_to_torch(unlike: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32, without gradients, with dropout, for long rows, and where something is added to the scores or all tokens
    are seen."""
    told = {
        "dtype": torch.bfloat16,
        "with_gradient": True,
        "longest": 5,
        "attention_mask": None,
        "dropout": 0.0,
    } | unlike
    monkeypatch.setattr(attention_gradient, "LONGEST", told.pop("longest"))
    query, key, value = (x.to(told["dtype"]) for x in problem(2, 5, 5, 0)[0])
    with torch.set_grad_enabled(told["with_gradient"]):
        rest = {name: told.get(name) for name in ("is_causal", "position_bias")}
        mask, dropout = told.get("attention_mask"), told.get("dropout", 0.0)
        output, _ = attention(MODULE, query.requires_grad_(), key, value, mask, dropout=dropout, **rest)
    ours = output.grad_fn is not None and output.grad_fn.name() == "_AttentionBackward"
    assert ours == (not unlike)


class Called(TorchDispatchMode):
    """Notes which of torch's operations were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shared_rows", [False, True])
@pytest.mark.parametrize("full_reward", [False, True])
def test_a_trunk_in_bf16_learns_by_it(tiny_model: ModelMaker, shared_rows: bool, full_reward: bool) -> None:
    """Masked, and in blocks; by adapters, and in layers of the reward model's own under autocast."""
    trunk = Trunk(tiny_model(torch.bfloat16), AdapterConfig(lora_layers=2), full_reward=full_reward)
    batch = collate([Sample((5, 6), (7, 8, 9)), Sample((9,), (3, 4))], 0)
    attending = blocks_of([[2, 3], [1, 2]]) if shared_rows else batch.attention_mask
    with Called() as called:
        hidden = trunk.lower(batch.input_ids, attending)
        trunk.head_scores_at(hidden, attending, torch.arange(2), batch.lengths - 1).sum().backward()
    assert called.names["_scaled_dot_product_flash_attention_for_cpu"] >= 4
    assert called.names["_softmax_backward_data"] >= 2
    assert called.names["_scaled_dot_product_flash_attention_for_cpu_backward"] == 0
