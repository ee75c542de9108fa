"""GET /v1/status, for operators: everything that runs, within a second whatever Redis does."""

import asyncio
import json
import time
from collections.abc import Awaitable
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from fastapi import APIRouter
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from feedback.releases.pool import hosting
from feedback.releases.self_test import self_test_of
from feedback.rounds.book import RoundRecord
from feedback.rounds.next_round import next_round
from feedback.settings import Settings
from feedback.store import COMPLETIONS, CURRENT
from serving.document import oversight as docs
from serving.engine.swap_reports import LAST_SWAP
from serving.gateway import Gateway, GatewayDep, OperatorDep
from serving.machine.probes import QUEUE, WORKER_ALIVE
from serving.release.arms import Arm
from serving.routes.rounds import round_card
from serving.routes.traffic import traffic
from serving.views.release_facts import self_test

router = APIRouter()
# To know the key may have taken half a second.
WITHIN_S = 0.4
SILENT = f"the ledger did not answer within {WITHIN_S} s"
COUNTED = ("completions", "judgements", "memory_bytes")
WORKERS = ("alive", "queued", "oldest_wait_s")
#: Of a beat that sends one every 5 seconds: those of 10 minutes.
HINTS_READ = 128
ALONE = ("last_swap", "round", "next_round", "learning_frozen", "releases_frozen", "release", "self_test")


class Known(NamedTuple):
    """What somebody was asked for, or why they did not say."""

    value: Any
    reason: str | None = None


@router.get("/v1/status", **docs.STATUS)
async def get_status(gateway: GatewayDep, _: OperatorDep) -> dict[str, Any]:
    """What cannot be known now is null, and says why."""
    found, trouble, busy = await asyncio.gather(
        known(run_in_threadpool(facts, gateway)), known(gateway.writable.trouble()), run_in_threadpool(traffic, gateway)
    )
    writable = Known(trouble.value is None, trouble.value) if trouble.reason is None else trouble
    own = {**engines(gateway), "traffic": busy._asdict()}
    return {"object": "status", **own, **told(found, writable), "version": own_version()}


async def known(asked: Awaitable[Any]) -> Known:
    """The answer if it comes in time; whoever is asked for it may go on for a while."""
    task = asyncio.ensure_future(asked)
    done, _ = await asyncio.wait({task}, timeout=WITHIN_S)
    if not done:
        task.add_done_callback(_heard)
        return Known(None, SILENT)
    try:
        return Known(task.result())
    except RedisError as error:
        return Known(None, f"the ledger cannot be reached: {error}")


def _heard(task: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def engines(gateway: Gateway) -> dict[str, Any]:
    """What this process knows without asking anybody."""
    return {"engines": [engine(gateway.settings, arm) for arm in gateway.arms.in_use]}


def engine(settings: Settings, arm: Arm) -> dict[str, Any]:
    """What an arm serves, or why it does not, and whose engine it is."""
    served = arm.gate.served
    own = "supervised" if settings.engine_url is None else "elsewhere"
    return {
        "arm": arm.name,
        "policy_version": served.version if served else None,
        "reason": None if served else arm.gate.reason,
        "url_kind": own if arm.name == "stable" else hosting(settings),
    }


def facts(gateway: Gateway) -> dict[str, Any]:
    """What Redis knows. Raises RedisError."""
    redis, round, release = gateway.ledger.redis, gateway.rounds.open_round(), gateway.releases.open()
    swap, memory = redis.get(LAST_SWAP), redis.info("memory")["used_memory"]
    return {
        "ledger": {"completions": redis.xlen(COMPLETIONS), "judgements": redis.hlen(CURRENT), "memory_bytes": memory},
        "workers": {
            "alive": redis.exists(WORKER_ALIVE), "queued": hints(redis), "oldest_wait_s": waited(round),
        },
        "last_swap": json.loads(swap) if swap else None,
        "round": None if round is None else round_card(round, round.id),
        "next_round": next_round(gateway.settings, gateway.rounds, gateway.ledger).model_dump(),
        "learning_frozen": gateway.rounds.is_frozen(),
        "releases_frozen": gateway.releases.is_frozen(),
        "release": None if release is None else release.id,
        "self_test": self_test(self_test_of(gateway.ledger)),
    }  # fmt: skip


def hints(redis: Any, now: float | None = None) -> int:
    """How many are of use yet: what expired behind a round lies there until a worker throws it away. A hint lives for
    minutes at most, so among the newest (they are put in at the left) are all that live."""
    moment = time.time() if now is None else now
    return sum(_lives(json.loads(message), moment) for message in redis.lrange(QUEUE, 0, HINTS_READ - 1))


def _lives(message: dict[str, Any], now: float) -> bool:
    expires = message["headers"].get("expires")
    return expires is None or datetime.fromisoformat(expires).timestamp() > now


def waited(round: RoundRecord | None) -> float | None:
    """For how long no worker has taken the open round; what is queued are hints, which carry no time."""
    return None if round is None or round.state != "queued" else max(time.time() - round.created, 0.0)


def told(found: Known, writable: Known) -> dict[str, Any]:
    """Each part as it is known; `reasons` says of the others why they are not."""
    why = found.reason
    value = found.value or {"ledger": dict.fromkeys(COUNTED), "workers": dict.fromkeys(WORKERS)}
    ledger = {"writable": writable.value, "reason": writable.reason or why, **value["ledger"]}
    workers = {**value["workers"], "reason": why}
    reasons = {} if why is None else dict.fromkeys(ALONE, why)
    return {"ledger": ledger, "workers": workers, **{name: value.get(name) for name in ALONE}, "reasons": reasons}


@cache
def own_version() -> str | None:
    """None in a source tree that is not installed."""
    try:
        return version("ratchet")
    except PackageNotFoundError:
        return None
