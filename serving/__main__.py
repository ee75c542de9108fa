"""`python -m serving`: the gateway over HTTP."""

import logging
import sys
import time

import uvicorn
from redis import Redis
from redis.exceptions import RedisError

from feedback.keys import KeyRing
from feedback.registry import PolicyRegistry
from feedback.rounds import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger, LedgerNotDurable, connect
from serving.app import create_app
from serving.engine import Engine

REDIS_WAIT_S = 30.0


def main() -> int:
    """The exit status: 2 when Redis is absent or would lose what it acknowledges."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    redis = connect(settings.resolved_redis_url())
    try:
        ledger = wait_for_ledger(redis, REDIS_WAIT_S)
    except (RedisError, LedgerNotDurable) as error:
        print(f"ratchet gateway: {error}", file=sys.stderr)
        return 2
    engine = Engine(settings.resolved_engine_url(), settings.resolved_engine_key())
    registry = PolicyRegistry(redis, settings.policies_dir)
    keys = KeyRing(redis, settings.secrets().pepper)
    app = create_app(settings, engine, ledger, registry, RoundBook(redis), keys)
    # A stream that a swap has frozen must not keep the process from ending.
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=8)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
