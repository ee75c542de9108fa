"""The controller on a real Valkey: votes as people cast them, and a death before or after every write."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from feedback.archive import Archive
from feedback.judgements import Comparison
from feedback.policies.registry import PolicyRegistry
from feedback.records import Offer, Slot
from feedback.releases.ballots import SECOND
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.judge import decision_of
from feedback.releases.observations import Observations, Observed
from feedback.releases.plan import plan_of
from feedback.releases.pool import EnginePool, Wish
from feedback.releases.self_test import SelfTest, Watch, reset, self_test_of
from feedback.releases.start import begin_once, begin_release
from feedback.store import Ledger, connect
from serving.engine.control_tokens import ControlTokens
from serving.engine.swap_gate import Lose, Open, Served, SwapGate
from serving.metrics import Metrics
from serving.release.controller import Controller
from tests.feedback.booth import Booth
from tests.feedback.policies.test_registry import write_policy

STEPS = [{"set_weight": 10}, {"analysis": {}}]


def holding(version: int | None) -> SwapGate:
    gate = SwapGate()
    if version is not None:
        gate.obey(Open(Served(version, f"policy-v{version}", "fp", ControlTokens(()), False, 0, 0.0)))
    return gate


class Installation:
    """Policy-v0 serves, v1 and v2 are candidates; an engine holds v1."""

    def __init__(self, url: str, policies: Path) -> None:
        self.booth = Booth(url)
        self.ledger, self.registry = self.booth.ledger, PolicyRegistry(self.booth.ledger.redis, policies)
        for version in range(3):
            if not self.registry.directory(version).exists():
                write_policy(self.registry.directory(version), version)
            self.registry.publish(version, actor="test", reason="made")
        self.registry.point_stable(0, expected=None, actor="test", reason="first")
        self.book = ReleaseBook(self.registry)
        self.pool = EnginePool(self.ledger.redis, "elsewhere")
        self.gate, self.metrics = holding(1), Metrics()

    def begin(self, mode: Any = "automatic", **plan: Any) -> Release:
        return begin_release(
            self.ledger, self.registry, 1, plan_of({"steps": STEPS} | plan), mode=mode, actor="ann", reason="try",
            seen=self.book.open(),
        )  # fmt: skip

    def controller(self, redis: Any = None) -> Controller:
        if redis is None:
            return Controller(self.ledger, self.book, self.pool, self.gate, self.metrics, judge_every_s=0.0)
        book = ReleaseBook(PolicyRegistry(redis, self.registry.policies_dir))
        pool = EnginePool(redis, "elsewhere")
        return Controller(Ledger(redis), book, pool, self.gate, self.metrics, judge_every_s=0.0)

    def tick(self, times: int = 1) -> Release:
        """As if the controller died after each look."""
        for _ in range(times):
            self.controller().tick()
        return self.last()

    def looks(self, *times: float) -> Release:
        """Of one controller, by its clock."""
        controller = self.controller()
        for at in times:
            controller.clock = lambda at=at: at  # type: ignore[misc]
            controller.tick()
        return self.last()

    def last(self) -> Release:
        [release] = self.book.latest(1)
        return release

    def vote(self, winner: str, raters: int = 9, release: int = 1) -> None:
        """Each rater once; candidate is shown left and right in turn."""
        for number in range(raters):
            left, right = (1, 0) if number % 2 else (0, 1)
            side = "tie" if winner == "tie" else "left" if (left == 1) == (winner == "candidate") else "right"
            self.booth.compare(left, right, winner=side, rater=f"rater{number}", lane="release", release=release)

    def stable_against_itself(self, votes: int) -> None:
        """The second wins every time."""
        for number in range(votes):
            left, right = self.booth.answers(0, 0)
            id = left.partition(":")[0]
            slots = (Slot(completion_id=left, arm="policy@stable"), Slot(completion_id=right, arm=SECOND))
            offer = Offer(id=id, rater="ann", conversation_id="c", slots=slots, propensity=0.5, lane="aa", created=0.0)
            Archive(self.ledger).add_offer(offer)
            self.booth.say(Comparison(left=left, right=right, winner="right"), rater=f"r{number}", lane="aa")

    def is_consistent(self) -> None:
        """One stable version, which serves; none on its way without a release; a history without a gap."""
        states = self.registry.states()
        assert [version for version, state in states.items() if state == "stable"] == [self.registry.stable()]
        canaries = [version for version, state in states.items() if state == "canary"]
        release = self.book.open()
        assert canaries == ([] if release is None else [release.candidate])
        for each in self.book.latest():
            lines = self.book.history(each.id)
            assert [line.release.revision for line in lines] == list(range(len(lines)))
            assert lines[-1].release == each
            assert [line.release.is_open for line in lines[:-1]] == [True] * (len(lines) - 1)


@pytest.fixture
def installation(valkey_url: str, tmp_path: Path) -> Installation:
    return Installation(valkey_url, tmp_path / "policies")


def test_a_better_candidate_is_promoted_by_itself(installation: Installation) -> None:
    installation.begin()
    assert (installation.tick().state, installation.last().weight) == ("canary", 0.1)
    assert installation.tick(3).step == 1
    installation.vote("candidate")
    assert installation.tick().proposed
    ended = installation.tick()
    assert (ended.state, ended.why.startswith("The candidate is better: it won 8 of 8")) == ("promoted", True)
    assert ended.decision is not None and (ended.decision.wins, ended.decision.losses) == (8, 0)
    assert (installation.registry.stable(), installation.registry.states()[0]) == (1, "retired")
    installation.is_consistent()
    assert installation.tick(2) == ended


def test_a_worse_one_is_rolled_back_even_while_paused(installation: Installation) -> None:
    installation.begin(mode="manual")
    release = installation.tick()
    installation.book.move(release, release.paused_now(time.time()), actor="ann", reason="wait")
    installation.book.freeze(True, actor="test", reason="test")
    installation.vote("stable")
    ended = installation.tick()
    assert (ended.state, ended.why[:23]) == ("rolled_back", "The candidate is worse:")
    assert (installation.registry.stable(), installation.registry.states()[1]) == (0, "rolled_back")
    installation.is_consistent()


def test_no_difference_keeps_stable(installation: Installation) -> None:
    installation.begin(max_votes=4, votes_a_day=50)
    installation.tick()
    installation.vote("candidate", raters=2)
    installation.vote("stable", raters=2)
    ended = installation.tick()
    assert (ended.state, installation.registry.states()[1]) == ("inconclusive", "candidate")
    assert "No difference was found by 4 decisive votes" in ended.why


def test_a_breached_guardrail_rolls_back(installation: Installation) -> None:
    release = installation.begin()
    installation.tick()
    seen = [
        Observed(release.id, "ann", f"c{number}", "candidate" if number % 10 == 0 else "stable", 0.1, number % 10 == 0)
        for number in range(300)
    ]
    Observations(installation.ledger.redis, b"pepper").add(seen)
    ended = installation.tick()
    assert (ended.state, ended.why) == ("rolled_back", "The candidate breaks a guardrail: errors.")


@pytest.mark.parametrize(("broken", "left"), [(False, "rejected"), (True, "broken")])
@pytest.mark.parametrize("ticks", [0, 2])
def test_a_candidate_that_fails_its_proof_never_serves(
    installation: Installation, broken: bool, left: str, ticks: int
) -> None:
    release = installation.begin()
    installation.tick(ticks)
    installation.pool.report(Wish(1, release.id), "other log-probs", broken=broken, proven=False)
    ended = installation.tick()
    assert (ended.state, ended.why, installation.registry.states()[1]) == ("rolled_back", "other log-probs", left)
    installation.is_consistent()


def test_without_an_engine_it_ends_and_may_come_again(installation: Installation) -> None:
    installation.gate.obey(Lose("no engine"))
    first = installation.begin()
    assert installation.tick(2) == first
    installation.pool.want(Wish(1, first.id))
    installation.pool.tell(Wish(1, first.id), "failed", "not enough memory")
    ended = installation.tick()
    assert (ended.state, ended.why, installation.registry.states()[1]) == ("aborted", "not enough memory", "candidate")
    installation.begin(patience=100.0)
    assert installation.looks(0.0, 60.0).state == "pending"
    ended = installation.looks(90000.0, 90040.1)
    assert ended.why == "no engine held policy-v1 within 100 s", "while nothing ran nothing was waited for"
    installation.is_consistent()


def test_a_lost_engine_decides_nothing(installation: Installation) -> None:
    installation.begin(steps=[{"set_weight": 10}, {"pause": 0}, {"set_weight": 50}])
    assert installation.tick().proposed
    installation.gate.obey(Lose("killed"))
    assert (installation.tick(3).state, installation.last().weight) == ("canary", 0.5)
    installation.gate = holding(1)
    assert installation.tick().state == "promoted"


def test_an_engine_that_stays_lost_ends_it_whoever_looks_and_its_return_counts_anew(
    installation: Installation,
) -> None:
    """Four controllers, one after the other: the hours between them, in which nothing ran, do not count."""
    installation.begin(patience=100.0, steps=[{"set_weight": 10}, {"pause": None}])
    installation.tick()

    looks = installation.looks
    installation.gate.obey(Lose("killed"))
    assert looks(0.0, 60.0).state == "canary"
    installation.gate = holding(1)
    assert looks(7200.0, 7201.0).state == "canary"
    installation.gate.obey(Lose("killed again"))
    assert looks(9000.0, 9060.0).state == "canary"
    assert looks(90000.0, 90040.0).state == "canary"
    ended = looks(5.0, 6.0)
    assert (ended.state, ended.why) == ("aborted", "no engine has held policy-v1 for 100 s")
    assert installation.registry.states()[1] == "candidate"
    installation.is_consistent()


def test_what_operators_do_meanwhile_ends_it(installation: Installation) -> None:
    installation.begin()
    installation.tick()
    installation.registry.point_stable(2, expected=0, actor="bob", reason="by hand")
    assert installation.tick().why == "policy-v2 was made stable outside of the release (promote: by hand)"
    installation.is_consistent()
    installation.begin()
    installation.tick()
    installation.registry.point_stable(1, expected=2, actor="bob", reason="all is bad", action="rollback")
    assert (installation.tick().state, installation.registry.stable()) == ("aborted", 1), "nobody promoted it"
    [*_, last] = installation.book.history()
    why = "policy-v1 was made stable outside of the release (rollback: all is bad)"
    assert (last.actor, last.reason) == ("bob", why)
    assert installation.registry.states()[1] == "stable"
    assert [line.action for line in installation.registry.audit()][-2:] == ["canary", "rollback"]
    installation.is_consistent()


@pytest.mark.parametrize(("to", "left"), [(2, "rejected"), (1, "stable")])
def test_what_operators_do_meanwhile_hides_no_fault(installation: Installation, to: int, left: str) -> None:
    """Unless they made the candidate serve: then the engine that serves is to prove it."""
    release = installation.begin()
    installation.tick()
    installation.registry.point_stable(to, expected=0, actor="bob", reason="by hand")
    installation.pool.report(Wish(1, release.id), "other log-probs", broken=False, proven=False)
    ended = installation.tick()
    moved = f"policy-v{to} was made stable outside of the release (promote: by hand)"
    assert ended.why == f"{moved}; no engine can hold policy-v1: other log-probs"
    assert (ended.state, installation.registry.stable(), installation.registry.states()[1]) == ("aborted", to, left)
    installation.is_consistent()


def test_who_moves_it_between_a_look_and_a_move_wins(installation: Installation, caplog: Any) -> None:
    installation.begin()
    controller = installation.controller()
    look = controller._facts

    def slowly(release: Release, alarm: bool) -> Any:
        installation.book.end(release, "aborted", actor="ann", reason="enough")
        return look(release, alarm)

    controller._facts = slowly  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, logger="serving.releases"):
        controller.tick()
    assert "no release is open any more; looking again" in caplog.text
    assert (installation.last().why, installation.registry.states()[1]) == ("enough", "candidate")


def test_the_decision_is_kept_for_others(installation: Installation) -> None:
    release = installation.begin()
    installation.tick()
    installation.vote("candidate", raters=3)
    assert installation.tick().is_open
    decision = decision_of(installation.ledger.redis, release)
    assert decision is not None and (decision.outcome, decision.wins) == ("undecided", 3)
    shown = installation.metrics.registry.get_sample_value
    assert (shown("ratchet_release_weight"), shown("ratchet_release_votes")) == (0.1, 3.0)
    installation.vote("stable", raters=9)
    installation.tick()
    assert shown("ratchet_releases_total", {"end": "rolled_back"}) is None  # 3 to 9: not yet


def test_a_wait_takes_no_time_in_which_the_release_stood_still(installation: Installation) -> None:
    """Four controllers, one after the other: as it was paused, frozen, and without an engine."""
    installation.begin(deadline=140.0, steps=[{"pause": "100s"}, {"set_weight": 50}, {"analysis": {}}])
    book, looks = installation.book, installation.looks
    assert looks(0.0, 40.0).step == 0
    release = installation.last()
    book.move(release, release.paused_now(1.0, "ann", "lunch"), actor="ann", reason="lunch")
    looks(100.0, 700.0)
    release = installation.last()
    book.move(release, release.resumed(2.0), actor="ann", reason="back")
    book.freeze(True, actor="ann", reason="wait")
    looks(1000.0, 1600.0)
    book.freeze(False, actor="ann", reason="go on")
    gate, installation.gate = installation.gate, holding(None)
    looks(2000.0, 2600.0)
    installation.gate = gate
    assert looks(3000.0, 3059.0).step == 0
    assert (looks(4000.0, 4001.0).step, installation.last().weight) == (2, 0.5)
    assert looks(5000.0, 5039.0).is_open
    ended = looks(6000.0, 6002.0)
    assert (ended.state, ended.why[:36]) == ("inconclusive", "nothing was decided within 140 s: Th")


async def test_what_passes_while_nobody_could_look_is_no_wait(installation: Installation) -> None:
    """At the second look Redis does not answer."""
    installation.begin(steps=[{"pause": "100s"}, {"set_weight": 50}])
    controller, looked, times, over = installation.controller(), [], [0.0, 60.0, 9000.0, 9039.0], asyncio.Event()
    look, loop = controller.tick, asyncio.get_running_loop()

    def tick() -> None:
        if len(looked) == len(times):
            loop.call_soon_threadsafe(over.set)
            return
        looked.append(times[len(looked)])
        controller.clock = lambda: looked[-1]
        if len(looked) == 2:
            raise RedisConnectionError("gone")
        look()

    controller.tick, controller.poll_s = tick, 0.0  # type: ignore[method-assign]
    running = asyncio.create_task(controller.run())
    await asyncio.wait_for(over.wait(), 60)
    running.cancel()
    assert installation.last().step == 0 and installation.last().state == "canary"


def test_while_stable_does_not_tie_with_itself_no_vote_decides(installation: Installation, caplog: Any) -> None:
    """At 10 votes of 10 the evidence is log(2^10 / 11), short of log 100; at 11 of 11 it is beyond."""
    installation.begin(mode="automatic")
    installation.stable_against_itself(10)
    with caplog.at_level(logging.ERROR, logger="serving.releases"):
        installation.tick()
        assert not caplog.records
        installation.stable_against_itself(1)
        installation.vote("candidate")
        release = installation.tick(4)
    assert (release.state, release.step, release.proposed) == ("canary", 1, False)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    found = self_test_of(installation.ledger)
    assert (found.votes, found.wins, found.alarm, round(found.log_e, 3)) == (11, 11, True, 5.14)
    assert "the second won 11, which chance does not do: no vote decides" in caplog.text
    reset(installation.ledger)
    assert installation.tick().proposed
    assert (installation.tick().state, self_test_of(installation.ledger).votes) == ("promoted", 0)


def test_while_stable_does_not_tie_with_itself_nothing_is_promoted_by_itself(installation: Installation) -> None:
    installation.begin(mode="automatic", steps=[{"set_weight": 10}])
    assert installation.tick().proposed
    installation.stable_against_itself(11)
    assert installation.tick(3).is_open
    reset(installation.ledger)
    assert installation.tick().state == "promoted"


def test_who_begins_the_self_test_anew_is_not_undone_by_a_look_that_had_begun(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.stable_against_itself(11)
    watch = Watch(installation.ledger)
    found = watch._found

    def slowly(before: SelfTest) -> SelfTest:
        reset(installation.ledger)
        return found(before)

    monkeypatch.setattr(watch, "_found", slowly)
    assert watch.look().alarm
    assert not watch.look().alarm and not self_test_of(installation.ledger).alarm


def killed_at(url: str, policies: Path, winner: str, at: int, after: bool) -> tuple[Installation, bool]:
    """A release from its start to its end, cut off at one write, and finished by others; whether it was cut off."""
    with connect(url) as redis:
        redis.flushall()
    installation = Installation(url, policies)
    redis = Faulty.from_url(url, decode_responses=True, socket_timeout=10)
    redis.at, redis.after = at, after
    plan = plan_of({"steps": [{"set_weight": 10}, {"pause": 0}, {"set_weight": 50}, {"analysis": {}}]})

    def start(ledger: Ledger, registry: PolicyRegistry) -> None:
        begin_once(ledger, registry, 1, plan, mode="automatic", actor="training", reason="round 1")

    attempt(
        lambda: start(Ledger(redis), PolicyRegistry(redis, policies)),
        lambda: start(installation.ledger, installation.registry),
    )
    release = installation.book.open()
    assert release is not None
    installation.vote(winner, release=release.id)
    looks = 0
    while installation.book.open() is not None:
        attempt(lambda: installation.controller(redis).tick(), lambda: None)
        installation.is_consistent()
        looks += 1
        assert looks < 12, "the release does not end"
    return installation, redis.count >= at


def attempt(action: Callable[[], None], instead: Callable[[], None]) -> None:
    try:
        action()
    except RedisError:
        instead()


class Faulty(Redis):
    """Cut off before or after a write, counted from 1."""

    WRITES: ClassVar = {"EVALSHA", "SET", "INCR", "INCRBY", "HSET", "DEL"}
    at, after, count = 0, False, 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] not in self.WRITES:
            return super().execute_command(*args, **options)
        self.count += 1
        if self.count == self.at and not self.after:
            raise RedisConnectionError("cut off before")
        reply = super().execute_command(*args, **options)
        if self.count == self.at:
            raise RedisConnectionError("cut off after")
        return reply


@pytest.mark.parametrize(("winner", "state", "stable"), [("candidate", "promoted", 1), ("stable", "rolled_back", 0)])
def test_cut_off_at_any_write_it_ends_the_same(
    valkey_url: str, tmp_path: Path, winner: str, state: str, stable: int
) -> None:
    at, cut_off = 0, True
    while cut_off:
        at += 1
        for after in (False, True):
            installation, cut_off = killed_at(valkey_url, tmp_path / "policies", winner, at, after)
            releases = installation.book.latest()
            assert [(each.state, each.candidate) for each in releases] == [(state, 1)]
            assert installation.registry.stable() == stable
            assert [line.action for line in installation.registry.audit()].count("canary") == 1
    assert at > 5, "the writes were not reached"


def test_stable_against_itself_is_not_counted_with_every_look(installation: Installation) -> None:
    controller = installation.controller()
    for told in (1, 1):
        installation.stable_against_itself(1)
        controller.tick()
        assert self_test_of(installation.ledger).votes == told
    controller.watch_every_s = 0.0
    controller.tick()
    assert self_test_of(installation.ledger).votes == 2
