"""What it saves to forward the prompt of a ranking once for its K completions, forward and backward.

separate  each completion behind a prompt of its own, length-bucketed within the same token budget
packed    the completions of a ranking in one row behind their prompt, as the reward model is trained

Lengths are drawn from the quantiles of human rankings (OASST1 and PandaLM's test set), tokens at random; without
--model so are the weights, of a small Llama. Sides take turns, the first round warms up, figures are medians of rounds,
and of ratios of neighbouring rounds. Lower layers are computed each time, as they are in a first epoch.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import rig
import torch
from figures import Figures, by_turns, ratio, summary
from gateway import keep, show
from rig import Round
from transformers import LlamaConfig, LlamaForCausalLM

from feedback.hardware import local_dtype
from training.config import AdapterConfig, RewardConfig
from training.model.samples import Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk

# Tokens at the 10th, 25th, 50th, 75th and 90th percentile.
PROMPT, COMPLETION = (15, 25, 65, 210, 470), (22, 55, 135, 270, 430)
MAX_TOKENS = 1024  # nothing is cut


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a base model in Hugging Face format; default: a small random Llama")
    parser.add_argument("--completions", type=int, nargs="+", default=[2, 4, 9], metavar="K", help="default: 2 4 9")
    parser.add_argument("--rankings", type=int, default=8, help="a step; default %(default)s")
    parser.add_argument("--lora-layers", type=int, default=6, help="default %(default)s")
    parser.add_argument("--token-budget", type=int, default=RewardConfig.token_budget, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the first; default %(default)s")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/packing.json"), help="default: %(default)s")
    return parser.parse_args()


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=12, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(getattr(torch, local_dtype()))


def synthetic(rankings: int, completions: int, vocabulary: int) -> list[list[Sample]]:
    rng = random.Random(completions)

    def text(lengths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(rng.choice(lengths)))

    prompts = [text(PROMPT) for _ in range(rankings)]
    return [[Sample(prompt, text(COMPLETION)) for _ in range(completions)] for prompt in prompts]


@dataclass(frozen=True)
class Side:
    name: str
    scorer: Scorer

    def step(self, groups: list[list[Sample]]) -> list[float]:
        """Scores of all completions, and the gradients of their sum."""
        found: dict[int, list[float]] = {}
        for batch in self.scorer.batches(groups):
            scores = self.scorer.by_head([sample for i in batch for sample in groups[i]]).mean(-1)
            scores.sum().backward()
            found |= dict(zip(batch, scores.detach().split([len(groups[i]) for i in batch]), strict=True))
        return [score for i in range(len(groups)) for score in found[i].tolist()]


def timed(side: Side, groups: list[list[Sample]]) -> Round:
    started, cpu = time.perf_counter(), time.process_time()
    scores = side.step(groups)
    took = (time.perf_counter() - started) / len(groups)
    return Round({"seconds": took, "scores": scores}, (time.process_time() - cpu) / len(groups))


def measure(trunk: Trunk, config: RewardConfig, completions: int, rankings: int, repeats: int) -> Figures:
    groups = synthetic(rankings, completions, trunk.model.config.vocab_size)
    packed, separate = Side("packed", Scorer(trunk, [], config)), Side("separate", Scorer(trunk, [], config))
    separate.scorer._row_tokens = 0  # as for a model that cannot share prompts
    rounds = by_turns((separate, packed), repeats, lambda side: timed(side, groups))
    pairs = zip(rounds["separate"][0].seen["scores"], rounds["packed"][0].seen["scores"], strict=True)
    gap = max(abs(a - b) for a, b in pairs)
    figures: Figures = {
        name: {"s/ranking": summary(each, seconds), "CPU s/ranking": summary(each, cpu_seconds)}
        for name, each in rounds.items()
    }
    return figures | {
        "separate / packed": {
            "s/ranking": ratio(rounds["separate"], rounds["packed"], seconds),
            "tokens": dict.fromkeys(("median", "min", "max"), tokens_saved(groups)),
            "largest gap of scores": dict.fromkeys(("median", "min", "max"), gap),
        }
    }


def tokens_saved(groups: list[list[Sample]]) -> float:
    """Tokens of all samples, over those where each prompt counts once."""
    shared = sum(len(g[0].prompt_ids) + sum(len(sample.completion_ids) for sample in g) for g in groups)
    return sum(len(sample) for group in groups for sample in group) / shared


def seconds(done: Round) -> float:
    return float(done.seen["seconds"])


def cpu_seconds(done: Round) -> float:
    return done.cpu_s


def main() -> None:
    arguments = parse()
    adapter = AdapterConfig(lora_layers=arguments.lora_layers)
    trunk = Trunk.load(arguments.model, adapter) if arguments.model else Trunk(small_llama(), adapter)
    config = RewardConfig(max_tokens=MAX_TOKENS, token_budget=arguments.token_budget)
    machine = rig.machine()
    figures = {
        f"K = {k}": measure(trunk, config, k, arguments.rankings, arguments.repeats) for k in arguments.completions
    }
    facts = {
        "model": str(arguments.model or "small random Llama"), "dtype": str(trunk.model.dtype),
        "threads": torch.get_num_threads(), "lora_layers": arguments.lora_layers,
        "token_budget": arguments.token_budget, "rankings": arguments.rankings,
    }  # fmt: skip
    show("packing", figures, machine)
    keep(arguments.json, facts["model"], {"machine": machine, "rounds": arguments.repeats, **facts, **figures})


if __name__ == "__main__":
    main()
