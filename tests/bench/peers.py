"""What the gateway is measured against: as little as can be written for the same job.

`python -m uvicorn` is not used, so that each runs under the very server that the gateway runs under:
`python peers.py (httpx | aiohttp | xadd) PORT TARGET`, TARGET the URL of the engine, or of Redis.
"""

import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

PASSED_ON = ("authorization", "content-type")


async def health(_: Request) -> Response:
    return Response()


def proxy(chat: object) -> Starlette:
    return Starlette(routes=[Route("/health", health), Route("/v1/chat/completions", chat, methods=["POST"])])


def httpx_proxy(engine_url: str) -> Starlette:
    """Copies bytes with the HTTP client that the Python services around use."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    client = httpx.AsyncClient(base_url=engine_url, timeout=None, limits=limits, trust_env=False)

    async def chat(request: Request) -> Response:
        headers = {name: request.headers[name] for name in PASSED_ON}
        upstream = client.build_request("POST", request.url.path, content=await request.body(), headers=headers)
        answer = await client.send(upstream, stream=True)
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, media_type="text/event-stream",
            background=BackgroundTask(answer.aclose),
        )  # fmt: skip

    return proxy(chat)


def aiohttp_proxy(engine_url: str) -> Starlette:
    """Copies bytes with a client whose parser is in C; what came together goes on together."""
    import aiohttp

    sessions: list[aiohttp.ClientSession] = []  # made inside the loop, on the first request

    async def chat(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        headers = {name: request.headers[name] for name in PASSED_ON}
        answer = await sessions[0].post(engine_url + request.url.path, data=await request.body(), headers=headers)

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), answer.status, media_type="text/event-stream")

    return proxy(chat)


def bare_xadd(redis_url: str) -> FastAPI:
    """Acknowledges what one XADD has written; looks at nothing."""
    app, redis = FastAPI(), Redis.from_url(redis_url)
    app.add_api_route("/health", health)

    @app.post("/v1/feedback")
    async def rate(request: Request) -> Response:
        await redis.xadd("bare", {"data": await request.body()})
        return Response(b'{"status":"accepted"}', 201, media_type="application/json")

    return app


PEERS = {"httpx": httpx_proxy, "aiohttp": aiohttp_proxy, "xadd": bare_xadd}

if __name__ == "__main__":
    name, port, target = sys.argv[1:]
    app: ASGIApp = PEERS[name](target)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", timeout_graceful_shutdown=8)
