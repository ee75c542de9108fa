"""Who is calling: Bearer keys, checked against the key ring."""

import hashlib
import time

import anyio
from redis.exceptions import RedisError

from feedback.keys import ApiKey, KeyRing
from serving.errors import ApiError, unavailable

# A revoked key works this much longer; a known key works this long without Redis.
FRESH_S = 5.0
OUTAGE_S = 3600.0
HURRY_S = 0.5
MAX_KNOWN = 10_000


class Authenticator:
    """Finds keys in Redis, and remembers those it has found."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self._known: dict[str, tuple[ApiKey, float]] = {}

    async def authenticate(self, header: str | None) -> ApiKey:
        """The key of an `Authorization: Bearer …` header; raises ApiError 401, or 503 when nobody can tell."""
        scheme, _, plain = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not plain.strip():
            raise unauthorized()
        plain = plain.strip()
        place = hashlib.sha256(plain.encode()).hexdigest()
        key, checked = self._known.get(place, (None, 0.0))
        age = time.monotonic() - checked
        if key is not None and age < FRESH_S:
            return key
        try:
            # A known key does not wait for a frozen Redis: the request behind it has its own deadline.
            with anyio.fail_after(HURRY_S if key is not None else None):
                found = await anyio.to_thread.run_sync(self.keys.find, plain, abandon_on_cancel=True)
        except (RedisError, TimeoutError):
            if key is not None and age < OUTAGE_S:
                return key
            raise unavailable("keys cannot be checked at the moment", "ledger_unavailable") from None
        if found is None:
            self._known.pop(place, None)
            raise unauthorized()
        self._remember(place, found)
        return found

    def _remember(self, place: str, key: ApiKey) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[place] = (key, time.monotonic())


def unauthorized() -> ApiError:
    """The same answer whatever was wrong, so that it tells nothing."""
    headers = {"www-authenticate": "Bearer"}
    return ApiError(401, "Incorrect or missing API key.", code="invalid_api_key", headers=headers)


def require_operator(key: ApiKey) -> None:
    if key.role not in ("operator", "admin"):
        raise ApiError(403, f"A key of role {key.role} may not do this.", code="insufficient_role")
