"""Pure ASGI middleware: a bound on bodies, on how many are read at once, and on connections."""

from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http import sockets
from serving.http.errors import ApiError, response_to, unavailable
from serving.http.places import Places
from serving.metrics import PROBES

CHATS = ("/v1/chat/completions", "/v1/comparisons")
MAX_CHAT = 2 * 2**20
# Whoever signs in says a key or an invite, and nobody knows yet who it is.
SIGN_IN = "/v1/session"
MAX_SIGN_IN = 4 * 2**10
# A correction and all that may stand around it, with each character escaped.
MAX_BODY = 512 * 2**10
# In this time the sockets that may go are far fewer than those kept in reserve.
LOOK_AGAIN_S = 0.01


class BodyLimit:
    """413 for bodies over the limit, whether they announce their size or not; 503 for one more that must be waited for.

    415 for compressed ones, which have no bound once they are unpacked.
    Only what a route reads counts: whoever has no key is not waited for.
    """

    def __init__(self, app: ASGIApp, waiting: Places) -> None:
        self.app, self.waiting = app, waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, headers = limit_of(scope["path"]), dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            await response_to(_too_large(limit))(scope, receive, send)
            return
        received, begun, reading = 0, announced == b"0" and b"transfer-encoding" not in headers, False

        async def counted() -> Message:  # called where the route reads: an error in here becomes the answer
            nonlocal received, begun, reading
            if not begun:
                begun = True
                if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                    raise _encoded()
                self.waiting.take()
                reading = True
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            if reading and not message.get("more_body"):
                self.waiting.leave()
                reading = False
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            if reading:
                self.waiting.leave()


def limit_of(path: str) -> int:
    """How many bytes a body may have."""
    return MAX_CHAT if path in CHATS else MAX_SIGN_IN if path == SIGN_IN else MAX_BODY


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
