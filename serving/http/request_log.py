"""Pure ASGI middleware: an id for every request, and one log line and one count of how each ended."""

import logging
import re
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.records import new_id
from serving import logs
from serving.metrics import OTHER, PROBES, Metrics

log = logging.getLogger("serving.access")

# No spaces, no line breaks: what a client calls its request must not look like a log line.
SANE_ID = re.compile(r"[!-~]{1,64}")
BROKEN_OFF = 500


class RequestLog:
    """Answers carry `x-request-id`; requests are counted and logged by method, route and status.

    HEAD is answered as GET is, and the server leaves the content out.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts = logs.Facts(new_id("req_"), client_request_id(scope))
        logs.begin(facts)
        # A request that an exception ends is answered further out, with 500.
        started, status, method = perf_counter(), BROKEN_OFF, scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (b"x-request-id", facts.request_id.encode())
                message["headers"] = [*message["headers"], named, *kept_out_of_caches(scope, message)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._note(method, route_of(scope), facts, status, perf_counter() - started)

    def _note(self, method: str, route: str, facts: logs.Facts, status: int, seconds: float) -> None:
        self.metrics.finished(method, route, status, seconds)
        # Probes' lines would be most of the log.
        level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
        if not log.isEnabledFor(level):
            return
        access = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        access |= {name: value for name, value in vars(facts).items() if value is not None}
        log.log(level, "%s", " ".join([f"{name}={value}" for name, value in access.items()]), extra={"access": access})


def kept_out_of_caches(scope: Scope, answer: Message) -> list[tuple[bytes, bytes]]:
    """The API's answers are one person's: caches are told so unless the route tells them something. An Authorization
    header would keep the shared ones away, a cookie does not."""
    if not scope["path"].startswith("/v1/") or any(name == b"cache-control" for name, _ in answer["headers"]):
        return []
    return [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


def route_of(scope: Scope) -> str:
    """The template of the route that answered: paths are made up by clients, and hold ids."""
    return str(getattr(scope.get("route"), "path", OTHER))


def client_request_id(scope: Scope) -> str | None:
    """What the client calls its request, if that can stand in a log line."""
    sent = dict(scope["headers"]).get(b"x-client-request-id", b"").decode("latin-1")
    return sent if SANE_ID.fullmatch(sent) else None
