"""One process of the gateway, alone behind its port or one of several."""

import gc
import logging
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from redis import Redis
from redis.exceptions import RedisError

from feedback.durability import LedgerNotDurable
from feedback.people.keys import KeyRing
from feedback.policies.registry import PolicyRegistry
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.app import Seat, create_app
from serving.engine.server import Engine
from serving.http import sockets
from serving.http.patience import Patient

log = logging.getLogger("serving.serve")

REDIS_WAIT_S = 30.0
# A stream that a swap has frozen must not keep the process from ending. Who calls is who connects: a header may say
# anything, and guesses at keys are counted by address.
SERVER: dict[str, Any] = {
    "http": Patient, "log_level": "warning", "log_config": None, "timeout_graceful_shutdown": 8,
    "proxy_headers": False,
}  # fmt: skip


@dataclass(frozen=True)
class Inherited:
    """What the leading process hands to one that it starts: file descriptors, and where its peers' sockets are."""

    listener: int
    leader: int
    candidate_leader: int
    peer_socket: Path

    @property
    def argv(self) -> tuple[str, ...]:
        return (*map(str, self.descriptors), str(self.peer_socket))

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return self.listener, self.leader, self.candidate_leader

    @classmethod
    def of(cls, argv: list[str]) -> "Inherited":
        listener, leader, candidate_leader, path = argv
        return cls(int(listener), int(leader), int(candidate_leader), Path(path))


class Server(uvicorn.Server):
    """uvicorn's, but answers under way end before it waits for their connections to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.config.app.state.gateway.running.stop_all()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(settings: Settings) -> int:
    """The exit status: 2 when Redis is absent or would lose what it acknowledges."""
    redis = connect(settings.resolved_redis_url())
    if (ledger := open_ledger(redis)) is None:
        return 2
    Server(uvicorn.Config(make_app(settings, redis, ledger), settings.host, settings.port, **SERVER)).run()
    return 0


def serve_among(settings: Settings, inherited: Inherited) -> int:
    """One of several: requests from outside, and from its peers on a Unix socket of its own."""
    redis = connect(settings.resolved_redis_url())
    if (ledger := open_ledger(redis)) is None:
        return 2
    leader, candidate_leader = inherited.leader, inherited.candidate_leader
    seat = Seat(socket.socket(fileno=leader), socket.socket(fileno=candidate_leader), inherited.peer_socket)
    peers = socket.socket(socket.AF_UNIX)
    inherited.peer_socket.unlink(missing_ok=True)  # of the process that sat here before
    peers.bind(str(inherited.peer_socket))
    app = make_app(settings, redis, ledger, seat)
    Server(uvicorn.Config(app, **SERVER)).run(sockets=[socket.socket(fileno=inherited.listener), peers])
    return 0


def make_app(settings: Settings, redis: Redis, ledger: Ledger, seat: Seat | None = None) -> FastAPI:
    engine = Engine(settings.resolved_engine_url(), settings.resolved_engine_key())
    registry = PolicyRegistry(redis, settings.policies_dir)
    keys = KeyRing(redis, settings.secrets().pepper)
    limit = sockets.raise_limit()
    app = create_app(settings, engine, ledger, registry, RoundBook(redis), keys, seat)
    if (places := app.state.gateway.places.limit) * settings.workers < settings.max_requests:
        log.warning("only %d requests at once: this process may have %d files open (ulimit -Hn)", places, limit)
    spare_the_collector()
    return app


def spare_the_collector() -> None:
    """What exists by now stays: each token makes a few objects, and to look through all others for garbage every
    hundred tokens would cost more than the rest of the work on them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def open_ledger(redis: Redis) -> Ledger | None:
    """None, and a line that says why, when there is none or it would lose what it acknowledges."""
    try:
        return wait_for_ledger(redis, REDIS_WAIT_S)
    except (RedisError, LedgerNotDurable) as error:
        print(f"ratchet gateway: {error}", file=sys.stderr)
        return None


def wait_for_ledger(redis: Redis, seconds: float) -> Ledger:
    """Wait for a Redis that is still starting; raises its last error at the deadline, LedgerNotDurable at once."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Ledger(redis)
        except RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
