"""/v1/session: signing in with a browser, by a key, a link or, in single-user mode, by nothing; and signing out."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from feedback.people.keys import ApiKey
from feedback.people.sessions import SignedIn
from serving.document import session as docs
from serving.gateway import CallerDep, Gateway, GatewayDep, address_of, read_json
from serving.http.auth import unauthorized
from serving.http.cookies import clear_cookie, is_https, require_local_host, require_own_origin, set_cookie
from serving.http.errors import ApiError, invalid
from serving.logs import note_key

router = APIRouter()


@router.post("/v1/session", **docs.SIGN_IN)
async def sign_in(request: Request, response: Response, gateway: GatewayDep) -> dict[str, Any]:
    """Begin a session, whose token is in the cookie and nowhere else. No other site may sign anybody in here."""
    require_own_origin(request.headers)
    wish = read(await read_json(request, optional=True))
    if wish.key is not None:
        new = await by_key(request, gateway, wish.key)
    elif wish.invite is not None:
        new = await by_invite(request, gateway, wish.invite)
    else:
        new = await alone(request, gateway)
    note_key(new.key.id)
    if (before := request.cookies.get(gateway.cookie, new.token)) != new.token:
        await end(gateway, before)
    lasts = int(new.session.expires - gateway.keys.clock())
    set_cookie(response, gateway.cookie, new.token, seconds=lasts, secure=is_https(request))
    return await run_in_threadpool(card, gateway, new.key.model_copy(update={"expires": new.session.expires}))


@router.get("/v1/session", **docs.SESSION)
def get_session(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """Who is signed in; whoever sends a key is told of it."""
    return card(gateway, caller)


@router.delete("/v1/session", **docs.SIGN_OUT)
async def sign_out(request: Request, response: Response, gateway: GatewayDep, _: CallerDep) -> dict[str, Any]:
    """End the session in the cookie; no process takes it any more."""
    ended = await end(gateway, request.cookies.get(gateway.cookie, ""))
    clear_cookie(response, gateway.cookie)
    return {"object": "session.deleted", "deleted": ended}


async def end(gateway: Gateway, token: str) -> bool:
    """False when there was none."""
    ended = await run_in_threadpool(gateway.auth.sessions.end, token)
    gateway.auth.forget_session(token)
    return ended


async def by_key(request: Request, gateway: Gateway, plain: str) -> SignedIn:
    sessions, place = gateway.auth.sessions, gateway.keys.place(plain)

    def look() -> SignedIn | None:
        key = gateway.keys.at(place)
        return None if key is None else sessions.begin(place, key)

    return await gateway.auth.sign_in(look, address_of(request), unauthorized())


async def by_invite(request: Request, gateway: Gateway, token: str) -> SignedIn:
    wrong = ApiError(401, "This link was used, has expired or is wrong: ask for another one.", code="invalid_invite")
    return await gateway.auth.sign_in(lambda: gateway.auth.invites.accept(token), address_of(request), wrong)


async def alone(request: Request, gateway: Gateway) -> SignedIn:
    """The admin's session on a machine that one person uses; the one that the cookie names, if it is one."""
    if not gateway.settings.single_user:
        raise unauthorized()
    require_local_host(request.headers)
    sessions, token = gateway.auth.sessions, request.cookies.get(gateway.cookie)

    def look() -> SignedIn:
        if token and (found := sessions.find(token)) and found.key.role == "admin":
            return found
        return sessions.begin(*gateway.keys.first_admin())

    return await gateway.auth.sign_in(look, address_of(request), unauthorized())


def read(body: dict[str, Any]) -> docs.SignIn:
    """Raises ApiError 400 naming the field at fault."""
    try:
        wish = docs.SignIn.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(first["msg"], ".".join(str(part) for part in first["loc"]) or None) from error
    if wish.key is not None and wish.invite is not None:
        raise invalid("sign in with a key or with an invite, not with both", "invite")
    return wish


def card(gateway: Gateway, key: ApiKey) -> dict[str, Any]:
    facts = {"role": key.role, "name": key.name, "rater": gateway.rater(key, None), "expires": key.expires}
    return {"object": "session", **facts, "single_user": is_alone(gateway, key)}


def is_alone(gateway: Gateway, key: ApiKey) -> bool:
    """Whether it is the key of whom this machine lets in for nothing."""
    only = gateway.settings.single_user and key.role == "admin"
    return only and key.id == gateway.keys.first_admin()[1].id
