"""Whether a Redis server keeps what it acknowledges."""

from typing import Any

from redis.exceptions import ResponseError

Command = tuple[Any, ...]

#: Below the socket's timeout, so that the error says what was waited for.
FSYNC_TIMEOUT_MS = 1500

# Waits for the fsync of all that its connection has written. Where each reply follows an fsync it costs no wait, and is
# asked all the same: the server may have come back with other settings since somebody looked.
WAITED: Command = ("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)
# A server too old for that says instead that it fsyncs before each reply.
SAID: Command = ("CONFIG", "GET", "append*")


class LedgerNotDurable(RuntimeError):
    """The Redis server would not keep what it acknowledges."""


def proof(redis: Any) -> Command:
    """What is sent after writes to have them proven; `proven` reads the reply. Raises LedgerNotDurable where nothing
    would prove them, or they would not last."""
    info = redis.info("all")
    if info.get("role") != "master":
        raise LedgerNotDurable("Redis is a replica: what is written to it does not last")
    if not info.get("aof_enabled"):
        raise LedgerNotDurable("Redis runs without AOF: start it with --appendonly yes --appendfsync always")
    if info.get("maxmemory_policy") != "noeviction":
        raise LedgerNotDurable("Redis may evict feedback: start it with --maxmemory-policy noeviction")
    try:
        redis.execute_command("WAITAOF", 0, 0, 1)
    except ResponseError:
        proven(redis.execute_command(*SAID))
        return SAID
    return WAITED


def proven(reply: Any) -> None:
    """Raises LedgerNotDurable unless the reply to a proof says that what was written before it is on the disk."""
    match reply:
        case [int(fsynced_here), int()]:
            if fsynced_here < 1:
                raise LedgerNotDurable(f"the server did not fsync within {FSYNC_TIMEOUT_MS / 1000} s")
        case Exception():
            raise LedgerNotDurable(f"the server does not say whether it fsynced: {reply}")
        case _:
            options = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            if (options.get("appendonly"), options.get("appendfsync")) != ("yes", "always"):
                raise LedgerNotDurable(
                    "Redis neither fsyncs always nor knows WAITAOF: start it with --appendonly yes --appendfsync always"
                )
