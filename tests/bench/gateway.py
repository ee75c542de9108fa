"""What the gateway costs, each figure beside a peer that does the least that could be done for the same job.

stream   tokens/s and time to first token beside bare proxies, with an engine that streams as fast as it is read
open     5,000 open streams on one process: memory, /health meanwhile, what is left behind
acks     durably acknowledged feedback/s beside a bare route that does one XADD
engine   tokens/s beside a running vLLM's own; needs the addresses and keys of a running `ratchet up`
profile  where the gateway's time goes, by function, at 64 streams

Without a part: stream, open and acks, which need nothing running. Sides take turns, the first round warms up,
figures are medians of rounds, and of ratios of neighbouring rounds. What is measured has a core to itself; client,
engine and Valkey share the others, so where they are few tokens/s are theirs as well: see the CPU per token.
"""

import argparse
import json
import os
import pstats
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import rig
from acks import measure_acks
from figures import Figures
from open_streams import measure_open
from rich.console import Console
from rich.table import Table
from rig import wait_for
from streams import measure_engine, measure_stream

BY_TURNS: dict[str, Callable[[int], Figures]] = {"stream": measure_stream, "acks": measure_acks}
ALONE = ("stream", "open", "acks")
NEEDED = ("gateway_url", "api_key", "engine_url", "engine_key")
console = Console(width=120)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [*ALONE, "engine", "profile"]
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one or more of {', '.join(parts)}")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/gateway.json"), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="rounds after the first; default %(default)s")
    parser.add_argument("--streams", type=int, default=5000, help="for open; default %(default)s")
    for name in NEEDED:
        parser.add_argument(f"--{name.replace('_', '-')}", help="for engine")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if "engine" in arguments.parts and not all(getattr(arguments, name) for name in NEEDED):
        parser.error("engine needs " + ", ".join(f"--{name.replace('_', '-')}" for name in NEEDED))
    return arguments


def main() -> None:
    arguments = parse()
    for part in arguments.parts or ALONE:
        if part == "profile":
            profile()
            continue
        machine = rig.machine()
        if part == "engine":
            figures = measure_engine(arguments.repeats, *(getattr(arguments, name) for name in NEEDED))
        elif part == "open":
            figures = measure_open(arguments.streams)
        else:
            figures = BY_TURNS[part](arguments.repeats)
        show(part, figures, machine)
        keep(arguments.json, part, {"machine": machine, "rounds": arguments.repeats, **figures})


def show(part: str, figures: Figures, machine: Figures) -> None:
    title = f"{part}: {machine['cores']} cores of {machine['cpu']}, load before {machine['load_before']:.1f}"
    table = Table("at", "side", "figure", "median", "lowest", "highest", "target", title=title)
    for level, sides in figures.items():
        for side, rows in sides.items():
            for name, row in rows.items():
                numbers = [number(row[which]) for which in ("median", "min", "max")]
                style = {True: "green", False: "red", None: None}[row.get("met")]
                met = {True: " met", False: " missed", None: ""}[row.get("met")]
                table.add_row(level, side, name, *numbers, row.get("target", "") + met, style=style)
        table.add_section()
    console.print(table)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def keep(path: Path, part: str, figures: Figures) -> None:
    """Beside what other runs wrote of other parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, part: figures}, indent=2) + "\n")


def profile(level: int = 64, waves: int = 4) -> None:
    """The profiler makes small functions look dearer than they are."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.prof"
        with rig.stage(profile=path) as stage:
            rig.chats(stage.gateway, level)
            os.kill(stage.gateway.pid, signal.SIGUSR1)
            done = rig.chats(stage.gateway, level, waves=waves)
            os.kill(stage.gateway.pid, signal.SIGUSR2)
            wait_for(path.exists, seconds=10, what="the profile")
        print(f"{done.seen['tokens']:,} tokens at {level} streams")
        for order in ("tottime", "cumtime"):
            pstats.Stats(str(path)).sort_stats(order).print_stats(25)


if __name__ == "__main__":
    main()
