"""/v1/keys, for admins: who may use the service."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from feedback.people.keys import ApiKey, KeyChange, NewKey, UnknownKey
from serving.document import by_route as docs
from serving.document.oversight import NewLink
from serving.gateway import AdminDep, Gateway, GatewayDep, Limit, read_json
from serving.http.errors import invalid
from serving.routes import bodies

router = APIRouter()
K = TypeVar("K", KeyChange, NewKey, NewLink)


@router.post("/v1/keys", status_code=201, **docs.CREATE_KEY)
async def create_key(request: Request, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    """Make a key; this answer is the only one that shows it."""
    new = read(NewKey, await read_json(request), gateway)
    plain, key = await run_in_threadpool(gateway.keys.issue, new, actor=caller.name)
    return card(key) | {"key": plain}


@router.get("/v1/keys", **docs.KEYS)
def list_keys(gateway: GatewayDep, _: AdminDep, limit: Limit = 20, after: str = "") -> dict[str, Any]:
    """The keys that were not revoked, oldest first; `after` is the last id of the page before."""
    rest = [key for key in gateway.keys.list() if key.id > after]
    page = rest[:limit]
    usage = gateway.quotas.usage(*page)
    cards = [card(key) | {"usage": usage.get(key.id)} for key in page]
    ends = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
    return {"object": "list", "data": cards, "has_more": len(rest) > limit, **ends}


@router.get("/v1/keys/{id}", **docs.KEY)
def get_key(id: str, gateway: GatewayDep, _: AdminDep) -> dict[str, Any]:
    key = gateway.keys.get(id)
    return card(key) | {"usage": gateway.quotas.usage(key).get(id)}


@router.post("/v1/keys/{id}", **docs.CHANGE_KEY)
async def change_key(id: str, request: Request, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    """Change the name, role, limits or expiry that the body gives."""
    change = read(KeyChange, await read_json(request), gateway)
    changed = await run_in_threadpool(gateway.keys.update, id, change, spare_admin=True, actor=caller.name)
    return card(changed)


@router.post("/v1/keys/{id}/rotate", **docs.ROTATE_KEY)
def rotate_key(id: str, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    """A new text for a key, shown in this answer only; the old one is useless from now on."""
    plain = gateway.keys.rotate(id, actor=caller.name)
    return card(gateway.keys.get(id)) | {"key": plain}


@router.delete("/v1/keys/{id}", **docs.REVOKE_KEY)
def revoke_key(id: str, gateway: GatewayDep, caller: AdminDep) -> dict[str, Any]:
    if not gateway.keys.revoke(id, spare_admin=True, actor=caller.name):
        raise UnknownKey(f"there is no key {id}")
    return {"object": "key.deleted", "id": id, "deleted": True}


def card(key: ApiKey) -> dict[str, Any]:
    return {"object": "key", **key.model_dump()}


def read(model: type[K], body: dict[str, Any], gateway: Gateway) -> K:
    """A body that says what a key, or a link to one, shall be. Raises ApiError 400 naming the field at fault."""
    wish = bodies.read(model, body)
    if wish.expires is not None and wish.expires <= gateway.keys.clock():
        raise invalid("expires must lie in the future (Unix seconds)", "expires")
    return wish
