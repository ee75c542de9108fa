"""Questions over HTTP about whether a part is there; asked often, so they must cost little."""

from functools import cache
from typing import Any

import httpx

from feedback.settings import Settings

WORKER_ALIVE = "worker:alive"  # a key that the worker renews
# Where this machine answers that listens on all of its addresses: those of the other family are not among them.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL)  # the second is none of the first
QUEUE = "celery:training"  # what it is hinted at, as Celery lays it into Redis


def answers(url: str, *, key: str | None = None, timeout_s: float = 2.0) -> bool:
    """True if a GET is answered with 2xx in time."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return _client().get(url, headers=headers, timeout=timeout_s).is_success
    except UNREACHABLE:
        return False


def gateway_url(settings: Settings) -> str:
    """Where the gateway answers on this machine."""
    host = EVERYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def readiness(settings: Settings) -> tuple[bool, dict[str, Any]]:
    """Whether the gateway can answer chats, and what it reports; (False, {}) when nothing answers."""
    try:
        response = _client().get(f"{gateway_url(settings)}/ready", timeout=3.0)
        report = response.json()
    except (*UNREACHABLE, ValueError):
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
