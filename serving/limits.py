"""Pure ASGI middleware: a bound on bodies."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ApiError, response_to

MAX_BODY = 2 * 1024 * 1024


class BodyLimit:
    """413 for bodies over the limit, whether they announce their size or not."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.limit:
            await response_to(self._too_large())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise self._too_large()  # inside the route's read of the body, where it becomes the answer
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.limit} bytes", code="body_too_large")
