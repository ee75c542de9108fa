"""The writer of judgements: it shares round trips, forgets nobody, and writes nothing that nobody waits for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from feedback.durability import LedgerNotDurable
from feedback.judgements import Feedback, Rating
from feedback.store import Appended, Conflict, Ledger, connect
from serving.ledger import appender
from serving.ledger.appender import Appender, Line
from tests.conftest import ValkeyProcess, own_valkey


class SlowLedger:
    """Its commands are ids."""

    outcome: Any = None

    def appends(self, judgements: Sequence[tuple[Feedback, str | None]]) -> list[Any]:
        return [one.id for one, _ in judgements]

    def appended(self, replies: Sequence[str]) -> list[Appended | Conflict]:
        if isinstance(self.outcome, ConnectionError):
            raise self.outcome
        return [self.outcome or Appended(id, 1, "created") for id in replies]


class SlowLine:
    """Answers whenever `disk` is released, and remembers what each batch was."""

    def __init__(self, disk: asyncio.Semaphore, batches: list[list[str]]) -> None:
        self.disk, self.batches, self.closed = disk, batches, False

    async def ask(self, ids: list[str]) -> list[str]:
        self.batches.append(ids)
        await self.disk.acquire()
        return ids

    async def close(self) -> None:
        self.closed = True


class Slow(Appender):
    """With lines that wait for `disk`."""

    def __init__(self, lines: int) -> None:
        super().__init__(SlowLedger(), "redis://nowhere")  # type: ignore[arg-type]
        self.disk, self.batches = asyncio.Semaphore(0), list[list[str]]()
        self.lines = [SlowLine(self.disk, self.batches) for _ in range(lines)]
        self._idle = list(self.lines)  # type: ignore[arg-type]

    def release(self, times: int = 1) -> None:
        for _ in range(times):
            self.disk.release()


def judged(id: str) -> Feedback:
    """Each of another answer."""
    rating = Rating(completion_id=f"of-{id}:0", value=1)
    return Feedback(id=id, judgement=rating, rater="ann", split="train", created=1.0)


@pytest.fixture
async def writer() -> Slow:
    return Slow(lines=1)


def begin(writer: Appender, *names: str) -> "list[asyncio.Task[Appended]]":
    return [asyncio.create_task(writer.append(judged(name), None)) for name in names]


async def begun(writer: Slow, eventually: Any) -> "asyncio.Task[Appended]":
    """One judgement that the disk holds up."""
    [first] = begin(writer, "first")
    await eventually(lambda: writer.batches == [["first"]], 60)
    return first


async def test_those_who_come_while_it_writes_share_the_next_round_trip(
    writer: Slow, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "MAX_BATCH", 3)
    first = await begun(writer, eventually)
    others = begin(writer, *"abcde")
    await asyncio.sleep(0)
    writer.release(3)
    assert [one.id for one in await asyncio.gather(first, *others)] == ["first", *"abcde"]
    assert writer.batches == [["first"], ["a", "b", "c"], ["d", "e"]]


async def test_a_second_line_sends_while_the_first_waits_for_the_disk(eventually: Any) -> None:
    writer = Slow(lines=2)
    first = await begun(writer, eventually)
    second = begin(writer, *"ab")
    await eventually(lambda: writer.batches == [["first"], ["a", "b"]], 60)
    third = begin(writer, "c")
    writer.release(3)
    assert [one.id for one in await asyncio.gather(first, *second, *third)] == ["first", "a", "b", "c"]


async def test_nothing_is_written_that_nobody_waits_for(writer: Slow, eventually: Any) -> None:
    first = await begun(writer, eventually)
    gone, stays = begin(writer, "gone", "stays")
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()  # it is being written, and its writer must survive that nobody listens
    await asyncio.gather(gone, first, return_exceptions=True)
    writer.release(2)
    assert (await stays).id == "stays"
    assert writer.batches == [["first"], ["stays"]]


async def test_everybody_is_told_of_trouble_and_the_next_is_written(writer: Slow) -> None:
    writer.release(9)
    ledger: Any = writer._ledger
    ledger.outcome = ConnectionError("gone")
    told = await asyncio.gather(*begin(writer, *"ab"), return_exceptions=True)
    assert [str(error) for error in told] == ["gone", "gone"]
    ledger.outcome = Conflict("used")
    with pytest.raises(Conflict, match="used"):
        await writer.append(judged("c"), None)
    ledger.outcome = None
    assert await writer.append(judged("d"), None) == Appended("d", 1, "created")


async def test_a_closed_writer_tells_of_what_it_was_given(writer: Slow, eventually: Any) -> None:
    first = await begun(writer, eventually)
    waiting = begin(writer, "a")
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    writer.release(2)
    await closing
    assert [one.id for one in await asyncio.gather(first, *waiting)] == ["first", "a"]
    assert all(line.closed for line in writer.lines)


@pytest.fixture
async def real(valkey: ValkeyProcess) -> AsyncIterator[Appender]:
    made = Appender(Ledger(connect(valkey.url)), valkey.url)
    yield made
    await made.close()


async def test_a_server_that_lost_its_scripts_is_told_them_again(real: Appender, valkey: ValkeyProcess) -> None:
    assert (await real.append(judged("a"), None)).status == "created"
    connect(valkey.url).script_flush()
    again = await asyncio.gather(*begin(real, "b", "c"))
    assert again == [Appended("b", 1, "created"), Appended("c", 1, "created")]
    assert [each.id for _, each in Ledger(connect(valkey.url)).feedback_between("0")] == ["a", "b", "c"]


async def test_a_server_that_went_away_and_came_back_is_written_to(real: Appender, valkey: ValkeyProcess) -> None:
    await real.append(judged("a"), None)
    valkey.kill()
    for _ in range(appender.LINES + 1):
        with pytest.raises(RedisConnectionError):
            await real.append(judged("b"), None)
    valkey.start()
    assert await real.append(judged("a"), None) == Appended("a", 1, "same")


async def test_a_server_that_was_started_again_unnoticed_is_written_to_at_once(valkey: ValkeyProcess) -> None:
    lines = [Line(valkey.url) for _ in range(2)]
    for line in lines:
        assert await line.ask([("PING",)]) == ["PONG"]
    await asyncio.to_thread(valkey.kill)  # the loop goes on meanwhile, and hears of it
    await asyncio.to_thread(valkey.start)
    for line in lines:
        assert await line.ask([("PING",)]) == ["PONG"]
        await line.close()


async def test_replies_that_came_too_late_are_not_taken_for_the_next(
    real: Appender, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real.append(judged("a"), "once")
    monkeypatch.setattr(appender, "REPLIES_WITHIN_S", 0.2)
    redis = connect(valkey.url)
    redis.client_pause(60_000, all=False)
    for _ in range(appender.LINES):
        with pytest.raises(TimeoutError):
            await real.append(judged("late"), None)
    redis.client_unpause()
    monkeypatch.undo()
    # What nobody waited for may have been written all the same, as anything that times out.
    assert (await real.append(judged("a"), "once")).id == "a"


async def test_where_an_answer_does_not_mean_fsynced_it_is_waited_for() -> None:
    with own_valkey(appendfsync="everysec") as server:
        redis = connect(server.url)
        writer = Appender(Ledger(redis), server.url)
        assert (await writer.append(judged("a"), None)).status == "created"
        assert redis.info("commandstats")["cmdstat_waitaof"]["calls"] > 1  # the first asks whether it knows the command
        await writer.close()


@pytest.mark.parametrize("older", [{}, {"rename-command": "WAITAOF UNKNOWN"}])
async def test_nothing_is_acknowledged_once_the_server_keeps_no_log(older: dict[str, str]) -> None:
    with own_valkey(**older) as server:
        writer = Appender(Ledger(connect(server.url)), server.url)
        assert (await writer.append(judged("a"), None)).status == "created"
        await asyncio.to_thread(server.kill)
        server.options["appendonly"] = "no"
        await asyncio.to_thread(server.start)
        for _ in range(appender.LINES + 1):
            with pytest.raises(LedgerNotDurable):
                await writer.append(judged("b"), None)
        await writer.close()


async def test_a_line_tells_what_the_server_refused_beside_what_it_did(valkey: ValkeyProcess) -> None:
    line = Line(valkey.url)
    made, wrong, read = await line.ask([("SET", "a", 1), ("INCR",), ("GET", "a")])
    assert (made, read) == ("OK", "1") and "wrong number of arguments" in str(wrong)
    await line.close()
