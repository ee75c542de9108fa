"""The reward model beside its peers, on people's judgements: seconds per ranking, and what was learned from them.

speed      seconds per ranking, ours and TRL's by turns: real rankings (K >= 3) and random ones of K = 9
quality    held-out log-loss and accuracy on real rankings over seeds: ours, TRL's, and lengths alone
pairs      the same on single pairs
epochs     whole rankings against shuffled pairs, epoch by epoch: which overfits (Ouyang et al. 2022, section 3.5)
kinds      what ties, thumbs and demonstrations add: held-out log-loss with and without each

Each cell (side, seed, learning rate) is kept in the JSON file as soon as it is known and never run twice: a run that
was broken off goes on. The learning rate of each side is the best of its sweep, by log-loss on a split of its own that
no figure is taken from. Splits follow from the seed alone.
"""

import argparse
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import reward_data as data
import reward_sides as sides
import torch
from cells import Cells, console
from reward_sides import Learned
from rich.table import Table
from transformers import AutoTokenizer

from feedback.fit import Fit
from training.config import RewardConfig
from training.data import Judgement, RankedSamples
from training.fit import compare, measure

SWEEP = {"ours": (1e-4, 3e-4, 1e-3), "trl": (1e-5, 3e-5, 1e-4)}
TUNING = 1000  # the seed of the split that rates are chosen on
Side = Callable[[Sequence[RankedSamples], Sequence[RankedSamples], int, float], Learned]


class Bench:
    """What all parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cells = arguments, Cells(arguments.json)
        self.tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        self.config = replace(RewardConfig(), epochs=1, lora_layers=arguments.lora_layers or None)
        torch.set_num_threads(arguments.threads)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        cpu = platform.processor() or platform.machine()
        self.cells.keep("machine", {"cpu": cpu, "gpu": gpu, "threads": arguments.threads})
        self.cells.keep("arguments", {name: str(value) for name, value in vars(arguments).items()})

    def learned(self, name: str, run: Callable[[], Learned]) -> Learned:
        return Learned(**self.cells.of(name, lambda: asdict(run())))

    def ours(
        self, train: Sequence[RankedSamples], held_out: Sequence[RankedSamples], seed: int, rate: float
    ) -> Learned:
        return sides.ours(self.arguments.model, train, held_out, replace(self.config, learning_rate=rate), seed)

    def trl(self, train: Sequence[RankedSamples], held_out: Sequence[RankedSamples], seed: int, rate: float) -> Learned:
        pure, lora = self.arguments.trl != "autocast", self.arguments.trl == "lora"
        return sides.trl(self.arguments.model, train, held_out, seed, learning_rate=rate, pure=pure, lora=lora)

    @property
    def sides(self) -> dict[str, Side]:
        return {"ours": self.ours, "trl": self.trl}

    def rates(self, name: str, rankings: Sequence[RankedSamples]) -> dict[str, float]:
        """The best learning rate of each side."""
        train, held_out = data.split(rankings, self.arguments.sweep, self.arguments.sweep, TUNING)
        best = {}
        for side, run in self.sides.items():
            losses = {}
            for rate in SWEEP[side]:
                cell = f"{name}/sweep/{side}/{rate:g}"
                learned = self.learned(cell, partial(run, train, held_out, 0, rate))
                losses[rate] = _fit(held_out, learned).log_loss.mean
            best[side] = min(losses, key=losses.__getitem__)
            console.print(f"{name}: {side} learns at {best[side]:g}: {losses}")
        return best

    def quality(self, name: str, rankings: Sequence[RankedSamples]) -> None:
        """Seconds per ranking, and held-out figures of each side; differences are paired by prompt."""
        rates, rows = self.rates(name, rankings), []
        for seed in range(self.arguments.seeds):
            train, held_out = data.split(rankings, self.arguments.train, self.arguments.held_out, seed)
            learned = {
                side: self.learned(f"{name}/{side}/{seed}", partial(run, train, held_out, seed, rates[side]))
                for side, run in self.sides.items()
            }
            learned["length"] = sides.length_only(train, held_out)
            rows.append(self._row(name, seed, train, held_out, learned))
        self._show(name, rows)

    def _row(
        self, name: str, seed: int, train: Sequence[RankedSamples], held_out: Sequence[RankedSamples],
        learned: dict[str, Learned],
    ) -> dict[str, Any]:  # fmt: skip
        row: dict[str, Any] = {"seed": seed, "train": len(train), "held_out": len(held_out)}
        for side, result in learned.items():
            fit = _fit(held_out, result)
            row[side] = {
                "s/ranking": result.seconds / len(train), "log_loss": fit.log_loss._asdict(),
                "accuracy": fit.accuracy._asdict(), "ece": fit.ece._asdict(),
            }  # fmt: skip
        change = compare(held_out, learned["ours"].scores, learned["trl"].scores, version=0)
        if change is not None:
            row["ours - trl"] = {"log_loss": change.log_loss._asdict(), "accuracy": change.accuracy._asdict()}
        row["speed"] = row["trl"]["s/ranking"] / row["ours"]["s/ranking"]
        self.cells.keep(f"{name}/result/{seed}", row)
        return row

    def _show(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        table = Table("seed", "side", "s/ranking", "log-loss", "accuracy", title=f"{name}: {len(rows)} seeds")
        for row in rows:
            for side in ("ours", "trl", "length", "ours - trl"):
                if figures := row.get(side):
                    seconds = f"{figures['s/ranking']:.2f}" if "s/ranking" in figures else f"{row['speed']:.2f}x"
                    texts = [_interval(figures[each]) for each in ("log_loss", "accuracy")]
                    table.add_row(str(row["seed"]), side, seconds, *texts)
            table.add_section()
        for side in ("ours", "trl", "length"):
            means = [statistics.mean(row[side][each]["mean"] for row in rows) for each in ("log_loss", "accuracy")]
            table.add_row("mean", side, "", *(f"{mean:.3f}" for mean in means))
        console.print(table)

    def epochs(self) -> None:
        """Held-out log-loss after each number of epochs, from the start each time: nothing is chosen by looking."""
        rankings = data.kwise(self.arguments.data, self.tokenizer, self.arguments.max_tokens)
        table = Table("epochs", "seed", "whole rankings", "shuffled pairs", title="epochs: held-out log-loss")
        for epochs in range(1, self.arguments.epochs + 1):
            for seed in range(self.arguments.seeds):
                train, held_out = data.split(rankings, self.arguments.train, self.arguments.held_out, seed)
                shown = []
                for name, items in (("whole", train), ("shuffled", data.as_pairs(train))):
                    # As many completions per step: a step of 8 rankings of three has 24, one of 12 pairs as well.
                    config = replace(self.config, epochs=epochs, batch_rankings=8 if name == "whole" else 12)
                    run = partial(sides.ours, self.arguments.model, items, held_out, config, seed)
                    learned = self.learned(f"epochs/{name}/{epochs}/{seed}", run)
                    shown.append(_interval(_fit(held_out, learned).log_loss._asdict()))
                table.add_row(str(epochs), str(seed), *shown)
        console.print(table)

    def kinds(self) -> None:
        """Differences in held-out log-loss of pairs, paired by prompt; below 0, the addition helped."""
        table = Table("what", "seed", "without", "with", "difference", title="kinds: held-out log-loss")
        with_ties = data.pairwise(self.arguments.data, self.tokenizer, self.arguments.max_tokens, source="pandalm")
        ranked = data.kwise(self.arguments.data, self.tokenizer, self.arguments.max_tokens)
        thumbs = data.thumbs(self.arguments.data, self.tokenizer, self.arguments.max_tokens)
        written = data.demonstrated(self.arguments.data, self.tokenizer, self.arguments.max_tokens)
        for seed in range(self.arguments.seeds):
            split = data.split(with_ties, self.arguments.train, self.arguments.held_out, seed)
            strict = [ranking for ranking in split.train if not ranking.has_ties]
            self._kind(table, "ties", seed, strict, split.train, split.held_out)
            split = data.split(ranked, self.arguments.train, self.arguments.held_out, seed)
            seen = {ranking.prompt_ids for ranking in split.train}
            for name, more in (("thumbs", thumbs), ("demonstrations", written)):
                own = [judgement for judgement in more if judgement.prompt_ids in seen]
                self._kind(table, name, seed, split.train, [*split.train, *own], split.held_out)
        console.print(table)

    def _kind(
        self, table: Table, name: str, seed: int, without: Sequence[Judgement], all_of_it: Sequence[Judgement],
        held_out: Sequence[RankedSamples],
    ) -> None:  # fmt: skip
        learned = []
        for which, judgements in (("without", without), ("with", all_of_it)):
            run = partial(sides.ours, self.arguments.model, judgements, held_out, self.config, seed)
            learned.append(self.learned(f"kinds/{name}/{which}/{seed}", run))
        change = compare(held_out, learned[1].scores, learned[0].scores, version=0)
        shown = [_interval(_fit(held_out, each).log_loss._asdict()) for each in learned]
        what = f"{name} ({len(all_of_it) - len(without)})"
        table.add_row(what, str(seed), *shown, _interval(change.log_loss._asdict()) if change else "")

    def speed(self) -> None:
        """By turns, a few rankings each; the first turn of each is thrown away."""
        real = data.split(data.kwise(self.arguments.data, self.tokenizer, self.arguments.max_tokens), 12, 0, 0).train
        for name, rankings in (("real, K >= 3", real), ("random, K = 9", data.synthetic(4, 9, 160, 120))):
            taken: dict[str, list[float]] = {side: [] for side in self.sides}
            for turn in range(self.arguments.turns + 1):
                for side, run in self.sides.items():
                    cell = f"speed/{name}/{side}/{turn}"
                    learned = self.learned(cell, partial(run, rankings, [], 0, SWEEP[side][1]))
                    taken[side].append(learned.seconds / len(rankings))
            ratios = [t / o for o, t in zip(taken["ours"][1:], taken["trl"][1:], strict=True)]
            medians = {side: statistics.median(each[1:]) for side, each in taken.items()}
            figures = {
                **medians,
                "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            }
            self.cells.keep(f"speed/{name}/result", figures)
            console.print(f"{name}: {figures}")


def _fit(held_out: Sequence[RankedSamples], learned: Learned) -> Fit:
    fit = measure(held_out, learned.scores)
    assert fit is not None, "no held-out pair without a tie"
    return fit


def _interval(figures: dict[str, float]) -> str:
    return f"{figures['mean']:+.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("speed", "quality", "pairs", "epochs", "kinds"))
    parser.add_argument("--model", type=Path, required=True, help="the base model's directory")
    parser.add_argument("--data", type=Path, required=True, help="the directory of kwise.jsonl.gz and its siblings")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/reward.json"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=150, help="rankings to learn from")
    parser.add_argument("--held-out", type=int, default=100, help="rankings to be measured on")
    parser.add_argument(
        "--sweep", type=int, default=40, help="rankings of each side of the split that rates are chosen on"
    )
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--lora-layers", type=int, default=RewardConfig().lora_layers, help="0: all")
    parser.add_argument("--trl", choices=("pure", "autocast", "lora"), default="pure", help="how TRL computes")
    parser.add_argument("--epochs", type=int, default=4, help="for epochs: up to so many")
    parser.add_argument("--turns", type=int, default=2, help="of speed, after the first")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    bench = Bench(arguments)
    for part in arguments.parts:
        if part == "quality":
            bench.quality("kwise", data.kwise(arguments.data, bench.tokenizer, arguments.max_tokens))
        elif part == "pairs":
            bench.quality("pairwise", data.pairwise(arguments.data, bench.tokenizer, arguments.max_tokens))
        else:
            {"speed": bench.speed, "epochs": bench.epochs, "kinds": bench.kinds}[part]()


if __name__ == "__main__":
    main()
