"""/v1/invites, for admins: links by which people sign in to the page for the first time."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from feedback.people.invites import Invite, link
from serving.document import oversight as docs
from serving.gateway import AdminDep, GatewayDep, read_json
from serving.http.cookies import is_https
from serving.http.errors import ApiError
from serving.routes.keys import read

router = APIRouter()


@router.get("/v1/invites", **docs.INVITES)
def list_invites(gateway: GatewayDep, _: AdminDep) -> dict[str, Any]:
    """The links that nobody has used yet, oldest first."""
    return {"object": "list", "data": [card(each) for each in gateway.auth.invites.list()]}


@router.post("/v1/invites", status_code=201, **docs.INVITE)
async def invite(request: Request, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    """Make a link; this answer is the only one that shows it."""
    wish = read(docs.NewLink, await read_json(request), gateway)

    def create() -> tuple[str, Invite]:
        return gateway.auth.invites.create(name=wish.name, role=wish.role, expires=wish.expires, actor=caller.name)

    token, made = await run_in_threadpool(create)
    return card(made) | {"token": token, "link": link((wish.url or page_of(request)).rstrip("/"), token)}


@router.delete("/v1/invites/{id}", **docs.WITHDRAW)
def withdraw(id: str, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    """The link is useless from now on."""
    if not gateway.auth.invites.withdraw(id, actor=caller.name):
        raise ApiError(404, f"No open invite {id}.", code="invite_not_found", param="id")
    return {"object": "invite.deleted", "id": id, "deleted": True}


def card(invite: Invite) -> dict[str, Any]:
    return {"object": "invite", **invite.model_dump()}


def page_of(request: Request) -> str:
    """Where whoever asks reaches the gateway."""
    return f"{'https' if is_https(request) else 'http'}://{request.url.netloc}"
