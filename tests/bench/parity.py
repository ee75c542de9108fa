"""Our PPO beside what others have published, function by function: the largest absolute difference over random draws.

Losses with their gradients, advantages, KL, whitening, importance weights. Packages are read as files: nothing of them
is installed or kept. Those not given are left out, and the golden values of the formulas are always there:

    pip download --no-deps --dest peers trl==1.12.0 verl==0.9.1 openrlhf==0.11.2
    python tests/bench/parity.py --trl peers/trl-*.whl --verl peers/verl-*.whl --openrlhf peers/openrlhf-*.whl

Ends with status 1 when a difference is above the tolerance. Where a peer adds 1e-8 to a count or works in fp32, that
is what remains.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from parity_cases import openrlhf, trl, verl
from parity_draws import Case, Draw, Pairs
from parity_golden import golden
from parity_peers import Package
from rich.console import Console
from rich.table import Table

PEERS: dict[str, Callable[[Package], dict[str, Case]]] = {"trl": trl, "verl": verl, "openrlhf": openrlhf}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PEERS:
        parser.add_argument(f"--{name}", type=Path, help="its wheel, source archive, or a directory of either")
    parser.add_argument("--batches", type=int, default=50, help="random batches; default %(default)s")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="default %(default)s")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/parity.json"), help="default: %(default)s")
    return parser.parse_args()


def largest(pairs: Pairs) -> float:
    """Over all elements of all pairs; infinite where shapes or NaN differ."""
    worst = 0.0
    for ours, theirs in pairs:
        a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
        if a.shape != b.shape:
            return float("inf")
        worst = max(worst, float((a - b).abs().nan_to_num(float("inf")).max()))
    return worst


def measure(cases: dict[str, Case], draws: list[Draw]) -> dict[str, float]:
    return {name: max(largest(case(draw)) for draw in draws) for name, case in cases.items()}


def show(figures: dict[str, dict[str, Any]], tolerance: float) -> None:
    table = Table("beside", "function", "largest difference")
    for peer in figures.values():
        for name, difference in peer["differences"].items():
            table.add_row(peer["package"], name, f"{difference:.1e}", style="red" if difference > tolerance else None)
        table.add_section()
    Console().print(table)


def main() -> int:
    options = parse()
    draws = [Draw.of(seed) for seed in range(options.batches)]
    figures: dict[str, dict[str, Any]] = {
        "golden": {"package": "golden values", "differences": {n: largest(pairs) for n, pairs in golden().items()}}
    }
    for name, cases in PEERS.items():
        path: Path | None = getattr(options, name)
        if path is not None:
            figures[name] = {
                "package": "-".join(path.stem.split("-")[:2]),
                "differences": measure(cases(Package(path)), draws),
            }
    show(figures, options.tolerance)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"tolerance": options.tolerance, **figures}, indent=2) + "\n")
    worst = max(difference for peer in figures.values() for difference in peer["differences"].values())
    return int(worst > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
