"""Questions over HTTP about whether a part is there; asked often, so they must cost little."""

from functools import cache
from typing import Any

import httpx

from feedback.settings import Settings

WORKER_ALIVE = "worker:alive"  # a key that the worker renews
QUEUE = "celery:training"  # what it is hinted at, as Celery lays it into Redis


def answers(url: str, *, key: str | None = None, timeout_s: float = 2.0) -> bool:
    """True if a GET is answered with 2xx in time."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return _client().get(url, headers=headers, timeout=timeout_s).is_success
    except httpx.HTTPError:
        return False


def gateway_url(settings: Settings) -> str:
    """Where the gateway answers on this machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{host}:{settings.port}"


def readiness(settings: Settings) -> tuple[bool, dict[str, Any]]:
    """Whether the gateway can answer chats, and what it reports; (False, {}) when nothing answers."""
    try:
        response = _client().get(f"{gateway_url(settings)}/ready", timeout=3.0)
        report = response.json()
    except (httpx.HTTPError, ValueError):
        return False, {}
    return response.is_success, report if isinstance(report, dict) else {}


def served_version(settings: Settings) -> int | None:
    """The policy version that the gateway proved to be in the engine."""
    _, report = readiness(settings)
    version = report.get("policy_version")
    return version if isinstance(version, int) else None


@cache
def _client() -> httpx.Client:
    """One for all: making a client reads all certificates. No connection is kept, since servers restart."""
    return httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
