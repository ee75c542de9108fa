"""Gates that move as one: nothing goes on before all have obeyed, and whoever cannot is ended."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.control_tokens import ControlTokens
from serving.engine.lockstep import Follower, LeadingGate, Report
from serving.engine.swap_gate import Close, Load, Lose, Open, Order, Served, SwapGate, Taint


def served(version: int) -> Served:
    return Served(version, "policy", f"fp_{version}", ControlTokens(("<s>", "é")), False, None, 1.5)


class Fleet:
    """A leader and what follows it, in one event loop."""

    def __init__(self) -> None:
        self.leader = LeadingGate()
        self.gates: list[SwapGate] = []
        self.deserted: list[int] = []
        self.killed: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.followers: list[asyncio.Task[None]] = []

    def connect(self) -> socket.socket:
        """A process that has been started, but has not said anything."""
        ours, theirs = socket.socketpair()
        number = len(self.tasks)
        self.tasks.append(asyncio.create_task(self.leader.lead(ours, lambda: self.killed.append(number))))
        return theirs

    def join(self) -> SwapGate:
        gate, number = SwapGate(), len(self.gates)
        follower = Follower(gate, self.connect(), lambda: self.deserted.append(number))
        self.followers.append(asyncio.create_task(follower.run()))
        self.gates.append(gate)
        return gate

    async def close(self) -> None:
        for task in (*self.followers, *self.tasks):
            task.cancel()
        await asyncio.gather(*self.followers, *self.tasks, return_exceptions=True)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    await fleet.close()


def state(gate: SwapGate) -> tuple[Any, ...]:
    return gate.served, gate.loaded, gate.swapping, gate.served or gate.reason, gate.taints


@pytest.fixture
async def three(fleet: Fleet, eventually: Any) -> Fleet:
    """Three that follow, open with version 0."""
    gates = [fleet.join() for _ in range(3)]
    await eventually(lambda: not any(gate.swapping for gate in gates))
    await fleet.leader.command(Open(served(0)))
    for gate in gates:
        gate.taints = fleet.leader.taints  # what one counts from does not matter, only that it counts
    return fleet


ORDERS = st.one_of(
    st.just(Close()), st.just(Taint()), st.builds(Lose, st.text(min_size=1)),
    st.builds(Load, st.integers(0, 3).map(served)), st.builds(Open, st.integers(0, 3).map(served)),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(orders=st.lists(ORDERS, max_size=12))
def test_all_gates_are_alike_after_every_order(orders: list[Order]) -> None:
    async def check() -> None:
        fleet = Fleet()
        fleet.leader.obey(Open(served(0)))
        gates = [fleet.join() for _ in range(2)]
        async with asyncio.timeout(10):
            while any(gate.swapping for gate in gates):
                await asyncio.sleep(0)
        for order in orders:
            await fleet.leader.command(order)
            assert [state(gate) for gate in gates] == [state(fleet.leader)] * 2
        await fleet.close()

    asyncio.run(check())


async def test_who_joins_in_the_middle_of_a_swap_waits_for_its_end(three: Fleet, eventually: Any) -> None:
    await three.leader.command(Close())
    await three.leader.command(Load(served(1)))
    late = three.join()
    await eventually(lambda: len(three.leader._members) == 4)
    assert late.swapping and late.served is None
    await three.leader.command(Open(served(1)))
    assert late.served is not None and (late.served.version, late.swapping) == (1, False)
    assert late.served.control_tokens.neutralise("<s>é") != "<s>é"


async def test_who_never_obeys_is_ended_and_holds_nobody_up(
    three: Fleet, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr("serving.engine.lockstep.OBEY_WITHIN_S", 0.2)
    stuck = three.connect()
    stuck.sendall(b"{}\n")
    await eventually(lambda: len(three.leader._members) == 4)
    started = time.monotonic()
    await three.leader.command(Close())
    assert 0.2 <= time.monotonic() - started < 2
    assert three.killed == [3]
    assert all(gate.swapping for gate in three.gates)
    started = time.monotonic()
    await three.leader.command(Open(served(1)))
    assert time.monotonic() - started < 0.2, "waited for one that is ended"
    stuck.close()


async def test_a_process_that_is_still_starting_holds_nobody_up(three: Fleet) -> None:
    starting = three.connect()
    started = time.monotonic()
    await three.leader.command(Close())
    assert time.monotonic() - started < 1
    starting.close()


async def test_a_process_that_dies_holds_nobody_up(three: Fleet) -> None:
    dying = three.connect()
    dying.sendall(b"{}\n")
    command = asyncio.create_task(three.leader.command(Close()))
    dying.close()
    await asyncio.wait_for(command, 2)
    assert three.killed == []


async def test_what_is_in_flight_anywhere_is_known_once_all_are_open(three: Fleet, eventually: Any) -> None:
    async with three.gates[0].admission(), three.gates[1].admission(), three.gates[1].admission():
        await three.leader.command(Open(served(1)))
        assert three.leader.in_flight == Counter({0: 3})
        three.followers[1].cancel()
        await eventually(lambda: three.leader.in_flight == Counter({0: 1}))
    await three.leader.command(Open(served(2)))
    assert not three.leader.in_flight


async def test_what_one_hears_all_count_on_until_one_doubts_it(three: Fleet) -> None:
    three.gates[2].heard()
    await three.leader.command(Open(served(1)))
    three.leader.heard_at = -1e9
    three.gates[2].heard()
    await three.leader.command(Close())
    assert three.leader.heard_within(5)
    three.gates[0].doubt()
    await three.leader.command(Close())
    assert not three.leader.heard_within(5)
    three.gates[1].heard()
    await three.leader.command(Close())
    assert three.leader.heard_within(5)


async def test_an_engine_that_one_finds_down_is_lost_to_all(three: Fleet, eventually: Any) -> None:
    three.gates[1].obey(Lose("the engine is down"))
    await eventually(lambda: all(gate.served is None for gate in (three.leader, *three.gates)))
    assert {gate.reason for gate in three.gates} == {"the engine is down"}
    await three.leader.command(Open(served(1)))
    assert all(gate.served == three.leader.served for gate in three.gates)


async def test_an_old_loss_does_not_undo_a_newer_proof(three: Fleet) -> None:
    three.gates[1].obey(Lose("the engine is down"))
    await three.leader.command(Open(served(1)))
    member = next(iter(three.leader._members))
    three.leader._take(member, Report(obeyed=three.leader._number - 1, lost="the engine is down"))
    assert three.leader.served is not None


async def test_without_a_leader_a_process_ends_and_shows_nothing(three: Fleet, eventually: Any) -> None:
    await three.leader.command(Close())
    await three.leader.command(Load(served(1)))
    for task in three.tasks:
        task.cancel()
    await eventually(lambda: sorted(three.deserted) == [0, 1, 2])
    assert all(gate.swapping for gate in three.gates)
