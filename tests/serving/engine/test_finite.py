"""Weights that are no numbers, as safetensors writes them, in each format and anywhere in a file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from feedback.policies.manifest import BrokenPolicy
from serving.engine.finite import check_finite

FORMATS = (torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize("dtype", FORMATS)
def test_numbers_however_large_or_small_are_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    weights = torch.tensor([0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_normal / 2], dtype=dtype)
    tensors = {"a": weights, "of 3 bytes": torch.ones(3, dtype=torch.int8), "z": torch.randn(7, 5).to(dtype)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_finite(tmp_path)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 34])
def test_one_that_is_not_is_named(tmp_path: Path, dtype: torch.dtype, value: float, place: int) -> None:
    weights = torch.randn(35).to(dtype)
    weights[place] = value
    save_file({"a": torch.randn(3).to(dtype), "b": weights, "c": torch.randn(3).to(dtype)}, tmp_path / "m.safetensors")
    with pytest.raises(BrokenPolicy, match="m.safetensors: b is not finite"):
        check_finite(tmp_path)
