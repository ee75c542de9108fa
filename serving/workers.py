"""Several gateway processes behind one port. This one leads: it swaps policies, and answers nobody.

Its death ends the others: they could not know whose weights write. Whoever runs the gateway starts all of it again.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import multiprocess

from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.engine.lockstep import LeadingGate
from serving.engine.server import Engine
from serving.metrics import Metrics
from serving.release.arm_watchers import arm_watchers
from serving.release.arms import Arm, Arms
from serving.release.controller import Controller
from serving.serve import Inherited, open_ledger

RESTART_S = 1.0
# Between what uvicorn gives to streams and what `ratchet up` gives to all of us.
GRACE_S = 8.5

log = logging.getLogger("serving.workers")


def lead(settings: Settings, sockets: Path) -> int:
    """Run until SIGTERM or SIGINT; `sockets` is a private, empty directory. The exit status is serve's."""
    redis = connect(settings.resolved_redis_url())
    if open_ledger(redis) is None:
        return 2
    try:
        anchor = reserve(settings.host, settings.port)
    except OSError as error:
        print(f"ratchet gateway: port {settings.port} on {settings.host}: {error.strerror}", file=sys.stderr)
        return 1
    with anchor:
        asyncio.run(_lead(settings, PolicyRegistry(redis, settings.policies_dir), anchor, sockets))
    return 0


async def _lead(settings: Settings, registry: PolicyRegistry, anchor: socket.socket, sockets: Path) -> None:
    key, gates = settings.resolved_engine_key(), Gates(LeadingGate(), LeadingGate())
    stable = Arm("stable", Engine(settings.resolved_engine_url(), key), gates.stable)
    candidate = Arm("candidate", Engine(settings.resolved_candidate_url(), key), gates.candidate)
    metrics = Metrics()
    watchers = arm_watchers(settings, Arms(stable, candidate), registry, metrics)
    controller = Controller.of(settings, Ledger(registry.redis), registry, gates.candidate, metrics)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    watching = [asyncio.create_task(watcher.run()) for watcher in (*watchers, controller)]
    workers = [Worker(gates, anchor, sockets / f"{index}.sock") for index in range(settings.workers)]
    keeping = [asyncio.create_task(worker.keep()) for worker in workers]
    ending = asyncio.ensure_future(ended.wait())
    everything: list[asyncio.Future[Any]] = [ending, *watching, *keeping]
    done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
    for tasks in (keeping, watching):
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for arm in (stable, candidate):
        await arm.engine.close()
    for first in done:
        first.result()  # whatever ended us but a signal is an error


class Gates(NamedTuple):
    """What this process moves in all others: a gate for each arm."""

    stable: LeadingGate
    candidate: LeadingGate

    async def lead(self, connections: list[socket.socket], kill: Callable[[], None]) -> None:
        """Lead one process until its end."""
        await asyncio.gather(*(gate.lead(ours, kill) for gate, ours in zip(self, connections, strict=True)))


@dataclass
class Worker:
    """One of the processes that answer."""

    gates: Gates
    anchor: socket.socket
    peer_socket: Path

    async def keep(self) -> None:
        """Start it again whenever it dies; cancelled, end it within the grace."""
        while True:
            process, leading = await self._start()
            try:
                code = await process.wait()
                log.error("gateway process %d ended with %d and is started again", process.pid, code)
            finally:
                await _end(process)
                multiprocess.mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                await leading
            await asyncio.sleep(RESTART_S)

    async def _start(self) -> tuple[asyncio.subprocess.Process, "asyncio.Task[None]"]:
        pairs = [socket.socketpair() for _ in self.gates]
        stable, candidate = (theirs for _, theirs in pairs)
        with stable, candidate, beside(self.anchor) as listener:
            inherited = Inherited(listener.fileno(), stable.fileno(), candidate.fileno(), self.peer_socket)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "serving", *inherited.argv, pass_fds=inherited.descriptors
            )

        def kill() -> None:
            if process.returncode is None:
                process.kill()

        return process, asyncio.create_task(self.gates.lead([ours for ours, _ in pairs], kill))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def reserve(host: str, port: int) -> socket.socket:
    """An address for all of us; raises OSError when somebody else has it, even somebody who would share it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return _bound(family, (host, port))


def beside(anchor: socket.socket) -> socket.socket:
    """One more socket on the same address. Once it listens, the kernel gives it its share of the connections, so
    that no process takes a burst alone."""
    return _bound(anchor.family, anchor.getsockname())


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
    bound.bind(address)
    return bound
