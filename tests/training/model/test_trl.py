"""What we export is what others train on: TRL takes our file as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)  # fmt: skip

from feedback.exchange.exporting import Wanted, export
from feedback.exchange.lines import encode
from feedback.judgements import Comparison, Demonstration, Feedback, Judgement, Ranking
from feedback.records import Completion, Message
from feedback.store import Ledger, connect
from training.config import RewardConfig as OurConfig
from training.model.classifier import export_classifier
from training.model.samples import Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.round.stages import TextEncoder

if TYPE_CHECKING:
    from tests.training.conftest import ModelMaker

ONE_STEP: dict[str, Any] = {
    "max_steps": 1, "per_device_train_batch_size": 5, "per_device_eval_batch_size": 5, "max_length": 200,
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "save_strategy": "no",
    "disable_tqdm": True, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture
def exported(valkey_url: str, tmp_path: Path) -> Path:
    """A ranking of three, a comparison, an edit: five pairs, about a served prompt and an imported one."""
    ledger = Ledger(connect(valkey_url))
    for name, question, version in (("x", "Why?\u2028", 1), ("y", "How?", None)):
        answers = list(_answers(name, question, version=version))
        ledger.append_answer(answers[0].frame(model="m", choices=3), answers)
    _say(ledger, Ranking(candidates=("x0", "x1", "x2"), ranking="B > A > C"))
    _say(ledger, Comparison(left="y0", right="y1", winner="right"))
    _say(ledger, Demonstration(completion_id="y2", content="Like this.", based_on_edit=True))
    path = tmp_path / "trl.jsonl"
    path.write_bytes(b"".join(map(encode, export(ledger, Wanted("trl"), b"salt"))))
    return path


def _answers(name: str, question: str, *, version: int | None) -> Iterator[Completion]:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=question))
    for n in range(3):
        yield Completion(
            id=f"{name}{n}", response_id=name, choice=n, conversation_id=name, rater="r", messages=messages,
            text=f"Answer {n}.", prompt_token_ids=(), completion_token_ids=(), logprobs=(), sampling={},
            finish_reason="stop", policy_version=version, created=0.0,
        )  # fmt: skip


def _say(ledger: Ledger, judgement: Judgement) -> None:
    id = f"f-{judgement.type}"
    ledger.append_feedback(Feedback(id=id, judgement=judgement, rater="ann", split="train", created=0.0))


def test_reward_trainer_takes_the_export_unchanged(
    exported: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_model: "ModelMaker",
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    from trl import RewardConfig, RewardTrainer

    data = datasets.load_dataset("json", data_files=str(exported), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == 5
    model = LlamaForSequenceClassification(_with_one_label(tiny_model().config))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    arguments = RewardConfig(**ONE_STEP, output_dir=str(tmp_path / "out"))
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    assert len(trainer.train_dataset) == 5, "none was left out"
    assert trainer.train().global_step == 1
    moved = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert "score.weight" in moved


def _with_one_label(config: object) -> object:
    config.num_labels = 1  # type: ignore[attr-defined]
    return config


def test_reward_trainer_measures_and_trains_our_reward_model(
    exported: Path, tmp_path: Path, base_directory: Path, perturbed: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    from trl import RewardConfig, RewardTrainer

    torch.nn.init.normal_(perturbed.heads["reward"].weight, generator=torch.Generator().manual_seed(4))
    torch.nn.init.constant_(perturbed.heads["reward"].bias, 0.75)
    export_classifier(perturbed, tmp_path / "model", base_directory=base_directory)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    lines = list(map(json.loads, exported.read_bytes().splitlines()))
    encode = TextEncoder(base_directory).encode
    samples = [
        Sample(*encode([Message(**message) for message in line["prompt"]], line[side][0]["content"]))
        for line in lines
        for side in ("chosen", "rejected")
    ]
    scores = Scorer(perturbed, [], OurConfig()).all(samples)
    gains = [chosen - rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]
    data = datasets.Dataset.from_list(lines)
    trainer = RewardTrainer(
        model=model, args=RewardConfig(**ONE_STEP, output_dir=str(tmp_path / "out")), train_dataset=data,
        eval_dataset=data, processing_class=tokenizer,
    )  # fmt: skip
    found = trainer.evaluate()
    assert 0 < found["eval_accuracy"] < 1, "an accuracy that neither all nor none would have"
    assert found["eval_accuracy"] == pytest.approx(fmean(gain > 0 for gain in gains), abs=1e-6)
    assert found["eval_margin"] == pytest.approx(fmean(gains), abs=1e-5)
    assert found["eval_mean_reward"] + model.config.score_bias == pytest.approx(fmean(scores), abs=1e-5)
    before = model.score.weight.detach().clone()
    assert trainer.train().global_step == 1
    assert not torch.equal(model.score.weight, before)
