"""The gateway as an ASGI application."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from feedback.keys import KeyRing
from feedback.registry import PolicyRegistry
from feedback.rounds import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger
from serving import chat, errors, judgements, operations
from serving.auth import Authenticator
from serving.engine import Engine
from serving.gate import SwapGate
from serving.gateway import Gateway
from serving.hotswap import AdapterLoader, MergedLoader, PolicyLoader, read_policy
from serving.limits import BodyLimit, RequestLog
from serving.relay import Recorder
from serving.watcher import PolicyWatcher

BASE_VERSION = 0


def create_app(
    settings: Settings, engine: Engine, ledger: Ledger, registry: PolicyRegistry, rounds: RoundBook, keys: KeyRing
) -> FastAPI:
    """Everything is handed in; starting the app starts the watcher, stopping it closes the engine's client."""
    gate = SwapGate()
    watcher = PolicyWatcher(engine, registry, gate, make_loader(settings, engine, gate, registry))
    gateway = Gateway(
        settings, engine, ledger, registry, rounds, keys, gate, watcher, Recorder(ledger), Authenticator(keys)
    )
    app = FastAPI(title="Ratchet", lifespan=_watching)
    app.state.gateway = gateway
    app.state.counts = Counter()
    for router in (chat.router, judgements.router, operations.router):
        app.include_router(router)
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLog, counts=app.state.counts)
    return app


def make_loader(settings: Settings, engine: Engine, gate: SwapGate, registry: PolicyRegistry) -> PolicyLoader:
    if settings.engine_mode == "adapter":
        return AdapterLoader(engine, gate, read_policy(registry, BASE_VERSION))
    return MergedLoader(engine, gate)


@asynccontextmanager
async def _watching(app: FastAPI) -> AsyncIterator[None]:
    gateway = app.state.gateway
    watching = asyncio.create_task(gateway.watcher.run())
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await gateway.engine.close()
