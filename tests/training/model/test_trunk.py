import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
)

from training.config import AdapterConfig
from training.model.layers import UnsupportedModel
from training.model.roles import ROLES, Role
from training.model.samples import Batch, Sample, collate
from training.model.trunk import Trunk

ModelMaker = Callable[..., LlamaForCausalLM]
TrunkMaker = Callable[..., Trunk]
SAMPLES = [Sample((5, 6, 7), (8, 9, 2)), Sample((10, 11), (2,)), Sample((12, 2, 13, 14), (15, 16, 17, 18, 19))]


def whole_forward(trunk: Trunk, batch: Batch, role: Role | None) -> torch.Tensor:
    """Final hidden states of the unsplit model."""
    trunk._activate(role)
    return trunk.model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state


@pytest.mark.parametrize("role", [None, *ROLES])
@pytest.mark.parametrize("lora_layers", [1, 3, None])
def test_the_split_forward_is_the_whole_forward(
    role: Role | None, lora_layers: int | None, tiny_trunk: TrunkMaker
) -> None:
    trunk = tiny_trunk(perturbed=True, lora_layers=lora_layers)
    batch = collate(SAMPLES, pad_id=2)
    with torch.no_grad():
        hidden = trunk.lower(batch.input_ids, batch.attention_mask)
        split = trunk.upper(hidden, batch.attention_mask, role)
        whole = whole_forward(trunk, batch, role)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(split[real], whole[real], rtol=1e-4, atol=1e-4)


def test_roles_differ_once_their_adapters_do(perturbed: Trunk) -> None:
    batch = collate(SAMPLES, pad_id=2)
    hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
    with torch.no_grad():
        outputs = [perturbed.upper(hidden, batch.attention_mask, role) for role in (None, *ROLES)]
    gaps = [(a - b).abs().max() for i, a in enumerate(outputs) for b in outputs[:i]]
    assert min(gaps) > 0.01


def test_at_the_start_every_role_is_the_frozen_base_bit_for_bit(trunk: Trunk, tiny_model: ModelMaker) -> None:
    batch = collate(SAMPLES, pad_id=2)
    with torch.no_grad():
        plain = tiny_model().model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        for role in (None, *ROLES):
            assert torch.equal(whole_forward(trunk, batch, role), plain)


def test_training_a_role_leaves_the_base_and_the_other_roles_alone(perturbed: Trunk) -> None:
    before = {role: perturbed.state(role) for role in ROLES}
    base = {n: p.clone() for n, p in perturbed.model.named_parameters() if "lora_" not in n}
    optimizer = torch.optim.Adam(perturbed.parameters("policy").values(), lr=0.1)
    batch = collate(SAMPLES, pad_id=2)
    hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
    log_probs, _ = perturbed.log_probs(hidden, batch, "policy")
    perturbed.log_probs(hidden, batch, None)  # another role in between must not cost the gradients
    (-log_probs.sum()).backward()
    optimizer.step()
    assert all(not torch.equal(t, before["policy"][n]) for n, t in perturbed.state("policy").items())
    for role in set(ROLES) - {"policy"}:
        assert all(torch.equal(t, before[role][n]) for n, t in perturbed.state(role).items())
    named = dict(perturbed.model.named_parameters())
    assert all(torch.equal(named[n], p) and named[n].grad is None for n, p in base.items())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_plain_model(perturbed: Trunk, temperature: float) -> None:
    batch = collate(SAMPLES, pad_id=2)
    with torch.no_grad():
        hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
        found, entropies = perturbed.log_probs(hidden, batch, "policy", temperature, with_entropy=True)
        perturbed._activate("policy")
        for i, sample in enumerate(SAMPLES):
            ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
            logits = perturbed.model(input_ids=ids).logits[0].double() / temperature
            for j, token in enumerate(sample.completion_ids):
                row = logits[len(sample.prompt_ids) - 1 + j].log_softmax(-1)
                assert math.isclose(found[i, j], row[token], abs_tol=1e-4)
                assert math.isclose(entropies[i, j], -(row.exp() * row).sum(), abs_tol=1e-4)
    assert (found[~batch.completion_mask] == 0).all()


def test_scores_do_not_depend_on_padding(perturbed: Trunk) -> None:
    """Neither on its amount, nor on what is in it, nor on the pad token also being the last real one."""
    alone = torch.cat([perturbed.score(collate([sample], pad_id=0)) for sample in SAMPLES])
    for pad_id in (0, 2, 9):
        torch.testing.assert_close(perturbed.score(collate(SAMPLES, pad_id)), alone, rtol=1e-5, atol=1e-5)
    wide = [*SAMPLES, Sample((3,) * 20, (4,) * 20)]
    torch.testing.assert_close(perturbed.score(collate(wide, 2))[:3], alone, rtol=1e-5, atol=1e-5)


def test_padding_on_the_left_gives_the_same_states(perturbed: Trunk) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = torch.tensor([[2, 2, 2, 5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        plain = perturbed.upper(perturbed.lower(ids, torch.ones_like(ids)), torch.ones_like(ids), "reward")
        left = perturbed.upper(perturbed.lower(padded, mask), mask, "reward")
    torch.testing.assert_close(left[:, 3:], plain, rtol=1e-5, atol=1e-5)


def test_the_score_is_the_head_at_the_last_real_token(perturbed: Trunk) -> None:
    sample = SAMPLES[0]
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    perturbed._activate("reward")
    with torch.no_grad():
        state = perturbed.model.model(input_ids=ids).last_hidden_state[0, -1]
        want = perturbed.heads["reward"](state)
    torch.testing.assert_close(perturbed.score(collate(SAMPLES, 2))[:1], want, rtol=1e-5, atol=1e-5)


def test_a_value_sees_what_comes_before_its_token_only(perturbed: Trunk) -> None:
    a, b = Sample((5, 6), (7, 8, 9)), Sample((5, 6), (7, 8, 200))
    batch = collate([a, b], 0)
    with torch.no_grad():
        values = perturbed.values(perturbed.lower(batch.input_ids, batch.attention_mask), batch)
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)


def test_heads_start_with_the_published_spread(tiny_model: ModelMaker) -> None:
    """std 1 / (d + 1); of 1024 weights the sample's is within a few percent."""
    head = Trunk(tiny_model(hidden_size=1024), AdapterConfig(lora_layers=1)).heads["reward"]
    assert math.isclose(head.weight.std().item(), 1 / 1025, rel_tol=0.1)
    assert head.bias.item() == 0


def test_the_value_model_starts_as_the_reward_model(perturbed: Trunk) -> None:
    perturbed.copy_role("reward", "value")
    assert all(torch.equal(t, perturbed.state("reward")[n]) for n, t in perturbed.state("value").items())


def test_a_policy_becomes_a_reward_model_that_keeps_its_head(perturbed: Trunk) -> None:
    head = perturbed.heads["reward"].weight.clone()
    perturbed.copy_role("policy", "reward")
    assert torch.equal(perturbed.heads["reward"].weight, head)
    assert all(torch.equal(t, perturbed.state("reward")[n]) for n, t in perturbed.state("policy").items())


@pytest.mark.parametrize("role", ["policy", "reward"])
def test_a_saved_adapter_comes_back(perturbed: Trunk, trunk: Trunk, tmp_path: Path, role: Role) -> None:
    perturbed.save_adapter(role, tmp_path)
    trunk.load_adapter(role, tmp_path)
    assert all(torch.equal(t, perturbed.state(role)[n]) for n, t in trunk.state(role).items())
    files = {"adapter_model.safetensors", "adapter_config.json"} | ({"head.safetensors"} if role == "reward" else set())
    assert {path.name for path in tmp_path.iterdir()} == files


def test_peft_reads_a_saved_adapter(perturbed: Trunk, tmp_path: Path, tiny_model: ModelMaker) -> None:
    perturbed.save_adapter("policy", tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    perturbed._activate("policy")
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(tiny_model().eval(), tmp_path)(input_ids=ids).logits
        torch.testing.assert_close(perturbed.model(input_ids=ids).logits, theirs, rtol=1e-5, atol=1e-5)


def test_half_an_adapter_is_not_loaded(trunk: Trunk) -> None:
    state = trunk.state("policy")
    state.popitem()
    with pytest.raises(ValueError, match="policy"):
        trunk.load_state("policy", state)


def test_merged_weights_are_a_model_of_their_own(perturbed: Trunk, base_directory: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    perturbed._activate("policy")
    with torch.no_grad():
        want = perturbed.model(input_ids=ids).logits
        before = perturbed.state("policy")
        merged = dict(perturbed.merged())
        plain = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
        missing = plain.load_state_dict(merged, strict=False)
        plain.tie_weights()
        assert missing.unexpected_keys == []
        assert missing.missing_keys == ["lm_head.weight"]  # tied
        torch.testing.assert_close(plain.eval()(input_ids=ids).logits, want, rtol=1e-4, atol=1e-4)
        assert torch.equal(perturbed.model(input_ids=ids).logits, want)
    assert all(torch.equal(t, before[n]) for n, t in perturbed.state("policy").items())


@pytest.mark.parametrize(("lora_layers", "layers"), [(2, "23"), (None, "0123")])
def test_what_is_not_the_bases_is_in_layers_with_adapters(
    tiny_model: ModelMaker, tiny_trunk: TrunkMaker, lora_layers: int | None, layers: str
) -> None:
    base, trunk = tiny_model().state_dict(), tiny_trunk(perturbed=True, lora_layers=lora_layers)
    own = {name for name, _ in trunk.merged(wanted=trunk.adapts)}
    changed = {name for name, weight in trunk.merged() if not weight.equal(base[name])}
    assert changed and changed <= own
    assert own == {name for name in base if name.startswith(tuple(f"model.layers.{layer}." for layer in layers))}


def test_an_untrained_policy_merges_into_the_very_bytes_of_the_base(base_directory: Path) -> None:
    trunk = Trunk.load(base_directory, AdapterConfig(lora_layers=2))
    assert trunk.base_dtype is torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.bfloat16).state_dict()
    for name, tensor in trunk.merged():
        assert tensor.dtype is torch.bfloat16
        assert torch.equal(tensor, base[name])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_loaded_model_has_the_weights_of_the_machine_and_its_positions_in_full(
    dtype: str, base_directory: Path, tiny_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.model.trunk.local_dtype", lambda: dtype)
    model = Trunk.load(base_directory, AdapterConfig(lora_layers=2)).model
    assert {p.dtype for n, p in model.named_parameters() if "lora_" not in n} == {getattr(torch, dtype)}
    assert torch.equal(model.model.rotary_emb.inv_freq.cpu(), tiny_model().model.rotary_emb.inv_freq)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()  # tied


def test_a_model_that_does_more_than_its_layers_is_refused(tiny_model: ModelMaker) -> None:
    model = tiny_model()
    original = model.model.forward

    def forward(*args: object, **kwargs: object) -> object:
        output = original(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state * 1.5
        return output

    model.model.forward = forward
    with pytest.raises(UnsupportedModel):
        Trunk(model, AdapterConfig(lora_layers=2))


@pytest.mark.parametrize(
    ("config", "model", "scale"),
    [
        (CohereConfig, CohereForCausalLM, {"logit_scale": 0.0625}),
        (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 8.0}),
        (Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": 3.0}),
    ],
)
def test_a_model_that_scales_its_logits_is_refused(config: Any, model: Any, scale: dict[str, float]) -> None:
    """Log-probs by the output matrix alone would be of another policy than the one that is served."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2, "pad_token_id": 2}
    whole = model(config(vocab_size=300, **shape, **more, **scale))
    with pytest.raises(UnsupportedModel, match="more to its logits"):
        Trunk(whole, AdapterConfig(lora_layers=2))


def test_trainable_weights_are_fp32_even_in_a_bf16_trunk(tiny_model: ModelMaker) -> None:
    trunk = Trunk(tiny_model(torch.bfloat16), AdapterConfig(lora_layers=2))
    assert {p.dtype for role in ROLES for p in trunk.parameters(role).values()} == {torch.float32}
    assert trunk.score(collate(SAMPLES, 2)).dtype is torch.float32
