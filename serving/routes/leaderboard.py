"""GET /v1/leaderboard, for operators: which policy versions people prefer, as figures or as a plot."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from feedback.leaderboard.ballots import board_of
from feedback.leaderboard.standings import Whose
from serving.document import by_route as docs
from serving.gateway import GatewayDep, OperatorDep
from serving.views.leaderboard import plot

router = APIRouter()


@router.get("/v1/leaderboard", **docs.LEADERBOARD)
def get_leaderboard(
    gateway: GatewayDep,
    _: OperatorDep,
    raters: Annotated[Whose, Query(description="evaluation: those who never train, and decide releases")] = "all",
    blind: Annotated[bool, Query(description="only votes on answers that were laid side by side blind")] = False,
    anchor: Annotated[int, Query(ge=0, le=10**9, description="the version whose strength is 0")] = 0,
    format: Annotated[Literal["json", "svg"], Query(description="svg is a plot with intervals")] = "json",
) -> Response:
    board = board_of(gateway.ledger, gateway.registry, whose=raters, blind=blind, anchor=anchor)
    if format == "svg":
        return Response(plot(board), media_type="image/svg+xml")
    return JSONResponse({"object": "leaderboard", **board.model_dump(mode="json")})
