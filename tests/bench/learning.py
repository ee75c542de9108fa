"""What PPO learns, by the gold reward behind the trained one: curves over d = sqrt(KL) as Gao et al. 2022 have them.

gold      gold and proxy against d for reward models of n rankings; fitted is gold(d) = gold(0) + d (a - b ln d)
methods   SFT, PPO from it, PPO with the demonstrations mixed in, and PPO with ten times the KL coefficient: gold and
          the language-model loss of held-out demonstrations (shape of Ouyang et al. 2022, figures 33 and 34)
live      fresh rollouts beside completions that the first policy wrote, at equal updates
shared    adapters in all layers beside adapters in the top ones, at equal samples

All figures are of answers to held-out prompts, drawn with the same noise each time. Each run is kept in the JSON file
as soon as it is known and never run twice: what was broken off goes on. Plots of the curves lie beside it.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import Cells, console
from learning_plot import plot
from learning_runs import Run, World
from rich.table import Table

Figures = dict[str, Any]
Labelled = dict[str, list[Run]]
SIZES = (
    "gold", "noise", "k", "iterations", "rollouts", "completion_tokens", "prompt_tokens", "held_out", "demonstrations",
    "learning_rate", "every", "prompts",
)  # fmt: skip


def runs_of(part: str, arguments: argparse.Namespace) -> Labelled:
    """By the name of a row, one for each seed."""
    usual = Run(0, max(arguments.rankings), arguments.shared, arguments.kl_coef)
    gentle = replace(usual, sft=True)
    rows = {
        "gold": {f"{n} rankings": replace(usual, rankings=n, kl_coef=arguments.low_kl) for n in arguments.rankings},
        "methods": {
            "SFT": replace(gentle, ppo=False),
            "PPO": gentle,
            **{f"PPO-ptx {coef:g}": replace(gentle, ptx_coef=coef) for coef in arguments.ptx},
            "PPO, KL x 10": replace(gentle, kl_coef=10 * arguments.kl_coef),
        },
        "live": {"fresh": usual, "live": replace(usual, live=True)},
        "shared": {f"top {arguments.shared}": usual, "all layers": replace(usual, layers=None)},
    }[part]
    return {name: [replace(run, seed=seed) for seed in range(arguments.seeds)] for name, run in rows.items()}


def gao(curves: Sequence[Sequence[Figures]]) -> Figures | None:
    """a and b of gold(d) - gold(0) = d (a - b ln d), by least squares, and the d where that is greatest."""
    points = [(each["d"], each["gold"] - curve[0]["gold"]) for curve in curves for each in curve if each["d"] > 0]
    if len(points) < 3:
        return None
    terms = torch.tensor([[d, -d * math.log(d)] for d, _ in points], dtype=torch.float64)
    rises = torch.tensor([[rise] for _, rise in points], dtype=torch.float64)
    a, b = torch.linalg.lstsq(terms, rises).solution.flatten().tolist()
    return {"a": a, "b": b, "peak_d": math.exp(min(a / b - 1, 50)) if b > 0 else None}


def summary(found: Sequence[Figures]) -> Figures:
    """Means over the seeds, of the end and of the best place on the way."""
    curves = [each["curve"] for each in found]
    ends = {
        name: _mean(curve[-1][name] for curve in curves) for name in ("d", "kl", "gold", "gold_se", "proxy", "length")
    }
    return {
        **ends,
        "gold_start": _mean(curve[0]["gold"] for curve in curves),
        "gold_best": _mean(max(point["gold"] for point in curve) for curve in curves),
        "proxy_start": _mean(curve[0]["proxy"] for curve in curves),
        "lm_loss": _mean(each["lm_loss"] for each in found),
        "reward_accuracy": _mean(each["reward_accuracy"] for each in found),
        "fit": gao(curves),
        "seeds": len(found),
    }


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def show(part: str, rows: Figures) -> None:
    headings = ("d", "gold: start", "best", "end", "proxy: start", "end", "length", "LM loss", "RM accuracy", "a", "b")
    table = Table(
        "run", *headings, title=f"{part}: held-out prompts, means over {next(iter(rows.values()))['seeds']} seeds"
    )
    for name, row in rows.items():
        fit = row["fit"] or {"a": math.nan, "b": math.nan}
        gold = (
            f"{row['gold_start']:.3f}",
            f"{row['gold_best']:.3f}",
            f"{row['gold']:.3f} ± {1.96 * row['gold_se']:.3f}",
        )
        proxy = (f"{row['proxy_start']:+.2f}", f"{row['proxy']:+.2f}")
        rest = (f"{row['length']:.0f}", f"{row['lm_loss']:.3f}", f"{row['reward_accuracy']:.2f}")
        table.add_row(name, f"{row['d']:.2f}", *gold, *proxy, *rest, f"{fit['a']:.3f}", f"{fit['b']:.3f}")
    console.print(table)


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cells, self.world = arguments, Cells(arguments.json), World(arguments)
        sizes = " ".join(f"{name}={getattr(arguments, name)}" for name in SIZES)
        self.where = f"{arguments.model.name} {sizes}"

    def fill(self, parts: Sequence[str]) -> None:
        """No run waits for another."""
        labelled = [runs for part in parts for runs in runs_of(part, self.arguments).values()]
        runs = sorted((run for own in labelled for run in own), key=lambda run: (run.ppo, run.rankings), reverse=True)
        self.cells.fill({self.cell(run): partial(self.world.learn, run) for run in runs}, self.arguments.at_once)

    def cell(self, run: Run) -> str:
        return f"{self.where}/{run.name}"

    def report(self, part: str) -> None:
        rows, curves = {}, {}
        for name, runs in runs_of(part, self.arguments).items():
            found = [self.cells.known[self.cell(run)] for run in runs]
            rows[name] = summary(found)
            curves |= {f"{name}, seed {run.seed}": each["curve"] for run, each in zip(runs, found, strict=True)}
        self.cells.keep(f"{self.where}/result/{part}", rows)
        self.arguments.json.with_name(f"learning-{part}.svg").write_text(plot(curves))
        show(part, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("gold", "methods", "live", "shared"))
    parser.add_argument("--model", type=Path, required=True, help="the base model's directory")
    parser.add_argument("--data", type=Path, required=True, help="the directory of demonstrations.jsonl.gz")
    parser.add_argument("--prompts", type=Path, help="a file of prompts; default: those of the demonstrations")
    parser.add_argument(
        "--gold", default="brevity", help="a rule of serving/demo/preferences.py, or a reward model's directory"
    )
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/learning.json"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rankings", type=int, nargs="+", default=[16, 64, 256], help="default: %(default)s")
    parser.add_argument("--k", type=int, default=4, help="completions of a ranking")
    parser.add_argument("--noise", type=float, default=0.1, help="share of neighbours that the crowd confuses")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--completion-tokens", type=int, default=40)
    parser.add_argument("--prompt-tokens", type=int, default=128, help="longer prompts are left out")
    parser.add_argument("--demonstration-tokens", type=int, default=256, help="longer demonstrations are left out")
    parser.add_argument("--demonstrations", type=int, default=200, help="to learn from")
    parser.add_argument("--held-out", type=int, default=64, help="prompts and demonstrations that only measure")
    parser.add_argument("--every", type=int, default=4, help="iterations between two figures")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--kl-coef", type=float, default=0.1)
    parser.add_argument("--low-kl", type=float, default=0.01, help="of part gold: how far it gets is the question")
    parser.add_argument("--ptx", type=float, nargs="+", default=[1.0], help="coefficients of part methods")
    parser.add_argument("--shared", type=int, default=10, help="layers with adapters, from the top")
    parser.add_argument("--sampler", choices=("trainer", "vllm", "auto"), default="trainer")
    parser.add_argument(
        "--at-once", type=int, default=1, help="runs, in processes of their own; their seconds say nothing then"
    )
    parser.add_argument("--threads", type=int, help="of each process; default: all, shared by those at once")
    arguments = parser.parse_args()
    arguments.threads = arguments.threads or max(1, torch.get_num_threads() // arguments.at_once)
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    known = bench.world.asked
    if len(known.prompts) < max(arguments.rankings) or len(known.held_out) < 2 or not known.held_out_demonstrations:
        sys.exit(
            f"only {len(known.prompts)} prompts to rank and {len(known.held_out)} held out: give more by --prompts"
        )
    bench.fill(arguments.parts)
    for part in arguments.parts:
        bench.report(part)


if __name__ == "__main__":
    main()
