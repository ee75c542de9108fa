"""How fast PPO's completions are written: by vLLM in the training process, beside the trainer itself.

Both write the same number of tokens from the same policy, whose weights have moved before each round; completions do
not end early. Sides take turns, the first round warms up, figures are medians of rounds, and of ratios of neighbouring
rounds. The push is all that comes before the engine may sample: merging, loading, and the proof.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rig
import torch
from figures import Figures, by_turns, ratio, summary
from gateway import keep, show
from rig import Round

from training.config import PPOConfig
from training.model.trunk import Trunk
from training.ppo.rollout import Sampler, own_sampler
from training.ppo.vllm_sampler import VLLMSampler, started
from training.round.torch_stages import prepare

NEVER = frozenset[int]()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a base model in Hugging Face format")
    parser.add_argument("--prompts", type=int, default=32, help="default %(default)s")
    parser.add_argument("--prompt-tokens", type=int, default=48, help="of each; default %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of each completion; default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the first; default %(default)s")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/sampling.json"), help="default: %(default)s")
    return parser.parse_args()


class Timed(VLLMSampler):
    """Remembers how long its pushes took."""

    pushed_s = 0.0

    def _push(self) -> None:
        start = time.perf_counter()
        super()._push()
        self.pushed_s = time.perf_counter() - start


@dataclass(frozen=True)
class Side:
    name: str
    trunk: Trunk
    sampler: Sampler
    chance: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def write(self, prompts: Sequence[Sequence[int]]) -> Round:
        for name, weight in self.trunk.parameters("policy").items():
            if "lora_B" in name:
                weight.data.normal_(std=0.02, generator=self.chance)
        start, cpu = time.perf_counter(), time.process_time()
        sampled = self.sampler(prompts, seed=0, alive=lambda: None)
        took, push = time.perf_counter() - start, getattr(self.sampler, "pushed_s", 0.0)
        tokens = sum(len(item.sample.completion_ids) for item in sampled)
        return Round({"tokens": tokens, "seconds": took, "push_s": push}, time.process_time() - cpu)


def tokens_per_s(done: Round) -> float:
    """The push left out."""
    return float(done.seen["tokens"] / (done.seen["seconds"] - done.seen["push_s"]))


def whole_tokens_per_s(done: Round) -> float:
    return float(done.seen["tokens"] / done.seen["seconds"])


def cpu_ms(done: Round) -> float:
    return 1000 * done.cpu_s / float(done.seen["tokens"])


def push_s(done: Round) -> float:
    return float(done.seen["push_s"])


def held_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def measure(arguments: argparse.Namespace, trunk: Trunk, config: PPOConfig) -> Figures:
    chance = random.Random(0)
    prompts = [tuple(chance.randrange(1000, 20_000) for _ in range(arguments.prompt_tokens))
               for _ in range(arguments.prompts)]  # fmt: skip
    before, begun = held_mib(), time.perf_counter()
    with started(arguments.model, trunk.model.dtype, arguments.prompt_tokens + arguments.tokens) as engine:
        start_s = time.perf_counter() - begun
        trainer = Side("trainer", trunk, own_sampler(trunk, config, NEVER))
        vllm = Side("vLLM", trunk, Timed(trunk, config, NEVER, engine))
        rounds = by_turns((trainer, vllm), arguments.repeats, lambda side: side.write(prompts))
        during = held_mib()
    figures: Figures = {
        name: {"tokens/s": summary(each, tokens_per_s), "CPU ms/token": summary(each, cpu_ms)}
        for name, each in rounds.items()
    }
    figures["vLLM"] |= {
        "start s": single(start_s), "push s": summary(rounds["vLLM"], push_s),
        "MiB": single(during - before), "MiB left behind": single(held_mib() - before),
    }  # fmt: skip
    figures["vLLM / trainer"] = {
        "tokens/s": ratio(rounds["vLLM"], rounds["trainer"], tokens_per_s),
        "tokens/s with the push": ratio(rounds["vLLM"], rounds["trainer"], whole_tokens_per_s),
    }
    return figures


def single(value: float) -> Figures:
    return dict.fromkeys(("median", "min", "max"), value)


def main() -> None:
    arguments, machine = parse(), rig.machine()
    prepare(seed=0)  # the threads of a stage
    config = PPOConfig(max_new_tokens=arguments.tokens)
    trunk = Trunk.load(arguments.model, config)
    level = f"{arguments.prompts} × {arguments.tokens}"
    figures = {level: measure(arguments, trunk, config)}
    facts = {"model": arguments.model.name, "dtype": str(trunk.model.dtype), "threads": torch.get_num_threads()}
    show("sampling", figures, machine)
    keep(arguments.json, level, {"machine": machine, "rounds": arguments.repeats, **facts, **figures})


if __name__ == "__main__":
    main()
