"""The writer of judgements: it shares round trips, forgets nobody, and writes nothing that nobody waits for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from feedback.judgements import Feedback, Rating
from feedback.store import Appended, Conflict
from serving import appender
from serving.appender import Appender


class SlowLedger:
    """Writes one batch whenever `disk` is released, and remembers the ids of each."""

    def __init__(self) -> None:
        self.disk = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.outcome: Any = None

    def append_all(self, judgements: Sequence[tuple[Feedback, str | None]]) -> list[Appended | Conflict]:
        self.batches.append([one.id for one, _ in judgements])
        assert self.disk.acquire(timeout=60)
        if isinstance(self.outcome, ConnectionError):
            raise self.outcome
        return [self.outcome or Appended(one.id, 1, "created") for one, _ in judgements]


def judged(id: str) -> Feedback:
    return Feedback(id=id, judgement=Rating(completion_id="c:0", value=1), rater="ann", split="train", created=1.0)


@pytest.fixture
def ledger() -> SlowLedger:
    return SlowLedger()


@pytest.fixture
async def writer(ledger: SlowLedger) -> AsyncIterator[Appender]:
    made: Any = Appender(ledger)  # type: ignore[arg-type]
    yield made
    ledger.disk.release(100)
    made.close()
    if made._writer:
        await asyncio.to_thread(made._writer.join, 60)
        assert not made._writer.is_alive(), "a closed writer ends"


async def begun(writer: Appender, ledger: SlowLedger, eventually: Any) -> "asyncio.Task[Appended]":
    """One judgement that the disk holds up."""
    first = asyncio.create_task(writer.append(judged("first"), None))
    await eventually(lambda: ledger.batches == [["first"]], 60)
    return first


async def test_those_who_come_while_it_writes_share_the_next_round_trip(
    writer: Appender, ledger: SlowLedger, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "MAX_BATCH", 3)
    first = await begun(writer, ledger, eventually)
    others = [asyncio.create_task(writer.append(judged(name), None)) for name in "abcde"]
    await asyncio.sleep(0)
    ledger.disk.release(3)
    assert [one.id for one in await asyncio.gather(first, *others)] == ["first", *"abcde"]
    assert ledger.batches == [["first"], ["a", "b", "c"], ["d", "e"]]


async def test_nothing_is_written_that_nobody_waits_for(writer: Appender, ledger: SlowLedger, eventually: Any) -> None:
    first = await begun(writer, ledger, eventually)
    gone, stays = (asyncio.create_task(writer.append(judged(name), None)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()  # it is being written, and its writer must survive that nobody listens
    await asyncio.gather(gone, first, return_exceptions=True)
    ledger.disk.release(2)
    assert (await stays).id == "stays"
    assert ledger.batches == [["first"], ["stays"]]


async def test_everybody_is_told_of_trouble_and_the_next_is_written(writer: Appender, ledger: SlowLedger) -> None:
    ledger.disk.release(9)
    ledger.outcome = ConnectionError("gone")
    told = await asyncio.gather(*(writer.append(judged(name), None) for name in "ab"), return_exceptions=True)
    assert [str(error) for error in told] == ["gone", "gone"]
    ledger.outcome = Conflict("used")
    with pytest.raises(Conflict, match="used"):
        await writer.append(judged("c"), None)
    ledger.outcome = None
    assert await writer.append(judged("d"), None) == Appended("d", 1, "created")


async def test_a_closed_writer_tells_of_what_it_was_given(
    writer: Appender, ledger: SlowLedger, eventually: Any
) -> None:
    first = await begun(writer, ledger, eventually)
    writer.close()
    ledger.disk.release()
    assert (await first).id == "first"
