"""The candidate of a release in its engine: proven, reported when it cannot be, and gone when the release is over."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from feedback.releases.book import Release, ReleaseBook
from feedback.releases.plan import Plan
from feedback.releases.pool import CANDIDATE, NO_ENGINE, EnginePool, Failure, Wish, hosting
from feedback.settings import Settings
from feedback.store import connect
from serving.engine.swap_reports import LAST_SWAP
from tests.serving.live import FakeEngine, Live, trainer_logprobs

NO_RELEASE = "no release is under way"
#: Once in a new engine what serves is loaded first: it tells a change from no change.
ANCHOR = 1
#: What an engine computes that the manifest does not say, where there are no digests that would tell.
WRONG = {"weights": {}, "engine_scores": [[-3.0, -3.0, -3.0], [-3.0, -3.0]]}


@dataclass
class Trial:
    """A gateway with a candidate's engine, and a hand on its releases."""

    live: Live
    engine: FakeEngine
    book: ReleaseBook
    pool: EnginePool
    looks: int = 0

    @classmethod
    def of(cls, live: Live, engine: FakeEngine) -> "Trial":
        registry = live.gateway.registry
        trial = cls(live, engine, ReleaseBook(registry), EnginePool(registry.redis, hosting(live.gateway.settings)))
        target = trial.watcher.target
        look = target.look

        async def counted() -> int | None:
            trial.looks += 1
            return await look()

        target.look = counted
        return trial

    @property
    def watcher(self) -> Any:
        return self.live.gateway.candidate_watcher

    @property
    def gate(self) -> Any:
        return self.live.gateway.arms.candidate.gate

    @property
    def held(self) -> int | None:
        return None if self.gate.served is None or self.gate.swapping else self.gate.served.version

    def labels(self) -> list[str | None]:
        """Of the loads of both arms: each has another."""
        gates = (self.live.gateway.gate, self.gate)
        return [gate.served.label if gate.served else None for gate in gates]

    def begin(self, version: int, seen: Release | None = None) -> Release:
        return self.book.start(
            version, Plan(), mode="automatic", whose="all", since="0", actor="t", reason="t", seen=seen
        )

    def end(self, release: Release, state: Any = "aborted") -> None:
        self.book.end(release, state, actor="t", reason="t")

    def calls(self, call: str) -> int:
        return self.engine.state()["calls"].count(call)


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not needed is not kept, and only the test moves releases: a controller beside it would be first
    on a slow machine."""
    monkeypatch.setattr("serving.engine.targets.WARM_S", 0.0)
    monkeypatch.setattr("serving.release.controller.Controller.tick", lambda self: None)


@pytest.fixture
async def trial(start: Callable[..., Awaitable[Live]], second_engine: FakeEngine) -> Trial:
    """Two engines with one policy each."""
    return Trial.of(await start(candidate_url=second_engine.url), second_engine)


@pytest.fixture
async def adapters(start: Any, fake_engine: Any, shelf: Any) -> Trial:
    """One engine, both policies adapters in it."""
    fake_engine.set(started_with=str(shelf.registry.directory(0) / "model"))
    return Trial.of(await start(engine_mode="adapter"), fake_engine)


@pytest.fixture
def looked(eventually: Any) -> Callable[[Trial], Awaitable[None]]:
    """Wait until the candidate's watcher has looked several times more."""

    async def wait(trial: Trial) -> None:
        enough = trial.looks + 5
        await eventually(lambda: trial.looks >= enough)

    return wait


async def test_a_candidate_is_proven_in_its_own_engine(trial: Trial, eventually: Any) -> None:
    assert (trial.gate.reason, trial.pool.wish()) == (NO_RELEASE, None)
    redis = trial.live.gateway.registry.redis
    await eventually(lambda: redis.exists(LAST_SWAP))  # told when it serves already
    before = redis.get(LAST_SWAP)
    stable_calls = trial.live.engine.state()["calls"].count("reload")
    trial.live.shelf.publish(1, move=0.4, stable=False)
    release = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    load = ["pause keep", "reload", "checksum", "reset", "resume", "score policy"]
    assert [call for call in trial.engine.state()["calls"] if call != "probe"] == load * 2, "stable first, to compare"
    assert trial.pool.wish() == Wish(1, release.id)
    assert trial.live.served == 0
    assert trial.live.engine.state()["calls"].count("reload") == stable_calls
    assert redis.get(LAST_SWAP) == before
    assert redis.smembers("engine:proven") == {"0", "1"}
    assert trial.pool.failure(release.id) is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"engine_checksum": "other"}, "weight digests differ", id="other bytes"),
        pytest.param(WRONG, "off by", id="other weights"),
    ],
)
async def test_a_failed_proof_is_reported_and_not_tried_again_in_this_release(
    trial: Trial, eventually: Any, looked: Any, fault: Any, reason: str
) -> None:
    trial.watcher.retry_s = 0.01
    trial.live.shelf.publish(1, move=0.2, stable=False, **fault)
    release = trial.begin(1)
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure is not None and reason in failure.reason
    assert (failure.version, failure.candidate_is) == (1, "rejected")
    facts = trial.pool.redis.hgetall(CANDIDATE)
    assert (facts["failed_version"], facts["broken"], facts["failure"]) == ("1", "0", failure.reason)
    await looked(trial)
    assert (trial.held, trial.calls("reload")) == (None, ANCHOR + 1)
    assert "failed its proof" in trial.gate.reason
    assert trial.live.gateway.registry.states() == {0: "stable", 1: "canary"}
    assert trial.live.served == 0
    trial.end(release)
    again = trial.begin(1)
    await eventually(lambda: trial.pool.failure(again.id))
    assert trial.calls("reload") == ANCHOR + 2
    assert trial.pool.failure(release.id) is None


async def test_a_failure_that_redis_does_not_take_brings_no_former_candidate_back(
    trial: Trial, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.watcher.retry_s = 0.05
    trial.live.shelf.publish(1, move=0.4, stable=False)
    trial.live.shelf.publish(2, move=0.2, stable=False, engine_checksum="other")
    first = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    refused: list[bool] = []

    def refuse(*_: Any, **__: Any) -> None:
        refused.append(True)
        raise RedisConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(trial.watcher.target.pool, "report", refuse)
        second = trial.begin(2, seen=first)
        await eventually(lambda: len(refused) >= 2)
        assert trial.held is None
    await eventually(lambda: trial.pool.failure(second.id))
    assert trial.calls("reload") == ANCHOR + 1 + len(refused) + 1


async def test_a_damaged_directory_is_broken_and_touches_no_engine(trial: Trial, eventually: Any) -> None:
    trial.live.shelf.publish(1, move=0.4, stable=False)
    (trial.live.gateway.registry.directory(1) / "model" / "weights.json").write_text("{}")
    release = trial.begin(1)
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure is not None and failure.candidate_is == "broken"
    assert trial.pool.redis.hget(CANDIDATE, "broken") == "1"
    assert trial.calls("reload") == 0
    assert trial.live.gateway.registry.states()[1] == "canary"


async def test_a_version_that_served_before_is_not_to_blame(trial: Trial, eventually: Any) -> None:
    live = trial.live
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    live.gateway.registry.rollback(to=0, actor="t", reason="t")
    await eventually(lambda: live.served == 0)
    live.gateway.arms.candidate.engine.checksums = _other_checksums  # type: ignore[method-assign]
    release = trial.begin(1)
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure is not None and "weight digests differ" in failure.reason and failure.candidate_is is None


async def _other_checksums() -> dict[str, str]:
    return {"model.norm.weight": "an engine's fault"}


async def test_an_ended_release_loses_the_gate_and_then_the_engine(trial: Trial, eventually: Any, looked: Any) -> None:
    trial.live.shelf.publish(1, move=0.4, stable=False)
    release = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    async with trial.gate.admission():
        trial.end(release)
        await eventually(lambda: trial.gate.served is None)
        assert trial.gate.reason == NO_RELEASE
        await looked(trial)
        assert trial.pool.wish() == Wish(1, release.id), "a stream still needs the engine"
    await eventually(lambda: trial.pool.wish() is None)


async def test_what_does_not_end_is_not_waited_for(
    trial: Trial, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.live.shelf.publish(1, move=0.4, stable=False)
    release = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    monkeypatch.setattr("serving.engine.targets.LINGER_S", 0.2)
    async with trial.gate.admission():
        trial.end(release)
        await eventually(lambda: trial.pool.wish() is None)


async def test_an_engine_is_kept_for_the_next_release_for_a_while(
    trial: Trial, eventually: Any, looked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.engine.targets.WARM_S", 60.0)
    trial.live.shelf.publish(1, move=0.4, stable=False)
    first = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    trial.end(first)
    await eventually(lambda: trial.gate.served is None)
    await looked(trial)
    assert trial.pool.wish() == Wish(1, first.id)
    second = trial.begin(1)
    await eventually(lambda: trial.pool.wish() == Wish(1, second.id))
    trial.end(second)
    monkeypatch.setattr("serving.engine.targets.WARM_S", 0.0)
    await eventually(lambda: trial.pool.wish() is None)


async def test_an_engine_that_computed_no_numbers_is_done_with(
    trial: Trial, eventually: Any, looked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its cache would spoil what the next candidate computes."""
    monkeypatch.setattr("serving.engine.targets.WARM_S", 60.0)
    trial.live.shelf.publish(1, move=0.4, stable=False, engine_scores=[[math.nan] * 3, [math.nan] * 2])
    first = trial.begin(1)
    await eventually(lambda: trial.pool.failure(first.id))
    await eventually(lambda: trial.pool.wish() is None)
    await looked(trial)
    failure = trial.pool.failure(first.id)
    assert failure is not None and (failure.candidate_is, trial.pool.wish()) == ("rejected", None)
    trial.end(first)
    trial.live.shelf.publish(2, move=0.4, stable=False)
    second = trial.begin(2)
    await eventually(lambda: trial.held == 2)
    assert trial.pool.wish() == Wish(2, second.id)


async def test_another_candidate_is_swapped_into_the_running_engine(trial: Trial, eventually: Any) -> None:
    trial.live.shelf.publish(1, move=0.4, stable=False)
    trial.live.shelf.publish(2, move=-0.4, stable=False)
    first = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    pid = trial.engine.process.pid  # type: ignore[union-attr]
    second = trial.begin(2, seen=first)
    await eventually(lambda: trial.held == 2)
    assert trial.pool.wish() == Wish(2, second.id)
    assert (trial.calls("reload"), trial.engine.process.pid) == (ANCHOR + 2, pid)  # type: ignore[union-attr]
    assert trial.engine.state()["weights"]["word"] == "w2-"


async def test_a_candidates_engine_that_loads_is_not_up_yet(trial: Trial, eventually: Any) -> None:
    """Each one does so for a while: it is not down."""
    trial.live.shelf.publish(1, move=0.4, stable=False)
    trial.engine.kill()
    trial.begin(1)
    await eventually(lambda: trial.gate.reason.startswith("the engine is not up yet: "))
    trial.engine.start()
    await eventually(lambda: trial.held == 1)


async def test_an_engine_that_held_a_candidate_is_not_up_yet_when_it_is_wanted_again(
    trial: Trial, eventually: Any
) -> None:
    for version in (1, 2):
        trial.live.shelf.publish(version, move=0.4, stable=False)
    first = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    trial.end(first)
    await eventually(lambda: trial.held is None)
    trial.engine.kill()
    trial.begin(2)
    await eventually(lambda: trial.gate.reason.startswith("the engine is "))
    assert trial.gate.reason.startswith("the engine is not up yet: ")


async def test_a_candidates_engine_that_dies_is_lost_until_it_is_proven_again(trial: Trial, eventually: Any) -> None:
    trial.live.shelf.publish(1, move=0.4, stable=False)
    release = trial.begin(1)
    await eventually(lambda: trial.held == 1)
    trial.engine.kill()
    await eventually(lambda: trial.gate.served is None)
    assert "the engine is down" in trial.gate.reason
    assert trial.live.served == 0 and (await trial.live.chat(max_tokens=2)).status_code == 200
    trial.engine.start()
    await eventually(lambda: trial.held == 1)
    assert trial.pool.failure(release.id) is None


async def test_a_candidate_that_kills_its_engine_again_and_again_is_reported(trial: Trial, eventually: Any) -> None:
    trial.watcher.retry_s = 0.05
    trial.live.shelf.publish(1, move=0.4, stable=False, kills_engine=True)
    release = trial.begin(1)
    for _ in range(3):
        await eventually(lambda: not trial.engine.alive())
        trial.engine.start()
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure is not None and "took the engine down 3 times" in failure.reason
    assert trial.live.served == 0


async def test_without_a_place_for_it_a_candidate_fails_and_says_what_to_set(start: Any, eventually: Any) -> None:
    trial = Trial.of(await start(), FakeEngine())
    trial.live.shelf.publish(1, move=0.4, stable=False)
    release = trial.begin(1)
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure == Failure(release=release.id, version=1, reason=NO_ENGINE)
    assert "RATCHET_CANDIDATE_URL" in NO_ENGINE
    await eventually(lambda: trial.gate.reason == NO_ENGINE)
    assert trial.pool.redis.hget(CANDIDATE, "state") == "none"


async def both_held(adapters: Trial, eventually: Any) -> list[str | None]:
    """Version 1 by the stable arm, version 2 by the candidate's; the labels of their loads."""
    adapters.live.shelf.publish(1, move=0.4)
    await eventually(lambda: adapters.live.served == 1)
    adapters.live.shelf.publish(2, move=-0.4, stable=False)
    adapters.begin(2)
    await eventually(lambda: adapters.held == 2)
    return adapters.labels()


async def test_adapters_of_both_arms_share_one_engine(adapters: Trial, eventually: Any, looked: Any) -> None:
    labels = await both_held(adapters, eventually)
    await looked(adapters)
    assert adapters.engine.state()["adapters"] == ["policy-v1", "policy-v2"]
    assert adapters.labels() == labels, "one arm took the other's load for a restart"
    assert adapters.calls("load policy-v1") == adapters.calls("load policy-v2") == 1
    assert adapters.gate.served.engine_model == "policy-v2"


async def test_a_promoted_adapter_is_found_in_the_engine(adapters: Trial, eventually: Any, looked: Any) -> None:
    live = adapters.live
    live.shelf.publish(1, move=0.4)
    live.shelf.publish(2, move=-0.4, stable=False)
    await eventually(lambda: live.served == 1)
    live.gateway.watcher.poll_s = 1.0  # type: ignore[union-attr]  # it sees the promotion last
    release = adapters.begin(2)
    await eventually(lambda: adapters.held == 2)
    canary = release.model_copy(update={"state": "canary"})
    adapters.end(adapters.book.move(release, canary, actor="t", reason="t"), "promoted")
    await eventually(lambda: live.served == 2 and adapters.gate.served is None)
    await looked(adapters)
    assert adapters.engine.state()["adapters"] == ["policy-v1", "policy-v2"], "unloaded though stable needs it, or may"
    assert (live.served, adapters.calls("load policy-v2"), adapters.calls("unload policy-v2")) == (2, 1, 0)
    assert (await live.chat(max_tokens=2)).json()["choices"][0]["message"]["content"] == "w2-0 "


async def test_a_candidates_adapter_goes_with_its_release(adapters: Trial, eventually: Any) -> None:
    live = adapters.live
    live.shelf.publish(1, move=0.4)
    await eventually(lambda: live.served == 1)
    live.shelf.publish(2, move=-0.4, stable=False)
    release = adapters.begin(2)
    await eventually(lambda: adapters.held == 2)
    async with adapters.gate.admission():
        adapters.end(release)
        await eventually(lambda: adapters.gate.served is None)
        assert adapters.engine.state()["adapters"] == ["policy-v1", "policy-v2"], "unloaded under a stream"
    await eventually(lambda: adapters.engine.state()["adapters"] == ["policy-v1"])
    assert live.served == 1


async def test_a_failed_adapter_is_reported_and_unloaded_with_its_release(
    adapters: Trial, eventually: Any, looked: Any
) -> None:
    live = adapters.live
    live.shelf.publish(1, move=0.25, stable=False, engine_scores=[[-1.0, -1.0, -1.0], [-1.0, -1.0]])
    release = adapters.begin(1)
    await eventually(lambda: adapters.pool.failure(release.id))
    failure = adapters.pool.failure(release.id)
    assert failure is not None and "0.00 of the way" in failure.reason
    await looked(adapters)
    assert adapters.calls("load policy-v1") == 1
    adapters.end(release)
    await eventually(lambda: adapters.engine.state()["adapters"] == [])
    assert json.loads(live.gateway.registry.redis.get(LAST_SWAP))["to_version"] == 0


async def test_a_restarted_engine_gets_both_adapters_back(adapters: Trial, eventually: Any) -> None:
    live, labels = adapters.live, await both_held(adapters, eventually)
    await asyncio.to_thread(adapters.engine.kill)
    adapters.engine.start()
    adapters.engine.set(started_with=str(live.shelf.registry.directory(0) / "model"))
    await eventually(lambda: sorted(adapters.engine.state()["adapters"]) == ["policy-v1", "policy-v2"])
    await eventually(lambda: (live.served, adapters.held) == (1, 2))
    assert not set(labels) & set(adapters.labels()), "taken for what was loaded before the restart"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({}, "supervised"),
        ({"engine_url": "http://x"}, "none"),
        ({"engine_url": "http://x", "candidate_url": "http://y"}, "elsewhere"),
        ({"candidate_url": "http://y"}, "elsewhere"),
        ({"engine_mode": "adapter"}, "shared"),
    ],
)
def test_where_a_candidates_engine_comes_from(given: dict[str, Any], where: str) -> None:
    assert hosting(Settings(**given)) == where


def test_what_was_said_for_one_release_says_nothing_of_another(valkey: Any) -> None:
    pool = EnginePool(connect(valkey.url), "supervised")
    pool.want(Wish(5, 1))
    assert pool.describe() == "policy-v5, starting"
    pool.tell(Wish(5, 1), "failed", "no memory")
    assert pool.failure(1) == Failure(release=1, version=5, reason="no memory")
    assert pool.describe() == "policy-v5, failed: no memory"
    pool.want(Wish(5, 1))  # by a gateway that was started again
    assert pool.failure(1) is not None
    pool.want(Wish(5, 2))
    assert (pool.failure(1), pool.failure(2), pool.describe()) == (None, None, "policy-v5, starting")
    pool.tell(Wish(5, 1), "failed", "said late")
    assert pool.failure(2) is None
    pool.want(None)
    assert (pool.wish(), pool.describe(), pool.redis.exists(CANDIDATE)) == (None, None, 0)
    pool.tell(Wish(5, 2), "failed", "said late")
    assert (pool.wish(), pool.describe(), pool.failure(2)) == (None, None, None)


async def test_a_third_policy_is_told_from_the_candidate_by_the_change_from_what_serves(
    trial: Trial, eventually: Any
) -> None:
    """Near enough to both to be taken for either where nothing is known of the engine, and no digests tell."""
    trial.live.shelf.publish(1, move=0.2, stable=False, weights={}, engine_scores=trainer_logprobs(0.12))
    release = trial.begin(1)
    await eventually(lambda: trial.pool.failure(release.id))
    failure = trial.pool.failure(release.id)
    assert failure is not None and failure.reason == "the engine moved 0.60 of the way from the old policy to the new"
