"""HTTP with an end to its patience: who neither speaks nor listens holds a connection, and maybe an answer."""

import asyncio
import json
import logging
import socket
import struct
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http import sockets
from serving.http.errors import error_body

# Nothing of what waits for the client was taken for so long; a request was begun so long ago and is not complete.
READER_S = 30.0
WRITER_S = 120.0
# Of a request's line and headers, of what stands between chunks of its body, and of what follows it.
MOST_HEAD = 64 * 2**10

log = logging.getLogger("serving.access")


class Patient(HttpToolsProtocol):
    """uvicorn's protocol, which hangs up on who keeps it waiting, and reads no head that never ends.

    Only an abort helps: a connection that is closed politely stays for as long as there is something left to send.
    """

    _reader: asyncio.TimerHandle | None = None
    _writer: asyncio.TimerHandle | None = None
    _head = 0  # bytes since the last ones of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()
        if sockets.nearly_gone():
            log.debug("a client came when there was hardly a socket left, and was dropped")  # crowds do
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._head += len(data)  # none again while it is read, if some of a body is in it or a request ends
        super().data_received(data)
        if self._head > MOST_HEAD and not self.transport.is_closing():
            log.warning("a client sent a head of more than %d bytes, and was dropped", MOST_HEAD)
            self._refuse(431, f"the headers are larger than {MOST_HEAD} bytes", "head_too_large")

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_request()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()
        _cancel(self._writer)

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._reader)
        self._reader = self.loop.call_later(READER_S, self._hang_up, "did not read its answer")

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._reader)
        _cancel(self._writer)
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        _cancel(self._writer)
        self._writer = self.loop.call_later(WRITER_S, self._hang_up, "never finished its request")

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        """What the app never hears of is refused here, in the same shape, unless an answer is on its way already."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(error_body(status, message, code=code)).encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _hang_up(self, why: str) -> None:
        log.warning("a client %s, and was dropped", why)
        # With a reset: what is left to send would otherwise stay in the kernel for minutes.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
