"""Thousands of open streams on one gateway process: what each holds, who else is kept waiting, what stays behind."""

import resource
import time
from http.client import HTTPConnection
from threading import Event, Thread

import rig
from fast_engine import QUIET_S
from figures import Figures, at_least, below, percentile, spread
from rig import Server

from serving.http.sockets import RESERVE

# Once all are open, each gets a token a second.
TOKENS, TICK_S, OPENING = 30, 1.0, 32
SAMPLE_EVERY_S = 0.1
# Connections to the engine that the gateway may keep for later.
KEPT_FDS = 80


class Watch(Thread):
    """Looks at the gateway until it is stopped: (time, RSS, fds, seconds for a /health)."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.over = server, Event()
        self.samples: list[tuple[float, int, int, float]] = []

    def run(self) -> None:
        connection = HTTPConnection(self.server.host, self.server.port, timeout=60)
        while not self.over.wait(SAMPLE_EVERY_S):
            asked = time.monotonic()
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
            self.samples.append((asked, self.server.rss(), self.server.fds(), time.monotonic() - asked))

    def stop(self) -> None:
        self.over.set()
        self.join()


def measure_open(streams: int) -> Figures:
    """One round: it takes minutes, and its figures hardly differ from run to run."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= 2 * streams + RESERVE, f"needs ulimit -Hn of {2 * streams + RESERVE}, has {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with rig.stage() as stage:
        gateway = stage.gateway
        rig.chats(gateway, 64, waves=4)
        rss, fds = gateway.rss(), gateway.fds()
        watch = Watch(gateway)
        watch.start()
        try:
            done = rig.chats(gateway, streams, tokens=TOKENS, content=f"together tick={TICK_S}", opening=OPENING)
        finally:
            watch.stop()
        left_fds = settled_fds(gateway, fds + KEPT_FDS)
        left_rss = gateway.rss()
        begun = min(done.seen["sent_at"])
        start, end = done.seen["all_open_at"], done.seen["first_end_at"]
        # Where streams failed there may be no moment that had them all: then those that had the most count.
        most = max(sample[2] for sample in watch.samples)
        held = [s for s in watch.samples if start <= s[0] <= end] or [s for s in watch.samples if s[2] > 0.98 * most]
        latencies = [sorted(1000 * s[3] for s in samples) for samples in (watch.samples, held)]
        return {
            f"{streams} open streams": {
                "gateway": {
                    "all open at once, s": at_least(spread([end - start]), TOKENS * TICK_S),
                    "fds": spread([sample[2] for sample in held]),
                    # Two sockets a stream: the client's and the engine's.
                    "KiB a stream": spread([(sample[1] - rss) / ((sample[2] - fds) / 2) / 1024 for sample in held]),
                    "opened, streams/s": spread([streams / (start - begun)]),
                    "last token late by, s": spread([done.seen["last_end_at"] - start - QUIET_S - TOKENS * TICK_S]),
                    "CPU of all, s": spread([done.cpu_s]),
                    "/health while all are open, ms": spread(latencies[1]),
                    "/health p99 while all are open, ms": spread([percentile(latencies[1], 0.99)]),
                    "/health worst of the whole run, ms": spread([latencies[0][-1]]),
                    "ended well, share": at_least(spread([done.seen["streams"] / streams]), 1),
                    "fds left behind": below(spread([left_fds - fds]), KEPT_FDS),
                    "RSS left behind, MiB": spread([(left_rss - rss) / 2**20]),
                }
            }
        }


def settled_fds(server: Server, limit: int, seconds: float = 15.0) -> int:
    deadline = time.monotonic() + seconds
    while server.fds() >= limit and time.monotonic() < deadline:
        time.sleep(0.1)
    return server.fds()
