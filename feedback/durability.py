"""Whether a Redis server keeps what it acknowledges."""

from typing import Any

from redis.exceptions import ResponseError

#: Below the socket's timeout, so that the error says what was waited for.
FSYNC_TIMEOUT_MS = 1500


class LedgerNotDurable(RuntimeError):
    """The Redis server would not keep what it acknowledges."""


def fsynced(waited: list[list[int]]) -> None:
    """Raises LedgerNotDurable unless each reply of WAITAOF counts this server."""
    if any(local < 1 for local, _ in waited):
        raise LedgerNotDurable(f"the server did not fsync within {FSYNC_TIMEOUT_MS / 1000} s")


def fsyncs_always(redis: Any) -> bool:
    """True if a reply implies an fsync; False if WAITAOF must be asked; raises LedgerNotDurable otherwise."""
    info = redis.info("all")
    if info.get("role") != "master":
        raise LedgerNotDurable("Redis is a replica: what is written to it does not last")
    if not info.get("aof_enabled"):
        raise LedgerNotDurable("Redis runs without AOF: start it with --appendonly yes --appendfsync always")
    if info.get("maxmemory_policy") != "noeviction":
        raise LedgerNotDurable("Redis may evict feedback: start it with --maxmemory-policy noeviction")
    if redis.config_get("appendfsync").get("appendfsync") == "always":
        return True
    try:
        redis.execute_command("WAITAOF", 0, 0, 1)
    except ResponseError as error:
        raise LedgerNotDurable(
            "Redis neither fsyncs always nor knows WAITAOF: start it with --appendfsync always"
        ) from error
    return False
