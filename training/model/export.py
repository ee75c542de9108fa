"""A trained policy as files that an engine can serve, with what proves later that it serves just these."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from training.model.trunk import Trunk

ADAPTER = "adapter"
MERGED = "merged"
# Everything else in a base directory is weights, or nothing that an engine reads.
COPIED = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHT_FILES = ("*.safetensors.index.json",)

# vLLM keeps these projections as one matrix, rows in this order.
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


@dataclass(frozen=True)
class ExportedPolicy:
    """What a manifest records. Paths are relative to the exported directory."""

    model_path: str
    adapter_path: str
    weights: dict[str, str]
    golden_logprobs: tuple[tuple[float, ...], ...]


def export_policy(
    trunk: Trunk, directory: Path, *, base_directory: Path, golden: Sequence[Sequence[int]]
) -> ExportedPolicy:
    """Write the policy below `directory`: adapter/ in PEFT format, merged/ as a Hugging Face model.

    Everything but the weights comes from `base_directory`, hard-linked where the file system allows.
    """
    trunk.save_adapter("policy", directory / ADAPTER)
    merged = directory / MERGED
    merged.mkdir(parents=True)
    weights = export_merged(trunk, merged, base_directory=base_directory)
    return ExportedPolicy(
        model_path=MERGED,
        adapter_path=ADAPTER,
        weights=weight_digests(weights),
        golden_logprobs=golden_log_probs(merged, golden, trunk.base_dtype),
    )


def export_merged(trunk: Trunk, directory: Path, *, base_directory: Path) -> dict[str, Tensor]:
    """Write base and policy adapter as one Hugging Face model into an empty directory; returns its weights."""
    for pattern in COPIED:
        for source in sorted(base_directory.glob(pattern)):
            if not any(source.match(weights) for weights in WEIGHT_FILES):
                link_or_copy(source, directory / source.name)
    _declare_dtype(directory / "config.json", trunk.base_dtype)
    weights = dict(trunk.merged())
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return weights


def _declare_dtype(path: Path, dtype: torch.dtype) -> None:
    """A config that says how the weights beside it are stored: readers would round them to what the base's says."""
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)  # what transformers called it once
    path.unlink()  # a hard link: written through, it would change the base
    path.write_text(json.dumps({**config, "dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """`target` with the content of `source`, sharing its bytes on disk where it can; links are resolved first."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@torch.no_grad()
def golden_log_probs(
    directory: Path, golden: Sequence[Sequence[int]], dtype: torch.dtype
) -> tuple[tuple[float, ...], ...]:
    """For each sequence the log-probs, at temperature 1, of its second to last token given all before them.

    Of the model in `directory` with its weights in `dtype`, in which an engine takes them too, read back from the disk.
    The arithmetic is fp32: bf16 would round by as much as a small round changes, and the proof would take the trainer's
    rounding for a change that the engine did not make.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).float()
    return tuple(tuple(_log_probs(model, torch.tensor([list(sequence)]))) for sequence in golden)


def _log_probs(model: Any, ids: Tensor) -> list[float]:
    """ids (1, T); returns T - 1 log-probs."""
    log_probs = model(ids).logits[0, :-1].log_softmax(-1)  # (T - 1, V)
    found: list[float] = log_probs.gather(1, ids[0, 1:, None]).squeeze(1).tolist()
    return found


def _sha256(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:  # row-wise concatenation of contiguous matrices is the concatenation of their bytes
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weight_digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """sha256 of each tensor's bytes under vLLM's parameter names, as its /weight_checker reports them.

    Query, key and value projections are one matrix there, and so are gate and up; all others keep their names.
    """
    digests: dict[str, str] = {}
    for name, tensor in state.items():
        fused = re.sub(r"\.(q|k|v)_proj\.", ".qkv_proj.", re.sub(r"\.(gate|up)_proj\.", ".gate_up_proj.", name))
        if fused == name:
            digests[name] = _sha256([tensor])
        elif fused not in digests:
            target = next(whole for whole in FUSED if f".{whole}." in fused)
            parts = [fused.replace(f".{target}.", f".{part}.") for part in FUSED[target]]
            digests[fused] = _sha256([state[part] for part in parts])
    return digests
