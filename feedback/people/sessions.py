"""Who is signed in with a browser: each session stands for an API key, and ends with it."""

import hmac
import secrets
from typing import Any, NamedTuple

from feedback.people.keys import ApiKey, KeyRing
from feedback.records import Record

LASTS_S = 30 * 86_400.0


class Session(Record):
    """`place` is where on the ring its key was when somebody signed in. Times are Unix seconds."""

    place: str
    created: float
    expires: float


class SignedIn(NamedTuple):
    """A session and the key that it stands for; its token is seen only where it begins."""

    token: str
    session: Session
    key: ApiKey


class Sessions:
    """Sessions by their tokens, of which only an HMAC is kept. They last a month, and no longer than the key.

    A key that is revoked or rotated is no longer where its sessions look for it, so they end in that very moment.
    """

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self.redis: Any = keys.redis
        self._pepper = keys.salt("sessions")

    def begin(self, place: str, key: ApiKey) -> SignedIn:
        """Sign in with the key at a place of the ring."""
        new = self.new(place, key)
        self.redis.set(self.name(new.token), new.session.model_dump_json(), exat=until(new.session))
        return new

    def new(self, place: str, key: ApiKey) -> SignedIn:
        """A session that is still to be kept."""
        now = self.keys.clock()
        ends = now + LASTS_S if key.expires is None else min(now + LASTS_S, key.expires)
        return SignedIn(f"rs_{secrets.token_urlsafe(32)}", Session(place=place, created=now, expires=ends), key)

    def find(self, token: str) -> SignedIn | None:
        """The living session with this token, of a living key."""
        raw = self.redis.get(self.name(token))
        session = Session.model_validate_json(raw) if raw else None
        if session is None or session.expires <= self.keys.clock():
            return None
        key = self.keys.at(session.place)
        return None if key is None else SignedIn(token, session, key)

    def end(self, token: str) -> bool:
        """False when there was none."""
        return bool(self.redis.delete(self.name(token)))

    def name(self, token: str) -> str:
        """What it is called in Redis."""
        return f"session:{hmac.digest(self._pepper, token.encode(), 'sha256').hex()}"


def until(session: Session) -> int:
    """When Redis may forget it: whole seconds, and none too early."""
    return int(session.expires) + 1
