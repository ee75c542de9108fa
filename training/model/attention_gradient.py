"""Attention by torch on a CPU, asked otherwise than transformers asks where that is slow, and a gradient of our own.

The one is for a token that is written after others. The other is for bf16, in which torch's flash attention runs
forward at the rate of plain products, and backward at a fifth of that: 30 against 6 ms a layer for 16 rows of 128
tokens and 9 heads, on two cores with AMX. So the backward pass finds the weights again, some rows at a time, and
multiplies; the forward pass is torch's own, to the bit.

Letters: B rows, H heads, G groups of heads with the same keys, Q queries, L keys, E size of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

DENSE = "dense"  # what configs call this attention
CHUNK_WEIGHTS = 2**21  # of all heads of some rows: 4 MiB in bf16, which stay in cache
LONGEST = 512  # queries or keys; beyond, what flash attention skips weighs more


def attend_densely(model: PreTrainedModel) -> None:
    """The model attends by `attention`, if it attends by torch's now and would gain from it."""
    if model.config._attn_implementation == "sdpa" and model.dtype == torch.bfloat16 and model.device.type == "cpu":
        model.config._attn_implementation = DENSE


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention (B, Q, H, E) of queries (B, H, Q, E) to keys and values (B, G, L, E), as transformers asks for it.

    The mask (B, 1, Q, L) is True where a query sees a key; without one, it sees those before it and itself.
    """
    if _is_one_query(query, value, attention_mask, **kwargs):
        return _of_one_query(query, key, value, attention_mask, kwargs.get("scaling")), None
    if not _has_own_gradient(query, value, attention_mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query, key = query.to(value.dtype), key.to(value.dtype)  # as autocast would: positions may have made them fp32
    return _Attention.apply(query, key, value, attention_mask, module, kwargs), None


def _is_plain(*, dropout: float = 0.0, position_bias: Tensor | None = None, **_: Any) -> bool:
    return dropout == 0 and position_bias is None


def _is_one_query(query: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> bool:
    slow = value.device.type == "cpu" and not torch.is_grad_enabled()
    return slow and query.shape[2] == 1 and (mask is None or mask.shape[1] == 1) and _is_plain(**kwargs)


def _of_one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention (B, 1, H, E): a group's heads are queries beside each other, so that no key is copied for each of them.

    In bf16 it takes a fifth of the time and, where the copies would be large, a fifteenth: 1.3 and .24 ms a layer for
    16 rows, 9 heads in 3 groups and 80 keys, 19 and 1.2 for 512 keys, on one core.
    """
    rows, groups = key.shape[:2]
    queries = query.reshape(rows, groups, -1, query.shape[-1]).to(value.dtype)
    found = nn.functional.scaled_dot_product_attention(queries, key.to(value.dtype), value, attn_mask=mask, scale=scale)
    return found.reshape(rows, 1, -1, value.shape[-1])  # not all models have values as long as keys


def _has_own_gradient(
    query: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> bool:
    slow = value.device.type == "cpu" and value.dtype == torch.bfloat16 and torch.is_grad_enabled()
    short = max(query.shape[2], value.shape[2]) <= LONGEST
    causal = query.shape[2] == value.shape[2] and is_causal is not False
    return slow and short and _is_plain(**kwargs) and (causal if mask is None else mask.dtype == torch.bool)


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, module: nn.Module, kwargs: Any
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        if mask is None:
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril().expand(len(query), 1, -1, -1)
        rows = max(1, CHUNK_WEIGHTS // (query.shape[1] * query.shape[2] * key.shape[2]))
        chunks = zip(*(x.split(rows) for x in (query, key, value, mask, gradient.transpose(1, 2))), strict=True)
        parts = [_gradients(q, k, v, m, g, ctx.scale) for q, k, v, m, g in chunks]
        return *(torch.cat(each) for each in zip(*parts, strict=True)), None, None, None


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, gradient: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Of query, key and value, by the gradient (B, H, Q, E) of what came out. A group's heads are one product.

    Keys are counted from their mean, which changes no weight: in bf16, what all keys share may be so large that the
    differences between scores would be lost.
    """
    groups, keys = key.shape[0] * key.shape[1], key.shape[2]
    q, g = (x.reshape(groups, -1, x.shape[-1]) for x in (query, gradient))  # (B * G, H / G * Q, E)
    k, v = (x.reshape(groups, keys, -1) for x in (key, value))  # (B * G, L, E)
    k = k - k.mean(1, keepdim=True)
    scores = _scaled(q, k.mT, scale)
    scores.view(*query.shape[:3], keys).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    with torch.enable_grad():
        weights = scores.requires_grad_().softmax(-1)
    (to_scores,) = torch.autograd.grad(weights, scores, g @ v.mT)
    to_q, to_k = _scaled(to_scores, k, scale), _scaled(to_scores.mT, q, scale)
    return to_q.view_as(query), to_k.view_as(key), (weights.detach().mT @ g).view_as(value)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The products of matrices, times `scale`, in one pass over memory."""
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)


AttentionInterface.register(DENSE, attention)
AttentionMaskInterface.register(DENSE, sdpa_mask)
