"""A home directory: who uses it now, whether it can be used, and how it was last started."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from redis import Redis

from feedback.releases.pool import hosting
from feedback.settings import Settings
from serving.machine.children import CannotStart

FREE_BYTES = 2 * 1024**3
STARTED = "started.json"
# What commands tell of the service, and what they do, hangs on these.
RECORDED = (
    "host", "port", "redis_url", "redis_port", "engine_url", "engine_port", "engine_mode", "candidate_url",
    "base_model", "release_mode", "min_rankings", "round_every_minutes", "evaluation_share", "training_processes",
)  # fmt: skip
OPTIONS = ("home", "host", "port", "workers", "redis_url", "redis_port", "engine_url", "engine_port", "single_user")


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the home directory; raises CannotStart when another process does, or nothing can be written there."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (home / "ratchet.lock").open("a+")
    except OSError as error:
        raise CannotStart(f"cannot write to {home} ({error.strerror}): give another directory with --home") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise CannotStart(f"ratchet already runs in {home} (pid {pid}): end it, or give another --home") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_disk(home: Path, needed_bytes: int = FREE_BYTES) -> None:
    """Raises CannotStart when there is too little room for models and checkpoints."""
    free = shutil.disk_usage(home).free
    if free < needed_bytes:
        raise CannotStart(
            f"only {free / 1024**3:.1f} GiB are free at {home}, {needed_bytes / 1024**3:.1f} are needed: "
            "make room, or give another directory with --home"
        )


def check_ports(settings: Settings) -> None:
    """Raises CannotStart when a port that we would listen on is taken."""
    wanted = [("gateway", settings.host, settings.port, "--port")]
    if settings.engine_url is None:
        wanted.append(("engine", "127.0.0.1", settings.engine_port, "--engine-port"))
    if hosting(settings) == "supervised":
        wanted.append(("candidate's engine", "127.0.0.1", settings.candidate_port, "RATCHET_CANDIDATE_PORT"))
    if settings.redis_url is None:
        wanted.append(("valkey", "127.0.0.1", settings.redis_port, "--redis-port"))
    for name, host, port, option in wanted:
        if not is_free(host, port):
            raise CannotStart(
                f"port {port} on {host} is taken, and the {name} needs one: end what listens there, or give {option}"
            )


def is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def record_start(settings: Settings) -> None:
    """Keep what `up` was told, so that later commands on the same home need not be told again."""
    path = settings.home / STARTED
    values = settings.model_dump(mode="json", include=set(RECORDED))
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(values, file)
    temporary.replace(path)  # a crash in between must not leave half a file


def settings_of(home: Path | None, **given: Any) -> Settings:
    """Settings for a start: options that were given, else `RATCHET_*`, else the defaults. Raises CannotStart."""
    options = {name: value for name, value in given.items() if value is not None}
    if home is not None:
        options["home"] = home
    try:
        settings = Settings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise _unusable(str(first["loc"][0]), first["msg"]) from error
    check_urls(settings)
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def check_urls(settings: Settings) -> None:
    """Raises CannotStart for what cannot be a URL, whoever listens there."""
    try:
        if settings.redis_url is not None:
            Redis.from_url(settings.redis_url).close()
    except ValueError as error:
        raise _unusable("redis_url", str(error)) from error
    if settings.engine_url is not None and not _is_http(settings.engine_url):
        raise _unusable("engine_url", "it must be a URL such as http://127.0.0.1:8001")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _unusable(setting: str, message: str) -> CannotStart:
    name = f"--{setting.replace('_', '-')} or " if setting in OPTIONS else ""
    return CannotStart(f"{name}RATCHET_{setting.upper()} cannot be used: {' '.join(message.split())}")


def settings_as_started(home: Path | None) -> Settings:
    """Settings for a command on an installation: `RATCHET_*` first, then what `up` was told, then the defaults."""
    settings = settings_of(home)
    path = settings.home / STARTED
    if not path.exists():
        return settings
    try:
        told = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CannotStart(f"{path} cannot be read ({error}): run `ratchet up` again, it writes a new one") from error
    unset = {name: value for name, value in told.items() if f"RATCHET_{name.upper()}" not in os.environ}
    return settings_of(settings.home, **unset)


def environment(settings: Settings) -> dict[str, str]:
    """The same settings, for child processes."""
    values = settings.model_dump(mode="json")
    return {f"RATCHET_{name.upper()}": str(value) for name, value in values.items() if value is not None}
