"""Who is calling: Bearer keys and sessions, checked against the ring; and those who guess at them, slowed down."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
from redis.exceptions import RedisError

from feedback.people.invites import Invites
from feedback.people.keys import ApiKey, KeyRing
from feedback.people.sessions import Sessions
from serving.http.errors import ApiError, unavailable

# A revoked key works this much longer; a known key works this long without Redis. Sessions are looked up each time:
# whoever signs out is out in all processes, and a page asks far less often than a program.
FRESH_S = 5.0
OUTAGE_S = 3600.0
HURRY_S = 0.5
# So long a known key is taken without another look after one that failed.
PAUSE_S = 1.0
MAX_KNOWN = 10_000
# Threads of their own for known keys: while Redis stalls they all wait, and answers must still be stored meanwhile.
KNOWN_THREADS = 8

# So many wrong keys from one address, then for the rest of the period its unknown keys share these few threads: behind
# a proxy everybody has one address, and a right key among the guesses must get through.
GUESSES = 20
PERIOD_S = 60.0
DOUBTED_THREADS = 2

SESSION = "session "

T = TypeVar("T")
Find = Callable[[str], ApiKey | None]


class Authenticator:
    """Finds keys and sessions in Redis, and remembers those it has found."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self.sessions = Sessions(keys)
        self.invites = Invites(self.sessions)
        self.guesses = Guesses()
        self._known: dict[str, tuple[ApiKey, float]] = {}
        self._wrong: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        self._looking: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._looks = anyio.CapacityLimiter(KNOWN_THREADS)
        self._doubted = anyio.CapacityLimiter(DOUBTED_THREADS)
        self._ring: dict[str, float | None] | None = None
        self._ring_read = float("-inf")

    async def authenticate(self, header: str | None, address: str, *, freshly: bool = False) -> ApiKey:
        """The key of an `Authorization: Bearer …` header sent from `address`; `freshly`: as Redis has it now.

        Raises ApiError 401, for a wrong key after too many from there 429, or 503 when nobody can tell.
        """
        scheme, _, plain = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not plain.strip():
            raise unauthorized()
        return await self._checked(place_of(plain.strip()), plain.strip(), self.keys.find, address, freshly)

    async def of_session(self, token: str, address: str, *, freshly: bool = False) -> ApiKey:
        """The key that a session stands for, for as long as the session lasts. Raises as `authenticate` does."""
        return await self._checked(session_place(token), token, self._key_of, address, freshly)

    def forget_session(self, token: str) -> None:
        """It was ended: this process takes it no more."""
        self._known.pop(session_place(token), None)

    def _key_of(self, token: str) -> ApiKey | None:
        """It works no longer than the session does."""
        found = self.sessions.find(token)
        return found.key.model_copy(update={"expires": found.session.expires}) if found else None

    async def _checked(self, place: str, plain: str, find: Find, address: str, freshly: bool) -> ApiKey:
        key, checked = self._known.get(place, (None, 0.0))
        age, exact = time.monotonic() - checked, freshly or place.startswith(SESSION)
        lives = key is not None and key.living(self.keys.clock())
        if key is not None and lives and age < FRESH_S and not exact:
            return key
        if key is None and time.monotonic() - self._wrong.get(place, -math.inf) < FRESH_S:
            # A page that was left open repeats its dead session without guessing at anything.
            raise self._refusal(address, counts=not place.startswith(SESSION))
        spared = key if lives and age < OUTAGE_S and not freshly else None
        if spared is None or time.monotonic() - self._failed.get(place, -math.inf) >= PAUSE_S:
            look = partial(find, plain)
            try:
                looking = self._look(look, address) if key is None else self._look_again(place, look, exact=exact)
                return self._told(await looking, place, address)
            except (RedisError, TimeoutError):
                if spared is None:
                    raise uncheckable() from None
                remember(self._failed, place, time.monotonic())
        return spared

    def _told(self, found: ApiKey | None, place: str, address: str) -> ApiKey:
        """The key that Redis has at a place, remembered; raises ApiError where it has none."""
        if found is None:
            self._known.pop(place, None)
            remember(self._wrong, place, time.monotonic())
            raise self._refusal(address)
        remember(self._known, place, (found, time.monotonic()))
        return found

    async def still_valid(self, key: ApiKey) -> bool:
        """False within seconds after a caller's key was revoked, was rotated or has expired; True if nobody can tell.

        For streams, which outlive their authentication. One reading of the ring serves all of them while it is fresh.
        """
        if not key.living(self.keys.clock()):
            return False
        # A key that is not on a fresh ring may be newer than the reading.
        if time.monotonic() - self._ring_read < FRESH_S and self._on_ring(key):
            return True
        self._ring_read = time.monotonic()  # before the answer: the other streams need not ask as well
        try:
            with anyio.fail_after(HURRY_S):
                keys = await anyio.to_thread.run_sync(self.keys.list, abandon_on_cancel=True)
            self._ring = {held.id: held.last_rotated for held in keys if held.living(self.keys.clock())}
        except (RedisError, TimeoutError):
            self._ring = None
        return self._on_ring(key)

    def _on_ring(self, key: ApiKey) -> bool:
        """Also while nobody knows what is on it."""
        return self._ring is None or (key.id in self._ring and self._ring[key.id] == key.last_rotated)

    async def sign_in(self, look: Callable[[], T | None], address: str, wrong: ApiError) -> T:
        """What `look` makes of a key or an invite that was sent from `address`; raises `wrong` if that is nothing.

        Else raises as `authenticate` does.
        """
        try:
            found = await self._look(look, address)
        except (RedisError, TimeoutError):
            raise uncheckable() from None
        if found is None:
            raise self._refusal(address, wrong)
        return found

    async def _look(self, look: Callable[[], T], address: str) -> T:
        """Raises TimeoutError where so many guesses came from that it does not wait for long behind the others."""
        doubted = self.guesses.many(address)
        limiter = self._doubted if doubted else None
        with anyio.fail_after(HURRY_S if doubted else None):
            return await anyio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=limiter)

    async def _look_again(self, place: str, look: Callable[[], ApiKey | None], *, exact: bool) -> ApiKey | None:
        """For a key that is known: it does not wait for a frozen Redis, the request behind it has its own deadline.

        One look at a time: its thread and connection are held for as long as Redis stalls, whoever gave up on it.
        `exact` takes no answer to a question that was asked before. Raises TimeoutError.
        """
        with anyio.fail_after(HURRY_S):
            if exact and (earlier := self._looking.get(place)):
                await asyncio.wait([earlier])
            return await asyncio.shield(self._looking.get(place) or self._begin(place, look))

    def _begin(self, place: str, look: Callable[[], ApiKey | None]) -> "asyncio.Task[ApiKey | None]":
        looking = asyncio.create_task(anyio.to_thread.run_sync(look, limiter=self._looks))

        def ended(_: object) -> None:
            del self._looking[place]
            if not looking.cancelled():
                looking.exception()  # seen, though nobody may be left to hear of it

        self._looking[place] = looking
        looking.add_done_callback(ended)
        return looking

    def _refusal(self, address: str, wrong: ApiError | None = None, *, counts: bool = True) -> ApiError:
        """What a wrong key gets, which counts as a guess."""
        refusal = self.guesses.refusal(address) or wrong or unauthorized()
        if counts:
            self.guesses.count(address)
        return refusal


def place_of(plain: str) -> str:
    """Under what a key is remembered; a session never under what a key is, so that neither passes for the other."""
    return hashlib.sha256(plain.encode()).hexdigest()


def session_place(token: str) -> str:
    return SESSION + place_of(token)


def remember(memory: dict[str, T], name: str, value: T) -> None:
    """At most MAX_KNOWN names; the oldest is forgotten for a new one."""
    if name not in memory and len(memory) >= MAX_KNOWN:
        del memory[next(iter(memory))]
    memory[name] = value


class Guesses:
    """How many wrong keys each address has sent of late; remembers at most MAX_KNOWN addresses."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, float]] = {}

    def many(self, address: str) -> bool:
        return self._of(address)[0] >= GUESSES

    def refusal(self, address: str) -> ApiError | None:
        """429 after too many, until the period is over that began with the first wrong key."""
        wrong, ends = self._of(address)
        if wrong < GUESSES:
            return None
        seconds = math.ceil(ends - time.monotonic())
        message = f"More than {GUESSES} wrong API keys came from this address; try again in {seconds} s."
        return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(seconds)})

    def count(self, address: str) -> None:
        wrong, ends = self._of(address)
        remember(self._counted, address, (wrong + 1, ends))

    def _of(self, address: str) -> tuple[int, float]:
        now = time.monotonic()
        wrong, ends = self._counted.get(address, (0, 0.0))
        return (wrong, ends) if now < ends else (0, now + PERIOD_S)


def unauthorized() -> ApiError:
    """The same answer whatever was wrong, so that it tells nothing."""
    headers = {"www-authenticate": "Bearer"}
    return ApiError(401, "Incorrect or missing API key.", code="invalid_api_key", headers=headers)


def uncheckable() -> ApiError:
    return unavailable("keys cannot be checked at the moment", "ledger_unavailable")


def require_operator(key: ApiKey) -> None:
    _require(key, "operator", "admin")


def require_admin(key: ApiKey) -> None:
    _require(key, "admin")


def _require(key: ApiKey, *roles: str) -> None:
    if key.role not in roles:
        raise ApiError(403, f"A key of role {key.role} may not do this.", code="insufficient_role")
