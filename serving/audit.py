"""GET /v1/audit, for operators: who did what, when and why."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from feedback.audit import audit
from serving import api_oversight as docs
from serving.errors import invalid
from serving.gateway import GatewayDep, Limit, OperatorDep

router = APIRouter()

Before = Annotated[str | None, Query(description="the id that ended the page before")]


@router.get("/v1/audit", **docs.AUDIT)
def list_audit(gateway: GatewayDep, _: OperatorDep, limit: Limit = 50, before: Before = None) -> dict[str, Any]:
    """Newest first."""
    try:
        entries, more = audit(gateway.ledger.redis, before, limit)
    except ValueError as error:
        raise invalid(f"before is {error}", "before") from error
    return {"object": "list", "data": [each.model_dump() for each in entries], "has_more": more}
