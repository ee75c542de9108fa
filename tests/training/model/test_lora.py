"""The adapted layers: PEFT's results, without PEFT's copies."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from training.model.lora import Active, Adapted, LowRank


def matrices(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 5), (4, 5), (4,), (2, 5), (4, 2)]  # x, W, b, A, B
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def test_a_product_by_hand() -> None:
    x, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])
    a, b = torch.tensor([[6.0, 7.0]]), torch.tensor([[8.0]])
    assert LowRank.apply(x, weight, bias, a, b, 0.5).tolist() == [[3 + 8 + 5 + 0.5 * (6 + 14) * 8]]


def test_gradients_are_those_of_finite_differences() -> None:
    x, weight, bias, a, b = matrices()
    x, a, b = (each.requires_grad_() for each in (x, a, b))

    def fp64(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return LowRank.apply(x, weight, bias, a, b, 0.7)

    # The gradients of A and B are fp32 by contract.
    assert torch.autograd.gradcheck(fp64, (x, a, b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_computes_what_pefts_own_does(bias: bool) -> None:
    torch.manual_seed(0)
    model = get_peft_model(
        nn.Sequential(nn.Linear(5, 4, bias=bias)), LoraConfig(r=2, lora_alpha=3, target_modules=["0"])
    )
    (layer,) = [module for module in model.modules() if isinstance(module, LoraLayer)]
    nn.init.normal_(layer.lora_B["default"].weight)
    theirs, x = copy.deepcopy(layer), torch.randn(2, 3, 5)
    active = Active("default")
    layer.forward = Adapted(layer, active)
    ours = [layer(x), *torch.autograd.grad(layer(x).square().sum(), _trained(layer))]
    expected = [theirs(x), *torch.autograd.grad(theirs(x).square().sum(), _trained(theirs))]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    active.role = None
    assert torch.equal(layer(x), theirs.get_base_layer()(x))


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in layer.named_parameters() if "lora_" in name]


def test_in_bf16_no_activation_is_kept_in_fp32() -> None:
    x, weight, _, a, b = matrices()
    x, weight = x.bfloat16().requires_grad_(), weight.bfloat16()
    a, b = a.float().requires_grad_(), b.float().requires_grad_()
    kept: list[torch.dtype] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.dtype) or t, lambda t: t):
        y = LowRank.apply(x, weight, None, a, b, 1.0)
    y.float().sum().backward()
    assert set(kept) == {torch.bfloat16} and y.dtype == x.grad.dtype == torch.bfloat16
    assert a.grad.dtype == b.grad.dtype == torch.float32
