"""A release as the API tells of it: where it is, what is known, and what it still waits for."""

import math
from typing import Any

from redis import Redis

from feedback.releases.book import Release, Transition, describe
from feedback.releases.clock import Passed, passed
from feedback.releases.decisions import Decision
from feedback.releases.guardrails import Guardrail
from feedback.releases.judge import decision_of
from feedback.releases.pool import CANDIDATE
from feedback.releases.self_test import THRESHOLD, SelfTest, self_test_of
from feedback.statistics import Interval
from feedback.store import Ledger
from serving.views.release_steps import in_words

#: Guardrails whose figures are logarithms of how many times the stable policy's the candidate's are.
LOGARITHMS = ("first_token", "length")


def facts(redis: Redis, release: Release) -> dict[str, Any]:
    """Everything that is known now."""
    if not release.is_open:
        return card(release, decision_of(redis, release))
    tested, time = self_test_of(Ledger(redis)), passed(redis, release)
    return card(release, decision_of(redis, release), engine_of(redis, release), tested, time)


def engine_of(redis: Redis, release: Release) -> dict[str, Any] | None:
    """How far the engine is that is wanted for the candidate, where it is ours; None while none is wanted."""
    told = {str(name): str(value) for name, value in redis.hgetall(CANDIDATE).items()}
    own = str(release.id)
    if told.get("release") != own:
        return None
    failed = told.get("failed_release") == own
    state, cause = (told.get("state"), told.get("cause")) if told.get("state_release") == own else (None, None)
    return {
        "version": int(told["wanted"]),
        "state": "failed" if failed else state,
        "cause": (told.get("failure") if failed else cause) or None,
    }


def card(
    release: Release, decision: Decision | None = None, engine: dict[str, Any] | None = None,
    tested: SelfTest | None = None, time: Passed | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What `decision` says lies flat beside the release's own fields; all null before there is one."""
    known = release.model_dump(mode="json", exclude={"decision", "since", "voters"})
    where = {"is": describe(release), "open": release.is_open, "paused": release.paused}
    test = self_test(tested) if tested is not None and tested.votes else None
    beside = {"steps": steps(release), "engine": engine, "self_test": test, "passed": time and time._asdict()}
    voters = {"voted": None if decision is None else decision.raters, "may_vote": release.voters}
    return {"object": "release", **known, **where, **beside, "voters": voters, **measured(decision)}


def self_test(found: SelfTest) -> dict[str, Any]:
    """Stable against itself, as a test of the votes."""
    counts = {"votes": found.votes, "wins": found.wins, "log_e": found.log_e, "threshold": THRESHOLD}
    return {"object": "self_test", **counts, "alarm": found.alarm, "says": found.says}


def steps(release: Release) -> list[dict[str, Any]]:
    """Each in words, and how far it is."""
    return [
        {
            "says": in_words(step),
            "state": "taken" if index < release.step else _untaken(release, index),
        }
        for index, step in enumerate(release.plan.steps)
    ]


def _untaken(release: Release, index: int) -> str:
    """Of what is over no step is under way any more."""
    if not release.is_open:
        return "not taken"
    return "under way" if index == release.step else "to come"


def measured(decision: Decision | None) -> dict[str, Any]:
    if decision is None:
        names = ("outcome", "votes", "win_rate", "evidence", "still_needed", "forecast", "thumbs", "left_wins")
        return {**dict.fromkeys(names), "guardrails": [], "says": None}
    counts = {"won": decision.wins, "lost": decision.losses, "tied": decision.ties, "not_counted": decision.capped}
    return {
        "outcome": decision.outcome,
        "says": decision.reason,
        "votes": counts,
        "win_rate": figure(decision.win_rate),
        "evidence": {
            "for": "stable" if decision.wins < decision.losses else "candidate",
            "log_e": decision.log_e_standing,
            "threshold": decision.log_threshold,
        },
        "still_needed": decision.still_needed,
        "forecast": forecast(decision),
        "thumbs": None if decision.thumbs is None else figure(decision.thumbs),
        "left_wins": figure(decision.sides.rate),
        "guardrails": [_guardrail(each) for each in decision.guardrails],
    }


def forecast(decision: Decision) -> str:
    if decision.outcome != "undecided":
        return "decided"
    if decision.still_needed is None:
        return "no telling yet how many more votes"
    return f"about {decision.still_needed} more votes to a decision"


def figure(interval: Interval) -> dict[str, float]:
    return {"value": interval.mean, "low": interval.low, "high": interval.high}


def line(transition: Transition) -> dict[str, Any]:
    """Of the history: what became of it by whose hand."""
    release = transition.release
    return {
        "time": transition.time, "actor": transition.actor, "reason": transition.reason, "is": describe(release),
        "state": release.state, "revision": release.revision, "step": release.step, "weight": release.weight,
    }  # fmt: skip


def _guardrail(known: Guardrail) -> dict[str, Any]:
    """Ratios as such, not as the logarithms that are tested."""
    plain = math.exp if known.name in LOGARITHMS else float
    interval = None if known.interval is None else figure(Interval(*map(plain, known.interval)))
    value = None if known.value is None else plain(known.value)
    units = {"candidate": known.candidate, "stable": known.stable}
    told = {"name": known.name, "verdict": known.verdict, "value": value, "limit": plain(known.limit)}
    return {**told, "interval": interval, "units": units}
