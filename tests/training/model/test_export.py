import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.config import AdapterConfig
from training.model.export import export_policy, golden_log_probs, weight_digests
from training.model.trunk import Trunk

GOLDEN = [[5, 6, 7, 8, 9, 2], [10, 11, 2], [12, 2, 13, 14, 15, 16, 17]]


@pytest.fixture
def trained(base_directory: Path) -> Trunk:
    """It computes in fp32 on every machine and is stored as bf16."""
    return moved(base_directory, torch.bfloat16)


def moved(base_directory: Path, base_dtype: torch.dtype) -> Trunk:
    """A trunk from disk whose policy is not the base."""
    model = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
    adapter = AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=2)
    trunk = Trunk(model, adapter, base_dtype=base_dtype)
    generator = torch.Generator().manual_seed(1)
    for name, weight in trunk.parameters("policy").items():
        if "lora_B" in name:
            weight.data.normal_(std=0.05, generator=generator)
    return trunk


def test_the_merged_directory_is_a_whole_model(trained: Trunk, base_directory: Path, tmp_path: Path) -> None:
    export_policy(trained, tmp_path / "out", base_directory=base_directory, golden=GOLDEN)
    merged = tmp_path / "out" / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert model.dtype is torch.bfloat16
    assert not any(path.is_symlink() for path in merged.rglob("*"))
    ids = torch.tensor([GOLDEN[2]])
    trained._activate("policy")
    with torch.no_grad():
        ours = trained.model(input_ids=ids).logits.float()
        served = model.float().eval()(input_ids=ids).logits
        torch.testing.assert_close(served, ours, rtol=0.1, atol=0.1)  # the merged weights are rounded to bf16
    theirs, base = (AutoTokenizer.from_pretrained(path) for path in (merged, base_directory))
    chat = [{"role": "user", "content": "Hi"}]
    assert theirs.apply_chat_template(chat) == base.apply_chat_template(chat)


def test_the_adapter_directory_is_what_peft_reads(trained: Trunk, base_directory: Path, tmp_path: Path) -> None:
    export_policy(trained, tmp_path / "out", base_directory=base_directory, golden=GOLDEN)
    base = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
    ids = torch.tensor([GOLDEN[0]])
    trained._activate("policy")
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter")(input_ids=ids).logits
        torch.testing.assert_close(theirs, trained.model(input_ids=ids).logits.float(), rtol=1e-2, atol=1e-2)


def test_exporting_changes_neither_the_base_on_disk_nor_the_live_policy(
    trained: Trunk, base_directory: Path, tmp_path: Path
) -> None:
    def digest() -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in base_directory.iterdir()}

    files, state = digest(), trained.state("policy")
    export_policy(trained, tmp_path / "out", base_directory=base_directory, golden=GOLDEN)
    assert digest() == files
    assert all(torch.equal(t, trained.state("policy")[n]) for n, t in state.items())


def test_a_sharded_bases_index_is_left_behind(trained: Trunk, base_directory: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(base_directory, sharded)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    export_policy(trained, tmp_path / "out", base_directory=sharded, golden=GOLDEN)
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    assert not (tmp_path / "out" / "merged" / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_golden_log_probs_are_those_of_the_merged_weights_in_full_precision(
    base_directory: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Whatever the base's config says of its dtype: an engine in fp32 reads all the bits that the file has."""
    declared = json.loads((base_directory / "config.json").read_text())
    base = shutil.copytree(base_directory, tmp_path / "said")
    (base / "config.json").write_text(json.dumps({**declared, "dtype": "bfloat16"}))
    exported = export_policy(moved(base, dtype), tmp_path / "out", base_directory=base, golden=GOLDEN)
    merged = tmp_path / "out" / "merged"
    assert AutoModelForCausalLM.from_pretrained(merged).dtype is dtype
    assert json.loads((base / "config.json").read_text())["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float64)
    weights = {name: weight.double() for name, weight in load_file(merged / "model.safetensors").items()}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    for sequence, found in zip(GOLDEN, exported.golden_logprobs, strict=True):
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(-1)
        want = [logs[i, token].item() for i, token in enumerate(sequence[1:])]
        assert found == pytest.approx(want, abs=1e-5)


def test_golden_log_probs_tell_policies_apart(trained: Trunk, base_directory: Path, tmp_path: Path) -> None:
    new = export_policy(trained, tmp_path / "out", base_directory=base_directory, golden=GOLDEN).golden_logprobs
    old = golden_log_probs(base_directory, GOLDEN, torch.bfloat16)
    assert max(abs(a - b) for x, y in zip(new, old, strict=True) for a, b in zip(x, y, strict=True)) > 0.1


def test_golden_log_probs_are_of_the_dtype_that_the_engine_takes(base_directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_directory).to(torch.float16).double()
    (found,) = golden_log_probs(base_directory, GOLDEN[:1], torch.float16)
    with torch.no_grad():
        logs = model(input_ids=torch.tensor(GOLDEN[:1])).logits[0].log_softmax(-1)
    assert found == pytest.approx([logs[i, token].item() for i, token in enumerate(GOLDEN[0][1:])], abs=1e-4)


def test_digests_are_of_the_engines_tensors(trained: Trunk, base_directory: Path, tmp_path: Path) -> None:
    """The fused matrices are concatenated here with torch, from the file, as the engine does it."""
    exported = export_policy(trained, tmp_path / "out", base_directory=base_directory, golden=GOLDEN)
    weights = load_file(tmp_path / "out" / "merged" / "model.safetensors")

    def sha256(tensor: torch.Tensor) -> str:
        return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()

    attention, mlp = "model.layers.3.self_attn.", "model.layers.3.mlp."
    qkv = torch.cat([weights[f"{attention}{x}_proj.weight"] for x in "qkv"])
    gate_up = torch.cat([weights[f"{mlp}{x}_proj.weight"] for x in ("gate", "up")])
    assert exported.weights[f"{attention}qkv_proj.weight"] == sha256(qkv)
    assert exported.weights[f"{mlp}gate_up_proj.weight"] == sha256(gate_up)
    assert exported.weights["model.norm.weight"] == sha256(weights["model.norm.weight"])
    assert exported.weights[f"{attention}o_proj.weight"] == sha256(weights[f"{attention}o_proj.weight"])
    per_layer = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "input_layernorm", "post_attention_layernorm"}
    assert len(exported.weights) == 2 + 4 * len(per_layer)  # embedding and final norm; the output matrix is tied


def test_a_digest_changes_with_one_bit_of_any_part() -> None:
    state = {f"layer.self_attn.{x}_proj.weight": torch.randn(2, 4).bfloat16() for x in "qkv"}
    before = weight_digests(state)
    assert list(before) == ["layer.self_attn.qkv_proj.weight"]
    for name in state:
        changed = {**state, name: state[name].clone()}
        changed[name].view(torch.int16)[1, 3] ^= 1
        assert weight_digests(changed) != before
