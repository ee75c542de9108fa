"""Pure ASGI middleware: a bound on bodies, on how many are read at once, and on connections."""

import asyncio
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http import sockets
from serving.http.errors import ApiError, response_to, unavailable
from serving.http.places import Places
from serving.metrics import PROBES

CHATS = ("/v1/chat/completions", "/v1/comparisons")
MAX_CHAT = 2 * 2**20
# Whoever signs in says a key or an invite, and at once: until then nobody knows who it is.
SIGN_IN = "/v1/session"
MAX_SIGN_IN = 4 * 2**10
SIGN_IN_S = 5.0
JUDGEMENTS = ("/v1/feedback", "/feedback")
# A correction and all that may stand around it, with each character escaped.
MAX_JUDGEMENT = 512 * 2**10
# Orders and names are short, 16 pairs of metadata the most of it.
MAX_BODY = 64 * 2**10
# In this time the sockets that may go are far fewer than those kept in reserve.
LOOK_AGAIN_S = 0.01


class BodyLimit:
    """413 for bodies over the limit, whether they announce their size or not; 503 for one more that must be waited for.

    415 for compressed ones, which have no bound once they are unpacked.
    Only what a route reads counts: whoever has no key is not waited for, but to sign in, in places apart, not for long.
    """

    def __init__(self, app: ASGIApp, waiting: Places, strangers: Places) -> None:
        self.app, self.waiting, self.strangers = app, waiting, strangers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, headers = limit_of(scope["path"]), dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            await response_to(_too_large(limit))(scope, receive, send)
            return
        places, seconds = (self.strangers, SIGN_IN_S) if scope["path"] == SIGN_IN else (self.waiting, None)
        body = _Body(headers, receive, limit, places, seconds)
        try:
            await self.app(scope, body.receive, send)
        finally:
            body.leave()


class _Body:
    """What a route reads, in a place for as long as it is read and, if there is a bound, for so many seconds."""

    def __init__(
        self, headers: dict[bytes, bytes], receive: Receive, limit: int, places: Places, seconds: float | None
    ) -> None:
        self._receive, self._limit, self._places, self._seconds = receive, limit, places, seconds
        self._encoded = headers.get(b"content-encoding", b"identity").lower() != b"identity"
        self._begun = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._reading, self._received = False, 0
        self._until: float | None = None

    async def receive(self) -> Message:
        """Called where the route reads: an error in here becomes the answer."""
        if not self._begun:
            self._begin()
        message = await (self._receive() if self._until is None else self._soon(self._until))
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise _too_large(self._limit)
        if not message.get("more_body"):
            self.leave()
        return message

    def leave(self) -> None:
        if self._reading:
            self._places.leave()
        self._reading, self._until = False, None

    def _begin(self) -> None:
        self._begun = True
        if self._encoded:
            raise _encoded()
        self._places.take()
        self._reading = True
        if self._seconds is not None:
            self._until = asyncio.get_running_loop().time() + self._seconds

    async def _soon(self, until: float) -> Message:
        try:
            async with asyncio.timeout_at(until):
                return await self._receive()
        except TimeoutError:
            message = f"the body did not come within {self._seconds:g} s"
            raise ApiError(408, message, code="body_too_slow", headers={"connection": "close"}) from None


def limit_of(path: str) -> int:
    """How many bytes a body may have."""
    if path in CHATS:
        return MAX_CHAT
    return MAX_JUDGEMENT if path in JUDGEMENTS else MAX_SIGN_IN if path == SIGN_IN else MAX_BODY


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")


def _encoded() -> ApiError:
    message = "the body must be sent as it is, without content-encoding"
    return ApiError(415, message, code="encoded_body", headers={"accept-encoding": "identity"})


class SocketLimit:
    """503 and the end of the connection while sockets are running out: without one nothing can be asked or answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._looked, self._scarce = -LOOK_AGAIN_S, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES or not self._are_scarce():
            await self.app(scope, receive, send)
            return
        refusal = unavailable("too many connections are open; repeat soon", "queue_full")
        refusal.headers["connection"] = "close"
        await response_to(refusal)(scope, receive, send)

    def _are_scarce(self) -> bool:
        if (now := monotonic()) - self._looked >= LOOK_AGAIN_S:
            self._looked, self._scarce = now, sockets.scarce()
        return self._scarce
