"""One reward model, three ways to ask it: our path, transformers' sequence classifier, vLLM's pooling.

It learns from a few real rankings first, so that adapter and head are not those of the start; then completions that
people ranked are scored each way, all in float32, and the largest difference of any score is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import reward_data as data
import torch
from reward_sides import classified, flat
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from training.config import RewardConfig
from training.model.classifier import export_classifier
from training.model.samples import RankedSamples, Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.reward.reward import train_reward_model

POOLED = Path(__file__).parents[1] / "training" / "model" / "pooled.py"


def learned(base: Path, rankings: list[RankedSamples], config: RewardConfig, scratch: Path) -> Trunk:
    """A reward model in float32 that has seen `rankings` once."""
    trunk = Trunk(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    train_reward_model(config, trunk, rankings, checkpoint_dir=scratch / "checkpoints")
    return trunk


def pooled(directory: Path, samples: list[Sample]) -> list[float]:
    """vLLM's scores, from a process of its own."""
    asked = json.dumps([sample.prompt_ids + sample.completion_ids for sample in samples])
    command = [sys.executable, str(POOLED), str(directory)]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return [row[0] for row in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base model's directory")
    parser.add_argument("--data", type=Path, required=True, help="the directory of kwise.jsonl.gz")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/same_scores.json"))
    parser.add_argument("--train", type=int, default=16, help="rankings to learn from")
    parser.add_argument("--completions", type=int, default=200, help="at least so many are scored")
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rankings = data.kwise(arguments.data, tokenizer, arguments.max_tokens, at_least=2)
    train, others = data.split(rankings, arguments.train, arguments.completions // 2, seed=0)
    samples = list(dict.fromkeys(flat(others)))[: arguments.completions]
    config = replace(RewardConfig(), epochs=1, held_out_fraction=0.0)
    with tempfile.TemporaryDirectory() as scratch:
        trunk = learned(arguments.model, train, config, Path(scratch))
        bias = trunk.heads["reward"].bias.mean().item()
        ours = [score - bias for score in Scorer(trunk, [], config).all(samples)]
        export_classifier(trunk, Path(scratch) / "classifier", base_directory=arguments.model)
        model = AutoModelForSequenceClassification.from_pretrained(Path(scratch) / "classifier")
        scores = {
            "transformers": classified(model, model.config.pad_token_id, samples),
            "vllm": pooled(Path(scratch) / "classifier", samples),
        }
    spread = torch.tensor(ours).std().item()
    table = Table("asked through", "completions", "largest difference", "spread of the scores")
    found = {}
    for name, theirs in scores.items():
        found[name] = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        table.add_row(name, str(len(samples)), f"{found[name]:.1e}", f"{spread:.3f}")
    Console().print(table)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"completions": len(samples), "spread": spread, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
