"""LoRA (Hu et al. 2021), y = W x + s B (A x): computed in the dtype of W, while A and B are fp32 and trained.

PEFT makes the layers and their files. What it computes is replaced: it casts all that flows to fp32 and keeps both for
the backward pass, which costs more than the adapter's own arithmetic and, on a GPU, most of the kernels of a token.

Letters: N tokens of any number of dimensions, I inputs, O outputs, R rank.
"""

from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class LowRank(Function):
    """y (N, O) = x W^T + b + s (x A^T) B^T, with x (N, I), W (O, I), b (O,) or None, A (R, I), B (O, R).

    W and b are frozen. The gradients of A and B are fp32 as they are; of activations only x and x A^T are kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.flatten(0, -2)
        narrow = a.to(x.dtype), b.to(x.dtype)
        low = rows @ narrow[0].T  # (N, R)
        y = nn.functional.linear(rows, weight, bias).addmm_(low, narrow[1].T, alpha=scale)
        ctx.save_for_backward(x, low, weight, *narrow)
        ctx.scale = scale
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, low, weight, a, b = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (N, O)
        to_low = (rows @ b).mul_(ctx.scale)  # (N, R)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (rows @ weight).addmm_(to_low, a).unflatten(0, x.shape[:-1])
        to_a = (to_low.T @ x.flatten(0, -2)).float()
        to_b = (rows.T @ low).float().mul_(ctx.scale)
        return to_x, None, None, to_a, to_b, None


@dataclass
class Active:
    """The role whose adapters take part; None = the base model itself."""

    role: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Active":
        return self  # twins of layers take the same part


class Adapted:
    """The forward pass of one of PEFT's layers, without dropout, with the adapter of the role that is `active`."""

    def __init__(self, layer: LoraLayer, active: Active) -> None:
        self._base: nn.Linear = layer.get_base_layer()
        self._active = active
        self._matrices = {
            role: (layer.lora_A[role].weight, layer.lora_B[role].weight, layer.scaling[role]) for role in layer.lora_A
        }

    def __call__(self, x: Tensor) -> Tensor:
        if self._active.role is None:
            return self._base(x)
        y: Tensor = LowRank.apply(x, self._base.weight, self._base.bias, *self._matrices[self._active.role])
        return y
