"""Scores of what the arms of a release answered, for its guardrail: computed now and then, in a process of its own."""

import logging
import threading

from redis import Redis

from feedback.people.keys import KeyRing
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.scores import ReleaseScores
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.round.round import Stopped, start_child, watch

log = logging.getLogger(__name__)


def score_open_release(settings: Settings, redis: Redis, stopping: threading.Event) -> None:
    """Have the release under way scored if there is something to score. Raises Stopped."""
    registry = PolicyRegistry(redis, settings.policies_dir)
    release = ReleaseBook(registry).open()
    if release is None or release.state != "canary":
        return
    scores = _scores(settings, redis, release)
    if scores.version(registry) is None:
        return
    fresh = scores.fresh()
    if not fresh.scorable:
        scores.add(fresh, {})
        return

    def check() -> None:
        if stopping.is_set():
            raise Stopped(f"release {release.id} is scored by the next worker")

    if code := watch(start_child(settings, "score", "--release", str(release.id)), check):
        log.warning("release %d could not be scored: exit status %d", release.id, code)


def score_release(settings: Settings, release_id: int) -> None:
    """Score the next answers of a release. Raises NoRewardModel or ValueError."""
    from training.model.samples import Sample
    from training.offline.reward_models import of_version
    from training.round.torch_stages import prepare

    redis = connect(settings.resolved_redis_url(), timeout_s=10.0)
    registry = PolicyRegistry(redis, settings.policies_dir)
    release = ReleaseBook(registry).get(release_id)
    if release is None:
        raise ValueError(f"release {release_id} does not exist")
    scores = _scores(settings, redis, release)
    version = scores.version(registry)
    if version is None:
        raise ValueError("there is no reward model yet")
    prepare(0)
    fresh = scores.fresh()
    samples = [Sample(each.prompt_token_ids, each.completion_token_ids) for each in fresh.scorable]
    found = of_version(settings, redis, version).scorer().all(samples)
    scores.add(fresh, {each.id: score for each, score in zip(fresh.scorable, found, strict=True)})
    log.info("release %d: %d answers scored by policy-v%d's reward model", release_id, len(found), version)


def _scores(settings: Settings, redis: Redis, release: Release) -> ReleaseScores:
    return ReleaseScores(Ledger(redis), release, KeyRing(redis, settings.secrets().pepper).salt("observations"))
