"""API keys: shown once, stored as HMAC; and the pseudonyms that feedback carries."""

import hashlib
import hmac
import json
import secrets
import time
from typing import Any, Literal

from redis import Redis

from feedback.records import Record, new_id

Role = Literal["user", "rater", "operator", "admin"]
ROLES: tuple[Role, ...] = ("user", "rater", "operator", "admin")
KEYS = "keys"
OPERATOR = "operator_"


class ApiKey(Record):
    """What is known of a key; the key itself is not."""

    id: str
    name: str
    role: Role
    created: float


class KeyRing:
    """The keys of one installation; `pepper` is the installation's secret."""

    def __init__(self, redis: Redis, pepper: str) -> None:
        self.redis: Any = redis
        self._pepper = pepper.encode()

    def create(self, *, name: str, role: Role) -> str:
        """Make a key; this return value is the only time it can be seen."""
        plain = f"rk-{secrets.token_urlsafe(32)}"
        record = ApiKey(id=new_id("key_"), name=name, role=role, created=time.time())
        self.redis.hset(KEYS, self._hmac(plain), record.model_dump_json())
        return plain

    def find(self, plain: str) -> ApiKey | None:
        raw = self.redis.hget(KEYS, self._hmac(plain))
        return ApiKey.model_validate_json(raw) if raw else None

    def list(self) -> list[ApiKey]:
        keys = [ApiKey.model_validate(json.loads(raw)) for raw in self.redis.hvals(KEYS)]
        return sorted(keys, key=lambda key: key.created)

    def revoke(self, id: str) -> bool:
        """False when there is no such key."""
        for hashed, raw in self.redis.hgetall(KEYS).items():
            if json.loads(raw)["id"] == id:
                return bool(self.redis.hdel(KEYS, hashed))
        return False

    def pseudonym(self, key: ApiKey, user: str | None) -> str:
        """The rater behind a request: the key, or one of the users that the key speaks for."""
        own = user is None and key.role in ("operator", "admin")
        return (OPERATOR if own else "rater_") + self._hmac(f"{key.id}|{user or ''}")[:24]

    def split(self, rater: str, evaluation_share: float) -> Literal["train", "eval"]:
        """A fixed hashed share of raters never trains: their judgements decide.

        An operator who rates does so to teach, and often alone: those always train.
        """
        if rater.startswith(OPERATOR):
            return "train"
        bucket = int(self._hmac(f"split|{rater}")[:8], 16) / 0xFFFFFFFF
        return "eval" if bucket < evaluation_share else "train"

    def _hmac(self, text: str) -> str:
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).hexdigest()
