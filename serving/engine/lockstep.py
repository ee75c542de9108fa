"""The gates of several processes, moved as one: the leading process swaps, the others obey and say when they have.

What is passed, one JSON object a line over a socket pair: numbered orders one way, reports the other.
"""

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from serving.engine.swap_gate import NEVER, Close, Lose, Open, Order, SwapGate

log = logging.getLogger("serving.lockstep")

# Who is behind for so long is stuck. What it would show when it wakes up nobody knows, so it ends.
OBEY_WITHIN_S = 5.0
REPORT_EVERY_S = 0.5
# A tokenizer may have thousands of control tokens, and each policy names its own.
MAX_LINE = 16 * 1024**2


class Numbered(Struct):
    number: int
    order: Order


class Report(Struct):
    """How far a process has got, and what only it can know; `lost` is why it has no policy, if so."""

    obeyed: int = 0
    in_flight: dict[int, int] = {}
    heard_at: float = NEVER
    doubted_at: float = NEVER
    lost: str | None = None


@dataclass(eq=False)
class Member:
    """A process that obeys."""

    writer: asyncio.StreamWriter
    kill: Callable[[], None]
    report: Report = field(default_factory=Report)

    def tell(self, number: int, order: Order) -> None:
        self.writer.write(msgspec.json.encode(Numbered(number, order)) + b"\n")


class LeadingGate(SwapGate):
    """Lets nobody through itself; in flight is what is so in all processes together."""

    def __init__(self) -> None:
        super().__init__()
        self._members: set[Member] = set()
        self._number = 0
        self._news = asyncio.Event()

    async def command(self, order: Order) -> None:
        """Returns when every process has obeyed, or is no more."""
        self._announce(order)
        number = self._number
        try:
            async with asyncio.timeout(OBEY_WITHIN_S):
                while self._behind(number):
                    await self._news.wait()
        except TimeoutError:
            await _take_what_came()  # if it was we who stood still
            for member in self._behind(number):
                log.error("a gateway process that did not follow a swap for %.0f s is ended", OBEY_WITHIN_S)
                member.kill()
                self._members.discard(member)

    async def lead(self, connection: socket.socket, kill: Callable[[], None]) -> None:
        """Lead one process until its end; `kill` ends it for certain, whatever it does."""
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        member = Member(writer, kill)
        try:
            while line := await reader.readline():
                self._take(member, msgspec.json.decode(line, type=Report))
        except ConnectionError as error:
            log.debug("a gateway process is gone: %s", error)
        finally:
            self._members.discard(member)
            self._count()
            writer.close()

    def _behind(self, number: int) -> list[Member]:
        return [member for member in self._members if member.report.obeyed < number]

    def _announce(self, order: Order) -> None:
        self.obey(order)
        self._number += 1
        for member in self._members:
            member.tell(self._number, order)

    def _take(self, member: Member, report: Report) -> None:
        member.report = report
        if member not in self._members:
            self._welcome(member)
        self.heard_at = max(self.heard_at, report.heard_at)
        self.doubted_at = max(self.doubted_at, report.doubted_at)
        self._count()
        if report.lost and report.obeyed == self._number and self.served and not self.swapping:
            self._announce(Lose(report.lost))

    def _welcome(self, member: Member) -> None:
        """Its gate is closed from the beginning: in the middle of a swap there is nothing to tell."""
        self._members.add(member)
        if self.swapping:
            member.report.obeyed = self._number
        else:
            member.tell(self._number, Open(self.served) if self.served else Lose(self.reason))

    def _count(self) -> None:
        self.in_flight = sum((Counter(member.report.in_flight) for member in self._members), Counter())
        self._news.set()
        self._news = asyncio.Event()


def end_now() -> None:
    """Without a leader nobody knows whose weights write: not one more chunk may be shown."""
    os._exit(1)


class Follower:
    """Moves this process's gate as the leader says."""

    def __init__(self, gate: SwapGate, connection: socket.socket, deserted: Callable[[], None] = end_now) -> None:
        self._gate, self._connection, self._deserted = gate, connection, deserted
        self._obeyed = 0
        gate.obey(Close())

    async def run(self) -> None:
        """Never returns: without a leader the process ends."""
        try:
            await self._follow()
            log.error("the leading gateway process is gone")
        except Exception:
            log.exception("this gateway process cannot follow any more")
        self._deserted()

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._connection, limit=MAX_LINE)
        reporting = asyncio.create_task(self._report_often(writer))
        try:
            while line := await reader.readline():
                numbered = msgspec.json.decode(line, type=Numbered)
                await _take_what_came()
                self._gate.obey(numbered.order)
                self._obeyed = numbered.number
                self._report(writer)
        finally:
            reporting.cancel()
            writer.close()

    async def _report_often(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._report(writer)
            await asyncio.sleep(REPORT_EVERY_S)

    def _report(self, writer: asyncio.StreamWriter) -> None:
        gate = self._gate
        lost = None if gate.served or gate.swapping else gate.reason
        report = Report(self._obeyed, dict(+gate.in_flight), gate.heard_at, gate.doubted_at, lost)
        writer.write(msgspec.json.encode(report) + b"\n")


async def _take_what_came() -> None:
    """Let readers run: chunks that arrived before an order were written before it."""
    for _ in range(10):
        await asyncio.sleep(0)
