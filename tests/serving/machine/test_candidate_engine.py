"""The second engine under the supervisor: it comes and goes, and whatever befalls it the other parts run on."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from feedback.policies.registry import PolicyRegistry
from feedback.releases.pool import CANDIDATE, EnginePool, Wish
from feedback.settings import Settings
from feedback.store import connect
from serving.machine.candidate_engine import CandidateEngine
from serving.machine.children import Child, ChildSpec, Command
from serving.machine.supervisor import Supervisor
from serving.machine.terminal import Terminal
from serving.machine.up import candidate_engine
from tests.feedback.policies.test_registry import publish
from tests.serving.machine.test_supervisor import pids, runs, stand_in, wait_for

SAYS_WHY = "import sys; print('ValueError: no memory is left', file=sys.stderr); sys.exit(7)"


class Place:
    """A supervisor of one lasting part, whose guest is the second engine."""

    def __init__(self, supervisor: Supervisor, pool: EnginePool, home: Path, output: io.StringIO) -> None:
        self.supervisor, self.pool, self.output = supervisor, pool, output
        self.lasting, self.path = home / "lasting", home / "candidate"
        self.created = 0
        supervisor.bring_up(stand_in(self.lasting, "lasting"))
        self.part = pids(self.lasting)

    def host(self, spec: Callable[[], ChildSpec]) -> None:
        def create() -> Child:
            self.created += 1
            return self.supervisor.child_of(spec())

        terminal = Terminal(Console(file=self.output, soft_wrap=True, highlight=False))
        self.supervisor.host(CandidateEngine(self.pool, terminal, create))

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Tend all parts until it holds."""
        deadline = time.monotonic() + seconds

        def holds() -> bool:
            assert time.monotonic() < deadline, "the condition never held"
            return bool(condition())

        self.supervisor.wait_until(holds, "test")

    def state(self) -> str | None:
        state: str | None = self.pool.redis.hget(CANDIDATE, "state")
        return state

    def up(self) -> list[int]:
        self.until(lambda: self.state() == "ready")
        return pids(self.path)


@pytest.fixture
def place(tmp_path: Path, valkey: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("serving.machine.candidate_engine.POLL_S", 0.1)
    output = io.StringIO()
    terminal = Terminal(Console(file=output, soft_wrap=True, highlight=False))
    with Supervisor(tmp_path / "logs", terminal) as supervisor:
        yield Place(supervisor, EnginePool(connect(valkey.url), "supervised"), tmp_path, output)


def good(place: Place, *arguments: str, **fields: object) -> Callable[[], ChildSpec]:
    return lambda: stand_in(place.path, "candidate", *arguments, **fields)


def test_it_is_there_while_it_is_wanted(place: Place) -> None:
    place.host(good(place))
    place.pool.want(Wish(5, 1))
    first = place.up()
    assert place.created == 1
    place.pool.want(Wish(6, 2))
    place.until(lambda: place.state() == "ready" and place.pool.redis.hget(CANDIDATE, "state_release") == "2")
    assert pids(place.path) == first, "another version needs no other process"
    place.pool.want(None)
    place.until(lambda: not any(runs(pid) for pid in first))
    place.until(lambda: "candidate is not needed any more" in place.output.getvalue())
    assert place.pool.redis.exists(CANDIDATE) == 0
    place.pool.want(Wish(7, 3))
    assert set(place.up()).isdisjoint(first)
    assert place.created == 2
    assert pids(place.lasting) == place.part


def test_wanted_again_while_it_ends_it_is_started_anew(place: Place) -> None:
    place.host(good(place, "stubborn", grace_s=1.0))
    place.pool.want(Wish(5, 1))
    first = place.up()
    place.pool.want(None)
    place.until(lambda: place.supervisor._guest._ending_since is not None)  # type: ignore[union-attr]
    place.pool.want(Wish(5, 2))
    assert set(place.up()).isdisjoint(first)
    assert not any(runs(pid) for pid in first)


def test_one_that_ignores_sigterm_is_killed_while_others_are_tended(place: Place) -> None:
    place.host(good(place, "stubborn", grace_s=3.0))
    place.pool.want(Wish(5, 1))
    stubborn = place.up()
    place.pool.want(None)
    place.until(lambda: place.supervisor._guest._ending_since is not None)  # type: ignore[union-attr]
    os.kill(place.part[0], signal.SIGKILL)
    place.until(lambda: place.lasting.exists() and pids(place.lasting) != place.part)
    assert all(runs(pid) for pid in pids(place.lasting))
    place.until(lambda: not any(runs(pid) for pid in stubborn))


def test_one_that_cannot_start_is_said_so_and_ends_nobody(place: Place) -> None:
    command = Command((sys.executable, "-S", "-c", SAYS_WHY))
    place.host(
        lambda: ChildSpec(
            name="candidate", command=lambda: command, ready=lambda: False, ready_timeout_s=60, hint="Give it room."
        )
    )
    place.pool.want(Wish(5, 1))
    place.until(lambda: place.pool.failure(1))
    failure = place.pool.failure(1)
    assert failure is not None and failure.candidate_is is None
    for part in ("candidate ended with exit code 7", "no memory is left", "Give it room."):
        assert part in failure.reason and part in place.output.getvalue()
    place.pool.want(Wish(5, 2))  # another release, and another try
    place.until(lambda: place.pool.failure(2))
    assert place.created == 2
    place.pool.want(None)
    place.until(lambda: place.supervisor._guest._wish is None)  # type: ignore[union-attr]
    assert pids(place.lasting) == place.part and all(runs(pid) for pid in place.part)


def test_one_that_dies_is_restarted(place: Place) -> None:
    place.host(good(place))
    place.pool.want(Wish(5, 1))
    first = place.up()
    place.pool.want(Wish(6, 2))
    place.until(lambda: place.pool.redis.hget(CANDIDATE, "state_release") == "2")
    place.up()
    os.kill(first[0], signal.SIGKILL)
    place.until(lambda: place.state() == "starting")
    assert set(place.up()).isdisjoint(first)
    assert (place.created, place.pool.failure(2)) == (1, None)


def test_without_redis_it_runs_on(place: Place, valkey: Any) -> None:
    place.host(good(place))
    place.pool.want(Wish(5, 1))
    there = place.up()
    valkey.kill()
    os.kill(place.part[0], signal.SIGKILL)
    place.until(lambda: place.lasting.exists() and pids(place.lasting) != place.part)
    assert all(runs(pid) for pid in there)
    valkey.start()
    place.pool.want(None)
    place.until(lambda: not any(runs(pid) for pid in there))


def test_it_ends_with_all_others(place: Place) -> None:
    place.host(good(place))
    place.pool.want(Wish(5, 1))
    everybody = [*place.up(), *place.part]
    place.supervisor._end_children()  # not by the leash, which only gets what is left
    wait_for(lambda: not any(runs(pid) for pid in everybody), 2)


@pytest.mark.parametrize(("free_gib", "cache"), [(12.0, "2"), (4.0, "1")])
def test_the_engine_that_up_would_start(
    tmp_path: Path, valkey: Any, monkeypatch: pytest.MonkeyPatch, free_gib: float, cache: str
) -> None:
    monkeypatch.setattr("serving.machine.vllm_server.available_gib", lambda: free_gib)
    settings = Settings(home=tmp_path, redis_url=valkey.url, candidate_port=9472)
    registry = PolicyRegistry(connect(valkey.url), settings.policies_dir)
    publish(registry, 3)
    registry.point_stable(1, expected=None, actor="test", reason="first")
    with Supervisor(tmp_path / "logs", Terminal(Console(file=io.StringIO()))) as supervisor:
        engine = candidate_engine(settings, supervisor, Terminal(Console(file=io.StringIO())), gpu=False)
        child = engine._create()
        command = child.spec.command()
        argv = command.argv
    assert (command.env["VLLM_CPU_KVCACHE_SPACE"], command.env["VLLM_API_KEY"]) == (
        cache, settings.resolved_engine_key(),
    )  # fmt: skip
    assert argv[argv.index("--port") + 1] == "9472"
    expected = registry.directory(1) / registry.manifest(1).model_path
    assert argv[argv.index("--model") + 1] == str(expected)
