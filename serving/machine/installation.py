"""A home directory: who uses it now, whether it can be used, and how it was last started."""

import errno
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
UNPRIVILEGED = 1024  # the lowest port that others than root may have
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
    """Raises CannotStart when nobody could listen where one of our parts is to."""
    wanted = [("gateway", settings.host, settings.port, "--port")]
    if settings.engine_url is None:
        wanted.append(("engine", "127.0.0.1", settings.engine_port, "--engine-port"))
    if hosting(settings) == "supervised":
        wanted.append(("candidate's engine", "127.0.0.1", settings.candidate_port, "RATCHET_CANDIDATE_PORT"))
    if settings.redis_url is None:
        wanted.append(("valkey", "127.0.0.1", settings.redis_port, "--redis-port"))
    for name, host, port, option in wanted:
        try:
            try_to_bind(host, port)
        except OSError as error:
            raise CannotStart(_in_the_way(error, name, host, port, option)) from error
        except UnicodeError as error:
            raise _unusable("host", f"{host} is no name of a host") from error


def try_to_bind(host: str, port: int) -> None:
    """Bind to all that a host means, as its server will, and let go again. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in found:
        try:
            probe = socket.socket(family, kind, protocol)
        except OSError:
            if len(found) == 1:
                raise
            continue  # a kernel without IPv6, say: the server passes it over, too
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)


def _in_the_way(error: OSError, name: str, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken, and the {name} needs one: end what listens there, or give {option}"
    why = str(error.strerror)
    if error.errno == errno.EACCES and port < UNPRIVILEGED:
        why += f"; ports below {UNPRIVILEGED} are for root"
    either = "--host or --port" if option == "--port" else option
    return f"the {name} cannot listen on port {port} of {host} ({why}): give another {either}"


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
