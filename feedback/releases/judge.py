"""The decision on an open release, kept up to date as votes and observations come, and where others can read it."""

import time
from dataclasses import replace
from typing import Any

from feedback.people.raters import QUARANTINED
from feedback.releases.ballots import ReleaseFeedback
from feedback.releases.book import Release
from feedback.releases.decisions import Decision, Rules, decide
from feedback.releases.observations import Stratum, guardrails, strata_of
from feedback.releases.start import voters
from feedback.store import FEEDBACK_IDS, Ledger

#: Not more often: every vote would be counted again with every vote.
EVERY_S = 2.0


class Judge:
    """Of one release. All it knows can be read again: another one comes to the same decision."""

    def __init__(self, ledger: Ledger, release: Release, every_s: float = EVERY_S) -> None:
        self.ledger, self.release, self.every_s = ledger, release, every_s
        self._said = ReleaseFeedback(ledger, release)
        self._rules = rules_of(ledger, release)
        self._seen: Any = None
        self._looked = -EVERY_S
        self._decision: Decision | None = None

    def look(self) -> Decision:
        """As of now, give or take `every_s`."""
        if self._decision is None or time.monotonic() - self._looked >= self.every_s:
            self._looked = time.monotonic()
            strata = strata_of(self.ledger.redis, self.release.id)
            seen = self._said_so_far(), strata
            if self._decision is None or seen != self._seen:
                self._decision, self._seen = self._decided(strata), seen
                self.ledger.redis.set(decision_key(self.release.id), self._decision.model_dump_json())
        return self._decision

    def _decided(self, strata: list[Stratum]) -> Decision:
        votes, thumbs = self._said.read()
        return decide(votes, guardrails(strata, self.release.plan.limits), self._rules, thumbs=thumbs)

    def _said_so_far(self) -> tuple[str, int, int]:
        """Changes with what was said, erased, and who was set aside."""
        redis = self.ledger.redis
        return self.ledger.watermark(), int(redis.zcard(FEEDBACK_IDS)), int(redis.hlen(QUARANTINED))


def rules_of(ledger: Ledger, release: Release) -> Rules:
    """Who voted before it began may vote now; fixed then, so that nobody's coming, going or erasure moves the bar."""
    able = release.voters
    if able is None:  # it began before that was kept
        able = len(voters(ledger, release.whose, release.created))
    return replace(release.plan.rules, raters=able)


def decision_key(release: int) -> str:
    return f"release:{release}:decision"


def decision_of(redis: Any, release: Release) -> Decision | None:
    """The one it ended by, or what the votes say so far; None before anybody has counted."""
    if release.decision is not None:
        return release.decision
    raw = redis.get(decision_key(release.id))
    return Decision.model_validate_json(raw) if raw else None
