"""What others load as our reward model gives our scores."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)  # fmt: skip

from training.config import AdapterConfig, RewardConfig
from training.model.classifier import ended, export_classifier, padding_id
from training.model.layers import UnsupportedModel
from training.model.samples import Sample, collate, encode_chat, encode_demonstration
from training.model.scoring import Scorer
from training.model.trunk import Trunk

IM_END = 2
# Two end with the token that pads in the base's tokenizer, and one has it twice.
SAMPLES = [
    Sample((5, 6, 7), (8, 9, IM_END)),
    Sample((5, 6), (10, 11, 12, 13, 14, 15)),
    Sample((9,), (20, IM_END, IM_END)),
]


@pytest.fixture
def base(base_directory: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<spare>"]})
    tokenizer.save_pretrained(base_directory)
    return base_directory


@pytest.fixture
def trained(perturbed: Trunk) -> Trunk:
    """Its head is far from its beginning, and has a bias."""
    torch.nn.init.normal_(perturbed.heads["reward"].weight, std=1.0, generator=torch.Generator().manual_seed(3))
    torch.nn.init.constant_(perturbed.heads["reward"].bias, 0.75)
    return perturbed


def test_it_scores_as_the_trunk_does_padded_and_alone(trained: Trunk, base: Path, tmp_path: Path) -> None:
    export_classifier(trained, tmp_path / "out", base_directory=base)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.pad_token == "<spare>"
    ours = trained.score(collate(SAMPLES, trained.pad_id))
    rows = [{"input_ids": list(s.prompt_ids + s.completion_ids)} for s in SAMPLES]
    with torch.no_grad():
        padded = classifier(**tokenizer.pad(rows, return_tensors="pt")).logits[:, 0]
        alone = torch.stack([classifier(input_ids=torch.tensor([row["input_ids"]])).logits[0, 0] for row in rows])
    bias = classifier.config.score_bias
    assert bias == 0.75
    torch.testing.assert_close(padded + bias, ours, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone + bias, ours, rtol=0, atol=1e-5)


def test_an_ensemble_is_its_mean_and_the_config_knows_its_log_odds(
    tiny_model: Callable[[], LlamaForCausalLM], base: Path, tmp_path: Path
) -> None:
    trunk = Trunk(tiny_model(), AdapterConfig(lora_rank=8, lora_layers=2), reward_heads=3)
    generator = torch.Generator().manual_seed(3)
    for name, weight in trunk.parameters("reward").items():
        if "lora_A" not in name:
            weight.data.normal_(std=0.05 if "lora_B" in name else 1.0, generator=generator)
    trunk.set_temperature(2.5)
    export_classifier(trunk, tmp_path / "out", base_directory=base)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    scorer = Scorer(trunk, [], RewardConfig(reward_heads=3))
    by_head = scorer.all_by_head(SAMPLES)
    assert by_head.std(1).min() > 0.1, "the heads differ"
    config = classifier.config
    with torch.no_grad():
        logits = [classifier(torch.tensor([s.prompt_ids + s.completion_ids])).logits[0, 0].item() for s in SAMPLES]
    scores = [logit + config.score_bias for logit in logits]
    assert scores == pytest.approx(by_head.mean(1).tolist(), rel=0, abs=1e-5)
    assert config.score_temperature == 2.5
    log_odds = [score / config.score_temperature for score in scores]
    assert log_odds == pytest.approx(scorer.log_odds(SAMPLES), rel=0, abs=1e-5)


def test_the_base_stays_as_it_is_and_the_target_is_never_overwritten(
    trained: Trunk, base: Path, tmp_path: Path
) -> None:
    def digests() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in base.iterdir()}

    before = digests()
    export_classifier(trained, tmp_path / "out", base_directory=base)
    assert digests() == before
    with pytest.raises(FileExistsError):
        export_classifier(trained, tmp_path / "out", base_directory=base)


def test_padding_neither_ends_an_answer_nor_stands_in_a_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens(padding_id(tokenizer)) == "<|endoftext|>"
    tokenizer.chat_template = "<|endoftext|>" + str(tokenizer.chat_template)
    with pytest.raises(UnsupportedModel, match="pad"):
        padding_id(tokenizer)


def test_a_chat_in_text_ends_where_our_samples_end(trained: Trunk, base: Path, tmp_path: Path) -> None:
    export_classifier(trained, tmp_path / "out", base_directory=base)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (base, tmp_path / "out"))
    asked = [{"role": "user", "content": "a \n"}]
    whole = [*asked, {"role": "assistant", "content": "b \n"}]
    sample = encode_demonstration(before, asked, "b \n")
    assert tuple(encode_chat(after, whole, False)) == sample.prompt_ids + sample.completion_ids
    assert encode_chat(before, whole, False)[-2:] != encode_chat(after, whole, False)[-2:], "there a line break follows"
    assert encode_chat(after, asked, True) == encode_chat(before, asked, True)
    assert encode_demonstration(after, asked, "b \n") == sample


@pytest.mark.parametrize("template", [None, {"default": "x"}])
def test_what_is_no_chat_template_is_left_alone(template: object) -> None:
    assert ended(template) == template


def test_the_config_says_what_it_is(trained: Trunk, base: Path, tmp_path: Path) -> None:
    export_classifier(trained, tmp_path / "out", base_directory=base)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert (config["num_labels"], config["problem_type"], config["dtype"]) == (1, "regression", "float32")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_vllm_pools_the_same_scores_of_a_real_model(real_model: Path, tmp_path: Path) -> None:
    trunk = Trunk(AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32), AdapterConfig(lora_layers=4))
    generator = torch.Generator().manual_seed(0)
    for name, weight in trunk.parameters("reward").items():
        if "lora_B" in name:
            weight.data.normal_(std=0.02, generator=generator)
    torch.nn.init.normal_(trunk.heads["reward"].weight, std=0.05, generator=generator)
    chance = random.Random(0)
    lengths = [(chance.randint(5, 60), chance.randint(3, 60)) for _ in range(12)]
    samples = [
        Sample(*(tuple(chance.randrange(20, 40_000) for _ in range(length)) for length in pair)) for pair in lengths
    ]
    samples = [Sample(sample.prompt_ids, (*sample.completion_ids, IM_END)) for sample in samples]
    ours = trunk.score(collate(samples, trunk.pad_id))
    export_classifier(trunk, tmp_path / "out", base_directory=real_model)
    asked = json.dumps([sample.prompt_ids + sample.completion_ids for sample in samples])
    script = Path(__file__).parent / "pooled.py"
    pooled = subprocess.run(
        [sys.executable, script, tmp_path / "out"], input=asked, capture_output=True, text=True, check=False
    )
    assert pooled.returncode == 0, pooled.stderr[-3000:]
    theirs = torch.tensor(json.loads(pooled.stdout))[:, 0]
    assert ours.std() > 0.1
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
