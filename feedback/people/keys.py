"""API keys: shown once, stored as HMAC; what each may do, how often, until when; the pseudonyms feedback carries."""

import hmac
import json
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from redis import Redis

from feedback.people.key_audit import INSTALLATION, KeyAction, line, note
from feedback.records import Record, new_id

Role = Literal["user", "rater", "operator", "admin"]
ROLES: tuple[Role, ...] = ("user", "rater", "operator", "admin")
KEYS = "keys"
OPERATOR = "operator_"
IMPORTED: dict[Literal["train", "eval"], str] = {"train": "imported_train_", "eval": "imported_eval_"}

Source = Literal["live", "operator", "import"]
SOURCES: tuple[Source, ...] = ("live", "operator", "import")

# Names are printed on terminals and written into audits: no control characters, nothing invisible.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^\P{C}+$")]
Bound = Annotated[int, Field(strict=True, ge=1, le=10**12)] | None
# Below the year 9999: what lies beyond cannot be shown as a date.
Moment = Annotated[float, Field(strict=True, gt=0, lt=253_370_764_800, allow_inf_nan=False)]


class UnknownKey(LookupError):
    """No such key is on the ring."""


class LastAdmin(RuntimeError):
    """The change would leave nobody who can manage keys."""


class Limits(Record):
    """How much one key may do; None = as much as it likes. Days are UTC's; `streams` are answers written at once."""

    requests_per_minute: Bound = None
    tokens_per_day: Bound = None
    streams: Bound = None
    feedback_per_day: Bound = None


class KeyChange(Record):
    """What may be changed of a key: the fields that are given. Within `limits` as well; null lifts one."""

    name: Name = ""
    role: Role = "user"
    expires: Moment | None = None
    limits: Limits = Limits()


class NewKey(KeyChange):
    """What a key is made with."""

    name: Name


class ApiKey(Record):
    """What is known of a key; the key itself is not. Times are Unix seconds; `expires` None = never."""

    id: str
    name: str
    role: Role
    created: float
    expires: float | None = None
    limits: Limits = Limits()
    last_rotated: float | None = None

    def living(self, now: float) -> bool:
        return self.expires is None or now < self.expires

    def changed(self, change: KeyChange) -> "ApiKey":
        given = {name: getattr(change, name) for name in change.model_fields_set}
        if "limits" in given:
            given["limits"] = self.limits.model_copy(update=change.limits.model_dump(exclude_unset=True))
        return self.model_copy(update=given)


class KeyRing:
    """The keys of one installation; `pepper` is the installation's secret.

    A change reads the ring, decides, and writes only if nobody else wrote meanwhile: rules over all keys hold. Each
    leaves a line in the audit, of the same moment.
    """

    def __init__(self, redis: Redis, pepper: str, clock: Callable[[], float] = time.time) -> None:
        self.redis: Any = redis
        self.clock = clock
        self._pepper = pepper.encode()
        # A request asks several times who is behind it, and most requests of a key are the same person's.
        self._of_person = lru_cache(maxsize=4096)(lambda name: self._hmac(name)[:24])

    def create(
        self, *, name: str, role: Role, expires: float | None = None, limits: Limits | None = None,
        actor: str = INSTALLATION,
    ) -> str:  # fmt: skip
        """Make a key; this return value is the only time it can be seen. Raises ValueError on a bad name or time."""
        return self.issue(NewKey(name=name, role=role, expires=expires, limits=limits or Limits()), actor=actor)[0]

    def issue(self, new: NewKey, *, actor: str = INSTALLATION) -> tuple[str, ApiKey]:
        """Make a key: its text, which can be seen this once, and what is known of it."""
        plain, key = new_plain(), ApiKey(id=new_id("key_"), created=self.clock(), **dict(new))
        with self.redis.pipeline() as pipe:
            pipe.hset(KEYS, self._hmac(plain), key.model_dump_json())
            note(pipe, line("create", key, actor, key.created))
            pipe.execute()
        return plain, key

    def find(self, plain: str) -> ApiKey | None:
        """The living key with this text."""
        return self.at(self.place(plain))

    def place(self, plain: str) -> str:
        """Where a key with this text is on the ring: rotation moves it from there, and revocation takes it away."""
        return self._hmac(plain)

    def at(self, place: str) -> ApiKey | None:
        """The living key at a place."""
        raw = self.redis.hget(KEYS, place)
        key = ApiKey.model_validate_json(raw) if raw else None
        return key if key is not None and key.living(self.clock()) else None

    def get(self, id: str) -> ApiKey:
        """A key by its id, also when it has expired. Raises UnknownKey."""
        return located(parsed(self.redis.hgetall(KEYS)), id)[1]

    def first_admin(self) -> tuple[str, ApiKey]:
        """The oldest living admin key with its place; one is made if there is none."""
        now, ring = self.clock(), parsed(self.redis.hgetall(KEYS))
        admins = [(place, key) for place, key in ring.items() if key.role == "admin" and key.living(now)]
        if admins:
            return min(admins, key=lambda found: found[1].id)
        plain, key = self.issue(NewKey(name="admin", role="admin"))
        return self.place(plain), key

    def list(self) -> list[ApiKey]:
        """All keys that were not revoked, oldest first; their ids are in the same order."""
        return sorted(parsed(self.redis.hgetall(KEYS)).values(), key=lambda key: key.id)

    def revoke(self, id: str, *, spare_admin: bool = False, actor: str = INSTALLATION) -> bool:
        """False when there is no such key. Raises LastAdmin if no living admin would be left and one must be."""
        try:
            self._change("revoke", id, lambda place, key: {}, actor, spare_admin=spare_admin)
        except UnknownKey:
            return False
        return True

    def update(self, id: str, change: KeyChange, *, spare_admin: bool = False, actor: str = INSTALLATION) -> ApiKey:
        """Raises UnknownKey; LastAdmin as `revoke` does.

        A key that becomes an operator's or admin's, or stops being one, rates under another pseudonym from then on.
        """
        given = sorted(change.model_fields_set)
        [key] = self._change(
            "change", id, lambda place, key: {place: key.changed(change)}, actor, *given, spare_admin=spare_admin
        ).values()
        return key

    def rotate(self, id: str, *, actor: str = INSTALLATION) -> str:
        """Give a key a new text, which is seen this once; the old one is useless. Its id stays, and so its pseudonym.

        Raises UnknownKey.
        """
        plain = new_plain()
        rotated = {"last_rotated": self.clock()}
        self._change("rotate", id, lambda _, key: {self._hmac(plain): key.model_copy(update=rotated)}, actor)
        return plain

    def _change(
        self, action: KeyAction, id: str, replace: Callable[[str, ApiKey], dict[str, ApiKey]], actor: str,
        *given: str, spare_admin: bool = False,
    ) -> dict[str, ApiKey]:  # fmt: skip
        """Put what `replace` makes of a key, and of its place on the ring, where the key was."""

        def attempt(pipe: Any) -> dict[str, ApiKey]:
            ring = parsed(pipe.hgetall(KEYS))
            place, key = located(ring, id)
            instead = replace(place, key)
            after = {at: held for at, held in ring.items() if at != place} | instead
            if spare_admin and self._has_admin(ring) and not self._has_admin(after):
                raise LastAdmin(f"{key.name} has the last admin key: make another one first")
            pipe.multi()
            pipe.hdel(KEYS, place)
            for at, held in instead.items():
                pipe.hset(KEYS, at, held.model_dump_json())
            note(pipe, line(action, next(iter(instead.values()), key), actor, self.clock(), *given))
            return instead

        written: dict[str, ApiKey] = self.redis.transaction(attempt, KEYS, value_from_callable=True)
        return written

    def _has_admin(self, ring: dict[str, ApiKey]) -> bool:
        now = self.clock()
        return any(key.role == "admin" and key.living(now) for key in ring.values())

    def pseudonym(self, key: ApiKey, user: str | None) -> str:
        """The rater behind a request: the key, or one of the users that the key speaks for."""
        own = user is None and key.role in ("operator", "admin")
        return (OPERATOR if own else "rater_") + self._of_person(f"{key.id}|{user or ''}")

    def split(self, rater: str, evaluation_share: float) -> Literal["train", "eval"]:
        """A fixed hashed share of raters never trains: their judgements decide.

        An operator who rates does so to teach, and often alone: those always train. What was imported was assigned
        when it was.
        """
        for split, prefix in IMPORTED.items():
            if rater.startswith(prefix):
                return split
        if rater.startswith(OPERATOR):
            return "train"
        bucket = int(self._hmac(f"split|{rater}")[:8], 16) / 0xFFFFFFFF
        return "eval" if bucket < evaluation_share else "train"

    def imported(self, name: str, split: Literal["train", "eval"]) -> str:
        """The rater that somebody named in an imported file becomes, within a split."""
        return IMPORTED[split] + self._hmac(f"import|{name}")[:24]

    def salt(self, purpose: str) -> bytes:
        """A secret of this installation for one purpose."""
        return bytes.fromhex(self._hmac(f"salt|{purpose}"))

    def _hmac(self, text: str) -> str:
        return hmac.digest(self._pepper, text.encode(), "sha256").hex()


def source_of(rater: str) -> Source:
    """Where a rater's judgements come from, by the pseudonym: people, an operator's own, or files."""
    if rater.startswith(OPERATOR):
        return "operator"
    return "import" if rater.startswith(tuple(IMPORTED.values())) else "live"


def new_plain() -> str:
    return f"rk-{secrets.token_urlsafe(32)}"


def parsed(raw: dict[str, str]) -> dict[str, ApiKey]:
    return {place: ApiKey.model_validate(json.loads(text)) for place, text in raw.items()}


def located(ring: dict[str, ApiKey], id: str) -> tuple[str, ApiKey]:
    for place, key in ring.items():
        if key.id == id:
            return place, key
    raise UnknownKey(f"there is no key {id}")
