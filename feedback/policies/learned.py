"""What became of judgements: the policies that learned from each, as their manifests tell."""

import threading
from collections import defaultdict

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PolicyRegistry


class Learned:
    """Kept in memory: a manifest never changes, so each is read once; one that cannot be read is tried again."""

    def __init__(self, registry: PolicyRegistry) -> None:
        self._registry = registry
        self._read: set[int] = set()
        self._by: defaultdict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read the versions that have come since. Raises RedisError."""
        with self._lock:
            for version in sorted(self._registry.states().keys() - self._read):
                try:
                    manifest = self._registry.manifest(version)
                except (BrokenPolicy, OSError):  # nobody can say of this one
                    continue
                self._read.add(version)
                for id in manifest.lineage.get("feedback_ids", ()):
                    self._by[id].append(manifest.name)

    def by(self, feedback_id: str) -> list[str]:
        """Who was trained on it, oldest first. What went on from them learned from it too, and is not named."""
        return list(self._by.get(feedback_id, ()))
