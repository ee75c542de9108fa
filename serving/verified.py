"""A policy version on disk, verified to the byte before an engine is told of it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from feedback.manifest import BrokenPolicy, Manifest, read_manifest, verify_files
from feedback.records import digest
from feedback.registry import BASE, PolicyRegistry
from feedback.shapes import check_shapes
from serving.control_tokens import ControlTokens
from serving.finite import check_finite
from serving.plain_draw import engine_defaults
from serving.swap_gate import Served


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
    a minute ago must not wait for a look through all its weights. Raises BrokenPolicy or OSError. Needs no Redis.
    """
    directory, base = registry.directory(version), registry.directory(BASE)
    manifest = read_manifest(directory)
    if manifest.version != version:
        raise BrokenPolicy(f"{directory} says that it is version {manifest.version}")
    _verify(directory, base, (*_traces(directory), *_traces(base)))
    return Policy(manifest, directory)


@lru_cache(maxsize=32)
def _verify(directory: Path, base: Path, traces: tuple[Trace, ...]) -> None:
    """Only success is remembered, and by the traces of before: what changes meanwhile is looked at again."""
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    if directory != base:
        model_dir = directory / manifest.model_path
        check_shapes(model_dir, base / read_manifest(base).model_path)
        check_finite(model_dir)


def _traces(directory: Path) -> list[Trace]:
    """Of all that is below a directory, and of itself. Raises OSError."""
    paths = [directory, *sorted(directory.rglob("*"))]
    stats = [(path, path.lstat()) for path in paths]
    return [Trace(p, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats]
