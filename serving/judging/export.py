"""GET /v1/feedback/export: what people said, as lines of a training format, streamed."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from feedback.exchange.exporting import NAMES, Part, Wanted, export, seconds
from feedback.exchange.formats import EXPORTED, UnknownFormat
from feedback.exchange.judged import Line
from feedback.exchange.lines import encode
from serving.document import by_route as docs
from serving.gateway import GatewayDep, OperatorDep
from serving.http.errors import ApiError, invalid

PIECE = 64 * 2**10

router = APIRouter()

FORMAT = Query(description="how others train on it; ratchet loses nothing", json_schema_extra={"enum": list(EXPORTED)})
FormatName = Annotated[str, FORMAT]
Moment = Annotated[datetime | None, Query(description="ISO 8601 or seconds since 1970; UTC where no zone is given")]


@router.get("/v1/feedback/export", response_class=StreamingResponse, **docs.EXPORT)
async def export_feedback(
    gateway: GatewayDep,
    caller: OperatorDep,
    format: FormatName = "",
    since: Moment = None,
    until: Moment = None,
    split: Annotated[Part, Query(description="eval: by raters who never train, and decide releases")] = "all",
    limit: Annotated[int | None, Query(ge=1, description="judgements, or trees; a ranking is never cut")] = None,
    include_private: Annotated[bool, Query(description="also without consent; admins only")] = False,
) -> StreamingResponse:
    """NDJSON, raters under names of the export's own. Lines are read as they are sent."""
    if include_private and caller.role != "admin":
        message = "only an admin may export what people did not consent to"
        raise ApiError(403, message, code="insufficient_role", param="include_private")
    try:
        wanted = Wanted(format, seconds(since), seconds(until), split, limit, include_private)
    except UnknownFormat as error:
        raise invalid(str(error), "format") from error
    # Before the answer begins, so that a ledger that cannot be read is an error of its own.
    lines = await run_in_threadpool(export, gateway.ledger, wanted, gateway.keys.salt(NAMES))
    name = f"feedback-{format}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.jsonl"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_encoded(lines), media_type="application/x-ndjson", headers=headers)


def _encoded(lines: Iterator[Line]) -> Iterator[bytes]:
    """Lines in pieces of about PIECE bytes: each piece is a trip to a thread."""
    piece = bytearray()
    for line in lines:
        piece += encode(line)
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
