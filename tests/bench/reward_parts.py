"""The parts of the reward model's benchmark: what each has to find out, and what it makes of that."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import reward_data as data
import reward_sides as sides
from cells import console
from reward_jobs import RATES, Bench, Figures, Jobs, Part
from reward_sides import Learned
from rich.table import Table

from feedback.policies.reward_fit import Fit
from training.model.samples import Judgement, RankedSamples
from training.reward.fit import compare, measure

TUNING = 1000  # the seed of the split that rates are chosen on


class Quality(Part):
    """Seconds per ranking, and held-out figures of each side; differences are paired by prompt."""

    def __init__(self, bench: Bench, name: str, rankings: Sequence[RankedSamples]) -> None:
        self.bench, self.name = bench, name
        sweep, seeds = bench.arguments.sweep, range(bench.arguments.seeds)
        self.tuning = data.split(rankings, sweep, sweep, TUNING)
        self.splits = {seed: bench.split(rankings, seed) for seed in seeds}

    def first(self) -> Jobs:
        return {
            self._sweep(learner, rate): self.bench.job(learner, rate, self.tuning, seed=0)
            for learner in ("ours", *self.bench.peers)
            for rate in RATES[learner]
        }

    def _sweep(self, learner: str, rate: float) -> str:
        return f"{self.name}/sweep/{learner}/{rate:g}"

    @cached_property
    def best(self) -> dict[str, tuple[str, float]]:
        """How each side learns best, and at which rate."""
        found = {}
        for side, learners in (("ours", ["ours"]), ("trl", self.bench.peers)):
            losses = {
                (learner, rate): _fit(
                    self.tuning.held_out, self.bench.learned(self._sweep(learner, rate))
                ).log_loss.mean
                for learner in learners
                for rate in RATES[learner]
            }
            found[side] = min(losses, key=losses.__getitem__)
            tried = ", ".join(f"{learner} {rate:g}: {loss:.3f}" for (learner, rate), loss in losses.items())
            console.print(f"{self.name}: {found[side][0]} learns at {found[side][1]:g} ({tried})")
        return found

    def then(self) -> Jobs:
        return {
            f"{self.name}/{learner}/{seed}": self.bench.job(learner, rate, split, seed)
            for seed, split in self.splits.items()
            for learner, rate in self.best.values()
        }

    def show(self) -> None:
        rows = [self._row(seed, split) for seed, split in self.splits.items()]
        title = f"{self.name}: {rows[0]['train']} rankings to learn from, {rows[0]['held_out']} held out"
        table = Table("seed", "side", "s/ranking", "log-loss", "accuracy", title=title)
        for row in rows:
            for side in ("ours", "trl", "length", "ours - trl"):
                if figures := row.get(side):
                    texts = [_interval(figures[each]) for each in ("log_loss", "accuracy")]
                    table.add_row(str(row["seed"]), side, _seconds(row, side), *texts)
            table.add_section()
        for side in ("ours", "trl", "length"):
            means = [statistics.mean(row[side][each]["mean"] for row in rows) for each in ("log_loss", "accuracy")]
            table.add_row("mean", side, "", *(f"{mean:.3f}" for mean in means))
        console.print(table)

    def _row(self, seed: int, split: data.Split) -> Figures:
        train, held_out = split
        row: Figures = {"seed": seed, "train": len(train), "held_out": len(held_out)}
        learned = {
            side: self.bench.learned(f"{self.name}/{learner}/{seed}") for side, (learner, _) in self.best.items()
        }
        for side, result in (learned | {"length": sides.length_only(train, held_out)}).items():
            fit = _fit(held_out, result)
            row[side] = {each: getattr(fit, each)._asdict() for each in ("log_loss", "accuracy", "ece")}
            if result.alone:
                row[side]["s/ranking"] = result.seconds / len(train)
        change = compare(held_out, learned["ours"].scores, learned["trl"].scores, version=0)
        if change is not None:
            row["ours - trl"] = {"log_loss": change.log_loss._asdict(), "accuracy": change.accuracy._asdict()}
        if all(each.alone for each in learned.values()):
            row["speed"] = learned["trl"].seconds / learned["ours"].seconds
        self.bench.cells.keep(f"{self.name}/result/{seed}", row)
        return row


class Epochs(Part):
    """Held-out log-loss after each number of epochs, from the start each time: nothing is chosen by looking."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.splits = {seed: bench.split(bench.kwise, seed) for seed in range(bench.arguments.seeds)}
        self.counts = range(1, bench.arguments.epochs + 1)

    def first(self) -> Jobs:
        jobs = {}
        for seed, (train, held_out) in self.splits.items():
            # As many completions per step: a step of 8 rankings of three has 24, one of 12 pairs as well.
            for name, items, batch in (("whole", train, 8), ("shuffled", data.as_pairs(train), 12)):
                for epochs in self.counts:
                    config = replace(self.bench.config, epochs=epochs, batch_rankings=batch)
                    jobs[f"epochs/{name}/{epochs}/{seed}"] = self.bench.ours(items, held_out, config, seed)
        return jobs

    def show(self) -> None:
        table = Table("epochs", "seed", "whole rankings", "shuffled pairs", title="epochs: held-out log-loss")
        for epochs in self.counts:
            for seed, split in self.splits.items():
                both = [self.bench.learned(f"epochs/{name}/{epochs}/{seed}") for name in ("whole", "shuffled")]
                shown = [_interval(_fit(split.held_out, each).log_loss._asdict()) for each in both]
                table.add_row(str(epochs), str(seed), *shown)
        console.print(table)


@dataclass(frozen=True)
class Addition:
    """What is learned without something and with it; the cells of both."""

    what: str
    seed: int
    held_out: Sequence[RankedSamples]
    learned_from: Mapping[str, Sequence[Judgement]]  # by cell: without, with


class Kinds(Part):
    """Differences in held-out log-loss of pairs, paired by prompt; below 0, the addition helped."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        with_ties = data.pairwise(*bench.source, source="pandalm")
        more: dict[str, Sequence[Judgement]]
        more = {"thumbs": data.thumbs(*bench.source), "demonstrations": data.demonstrated(*bench.source)}
        self.additions: list[Addition] = []
        for seed in range(bench.arguments.seeds):
            train, held_out = bench.split(with_ties, seed)
            strict = [ranking for ranking in train if not ranking.has_ties]
            cells = {f"kinds/ties/without/{seed}": strict, f"kinds/ties/with/{seed}": train}
            self.additions.append(Addition("ties", seed, held_out, cells))
            train, held_out = bench.split(bench.kwise, seed)
            seen = {ranking.prompt_ids for ranking in train}
            for what, judgements in more.items():
                own = [judgement for judgement in judgements if judgement.prompt_ids in seen]
                # Both are added to the same.
                both: dict[str, Sequence[Judgement]] = {f"kinds/thumbs/without/{seed}": train}
                both[f"kinds/{what}/with/{seed}"] = [*train, *own]
                self.additions.append(Addition(what, seed, held_out, both))

    def first(self) -> Jobs:
        return {
            cell: self.bench.ours(judgements, each.held_out, self.bench.config, each.seed)
            for each in self.additions
            for cell, judgements in each.learned_from.items()
        }

    def show(self) -> None:
        table = Table("what", "seed", "without", "with", "difference", title="kinds: held-out log-loss")
        for each in self.additions:
            without, all_of_it = map(self.bench.learned, each.learned_from)
            change = compare(each.held_out, all_of_it.scores, without.scores, version=0)
            shown = [_interval(_fit(each.held_out, one).log_loss._asdict()) for one in (without, all_of_it)]
            fewer, more = map(len, each.learned_from.values())
            difference = _interval(change.log_loss._asdict()) if change else ""
            table.add_row(f"{each.what} ({more - fewer})", str(each.seed), *shown, difference)
        console.print(table)


class Speed(Part):
    """By turns, a few rankings each; the first turn of each is thrown away. Nothing else runs beside it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def show(self) -> None:
        splits = {
            "real, K >= 3": data.split(self.bench.kwise, 12, 0, 0),
            "real pairs": data.split(self.bench.pairwise, 24, 0, 0),
            "random, K = 9": data.Split(data.synthetic(4, 9, 160, 120), []),
        }
        for name, split in splits.items():
            taken = self._taken(name, split)
            figures: Figures = {learner: statistics.median(each) for learner, each in taken.items()}
            for peer in self.bench.peers:
                ratios = [theirs / ours for ours, theirs in zip(taken["ours"], taken[peer], strict=True)]
                figures[f"{peer} / ours"] = {
                    "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)
                }  # fmt: skip
            self.bench.cells.keep(f"speed/{name}/result", figures)
            console.print(f"{name}: {figures}")

    def _taken(self, name: str, split: data.Split) -> dict[str, list[float]]:
        """Seconds per ranking of each turn that counts."""
        taken: dict[str, list[float]] = {learner: [] for learner in ("ours", *self.bench.peers)}
        for turn in range(self.bench.arguments.turns + 1):
            for learner, seconds in taken.items():
                job = replace(self.bench.job(learner, RATES[learner][1], split, seed=0), alone=True)
                found = Learned(**self.bench.cells.of(f"speed/{name}/{learner}/{turn}", job))
                seconds.append(found.seconds / len(split.train))
        return {learner: seconds[1:] for learner, seconds in taken.items()}


def _fit(held_out: Sequence[RankedSamples], learned: Learned) -> Fit:
    fit = measure(held_out, learned.scores)
    assert fit is not None, "no held-out pair without a tie"
    return fit


def _interval(figures: dict[str, float]) -> str:
    return f"{figures['mean']:+.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def _seconds(row: Figures, side: str) -> str:
    """Empty where others were measured beside."""
    if side == "ours - trl":
        return f"{row['speed']:.2f}x" if "speed" in row else ""
    return f"{row[side]['s/ranking']:.2f}" if "s/ranking" in row[side] else ""
