"""Drives the open release: one look a second, at most one move a look. All that it must not forget is in the book."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from redis.exceptions import RedisError

from feedback.policies.registry import PointerMoved, PolicyRegistry
from feedback.releases.book import NotReleasable, Release, ReleaseBook, ReleaseMoved
from feedback.releases.clock import Timekeeper
from feedback.releases.course import End, Facts, Fault, Move, following
from feedback.releases.decisions import Decision
from feedback.releases.judge import EVERY_S, Judge
from feedback.releases.pool import EnginePool, hosting
from feedback.releases.self_test import Watch, self_test_of
from feedback.settings import Settings
from feedback.store import Ledger
from serving.engine.swap_gate import SwapGate
from serving.metrics import Metrics

log = logging.getLogger("serving.releases")

ACTOR = "controller"
POLL_S = 1.0
#: Stable against itself is counted from its beginning, all that was ever said of it.
WATCH_EVERY_S = 10.0


@dataclass
class Controller:
    """One per installation, beside the watchers. `gate` is the candidate's: what it serves is proven.

    Two at once, or one that is killed anywhere, do no harm: each move names the release as it was seen.
    """

    ledger: Ledger
    book: ReleaseBook
    pool: EnginePool
    gate: SwapGate
    metrics: Metrics
    poll_s: float = POLL_S
    judge_every_s: float = EVERY_S
    watch_every_s: float = WATCH_EVERY_S
    clock: Callable[[], float] = time.monotonic
    _judge: Judge | None = field(default=None, init=False)
    _watch: Watch = field(init=False)
    _watched: float = field(default=-math.inf, init=False)
    _time: Timekeeper = field(init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(self.ledger)
        self._time = Timekeeper(self.ledger.redis, lambda: self.clock())

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger, registry: PolicyRegistry, gate: SwapGate, metrics: Metrics) -> Self:
        return cls(ledger, ReleaseBook(registry), EnginePool(registry.redis, hosting(settings)), gate, metrics)

    async def run(self) -> None:
        """Never returns: a fault that nobody foresaw leaves the release where it is until a later look goes well."""
        while True:
            try:
                await asyncio.to_thread(self.tick)
            except RedisError as error:
                log.warning("the release cannot be driven without Redis: %s", error)
                self._time.missed()
            except Exception:
                log.exception("the release controller stumbled")
                self._time.missed()
            await asyncio.sleep(self.poll_s)

    def tick(self) -> None:
        """Look once, and make the move that is due. Raises RedisError."""
        alarm = self._alarm()
        release = self.book.open()
        if release is None:
            self._judge = None
            self._show(0.0, 0)
            return
        facts = self._facts(release, alarm)
        move = following(release, facts)
        if move is None:
            return
        try:
            self._make(release, move, facts.decision)
        except (ReleaseMoved, PointerMoved, NotReleasable) as moved:
            log.info("release %d: %s; looking again", release.id, moved)

    def _facts(self, release: Release, alarm: bool) -> Facts:
        registry, served = self.book.registry, self.gate.served
        held, frozen = served is not None and served.version == release.candidate, self.book.is_frozen()
        failure = self.pool.failure(release.id)
        decision = None
        if release.state == "canary":
            decision = self._judge_of(release).look()
            self._show(release.weight, decision.votes)
        stable = registry.stable()
        pointed = None if stable == release.stable else registry.pointed()
        return Facts(
            now=time.time(), stable=stable, pointed=pointed, candidate_is=registry.states().get(release.candidate),
            held=held, passed=self._time.look(release, held=held, frozen=frozen),
            fault=Fault(failure.reason, failure.candidate_is) if failure else None,
            frozen=frozen, alarm=alarm, decision=decision,
        )  # fmt: skip

    def _judge_of(self, release: Release) -> Judge:
        if self._judge is None or self._judge.release.id != release.id:
            self._judge = Judge(self.ledger, release, self.judge_every_s)
        return self._judge

    def _make(self, release: Release, move: Move | End, decision: Decision | None) -> None:
        if isinstance(move, Move):
            changed = self.book.move(release, move.changed, actor=ACTOR, reason=move.reason)
            self._time.goes_on(changed)
            log.info("release %d of policy-v%d: %s", changed.id, changed.candidate, move.reason)
            return
        ended = self.book.end(
            release,
            move.state,
            actor=move.actor or ACTOR,
            reason=move.reason,
            decision=decision,
            candidate_is=move.candidate_is,
        )
        self.metrics.releases.labels(ended.state).inc()
        self._show(0.0, 0)
        level = logging.INFO if ended.state == "promoted" else logging.WARNING
        log.log(level, "release %d of policy-v%d: %s: %s", ended.id, ended.candidate, ended.state, ended.why)

    def _alarm(self) -> bool:
        before = self_test_of(self.ledger)
        if (now := self.clock()) - self._watched < self.watch_every_s:
            return before.alarm
        self._watched = now
        found = self._watch.look()
        if found.alarm and not before.alarm:
            log.error("stable does not tie with itself: %s", found.says)
        return found.alarm

    def _show(self, weight: float, votes: int) -> None:
        self.metrics.release_weight.set(weight)
        self.metrics.release_votes.set(votes)
