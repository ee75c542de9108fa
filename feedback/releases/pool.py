"""The engine that holds a release's candidate: wanted by who leads the gateway, started by `ratchet up`.

They meet in one hash of Redis. Each entry says which release it is about: what is left of one says nothing of another.
"""

from typing import Any, Literal, NamedTuple

from redis import Redis

from feedback.records import Record
from feedback.settings import Settings

CANDIDATE = "engine:candidate"

#: "none": no engine can be had. The others are the supervisor's: of the engine that it runs.
State = Literal["none", "starting", "ready", "failed"]
Hosting = Literal["supervised", "elsewhere", "shared", "none"]

NO_ENGINE = (
    "there is no engine for a candidate beside the one at RATCHET_ENGINE_URL: start a second vLLM server and name it "
    "in RATCHET_CANDIDATE_URL"
)


class Wish(NamedTuple):
    """Which version a second engine is wanted for, and by which release."""

    version: int
    release: int


class Failure(Record):
    """Why no engine holds a release's candidate; `candidate_is` is what that says of the version itself, if anything.

    A version that was proven before is not to blame: then the engine is.
    """

    release: int
    version: int
    reason: str
    candidate_is: Literal["rejected", "broken"] | None = None


def hosting(settings: Settings) -> Hosting:
    """Where a candidate's engine comes from."""
    if settings.engine_mode == "adapter":
        return "shared"
    if settings.candidate_url is not None:
        return "elsewhere"
    return "supervised" if settings.engine_url is None else "none"


class EnginePool:
    """What is wanted of the second engine, and what became of it. Everything raises RedisError."""

    def __init__(self, redis: Redis, hosting: Hosting) -> None:
        self.redis: Any = redis
        self.hosting = hosting

    def want(self, wish: Wish | None) -> None:
        """For who leads. Nothing that was said for a former wish is left."""
        if wish is not None and wish == self.wish():
            return
        with self.redis.pipeline() as pipe:
            pipe.delete(CANDIDATE)
            if wish is not None:
                facts: dict[str, str | int] = {"wanted": wish.version, "release": wish.release}
                if self.hosting == "supervised":
                    facts |= {"state": "starting", "state_release": wish.release}
                elif self.hosting == "none":
                    facts |= {"state": "none", "state_release": wish.release, "cause": NO_ENGINE}
                pipe.hset(CANDIDATE, mapping=facts)
            pipe.execute()

    def dismiss(self) -> None:
        """For who leads: the engine shall end, and whoever wants one later gets another. What failed is still told."""
        self.redis.hdel(CANDIDATE, "wanted", "state", "state_release")

    def report(self, wish: Wish, reason: str, *, broken: bool, proven: bool) -> None:
        """For who leads: the version failed in the engine, because its bytes are `broken` or its proof failed;
        `proven`: another engine, or this one earlier, did hold it."""
        facts = {"failed_release": wish.release, "failed_version": wish.version, "failure": reason}
        self.redis.hset(CANDIDATE, mapping=facts | {"broken": int(broken), "proven": int(proven)})

    def wish(self) -> Wish | None:
        """For who supervises."""
        wanted, release = self.redis.hmget(CANDIDATE, "wanted", "release")
        return None if wanted is None else Wish(int(wanted), int(release or 0))

    def tell(self, wish: Wish, state: State, cause: str = "") -> None:
        """For who supervises: how far the engine for this wish is."""
        facts = {"state": state, "state_release": wish.release, "cause": cause}
        self.redis.hset(CANDIDATE, mapping=facts)

    def failure(self, release: int) -> Failure | None:
        """Why this release's candidate cannot be held in any engine; None while it can, or nobody knows yet."""
        facts = self.redis.hgetall(CANDIDATE)
        if facts.get("failed_release") == str(release):
            blamed: Literal["rejected"] | None = None if facts["proven"] == "1" else "rejected"
            verdict = "broken" if facts["broken"] == "1" else blamed
            version = int(facts["failed_version"])
            return Failure(release=release, version=version, reason=facts["failure"], candidate_is=verdict)
        failed = facts.get("state_release") == str(release) and facts["state"] in ("none", "failed")
        if failed and "wanted" in facts:
            return Failure(release=release, version=int(facts["wanted"]), reason=facts["cause"])
        return None

    def describe(self) -> str | None:
        """For people, while an engine is wanted from us."""
        facts = self.redis.hgetall(CANDIDATE)
        if "wanted" not in facts or "state" not in facts:
            return None
        why = f": {facts['cause']}" if facts.get("cause") else ""
        return f"policy-v{facts['wanted']}, {facts['state']}{why}"
