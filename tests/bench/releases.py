"""Releases decided by simulation: how often wrongly, and after how many votes. Looked at after every vote.

votes        equal candidates, and true win rates of .55 to .70, beside the figures that this was designed by
sides        equal candidates, raters who like the left 5 points more: sides by chance, and the candidate always left
plots        equal candidates, 5% of the raters always vote for one: no caps, caps, caps and what Rules.plot leaves out
tastes       raters who like one side more, each so many votes in a row: equal candidates, and one that wins 60%
price        what it costs to be safe from plots, by how often each rater votes
guardrails   false alarms where nothing is worse, and how soon something worse is noticed
forecasts    votes still needed, as foretold, over those that were
raters       one-sided raters noticed within 100 votes

Without a part: all, some 20 minutes on one core.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import releases_runs as runs_of
from releases_runs import UNCAPPED, Figures
from rich.console import Console
from rich.table import Table

from feedback.releases.decisions import Rules

ALPHA = 0.05
# Median and 90th percentile of the votes to a decision at each win rate, of the simulation that this was designed by.
DESIGNED = {0.55: (954, 2199), 0.6: (224, 495), 0.65: (86, 201), 0.7: (46, 103)}
CROWDS = {"200 raters": (200, 10, 1.0), "200 raters, bought ones 5 times as eager": (200, 10, 5.0),
          "1,000 raters": (1000, 50, 1.0)}  # fmt: skip
console = Console(width=130)


def votes(runs: int, rng: np.random.Generator) -> Figures:
    found = {}
    for rate in (0.5, *DESIGNED):
        found[f"{rate}"] = runs_of.votes_to_decide(rate, runs=runs, max_votes=4000, alpha=ALPHA, rng=rng)
    for rate, (median, p90) in DESIGNED.items():
        row = found[f"{rate}"]
        row |= {"median / designed": row["median"] / median, "p90 / designed": row["p90"] / p90}
    return found


def sides(runs: int, rng: np.random.Generator) -> Figures:
    return {
        name: runs_of.left_bias(bias, randomised, runs=runs, max_votes=4000, rng=rng)
        for name, bias, randomised in (
            ("no bias", 0.0, True), ("bias, sides by chance", 0.05, True), ("bias, candidate always left", 0.05, False),
        )
    }  # fmt: skip


def plots(runs: int, rng: np.random.Generator) -> Figures:
    return {
        f"{name}, {way}": runs_of.crowd(
            [1.0] * bought + [0.5] * (raters - bought),
            rules,
            runs=runs // 20,
            rng=rng,
            eagerness=[eager] * bought + [1.0] * (raters - bought),
        )  # fmt: skip
        for name, (raters, bought, eager) in CROWDS.items()
        for way, rules in {
            "no caps": Rules(caps=UNCAPPED, plot=0.0),
            "caps": Rules(plot=0.0),
            "caps, plot 0.05": Rules(),
            "caps, plot 0.05 of all": Rules(raters=raters),
        }.items()
    }


def tastes(runs: int, rng: np.random.Generator) -> Figures:
    crowds = {
        "half 90%, half 10%": [0.9] * 50 + [0.1] * 50,
        "half 70%, half 30%": [0.7] * 50 + [0.3] * 50,
        "90 of 45%, 10 of 95%": [0.45] * 90 + [0.95] * 10,
        "half 90%, half 30%": [0.9] * 50 + [0.3] * 50,
    }
    return {
        f"{name}, {in_a_row} in a row, {known}": runs_of.crowd(
            rates, rules, runs=runs // 20, in_a_row=in_a_row, rng=rng
        )
        for name, rates in crowds.items()
        for in_a_row in (1, 10)
        for known, rules in {"voters unknown": Rules(), "voters known": Rules(raters=len(rates))}.items()
    }


def price(runs: int, rng: np.random.Generator) -> Figures:
    return {
        f"{rate}, {raters} raters, {way}": runs_of.crowd([rate] * raters, rules, runs=runs // 20, rng=rng)
        for rate in DESIGNED
        for raters in (20, 100)
        for way, rules in {
            "plot 0": Rules(plot=0.0, raters=raters),
            "plot 0.05": Rules(raters=raters),
            "plot 0.05, voters unknown": Rules(),
        }.items()
    }


def guardrails(runs: int, rng: np.random.Generator) -> Figures:
    found = {}
    for stable, weight in ((0.01, 0.05), (0.01, 0.5), (0.2, 0.05), (0.2, 0.5)):
        for ratio in (1.0, 1.5, 3.0):
            found[f"failures {stable:.0%}, weight {weight:.0%}, {ratio:g} times"] = runs_of.failures_alarm(
                (ratio * stable, stable), weight, runs=runs // 10, units=4000, rng=rng
            )
    for name, spread in (("log of time to first token", 1.0), ("log of length", 0.7)):
        for weight in (0.05, 0.5):
            for times in (1.0, 1.2, 1.5):
                found[f"{name}, weight {weight:.0%}, {times:g} times"] = runs_of.mean_alarm(
                    lambda n, ours, spread=spread, times=times: rng.normal(math.log(times) * ours, spread, n),
                    [(weight, 4000)], math.log(1.2), runs=runs // 10, every=10, rng=rng,
                )  # fmt: skip
    found["a skewed mean, weight 5%, 1 times"] = runs_of.mean_alarm(
        lambda n, ours: rng.lognormal(0, 1, n), [(0.05, 4000)], 0.0, runs=runs // 10, every=10, rng=rng
    )
    found["thumbs down 10%, weight 5%, 1 times"] = runs_of.mean_alarm(
        lambda n, ours: rng.random(n) < 0.1, [(0.05, 4000)], 0.0, runs=runs // 10, every=10, rng=rng
    )
    for steps in ([(0.1, 1100), (0.9, 400)], [(0.01, 10_000), (0.9, 400)], [(0.05, 2000), (0.5, 400)]):
        name = ", then ".join(f"{weight:.0%}" for weight, _ in steps)
        found[f"a mean at its limit, weight {name}, looked at after each"] = runs_of.mean_alarm(
            lambda n, ours: rng.normal(0.4 * ours, 1.0, n), steps, 0.4, runs=runs // 10, every=1, rng=rng
        )
    return found


def forecasts(runs: int, rng: np.random.Generator) -> Figures:
    return {
        f"{rate} after {after}": runs_of.forecasts(rate, after, runs=runs, max_votes=4000, alpha=ALPHA, rng=rng)
        for rate, after in ((0.55, 100), (0.55, 500), (0.6, 50), (0.6, 200), (0.7, 30))
    }


def raters(runs: int, rng: np.random.Generator) -> Figures:
    return {
        f"left {0.5 + bias:.0%}": runs_of.side_flagged(bias, 100, runs=runs, alpha=ALPHA, rng=rng)
        for bias in (0.0, 0.1, 0.2, 0.3, 0.5)
    }


PARTS: dict[str, Callable[[int, np.random.Generator], Figures]] = {
    "votes": votes, "sides": sides, "plots": plots, "tastes": tastes, "price": price, "guardrails": guardrails,
    "forecasts": forecasts, "raters": raters,
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one or more of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/releases.json"), help="default: %(default)s")
    parser.add_argument(
        "--runs", type=int, default=10_000, help="fewer for guardrails (1/10) and crowds (1/20); default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def show(part: str, figures: Figures, seconds: float) -> None:
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    table = Table("at", *names, title=f"{part}: {seconds:.0f} s")
    for at, row in figures.items():
        table.add_row(at, *(number(row.get(name)) for name in names))
    console.print(table)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 20 else f"{value:.4g}"


def keep(path: Path, part: str, figures: Figures) -> None:
    """Beside what other runs wrote of other parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, part: figures}, indent=2) + "\n")


def main() -> None:
    arguments = parse()
    for part in arguments.parts or PARTS:
        started = time.perf_counter()
        figures = PARTS[part](arguments.runs, np.random.default_rng(arguments.seed))
        show(part, figures, time.perf_counter() - started)
        keep(arguments.json, part, {"runs": arguments.runs, "seed": arguments.seed, **figures})


if __name__ == "__main__":
    main()
