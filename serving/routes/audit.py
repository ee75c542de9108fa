"""GET /v1/audit, for operators: who did what, when and why."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from feedback.audit import Kind, audit
from serving.document import oversight as docs
from serving.gateway import GatewayDep, Limit, OperatorDep
from serving.http.errors import invalid

router = APIRouter()

Before = Annotated[str | None, Query(description="the id that ended the page before")]
Only = Annotated[Kind | None, Query(description="only what was done to these")]


@router.get("/v1/audit", **docs.AUDIT)
def list_audit(
    gateway: GatewayDep, _: OperatorDep, limit: Limit = 50, before: Before = None, kind: Only = None,
) -> dict[str, Any]:  # fmt: skip
    """Newest first."""
    try:
        entries, more = audit(gateway.ledger.redis, before, limit, kind)
    except ValueError as error:
        raise invalid(f"before is {error}", "before") from error
    return {"object": "list", "data": [each.model_dump() for each in entries], "has_more": more}
