"""Server-sent events as OpenAI sends them."""

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.engine.server import Body

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
_encode = msgspec.json.Encoder().encode


def event(payload: Body) -> bytes:
    return b"data: %b\n\n" % _encode(payload)


async def joined(batches: AsyncIterator[list[bytes]]) -> AsyncIterator[bytes]:
    """What comes together goes out together; an empty batch is a sign of life."""
    async for batch in batches:
        yield b"".join(batch) or PING


class EventStream(StreamingResponse):
    """Calls `closed` as soon as it ends or its client is gone, whichever is first."""

    def __init__(
        self, batches: AsyncIterator[list[bytes]], closed: Callable[[], Awaitable[None]], headers: dict[str, str]
    ) -> None:
        more = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(joined(batches), media_type="text/event-stream", headers={**headers, **more})
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._closed()
