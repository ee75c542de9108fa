"""GET /v1/feedback: judgements page by page, one's own or, for operators, everybody's."""

from dataclasses import fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from feedback.listing import Sought, listed
from feedback.records import Lane
from serving.document import by_route as docs
from serving.gateway import CallerDep, GatewayDep
from serving.http.errors import ApiError, invalid
from serving.judging.judgements import OPERATORS, told

router = APIRouter()

Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class Asked(BaseModel):
    """The parameters of a list."""

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)
    order: Literal["asc", "desc"] = "asc"
    user: str | None = Field(default=None, min_length=1, max_length=256)
    everybody: bool = False
    type: str | None = None
    completion_id: str | None = None
    rater: str | None = Field(default=None, description="only what this one said; beside `everybody`")
    policy_version: int | None = Field(
        default=None, ge=0, le=10**9, description="only of what this version wrote; beside `everybody`"
    )
    split: Literal["train", "eval"] | None = Field(default=None, description="beside `everybody`")
    lane: Lane | None = Field(default=None, description="only of what was laid out for this; beside `everybody`")
    quarantined: bool | None = Field(
        default=None, description="only, or none, by raters who are aside; beside `everybody`"
    )
    since: Moment | None = Field(default=None, description="only what was said from this moment on, in Unix seconds")
    until: Moment | None = Field(default=None, description="only what was said before this moment, in Unix seconds")


@router.get("/v1/feedback", **docs.FEEDBACKS)
def list_feedback(gateway: GatewayDep, caller: CallerDep, asked: Annotated[Asked, Query()]) -> dict[str, Any]:
    """Judgements that stand, oldest first; imported ones come last."""
    if asked.everybody and caller.role not in OPERATORS:
        raise ApiError(403, f"A key of role {caller.role} may not do this.", code="insufficient_role")
    own = None if asked.everybody else gateway.rater(caller, asked.user)
    page = listed(gateway.ledger, sought(asked, own), asked.after or "", asked.limit)
    data = told(gateway, page.items, caller)
    edges = {"first_id": data[0]["id"] if data else None, "last_id": page.last}
    return {"object": "list", "data": data, **edges, "has_more": page.more}


def sought(asked: Asked, own: str | None) -> Sought:
    """By `own` rater alone, where it is given; then raises ApiError 400 for what is known of others."""
    wishes = asked.model_dump(include={each.name for each in fields(Sought)})
    newest_first = asked.order == "desc"
    if own is None:
        return Sought(**wishes, newest_first=newest_first)
    for name in ("rater", "policy_version", "split", "lane", "quarantined"):
        if wishes[name] is not None:
            raise invalid(f"{name} goes with everybody=true", name)
    return Sought(**wishes | {"rater": own}, newest_first=newest_first)
