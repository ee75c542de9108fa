"""The stable pointer under many hands at once, on a real Valkey: what each of them saw is one history."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from feedback.policies.registry import STATES, PointerMoved, PolicyRegistry
from feedback.store import connect

THREADS, CHANGES = 20, 50


@dataclass(frozen=True)
class Step:
    """One call from `start` to `end`. It saw `seen` in the register, and if `wrote` is not None put that there."""

    start: float
    end: float
    seen: int
    wrote: int | None = None


def why_not_linearisable(initial: int, steps: Sequence[Step]) -> str | None:
    """None if some order of the steps, each at a moment of its own call, is that of a register; else what is wrong.

    No value is written twice, so the writes have one possible order: each saw what the one before wrote. Placing each
    write as early as it can be leaves most room to all that follows, so what this cannot place nobody can.
    """
    writes: dict[int, Step] = {}
    reads: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        if step.wrote is None:
            reads[step.seen].append(step)
        elif step.seen in writes:
            return f"two writes saw {step.seen}"
        else:
            writes[step.seen] = step
    value, moment = initial, float("-inf")
    while True:
        seeing = reads.pop(value, [])
        if any(read.end < moment for read in seeing):
            return f"{value} was read before it was written"
        moment = max([moment, *(read.start for read in seeing)])  # the next write comes after these
        if (write := writes.pop(value, None)) is None:
            break
        moment = max(moment, write.start)
        if write.end < moment:
            return f"{value} was seen after {write.wrote} had taken its place"
        assert write.wrote is not None
        value = write.wrote
    return f"nobody wrote {sorted({*writes, *reads})}" if writes or reads else None


A, B, C = 0, 1, 2


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([Step(0, 1, A, B), Step(2, 3, B, C), Step(4, 5, C)], None),
        ([Step(0, 9, A, B), Step(1, 2, A), Step(3, 4, B), Step(5, 6, B)], None),
        ([Step(0, 9, A, B), Step(1, 2, B), Step(3, 4, A)], "1 was read before it was written"),
        ([Step(0, 1, A, B), Step(2, 3, A)], "0 was seen after 1 had taken its place"),
        ([Step(0, 1, A, B), Step(0, 1, A, C)], "two writes saw 0"),
        ([Step(4, 5, A, B), Step(1, 2, B)], "1 was read before it was written"),
        ([Step(4, 5, A, B), Step(1, 2, B, C)], "1 was seen after 2 had taken its place"),
        ([Step(0, 1, A, B), Step(2, 3, C)], "nobody wrote [2]"),
    ],
)
def test_the_checker_tells_histories_apart(steps: list[Step], fault: str | None) -> None:
    for order in (steps, steps[::-1]):
        assert why_not_linearisable(A, order) == fault


def operator(registry: PolicyRegistry, versions: Sequence[int], seed: int, history: list[Step]) -> None:
    """Tries to make each of the versions serve, from what it has seen last: a read, or the answer to a lost race."""
    draw, seen = random.Random(seed), None
    for version in versions:
        if seen is None or draw.random() < 0.5:
            start = time.monotonic()
            seen = registry.stable()
            assert seen is not None
            history.append(Step(start, time.monotonic(), seen))
        start = time.monotonic()
        try:
            registry.point_stable(version, expected=seen, actor=str(seed), reason="race")
        except PointerMoved as error:
            assert error.current not in (None, seen)
            seen = error.current or 0
            history.append(Step(start, time.monotonic(), seen))
        else:
            history.append(Step(start, time.monotonic(), seen, wrote=version))
            seen = version


def test_a_thousand_changes_by_twenty_at_once_are_one_history(valkey_url: str, tmp_path: Path) -> None:
    registries = [PolicyRegistry(connect(valkey_url), tmp_path) for _ in range(THREADS)]
    first = registries[0]
    first.redis.hset(STATES, mapping=dict.fromkeys(range(1 + THREADS * CHANGES), "candidate"))
    first.point_stable(0, expected=None, actor="test", reason="first")
    histories: list[list[Step]] = [[] for _ in range(THREADS)]
    together = threading.Barrier(THREADS)

    def run(index: int) -> None:
        together.wait()
        versions = range(1 + index * CHANGES, 1 + (index + 1) * CHANGES)
        operator(registries[index], versions, index, histories[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    steps = [step for history in histories for step in history]
    written = [step for step in steps if step.wrote is not None]
    assert 0 < len(written) < THREADS * CHANGES, "some won and some lost"
    assert why_not_linearisable(0, steps) is None
    chain = [(line.from_version, line.version) for line in first.audit()]
    assert chain[0] == (None, 0) and {(step.seen, step.wrote) for step in written} == set(chain[1:])
    assert [after for _, after in chain[:-1]] == [before for before, _ in chain[1:]], "the audit is the same history"
    states = first.states()
    assert [version for version, state in states.items() if state == "stable"] == [first.stable()] == [chain[-1][1]]
    assert {version for version, state in states.items() if state == "retired"} == {before for before, _ in chain[1:]}
