"""A policy version on disk, verified to the byte before an engine is told of it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from feedback.policies.manifest import BrokenPolicy, Manifest, read_manifest, verify_files
from feedback.policies.registry import BASE, PolicyRegistry
from feedback.policies.shapes import check_shapes
from feedback.records import digest
from serving.engine.control_tokens import ControlTokens
from serving.engine.finite import check_finite
from serving.engine.plain_draw import engine_defaults
from serving.engine.swap_gate import Served


@dataclass(frozen=True)
class Policy:
    """A version on disk, verified to the byte."""

    manifest: Manifest
    directory: Path

    @property
    def model_dir(self) -> Path:
        return self.directory / self.manifest.model_path  # an absolute model_path (the base) stands for itself

    def served(self, *, engine_model: str, pinned: bool, tokenizer_dir: Path) -> Served:
        facts = {"weights": self.manifest.weights, "files": [f.sha256 for f in self.manifest.files.values()]}
        fingerprint = f"fp_{digest(facts)[:16]}"
        tokens = ControlTokens.of(tokenizer_dir)
        manifest = self.manifest
        return Served(
            manifest.version,
            engine_model,
            fingerprint,
            tokens,
            pinned,
            manifest.parent,
            manifest.created,
            engine_defaults(tokenizer_dir),
        )


class Trace(NamedTuple):
    """What a file cannot be written to, or replaced, without changing (root can forge it; root can do anything)."""

    path: Path
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def read_policy(registry: PolicyRegistry, version: int) -> Policy:
    """Read a version from disk, verify each byte, that it has the base's tensors, and numbers in them.

    What was verified in this process and was not touched since is not read again: to return to a version that served
    a minute ago must not wait for a look through all its weights. A disk that loses bits touches nothing; then the
    engine's proof is what is left. Raises BrokenPolicy or OSError. Needs no Redis.
    """
    directory, base = registry.directory(version), None
    traces = _traces(directory)
    if version != BASE:
        registered = registry.directory(BASE)
        base = registered / read_manifest(registered).model_path
        traces += _traces(base)
    policy = _verified(directory, base, tuple(traces))
    if policy.manifest.version != version:
        raise BrokenPolicy(f"{directory} says that it is version {policy.manifest.version}")
    return policy


@lru_cache(maxsize=32)
def _verified(directory: Path, base: Path | None, traces: tuple[Trace, ...]) -> Policy:
    """Only success is remembered, and by the traces of before: what changes meanwhile is looked at again."""
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    policy = Policy(manifest, directory)
    if base is not None:
        check_shapes(policy.model_dir, base)
        check_finite(policy.model_dir)
    return policy


def _traces(directory: Path) -> list[Trace]:
    """Of all that is below a directory; of one that is not there none. Raises OSError."""
    stats = [(path, path.lstat()) for path in sorted(directory.rglob("*"))]
    return [Trace(p, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats]
