"""Completions a second of PPO, ours beside TRL's PPOTrainer; memory, where the time goes, how far from the floor.

Sides (see ppo_floor.py): ours with adapters in all layers, with the lower ones shared by all roles, the same on live
completions; TRL with all weights trained, and with a LoRA policy, each with or without activation checkpointing. TRL's
value model trains all its weights in either. Each side runs in a process of its own and by turns, on the same prompts,
to the same lengths, one optimizer step an epoch. Of each process the first iteration is thrown away; our last one
writes a checkpoint, TRL none. TRL comes from --trl DIR, an unpacked wheel: `pip download trl==1.12.0 --no-deps`, unzip.

What is known is kept in the JSON file and never run twice: a run that was broken off goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cells, console
from ppo_floor import PHASES, Shape, Variant, operations, variants
from rich.table import Table

HERE = Path(__file__).parent
LORA_RANK = 16
DEFAULT = ("all layers", "shared", "live, shared", "TRL full", "TRL LoRA")
TARGETS = {"all layers": 2.0, "shared": 3.5, "live, shared": 5.0}
MEMORY_TARGET = 0.6
TRL_DTYPE = "TRL's: weights in the machine's own dtype, which is fastest (the default), or fp32 under autocast"
Figures = dict[str, Any]


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cells = arguments, Cells(arguments.json)
        known = variants(arguments.shared)
        self.sides = [known[name] for name in arguments.sides]
        names = (
            "rollouts",
            "completion_tokens",
            "prompt_tokens",
            "epochs",
            "iterations",
            "threads",
            "shared",
            "sampler",
        )
        sizes = " ".join(f"{name}={getattr(arguments, name)}" for name in names)
        self.where = f"{arguments.model.name} {sizes} {arguments.dtype}"

    def spec(self, side: Variant | None) -> Figures:
        names = ("rollouts", "prompt_tokens", "completion_tokens", "epochs", "iterations", "threads", "sampler", "seed")
        paths = {name: str(getattr(self.arguments, name) or "") for name in ("model", "trl", "prompts")}
        microbatch = self.arguments.microbatch or self.arguments.rollouts
        own = {"side": side and asdict(side), "microbatch": microbatch, "pure": self.arguments.dtype == "native"}
        return {name: getattr(self.arguments, name) for name in names} | paths | own

    def run(self, side: Variant | None) -> Any:
        """What a new process finds out; its last words where it fails."""
        threads = str(self.arguments.threads)
        paths = os.pathsep.join(filter(None, (str(HERE.parents[1]), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": threads}
        with tempfile.TemporaryDirectory() as directory:
            spec, found = Path(directory) / "spec.json", Path(directory) / "found.json"
            spec.write_text(json.dumps(self.spec(side)))
            command = [sys.executable, str(HERE / "ppo_sides.py"), str(spec), str(found)]
            done = subprocess.run(
                command, env={**environment, "TRL_EXPERIMENTAL_SILENCE": "1"}, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{side.name if side else 'rate'}: ended with {done.returncode}\n{done.stderr[-3000:]}")
            return json.loads(found.read_text())

    def measured(self) -> dict[str, list[Any]]:
        """What each side's processes found, turn by turn."""
        turns: dict[str, list[Any]] = {side.name: [] for side in self.sides}
        for turn in range(self.arguments.turns):
            for side in self.sides:
                cell = f"{self.where}/{side.name}/{turn}"
                turns[side.name].append(self.cells.of(cell, partial(self.run, side)))
        return turns

    def figures(self) -> Figures:
        rate = self.cells.of(f"{self.where}/rate", partial(self.run, None))
        measured = self.measured()
        sides = {side.name: self.side(side, measured[side.name], rate["rate"]) for side in self.sides}
        found: Figures = {"machine": machine(), "rate": rate, "sides": sides, "ratios": ratios(measured, self.sides)}
        self.cells.keep(f"{self.where}/result", found)
        return found

    def side(self, side: Variant, turns: list[Any], rate: float) -> Figures:
        """Medians over all iterations of all turns."""
        iterations = [each for turn in turns for each in turn["iterations"]]
        seconds = {phase: statistics.median(each[phase] for each in iterations) for phase in (*PHASES, "all")}
        shape, rollouts = Shape.of(self.arguments.model, LORA_RANK), self.arguments.rollouts
        prompt, completion = turns[0]["prompt"], self.arguments.completion_tokens
        needed = operations(side, shape, prompt, completion, self.arguments.epochs)
        work = {phase: rollouts * count for phase, count in needed.items()}
        work["all"] = sum(work.values())
        return {
            "completions/s": rollouts / seconds["all"],
            "seconds": seconds,
            "operations": work,
            "floor_seconds": work["all"] / rate,
            "mfu": {phase: work[phase] / rate / took for phase, took in seconds.items() if took > 0 and work[phase]},
            "peak_bytes": max(turn["peak"] for turn in turns),
        }


def ratios(measured: dict[str, list[Any]], sides: list[Variant]) -> Figures:
    """Of ours over each of TRL's in the same turn: completions a second, and peak memory."""
    found: Figures = {}
    for own in (side.name for side in sides if not side.peer):
        for peer in (side.name for side in sides if side.peer):
            pairs = list(zip(measured[own], measured[peer], strict=True))
            speeds = [_seconds(theirs) / _seconds(ours) for ours, theirs in pairs]
            found[f"{own} / {peer}"] = {
                "speed": {"median": statistics.median(speeds), "min": min(speeds), "max": max(speeds)},
                "speed_target": TARGETS[own],
                "memory": max(ours["peak"] for ours, _ in pairs) / max(theirs["peak"] for _, theirs in pairs),
                "memory_target": MEMORY_TARGET,
            }
    return found


def _seconds(turn: Any) -> float:
    return statistics.median(each["all"] for each in turn["iterations"])


def machine() -> Figures:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


def show(where: str, found: Figures) -> None:
    rate = found["rate"]
    floor = f"floor at {rate['rate'] / 1e9:,.0f} GFLOP/s {rate['dtype']}"
    title = f"PPO: {where}, {floor} on {rate['device']}, load {found['machine']['load']:.1f}"
    table = Table("side", "completions/s", *PHASES, "s", "floor s", "MFU", "peak GB", title=title)
    for name, row in found["sides"].items():
        phases = [f"{row['seconds'][phase]:.2f} ({row['mfu'].get(phase, 0):.0%})" for phase in PHASES]
        whole = (f"{row['seconds']['all']:.2f}", f"{row['floor_seconds']:.2f}", f"{row['mfu']['all']:.0%}")
        table.add_row(name, f"{row['completions/s']:.3g}", *phases, *whole, f"{row['peak_bytes'] / 1e9:.2f}")
    console.print(table)
    table = Table(
        "ours / TRL", "speed", "lowest", "highest", "target", "memory", "target", title="ratios, turn by turn"
    )
    for name, row in found["ratios"].items():
        speed, memory = row["speed"], row["memory"]
        cells = [f"{speed[which]:.2f}" for which in ("median", "min", "max")]
        met = speed["median"] >= row["speed_target"], memory <= row["memory_target"]
        styles = ["green" if each else "red" for each in met]
        targets = f"[{styles[0]}]>= {row['speed_target']:g}", f"[{styles[1]}]<= {row['memory_target']:g}"
        table.add_row(name, *cells, targets[0], f"{memory:.2f}", targets[1])
    console.print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base model's directory")
    parser.add_argument("--trl", type=Path, help="the directory that holds the package trl, of version 1.12")
    parser.add_argument(
        "--sides", nargs="+", default=list(DEFAULT), choices=list(variants(0)), help="default: %(default)s"
    )
    parser.add_argument("--shared", type=int, default=10, help="layers with adapters where the lower ones are shared")
    parser.add_argument("--sampler", choices=("trainer", "vllm", "auto"), default="trainer", help="ours, of fresh ones")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--microbatch", type=int, help="rollouts per forward and backward; default: all")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="of random prompts; of --prompts at most")
    parser.add_argument("--completion-tokens", type=int, default=64)
    parser.add_argument(
        "--prompts", type=Path, help="a file of prompts, as `ratchet ppo train` takes it; default: random"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=1, help="that count in each process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--dtype", choices=("native", "mixed"), default="native", help=TRL_DTYPE)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/ppo.json"), help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.trl is None and any(variants(0)[name].peer for name in arguments.sides):
        parser.error("TRL's sides need --trl")
    return arguments


def main() -> None:
    bench = Bench(parse())
    show(bench.where, bench.figures())


if __name__ == "__main__":
    main()
