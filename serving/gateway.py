"""What the routes work with, handed to them by FastAPI."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.responses import Response

from feedback.archive import Archive
from feedback.people.keys import ApiKey, KeyRing
from feedback.policies.learned import Learned
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger
from serving.engine.lockstep import Follower
from serving.engine.server import Engine
from serving.engine.swap_gate import SwapGate
from serving.engine.watcher import PolicyWatcher
from serving.http.auth import Authenticator, require_admin, require_operator
from serving.http.cookies import require_page, session_cookie
from serving.http.errors import invalid
from serving.http.json_body import MANY, parse_json
from serving.http.places import Places
from serving.http.quotas import Quotas
from serving.ledger.appender import Appender
from serving.ledger.recorder import Recorder
from serving.ledger.shown import ShownAnswers
from serving.ledger.writable import Writable
from serving.logs import note_key
from serving.metrics import Metrics
from serving.peers import Peers
from serving.release.arms import Arms
from serving.release.controller import Controller
from serving.streams.observing import Observing
from serving.streams.replay import Replays
from serving.streams.running import Running
from serving.views.rater_facts import RaterFacts


@dataclass
class Gateway:
    """The collaborators of one gateway process; `waiting` are requests that nothing is done for yet.

    `watcher` moves the stable arm's gate, `candidate_watcher` the candidate's.
    """

    settings: Settings
    arms: Arms
    ledger: Ledger
    registry: PolicyRegistry
    rounds: RoundBook
    releases: ReleaseBook
    keys: KeyRing
    watcher: PolicyWatcher | Follower
    candidate_watcher: PolicyWatcher | Follower
    recorder: Recorder
    auth: Authenticator
    archive: Archive
    places: Places
    waiting: Places
    metrics: Metrics
    quotas: Quotas
    shown: ShownAnswers
    appender: Appender
    peers: Peers
    writable: Writable
    observing: Observing
    controller: Controller | None = None  # of the process that leads
    running: Running = field(default_factory=Running)
    replays: Replays = field(default_factory=Replays)
    learned: Learned = field(init=False)
    rater_facts: RaterFacts = field(init=False)

    def __post_init__(self) -> None:
        self.learned = Learned(self.registry)
        self.rater_facts = RaterFacts(self.ledger)

    @property
    def cookie(self) -> str:
        """What the session's cookie is called, also behind a proxy with another port."""
        return session_cookie(self.settings.port)

    @property
    def engine(self) -> Engine:
        """Stable's."""
        return self.arms.stable.engine

    @property
    def gate(self) -> SwapGate:
        """Stable's."""
        return self.arms.stable.gate

    def rater(self, caller: ApiKey, user: str | None) -> str:
        """The pseudonym behind a request.

        Operators' and admins' keys speak for the users they name; anybody else is one person, whatever name
        they send, or one key could vote as a crowd.
        """
        speaks_for_users = caller.role in ("operator", "admin")
        return self.keys.pseudonym(caller, user if speaks_for_users else None)

    def raters(self, caller: ApiKey, user: str | None) -> set[str]:
        """Whose answers a caller may judge: a completion asked for without naming a user was shown to whomever the
        key speaks for."""
        own = self.rater(caller, None)
        return {own} if user is None else {self.rater(caller, user), own}


async def gateway_of(request: Request) -> Gateway:  # async, or FastAPI would ask a thread for it each time
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


GatewayDep = Annotated[Gateway, Depends(gateway_of)]


class Caller(HTTPBearer):
    """Who calls, by the key in the header, else by the session in the cookie. One dependency that is also what the
    OpenAPI document names: each more would cost as much as the check itself."""

    def __init__(self, *, freshly: bool = False) -> None:
        super().__init__(scheme_name="bearer", auto_error=False)
        self._freshly = freshly

    async def __call__(self, request: Request) -> ApiKey:  # type: ignore[override]
        """Raises ApiError 401, 429 or 503; 403 for what a cookie alone does not allow."""
        gateway, header = await gateway_of(request), request.headers.get("authorization")
        if not header and (token := request.cookies.get(gateway.cookie)):
            caller = await gateway.auth.of_session(token, address_of(request), freshly=self._freshly)
            require_page(request.method, request.headers)
        else:
            caller = await gateway.auth.authenticate(header, address_of(request), freshly=self._freshly)
        note_key(caller.id)
        return caller


_caller_of = Caller()
CallerDep = Annotated[ApiKey, Depends(_caller_of)]


class Direct(APIRoute):
    """A route to an endpoint that takes (request, gateway, caller), which FastAPI documents and nothing more: to find
    out on each request what to hand in takes it longer than the endpoint of a judgement."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        async def answer(request: Request) -> Response:
            response: Response = await self.endpoint(request, await gateway_of(request), await _caller_of(request))
            return response

        return answer


async def operator_of(caller: CallerDep) -> ApiKey:
    require_operator(caller)
    return caller


OperatorDep = Annotated[ApiKey, Depends(operator_of)]


# Asks Redis each time: in the seconds that a revoked key is still remembered, it could make itself another.
FreshCallerDep = Annotated[ApiKey, Depends(Caller(freshly=True))]


async def admin_of(caller: FreshCallerDep) -> ApiKey:
    require_admin(caller)
    return caller


AdminDep = Annotated[ApiKey, Depends(admin_of)]


User = Annotated[str | None, Query(min_length=1, max_length=256)]
Limit = Annotated[int, Query(ge=1, le=100)]
Before = Annotated[int | None, Query(ge=1, le=10**9, description="the id that ended the page before")]


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


async def read_json(request: Request, *, optional: bool = False, most: int = MANY) -> dict[str, Any]:
    """The body, which must be a JSON object of at most so many values; {} for none where it is optional."""
    raw = await request.body()
    if optional and not raw.strip():
        return {}
    body = parse_json(raw, most)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", None)
    return body
