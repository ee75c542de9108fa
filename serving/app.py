"""The gateway as an ASGI application."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from feedback.archive import Archive
from feedback.people.keys import KeyRing
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.observations import Observations
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.chat import comparisons, completions
from serving.document import openapi
from serving.engine.lockstep import Follower
from serving.engine.server import Engine
from serving.engine.watcher import PolicyWatcher
from serving.gateway import Gateway
from serving.http import errors, sockets
from serving.http.auth import Authenticator
from serving.http.limits import BodyLimit, SocketLimit
from serving.http.places import Places
from serving.http.quotas import Quotas
from serving.http.request_log import RequestLog
from serving.judging import alias, export, judgements, listed
from serving.ledger.appender import Appender
from serving.ledger.recorder import Recorder
from serving.ledger.shown import ShownAnswers
from serving.ledger.writable import Writable
from serving.metrics import Metrics
from serving.peers import Peers
from serving.release.arm_watchers import arm_watchers
from serving.release.arms import Arm, Arms
from serving.release.controller import Controller
from serving.release.standing import Standing
from serving.routes import (
    audit,
    conversations,
    health,
    history,
    invites,
    keys,
    leaderboard,
    me,
    policies,
    raters,
    releases,
    rounds,
    sessions,
    status,
)
from serving.routes.pages import DIST, PageRoute, Pages
from serving.streams.observing import Observing

# Whose bodies are being read, or who wait for a swap to end, in one process.
MAX_WAITING = 1024
# Who sign in, of whom nobody knows who they are: they take no place of the others.
MAX_STRANGERS = 64


OFTEN = (completions, export, judgements, listed, alias, comparisons, conversations, history)
SELDOM = (keys, invites, sessions, me, policies, rounds, releases, raters, audit, status, leaderboard, health)
# Routes are tried in this order, so those asked most come first; /v1/feedback/export is no feedback's id.
ROUTERS = (completions.hot, judgements.hot, *(module.router for module in (*OFTEN, *SELDOM)))


@dataclass(frozen=True)
class Seat:
    """Of a process among several: its connections to the one that leads, for each arm, and where its peers reach it."""

    leader: socket.socket
    candidate_leader: socket.socket
    peer_socket: Path


def create_app(
    settings: Settings, engine: Engine, ledger: Ledger, registry: PolicyRegistry, rounds: RoundBook, keys: KeyRing,
    seat: Seat | None = None, candidate: Engine | None = None,
) -> FastAPI:  # fmt: skip
    """Everything is handed in; starting the app starts the watchers, stopping it closes the engines' clients."""
    metrics, shown = Metrics(), ShownAnswers(ledger)
    candidate = candidate or Engine(settings.resolved_candidate_url(), settings.resolved_engine_key())
    arms = Arms(Arm("stable", engine), Arm("candidate", candidate), salt=keys.salt("arms"))
    watcher: PolicyWatcher | Follower
    candidate_watcher: PolicyWatcher | Follower
    controller = None
    if seat is None:
        watcher, candidate_watcher = arm_watchers(settings, arms, registry, metrics)
        controller = Controller.of(settings, ledger, registry, arms.candidate.gate, metrics)
    else:
        watcher = Follower(arms.stable.gate, seat.leader)
        candidate_watcher = Follower(arms.candidate.gate, seat.candidate_leader)
    places = Places(sockets.answers_at_once(math.ceil(settings.max_requests / settings.workers)), "are being answered")
    waiting = Places(MAX_WAITING, "are waiting", metrics.waiting)
    peers = Peers(seat.peer_socket if seat else None)
    # Connections of its own: what is written must not wait, or fail, for those who only ask.
    recorder = Recorder(Ledger(connect(settings.resolved_redis_url())), shown, metrics)
    gateway = Gateway(
        settings, arms, ledger, registry, rounds, ReleaseBook(registry), keys, watcher, candidate_watcher,
        recorder, Authenticator(keys), Archive(ledger), places, waiting, metrics,
        Quotas(keys.redis), shown, Appender(ledger, settings.resolved_redis_url()), peers,
        Writable(ledger, recorder.ledger), Observing(Observations(ledger.redis, keys.salt("observations"))), controller,
    )  # fmt: skip
    # Its pages at /docs and /redoc would load scripts from elsewhere.
    app = FastAPI(title="Ratchet", lifespan=_watching, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.append(PageRoute(Pages(DIST)))
    errors.install(app)
    openapi.install(app, gateway.cookie)
    app.add_middleware(BodyLimit, waiting=waiting, strangers=Places(MAX_STRANGERS, "are signing in", metrics.waiting))
    app.add_middleware(SocketLimit)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


@asynccontextmanager
async def _watching(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    running = (
        gateway.watcher, gateway.candidate_watcher, Standing(gateway.arms, gateway.releases), gateway.observing,
        gateway.controller,
    )  # fmt: skip
    watching = [asyncio.create_task(each.run()) for each in running if each is not None]
    yield
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    await gateway.observing.flush()
    await gateway.appender.close()
    await gateway.replays.close()
    for arm in (gateway.arms.stable, gateway.arms.candidate):
        await arm.engine.close()
