"""For machines: is the process alive, can it serve, and what has it counted?"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from feedback.releases.self_test import self_test_of
from feedback.rounds.book import RoundRecord
from serving.document import by_route as docs
from serving.gateway import Gateway, GatewayDep
from serving.release.arms import Arm

router = APIRouter()
log = logging.getLogger("serving.health")
# A scrape without the rounds is better than none.
ROUNDS_WITHIN_S = 0.8


@router.get("/health", **docs.HEALTH)
async def health() -> dict[str, str]:
    """The process lives. Whether it can serve is asked at /ready."""
    return {"status": "ok"}


@router.get("/ready", **docs.READY)
async def ready(gateway: GatewayDep) -> JSONResponse:
    """200 once the engine generates with proven weights and the ledger keeps what it is given, else 503 with reasons.

    Reads what the watcher found: asking costs the engine nothing and the ledger little, so it may stay open to anyone.
    """
    served = gateway.gate.served
    reasons = [] if served else [gateway.gate.reason]
    if trouble := await gateway.writable.trouble():
        reasons.append(trouble)
    arms = {arm.name: _standing(arm) for arm in gateway.arms.in_use}
    version = served.version if served else None
    answer = {"ready": not reasons, "policy_version": version, "reasons": reasons, "arms": arms}
    return JSONResponse(answer, status_code=503 if reasons else 200, headers={"retry-after": "1"} if reasons else None)


def _standing(arm: Arm) -> dict[str, Any]:
    """What an arm serves, or why it does not."""
    served = arm.gate.served
    return {"policy_version": served.version if served else None, "reason": None if served else arm.gate.reason}


@router.get("/metrics", response_class=PlainTextResponse, **docs.METRICS)
async def metrics(gateway: GatewayDep) -> Response:
    """Prometheus text format, within a second whatever Redis does."""
    state = State(gateway, await learning(gateway))
    return Response(gateway.metrics.exposition(state), media_type=CONTENT_TYPE_LATEST)


@dataclass(frozen=True)
class Learning:
    """What Redis knows of the rounds, and whether votes still measure what they should."""

    frozen: bool
    round: RoundRecord | None
    alarm: bool


async def learning(gateway: Gateway) -> Learning | None:
    """None when Redis does not answer in time."""
    ask = partial(anyio.to_thread.run_sync, partial(_ask, gateway), abandon_on_cancel=True)
    try:
        with anyio.fail_after(ROUNDS_WITHIN_S):
            return await ask()
    except (RedisError, TimeoutError) as error:
        log.debug("no rounds in the metrics: %r", error)
        return None


def _ask(gateway: Gateway) -> Learning:
    return Learning(gateway.rounds.is_frozen(), gateway.rounds.open_round(), self_test_of(gateway.ledger).alarm)


@dataclass(frozen=True, eq=False)
class State(Collector):
    """What is true at this moment, as series."""

    gateway: Gateway
    learning: Learning | None

    def collect(self) -> Iterator[Metric]:
        served = self.gateway.gate.served
        yield _gauge("ready", "1 while a proven policy answers.", served is not None)
        yield _gauge("policy_version", "The policy that answers; -1 for none.", served.version if served else -1)
        arms = GaugeMetricFamily("ratchet_arm_ready", "1 while that side of a release answers.", labels=["arm"])
        for arm in self.gateway.arms.in_use:
            arms.add_metric([arm.name], arm.gate.served is not None)
        yield arms
        if self.learning is not None:
            yield from _learning(self.learning)


def _learning(learning: Learning) -> Iterator[Metric]:
    yield _gauge("learning_frozen", "1 while no round starts by itself.", learning.frozen)
    yield _gauge("self_test_alarm", "1 while stable does not tie with itself in blind votes.", learning.alarm)
    if learning.round is None:
        return
    stage = GaugeMetricFamily("ratchet_round_stage", "The stage of the open round.", labels=["stage"])
    stage.add_metric([learning.round.stage], 1)
    yield stage
    step, total = (learning.round.progress.get(name) for name in ("step", "total"))
    if isinstance(step, int) and isinstance(total, int) and total > 0:
        yield _gauge("round_progress_ratio", "How much of that stage is done, 0 to 1.", min(step / total, 1.0))


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ratchet_{name}", help, value=value)
