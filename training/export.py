"""A trained policy as files that an engine can serve, with what proves later that it serves just these."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.data import Sample, collate, length_bucketed
from training.models import Role, Trunk

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
    for pattern in COPIED:
        for source in sorted(base_directory.glob(pattern)):
            if not any(source.match(weights) for weights in WEIGHT_FILES):
                link_or_copy(source, merged / source.name)
    weights = trunk.merge_policy()
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    return ExportedPolicy(
        model_path=MERGED,
        adapter_path=ADAPTER,
        weights=weight_digests(weights),
        golden_logprobs=tuple(map(tuple, golden_log_probs(trunk, golden))),
    )


def link_or_copy(source: Path, target: Path) -> None:
    """`target` with the content of `source`, sharing its bytes on disk where it can; links are resolved first."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@torch.no_grad()
def golden_log_probs(
    trunk: Trunk, golden: Sequence[Sequence[int]], role: Role | None = "policy", microbatch: int = 8
) -> list[list[float]]:
    """For each sequence the log-probs, at temperature 1, of its second to last token given all before them."""
    samples = [Sample((sequence[0],), tuple(sequence[1:])) for sequence in golden]
    found: dict[int, list[float]] = {}
    for indices in length_bucketed([len(s) for s in samples], microbatch):
        batch = collate([samples[i] for i in indices], trunk.pad_id, trunk.device)
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, role)
        for index, row, mask in zip(indices, log_probs, batch.completion_mask, strict=True):
            found[index] = row[mask].tolist()
    return [found[i] for i in range(len(samples))]


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
