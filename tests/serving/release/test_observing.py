"""What befalls requests under a release, as its guardrails hear of it."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from feedback.releases.observations import Observations, Observed, strata_of
from serving.engine.server import EngineDown, EngineRefused, EngineSlow
from serving.ledger.recorder import Ticket
from serving.metrics import Pace
from serving.streams.observing import MOST, Observing
from tests.serving.release import test_arms
from tests.serving.streams.test_streams import relay_of, said, ticket_of

begin = test_arms.begin  # the fixture


class Counted:
    """Observations that only remember."""

    def __init__(self) -> None:
        self.seen: list[Observed] = []

    def add(self, observed: list[Observed]) -> None:
        self.seen += observed


def ticket(arm: str = "candidate", **more: Any) -> Ticket:
    chance = {"candidate": 0.1, "stable": 0.9}[arm]
    return ticket_of(1, **({"release": 7, "arms": (arm,), "propensity": chance} | more))


async def observed(asked: Ticket, source: AsyncIterator[Any] | None, *, read: int = 99) -> list[Observed]:
    """What is seen of an answer of which `read` batches are read; without a source the engine refuses it."""
    counted, pace = Counted(), Pace()
    observing = Observing(counted)  # type: ignore[arg-type]
    try:
        with observing.request(asked, pace) as watching:
            if source is None:
                raise EngineRefused(500, {})
            watching.relay = relay_of(asked, source)
            watching.relay.pace = pace
            batches = watching.relay.batches()
            for _ in range(read):
                await anext(batches)
    except (EngineRefused, EngineDown, StopAsyncIteration):
        pass
    await observing.flush()
    return counted.seen


async def broken_off(*texts: str, error: EngineDown | None = None) -> AsyncIterator[list[Any]]:
    async for batch in said(0, *texts, finish=False):
        yield batch
    raise error or EngineDown("gone")


async def unfinished(*texts: str) -> AsyncIterator[list[Any]]:
    async for batch in said(0, *texts, finish=False):
        yield batch
    await asyncio.Event().wait()


async def test_an_answer_tells_its_arm_its_wait_and_its_length() -> None:
    [seen] = await observed(ticket(), said(0, "Be", "cause", "."))
    assert seen == Observed(7, "r", "c", "candidate", 0.1, False, False, seen.first_token_s, 3)
    assert seen.first_token_s is not None and seen.first_token_s > 0
    [seen] = await observed(ticket("stable"), said(0, "I'm sorry, ", "I can't help."))
    assert (seen.arm, seen.weight, seen.failed, seen.refused, seen.tokens) == ("stable", 0.1, False, True, 2)


async def test_what_is_empty_or_refused_by_the_engine_failed() -> None:
    assert [seen.failed for seen in await observed(ticket(), said(0, " ", "\n"))] == [True]
    assert [seen.failed for seen in await observed(ticket(), None)] == [True]


async def test_what_a_request_may_have_asked_for_is_no_failure_of_the_policy() -> None:
    assert await observed(ticket(steered=True), said(0, " ", "\n")) == []
    assert await observed(ticket(steered=True), None) == []
    assert [seen.failed for seen in await observed(ticket(steered=True), said(0, "a"))] == [False]


async def test_what_somebody_left_is_no_failure_and_has_no_length() -> None:
    [seen] = await observed(ticket(), unfinished("a", "b"), read=1)
    assert (seen.failed, seen.tokens) == (False, None)


async def test_who_leaves_before_the_first_token_had_waited_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "elapsed_s", 12.0)
    [seen] = await observed(ticket(), unfinished("a"), read=0)
    assert (seen.failed, seen.first_token_s, seen.tokens) == (False, 12.0, None)


async def test_an_engine_that_goes_away_says_nothing_of_the_policy_and_one_that_is_silent_fails() -> None:
    assert await observed(ticket(), broken_off("a", "b")) == []
    assert [seen.failed for seen in await observed(ticket(), broken_off("a", error=EngineSlow("silent")))] == [True]


@pytest.mark.parametrize("asked", [
    ticket(release=None, propensity=None), ticket(propensity=None), ticket(blind=True),
])  # fmt: skip
async def test_what_chance_did_not_put_on_a_side_is_no_unit(asked: Ticket) -> None:
    assert await observed(asked, said(0, "a")) == []


async def test_without_redis_it_waits_up_to_a_bound() -> None:
    class Away(Counted):
        away = True

        def add(self, observed: list[Observed]) -> None:
            if self.away:
                raise RedisConnectionError
            super().add(observed)

    redis = Away()
    observing = Observing(redis)  # type: ignore[arg-type]
    for number in range(MOST + 5):
        observing.add(Observed(1, "ann", str(number), "stable", 0.1, failed=False))
    await observing.flush()
    redis.away = False
    await observing.flush()
    await observing.flush()
    assert [seen.conversation for seen in redis.seen] == [str(number) for number in range(MOST)]


async def test_an_unforeseen_fault_costs_no_later_observation(eventually: Any) -> None:
    class Stumbling(Counted):
        fell = False

        def add(self, observed: list[Observed]) -> None:
            if not self.fell:
                self.fell = True
                raise ValueError
            super().add(observed)

    counted = Stumbling()
    observing = Observing(counted, every_s=0.0)  # type: ignore[arg-type]
    running = asyncio.create_task(observing.run())
    observing.add(Observed(1, "ann", "lost", "stable", 0.1, failed=False))
    await eventually(lambda: counted.fell)
    observing.add(Observed(1, "ann", "kept", "stable", 0.1, failed=False))
    await eventually(lambda: [seen.conversation for seen in counted.seen] == ["kept"])
    running.cancel()


async def test_conversations_are_counted_by_arm_as_they_are_answered(begin: Any, eventually: Any) -> None:
    canary = await begin()
    for side in ("candidate", "candidate", "stable"):
        await canary.chat(side)
    await canary.chat("stable", model="policy@stable")
    redis, release = canary.live.ledger.redis, canary.release.id
    await eventually(lambda: [s.stable.units for s in strata_of(redis, release)] == [1])
    [stratum] = strata_of(redis, release)
    assert (stratum.weight, stratum.candidate.units) == (0.5, 1)
    for side in (stratum.candidate, stratum.stable):
        assert (side.failed, side.refused, side.first_token.units) == (0, 0, 1)
        assert side.length.mean == pytest.approx(math.log(2))
    assert isinstance(canary.live.gateway.observing.observations, Observations)
