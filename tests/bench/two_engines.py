"""What a candidate's engine costs beside the stable one on few cores, and what waiting threads have to do with it.

Tokens a second of one engine alone, of it beside another that starts, that is idle, and of both at work: with threads
that sleep while they wait for each other, as `ratchet up` starts engines on few cores, and with those that spin for as
long as they wait. Sides take turns.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import aiohttp
import rig
from rich.console import Console
from rich.table import Table

from feedback.settings import Settings
from serving.machine.vllm_server import engine_command
from tests.conftest import free_port

SIDES = {"sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}, "spinning": {"OMP_WAIT_POLICY": "ACTIVE"}}
FIGURES = ("alone", "beside one that starts", "beside an idle one", "both at work, together")
CHAT = {
    "model": "policy", "stream": True, "max_tokens": 24, "ignore_eos": True,
    "messages": [{"role": "user", "content": "Tell me something about cats."}],
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a chat model in Hugging Face format")
    parser.add_argument("--streams", type=int, default=6, help="at once; default %(default)s")
    parser.add_argument("--seconds", type=float, default=15, help="of each figure; default %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="of each side; default %(default)s")
    parser.add_argument(
        "--json", type=Path, default=Path(".ratchet/bench/two_engines.json"), help="default: %(default)s"
    )
    return parser.parse_args()


@contextmanager
def started(model: Path, home: Path, threads: dict[str, str]) -> Iterator[int]:
    """The port of an engine that begins to start."""
    port = free_port()
    settings = Settings(home=home, engine_key="bench", max_model_len=1024)
    command = engine_command(settings, model, settings.resolved_engine_dtype(), gpu=False, port=port)
    with (home / f"{port}.log").open("w") as log:
        process = subprocess.Popen(
            command.argv, env=os.environ | command.env | threads, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def ready(port: int) -> None:
    deadline = time.monotonic() + 300
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.5)
    raise TimeoutError(f"the engine on port {port} does not answer")


async def rate(port: int, streams: int, seconds: float) -> float:
    """Tokens a second that so many streams together were sent."""
    tokens, end = 0, time.monotonic() + seconds
    headers = {"Authorization": "Bearer bench"}

    async def chat(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        while time.monotonic() < end:
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT) as response:
                async for line in response.content:
                    tokens += b'"content"' in line and time.monotonic() < end

    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(chat(session) for _ in range(streams)))
    return tokens / seconds


async def figures(options: argparse.Namespace, home: Path, threads: dict[str, str]) -> dict[str, float]:
    streams, seconds = options.streams, options.seconds
    with started(options.model, home, threads) as first:
        await ready(first)
        await rate(first, streams, seconds / 3)
        alone = await rate(first, streams, seconds)
        with started(options.model, home, threads) as second:
            coming = asyncio.create_task(ready(second))
            meanwhile = []
            while not coming.done():
                meanwhile.append(await rate(first, streams, 5.0))
            await coming
            await rate(second, streams, seconds / 3)
            idle = await rate(first, streams, seconds)
            both = await asyncio.gather(*(rate(port, streams // 2, seconds) for port in (first, second)))
    return dict(zip(FIGURES, (alone, sum(meanwhile) / len(meanwhile), idle, sum(both)), strict=True))


def main() -> None:
    options = parse()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as home:
        for _ in range(options.repeats):
            for name, threads in SIDES.items():
                found[name].append(asyncio.run(figures(options, Path(home), threads)))
    table = Table("tokens a second", *SIDES)
    for figure in FIGURES:
        table.add_row(figure, *(f"{median(each[figure] for each in found[name]):.0f}" for name in SIDES))
    Console().print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": rig.machine(), "rounds": found}, indent=1))


if __name__ == "__main__":
    main()
