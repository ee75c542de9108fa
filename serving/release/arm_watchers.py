"""The watchers of both arms, in the process that moves the gates."""

from contextlib import suppress

from redis.exceptions import RedisError

from feedback.policies.registry import BASE, PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.pool import EnginePool, hosting
from feedback.settings import Settings
from serving.engine.adapter_swap import AdapterLoader, Adapters
from serving.engine.hotswap import MergedLoader, PolicyLoader
from serving.engine.targets import CandidateTarget, StableTarget
from serving.engine.verified import Policy, read_policy
from serving.engine.watcher import PolicyWatcher
from serving.metrics import Metrics
from serving.release.arms import Arms


def arm_watchers(
    settings: Settings, arms: Arms, registry: PolicyRegistry, metrics: Metrics
) -> tuple[PolicyWatcher, PolicyWatcher]:
    """Stable's and the candidate's."""
    stable, candidate = arms.stable, arms.candidate
    pool = EnginePool(registry.redis, hosting(settings))
    target = CandidateTarget(ReleaseBook(registry), pool, candidate.gate)
    loads, loads_candidate = loaders(settings, arms, registry)
    return (
        PolicyWatcher(stable.engine, registry, StableTarget(registry), stable.gate, loads, metrics),
        PolicyWatcher(candidate.engine, registry, target, candidate.gate, loads_candidate, metrics),
    )


def loaders(settings: Settings, arms: Arms, registry: PolicyRegistry) -> tuple[PolicyLoader, PolicyLoader]:
    """Adapters share one engine: what one arm needs there the other leaves alone."""
    stable, candidate = arms.stable, arms.candidate
    if settings.engine_mode == "merged":

        def serves() -> Policy | None:
            with suppress(RedisError):
                version = registry.stable()
                return None if version is None else read_policy(registry, version)
            return None

        return MergedLoader(stable.engine, stable.gate), MergedLoader(candidate.engine, candidate.gate, serves)
    base, adapters = read_policy(registry, BASE), Adapters(stable.engine, registry)
    return (
        AdapterLoader(stable.engine, stable.gate, base, adapters),
        AdapterLoader(candidate.engine, candidate.gate, base, adapters, marks=False),
    )
