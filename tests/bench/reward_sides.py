"""Who learns from the same judgements: ours, TRL's RewardTrainer, and a model that looks at lengths alone."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reward_data import pairs
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from feedback.hardware import local_dtype
from training.config import RewardConfig
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample, length_bucketed
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.reward.fit import score
from training.reward.reward import train_reward_model

PAD = "<|endoftext|>"  # other than the end of a turn, as TRL needs it


@dataclass(frozen=True)
class Learned:
    """Seconds of training, and the scores of each held-out ranking's completions."""

    seconds: float
    scores: list[list[float]]
    alone: bool = True  # on the machine; else the seconds say nothing


def ours(
    base: Path, train: Sequence[Judgement], held_out: Sequence[RankedSamples], config: RewardConfig, seed: int
) -> Learned:
    """Our reward model; the time counts what is computed below the adapters and kept."""
    trunk = Trunk.load(base, config, seed=seed)
    config = replace(config, held_out_fraction=0.0)
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        train_reward_model(
            config,
            trunk,
            [judgement for judgement in train if isinstance(judgement, RankedSamples)],
            [judgement for judgement in train if isinstance(judgement, RatedSample)],
            checkpoint_dir=Path(directory) / "checkpoints",
            seed=seed,
        )
        seconds = time.perf_counter() - started
    return Learned(seconds, score(Scorer(trunk, [], config), held_out))


def trl(
    base: Path, train: Sequence[RankedSamples], held_out: Sequence[RankedSamples], seed: int, *, learning_rate: float,
    epochs: int = 1, batch: int = 8, pure: bool = True, lora: bool = False,
) -> Learned:  # fmt: skip
    """TRL's trainer on all pairs; `pure`: weights in bf16, which is fastest, else autocast over fp32."""
    from datasets import Dataset
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer

    torch.manual_seed(seed)
    native = torch.bfloat16 if local_dtype() == "bfloat16" else torch.float32
    dtype = native if pure else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(base, pad_token=PAD)
    model.config.pad_token_id = tokenizer.pad_token_id
    columns = [(list(a.prompt_ids + a.completion_ids), list(b.prompt_ids + b.completion_ids)) for a, b in pairs(train)]
    data = Dataset.from_dict({"chosen_ids": [a for a, _ in columns], "rejected_ids": [b for _, b in columns]})
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrlConfig(
            output_dir=directory, num_train_epochs=epochs, per_device_train_batch_size=batch, max_length=None,
            learning_rate=learning_rate, bf16=not pure and native is torch.bfloat16, gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, seed=seed, lr_scheduler_type="linear",
        )  # fmt: skip
        trainer = RewardTrainer(
            model=model, args=arguments, train_dataset=data, processing_class=tokenizer,
            peft_config=_lora() if lora else None,
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return Learned(seconds, by_ranking(held_out, classified(trainer.model, tokenizer.pad_token_id, flat(held_out))))


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])


def length_only(train: Sequence[RankedSamples], held_out: Sequence[RankedSamples]) -> Learned:
    """score = w * completion length, w by maximum likelihood: what anything cleverer has to beat."""
    started = time.perf_counter()
    gaps = torch.tensor([float(len(a.completion_ids) - len(b.completion_ids)) for a, b in pairs(train)]) / 100
    weight = torch.zeros(())
    for _ in range(50):  # Newton; the loss is convex in one number
        p = torch.sigmoid(weight * gaps)
        weight = weight + ((1 - p) * gaps).sum() / ((p * (1 - p) * gaps.square()).sum() + 1e-9)
    scores = [float(weight) * len(sample.completion_ids) / 100 for sample in flat(held_out)]
    return Learned(time.perf_counter() - started, by_ranking(held_out, scores))


@torch.no_grad()
def classified(model: Any, pad_id: int, samples: Sequence[Sample], batch: int = 8) -> list[float]:
    """Scores by a sequence classifier."""
    model.eval()
    scores: dict[int, float] = {}
    for indices in length_bucketed([len(sample) for sample in samples], batch):
        ids = [torch.tensor(samples[i].prompt_ids + samples[i].completion_ids) for i in indices]
        padded = pad_sequence(ids, batch_first=True, padding_value=pad_id).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
        logits = model(input_ids=padded, attention_mask=mask).logits[:, 0].float().tolist()
        scores |= dict(zip(indices, logits, strict=True))
    return [scores[i] for i in range(len(samples))]


def flat(rankings: Sequence[RankedSamples]) -> list[Sample]:
    return [sample for ranking in rankings for sample in ranking.samples]


def by_ranking(rankings: Sequence[RankedSamples], scores: Sequence[float]) -> list[list[float]]:
    rest = iter(scores)
    return [[next(rest) for _ in ranking.samples] for ranking in rankings]
