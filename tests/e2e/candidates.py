"""Versions made on purpose: good ones, one that answers badly, and broken ones that name themselves whole."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from feedback.policies.manifest import Manifest, describe_files, read_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.policies.shelf import place
from training.config import AdapterConfig
from training.model.export import export_policy
from training.model.trunk import Trunk
from training.register import GOLDEN_CHATS
from training.round.version import describe_base

Weights = dict[str, torch.Tensor]
Change = Callable[[Weights], Weights]
LAYERS = 30
NOISE = 0.06  # in an adapter: it moves a token's log-prob by some 0.3


def publish(registry: PolicyRegistry, base: Path, change: Change, *, broken: bool = False) -> int:
    """A version whose weights are the base's, changed. A broken one claims to be the base: each of its bytes is as its
    manifest says, nobody knows what the engine's parameters should be, and its log-probs are those of the base."""
    version = registry.reserve()
    parent = read_manifest(registry.directory(0))

    def build(target: Path, number: int) -> Manifest:
        for file in base.iterdir():
            if file.is_file() and file.suffix != ".safetensors":
                shutil.copyfile(file, target / file.name)
        weights = change(load_file(base / "model.safetensors"))
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        golden, logprobs, digests = parent.golden, parent.golden_logprobs, dict[str, str]()
        if not broken:
            golden, logprobs, digests = describe_base(target, GOLDEN_CHATS, parent.dtype)
        return Manifest(
            version=number, parent=0, kind="trained", base_model=parent.base_model, dtype=parent.dtype, model_path=".",
            created=time.time(), files=describe_files(target), weights=digests, golden=golden, golden_logprobs=logprobs,
        )  # fmt: skip

    place(registry.directory(version), version, 0, build)
    registry.publish(version, actor="test", reason="made on purpose")
    return version


def publish_adapter(registry: PolicyRegistry, base: Path, seed: int, noise: float = NOISE) -> int:
    """A version as training leaves one, adapter and merged weights: as good as the base, and told from it and from
    another seed's."""
    version = registry.reserve()
    parent = read_manifest(registry.directory(0))

    def build(target: Path, number: int) -> Manifest:
        trunk = Trunk.load(base, AdapterConfig(), base_dtype=getattr(torch, parent.dtype), seed=seed, device="cpu")
        trunk.load_state("policy", unsettled(trunk.state("policy"), seed, noise))
        exported = export_policy(trunk, target, base_directory=base, golden=parent.golden)
        return Manifest(
            version=number, parent=0, kind="trained", base_model=parent.base_model, dtype=parent.dtype,
            model_path=exported.model_path, adapter_path=exported.adapter_path, created=time.time(),
            files=describe_files(target), weights=exported.weights, golden=parent.golden,
            golden_logprobs=exported.golden_logprobs,
        )  # fmt: skip

    place(registry.directory(version), version, 0, build)
    registry.publish(version, actor="test", reason="made on purpose")
    return version


def unsettled(adapter: Weights, seed: int, noise: float) -> Weights:
    """The adapter with noise in the half of its matrices that begins as zeros."""
    torch.manual_seed(seed)
    return {name: torch.randn(w.shape) * noise if "lora_B" in name else w for name, w in adapter.items()}


def cut(registry: PolicyRegistry, base: Path, size: int) -> int:
    """A whole version of whose weights the first `size` bytes are left after it was published."""
    version = publish(registry, base, slightly)
    with (registry.directory(version) / "model.safetensors").open("r+b") as file:
        file.truncate(size)
    return version


def layers(weights: Weights, part: str, numbers: Iterable[int]) -> list[str]:
    return [f"model.layers.{number}.{part}.weight" for number in numbers]


def slightly(weights: Weights, seed: int = 1) -> Weights:
    """As good as the base, and told from it; from another seed's too."""
    torch.manual_seed(seed)
    for name in layers(weights, "mlp.down_proj", range(20, LAYERS)):
        noise = torch.randn(weights[name].shape) * weights[name].float().std() * 0.15
        weights[name] = (weights[name].float() + noise).to(weights[name].dtype)
    return weights


def badly(weights: Weights) -> Weights:
    """It loads, it answers, and says nothing that makes sense: all words are nearly as likely as the right one."""
    weights["model.norm.weight"] = weights["model.norm.weight"] * 0.6
    return weights


def with_nan(weights: Weights) -> Weights:
    weights[layers(weights, "mlp.up_proj", [3])[0]][0, 0] = float("nan")
    return weights


def with_infinity(weights: Weights) -> Weights:
    weights[layers(weights, "mlp.up_proj", [3])[0]][0, 0] = float("inf")
    return weights


def of_zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}


def of_another_shape(weights: Weights) -> Weights:
    name = layers(weights, "mlp.up_proj", [0])[0]
    weights[name] = weights[name][:-1].contiguous()
    return weights


def with_one_missing(weights: Weights) -> Weights:
    del weights[layers(weights, "mlp.up_proj", [0])[0]]
    return weights


def of_permuted_layers(weights: Weights) -> Weights:
    first, second = (f"model.layers.{number}." for number in (5, 20))
    other = {first: second, second: first}

    def place(name: str) -> str:
        return next((name.replace(mine, theirs) for mine, theirs in other.items() if name.startswith(mine)), name)

    return {place(name): weight for name, weight in weights.items()}


def of_noise(weights: Weights) -> Weights:
    torch.manual_seed(0)
    return {name: (torch.randn(w.shape) * w.float().std()).to(w.dtype) for name, w in weights.items()}


def of_twice_the_size(weights: Weights) -> Weights:
    return {name: weight * 2 for name, weight in weights.items()}


BROKEN: dict[str, Change] = {
    "NaN": with_nan, "infinity": with_infinity, "zeros": of_zeros, "another shape": of_another_shape,
    "a missing tensor": with_one_missing, "permuted layers": of_permuted_layers, "noise": of_noise,
    "doubled weights": of_twice_the_size,
}  # fmt: skip


def model_of(registry: PolicyRegistry, version: int) -> Path:
    directory = registry.directory(version)
    return directory / json.loads((directory / "manifest.json").read_text())["model_path"]
