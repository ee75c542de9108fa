"""The client, in a process of its own: sockets read as fast as they fill, and next to nothing done with the bytes.

`python load.py` reads a job (JSON) on stdin and prints what it saw (JSON). Times are CLOCK_MONOTONIC, in seconds.
Streams that do not end well are counted apart; feedback that is not acknowledged ends the process with an error.
"""

import asyncio
import json
import re
import resource
import sys
import time
from contextlib import suppress
from typing import Any

DONE = b"data: [DONE]"
USAGE = re.compile(rb'"completion_tokens":\s?(\d+)')


def request_bytes(job: dict[str, Any], path: str, body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {job['host']}:{job['port']}\r\nauthorization: Bearer {job['key']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


class Stream(asyncio.Protocol):
    """One streamed chat on a connection of its own."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        loop = asyncio.get_running_loop()
        self.began, self.ended = loop.create_future(), loop.create_future()
        self.events, self.tail, self.head = 0, b"", b""
        self.sent_at = self.first_at = self.last_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.sent_at = time.monotonic()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        seen = self.tail + data
        self.events += seen.count(b"data:") - self.tail.count(b"data:")
        if not self.first_at:
            self.head += data
            if self.events:
                self.first_at = time.monotonic()
                self.began.set_result(None)
        # Long enough for the usage chunk and [DONE].
        self.tail = seen[-600:]
        if DONE in self.tail:
            self.last_at = time.monotonic()
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.began, self.ended):
            if not future.done():
                future.set_result(None)

    def well(self) -> bool:
        return self.head.startswith(b"HTTP/1.1 200") and bool(self.last_at) and bool(USAGE.search(self.tail))

    def tokens(self) -> int:
        """How many the usage chunk says."""
        return int(USAGE.findall(self.tail)[-1])


async def streams(job: dict[str, Any]) -> dict[str, Any]:
    """`concurrency` streams at any time, `waves` after one another with `gap_s` between."""
    loop, opening = asyncio.get_running_loop(), asyncio.Semaphore(job["opening"])
    ended: list[Stream] = []

    async def worker(number: int) -> None:
        for wave in range(job["waves"]):
            message = {"role": "user", "content": f"{job['content']} {job['nonce']}-{number}-{wave}"}
            request = request_bytes(job, "/v1/chat/completions", {**job["body"], "messages": [message]})
            async with opening:
                _, stream = await loop.create_connection(lambda r=request: Stream(r), job["host"], job["port"])
                await stream.began
            await stream.ended
            ended.append(stream)
            await asyncio.sleep(job["gap_s"])

    await asyncio.gather(*map(worker, range(job["concurrency"])))
    done, failed = [s for s in ended if s.well()], [s for s in ended if not s.well()]
    if failed:
        print(f"{len(failed)} failed, one: {failed[0].head[:500]!r} ... {failed[0].tail[-300:]!r}", file=sys.stderr)
    return {
        "failed": len(failed),
        "tokens": sum(stream.tokens() for stream in done),
        "events": sum(stream.events for stream in done),
        "streams": len(done),
        "seconds": max(s.last_at for s in done) - min(s.sent_at for s in done),
        "ttft_s": [s.first_at - s.sent_at for s in done],
        "sent_at": [s.sent_at for s in done],
        "all_open_at": max(s.first_at for s in done),
        "first_end_at": min(s.last_at for s in done),
        "last_end_at": max(s.last_at for s in done),
    }


async def acks(job: dict[str, Any]) -> dict[str, Any]:
    """Posts `bodies` over keep-alive connections, each waiting for its answer before the next."""
    left = [request_bytes(job, job["path"], body) for body in job["bodies"]]
    total, latencies = len(left), []

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(job["host"], job["port"])
        while left:
            request, sent_at = left.pop(), time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            answer = await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(f"not acknowledged: {head!r} {answer!r}")
            latencies.append(time.monotonic() - sent_at)
        writer.close()

    started = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(job["connections"])))
    return {"acks": total, "seconds": time.monotonic() - started, "latency_s": sorted(latencies)}


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run: Any = asyncio.run
    with suppress(ImportError):
        import uvloop

        run = uvloop.run
    job = json.load(sys.stdin)
    result = run({"streams": streams, "acks": acks}[job["kind"]](job))
    json.dump({**result, "client_cpu_s": time.process_time()}, sys.stdout)


if __name__ == "__main__":
    main()
