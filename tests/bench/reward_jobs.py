"""The cells of the reward model's benchmark: who learns from what, as jobs for any process."""

import argparse
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import reward_data as data
import reward_sides as sides
import torch
from cells import Cells, console
from reward_sides import Learned
from transformers import AutoTokenizer

from training.config import RewardConfig
from training.model.samples import Judgement, RankedSamples

FULL, ADAPTERS = (1e-5, 3e-5, 1e-4, 3e-4), (1e-4, 3e-4, 1e-3, 3e-3)
RATES = {"ours": ADAPTERS, "trl": FULL, "trl autocast": FULL, "trl lora": ADAPTERS}  # TRL's own are pure without a name
Figures = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A cell: somebody learns, here or in another process."""

    run: Callable[[], Learned]
    work: int  # tokens to learn from, as often as they are seen
    alone: bool

    def __call__(self) -> Figures:
        return asdict(replace(self.run(), alone=self.alone))


Jobs = dict[str, Job]


class Part:
    """What is to be found out, in two steps that all parts make together, and what is made of it."""

    def first(self) -> Jobs:
        """What depends on nothing."""
        return {}

    def then(self) -> Jobs:
        """What depends on that."""
        return {}

    def show(self) -> None:
        raise NotImplementedError


class Bench:
    """What all parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cells = arguments, Cells(arguments.json)
        self.config = replace(RewardConfig(), epochs=1, lora_layers=arguments.lora_layers or None)
        self.source = (arguments.data, AutoTokenizer.from_pretrained(arguments.model), arguments.max_tokens)
        self.peers = ["trl" if mode == "pure" else f"trl {mode}" for mode in arguments.trl]
        torch.set_num_threads(arguments.threads)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        cpu = platform.processor() or platform.machine()
        self.cells.keep("machine", {"cpu": cpu, "gpu": gpu, "threads": arguments.threads})
        self.cells.keep("arguments", {name: str(value) for name, value in vars(arguments).items()})

    @cached_property
    def kwise(self) -> list[RankedSamples]:
        return self._counted("kwise", data.kwise(*self.source))

    @cached_property
    def pairwise(self) -> list[RankedSamples]:
        return self._counted("pairwise", data.pairwise(*self.source))

    def _counted(self, name: str, rankings: list[RankedSamples]) -> list[RankedSamples]:
        console.print(f"{name}: {len(rankings)} rankings fit into {self.arguments.max_tokens} tokens")
        return rankings

    def split(self, rankings: Sequence[RankedSamples], seed: int) -> data.Split:
        return data.split(rankings, self.arguments.train, self.arguments.held_out, seed)

    def ours(
        self, train: Sequence[Judgement], held_out: Sequence[RankedSamples], config: RewardConfig, seed: int
    ) -> Job:
        run = partial(sides.ours, self.arguments.model, train, held_out, config, seed)
        return Job(run, config.epochs * _tokens(train), self.arguments.at_once == 1)

    def job(self, learner: str, rate: float, split: data.Split, seed: int) -> Job:
        """Of one of RATES."""
        if learner == "ours":
            return self.ours(*split, replace(self.config, learning_rate=rate), seed)
        pure, lora = learner != "trl autocast", learner == "trl lora"
        run = partial(sides.trl, self.arguments.model, *split, seed, learning_rate=rate, pure=pure, lora=lora)
        return Job(run, _tokens(data.as_pairs(split.train)), self.arguments.at_once == 1)

    def fill(self, jobs: Iterable[Jobs]) -> None:
        merged = {name: job for own in jobs for name, job in own.items()}
        longest_first = dict(sorted(merged.items(), key=lambda item: -item[1].work))
        self.cells.fill(longest_first, self.arguments.at_once)

    def learned(self, cell: str) -> Learned:
        return Learned(**self.cells.known[cell])


def _tokens(judgements: Iterable[Judgement]) -> int:
    samples = [
        sample
        for each in judgements
        for sample in (each.samples if isinstance(each, RankedSamples) else (each.sample,))
    ]
    return sum(map(len, samples))
