"""What the routes work with, handed to them by FastAPI."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from feedback.keys import ApiKey, KeyRing
from feedback.registry import PolicyRegistry
from feedback.rounds import RoundBook
from feedback.settings import Settings
from feedback.store import Ledger
from serving.auth import Authenticator, require_operator
from serving.engine import Engine
from serving.errors import invalid
from serving.gate import SwapGate
from serving.json_body import parse_json
from serving.relay import Recorder
from serving.watcher import PolicyWatcher


@dataclass
class Gateway:
    """The collaborators of one gateway process."""

    settings: Settings
    engine: Engine
    ledger: Ledger
    registry: PolicyRegistry
    rounds: RoundBook
    keys: KeyRing
    gate: SwapGate
    watcher: PolicyWatcher
    recorder: Recorder
    auth: Authenticator
    broken_streams: int = 0

    def rater(self, caller: ApiKey, user: str | None) -> str:
        """The pseudonym behind a request.

        Operators' and admins' keys speak for the users they name; anybody else is one person, whatever name
        they send, or one key could vote as a crowd.
        """
        speaks_for_users = caller.role in ("operator", "admin")
        return self.keys.pseudonym(caller, user if speaks_for_users else None)


def gateway_of(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


GatewayDep = Annotated[Gateway, Depends(gateway_of)]


async def caller_of(request: Request, gateway: GatewayDep) -> ApiKey:
    return await gateway.auth.authenticate(request.headers.get("authorization"))


CallerDep = Annotated[ApiKey, Depends(caller_of)]


async def operator_of(caller: CallerDep) -> ApiKey:
    require_operator(caller)
    return caller


OperatorDep = Annotated[ApiKey, Depends(operator_of)]


async def read_json(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The body, which must be a JSON object; {} for none where it is optional."""
    raw = await request.body()
    if optional and not raw.strip():
        return {}
    body = parse_json(raw)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", None)
    return body
