"""The other processes behind the same port: what this one does not hold, one of them may."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from fastapi import Request
from starlette.responses import Response

from serving.streams.event_stream import EventStream

ANSWER_WITHIN_S = 5.0
# It has not got it, or is too busy to say.
KNOWS_NOTHING = (404, 429, 503)
TOLD = ("retry-after", "x-should-retry")
# The origin was looked at already, and would be a foreign one there.
PASSED_ON = ("authorization", "cookie", "x-ratchet-page", "content-type", "last-event-id")
log = logging.getLogger("serving.peers")


class Peers:
    """They listen on Unix sockets in one directory; `own` is this process's. Alone, nobody is asked."""

    def __init__(self, own: Path | None = None) -> None:
        self._own = own

    async def pass_on(self, request: Request) -> Response | None:
        """The answer of the process that has it; None when none has."""
        async with AsyncExitStack() as stack:
            answer = await self._ask(stack, request)
            if answer is None:
                return None
            if answer.content_type == "application/json":
                told = {name: answer.headers[name] for name in TOLD if name in answer.headers}
                return Response(await answer.read(), answer.status, told, media_type=answer.content_type)
            kept = stack.pop_all()
        return EventStream(_batches(answer), kept.aclose, {})

    async def _ask(self, stack: AsyncExitStack, request: Request) -> aiohttp.ClientResponse | None:
        if self._own is None or request.client is None:  # whoever comes through a Unix socket is a peer
            return None
        for path in sorted(self._own.parent.glob("*.sock")):
            if path == self._own:
                continue
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    answer = await _send(stack, path, request)
            except (aiohttp.ClientError, TimeoutError) as error:  # it is being started again
                log.info("%s was not asked: %r", path.name, error)
                continue
            if answer.status not in KNOWS_NOTHING:
                return answer
        return None


async def _send(stack: AsyncExitStack, path: Path, request: Request) -> aiohttp.ClientResponse:
    headers = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
    url = f"{request.url.path}?{request.url.query}"
    connector, patience = aiohttp.UnixConnector(str(path)), aiohttp.ClientTimeout(total=None)
    session = aiohttp.ClientSession("http://peer", connector=connector, timeout=patience, headers=headers)
    await stack.enter_async_context(session)
    return await stack.enter_async_context(session.request(request.method, url, data=await request.body()))


async def _batches(answer: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    try:
        async for data in answer.content.iter_any():
            yield [data]
    except aiohttp.ClientError as error:  # its end without [DONE] tells the client to come back
        log.warning("a peer's stream broke off: %r", error)
