"""A policy version on disk: an immutable directory with a manifest that names every byte in it."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from feedback.hardware import Dtype
from feedback.records import Record

MANIFEST = "manifest.json"
#: Beside the manifest of a version whose weights were deleted on purpose.
TOMBSTONE = "deleted.txt"
ALLOWED_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model", ".md"}


class BrokenPolicy(RuntimeError):
    """The directory is not the policy that its manifest describes."""


class FileEntry(Record):
    size: int
    sha256: str


class Manifest(Record):
    """What a policy version is, where it came from, and how to recognise it inside an engine.

    `golden` are token sequences fixed for all versions of one installation; `golden_logprobs[i][j]` is the
    trainer's log-prob of token j+1 of sequence i given the tokens before it. `weights` maps engine parameter
    names to the sha256 of their bytes in `dtype`, which is also what an engine must hold them in.
    """

    schema_version: Literal[1] = 1
    version: int
    parent: int | None
    kind: Literal["base", "trained"]
    base_model: str
    dtype: Dtype
    model_path: str
    adapter_path: str | None = None
    created: float
    files: dict[str, FileEntry]
    weights: dict[str, str]
    golden: tuple[tuple[int, ...], ...]
    golden_logprobs: tuple[tuple[float, ...], ...]
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    lineage: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return f"policy-v{self.version}"


def version_number(name: str | int) -> int:
    """The version that 3, v3 or policy-v3 names, as versions are told anywhere. Raises ValueError for other names."""
    digits = str(name).removeprefix("policy-").removeprefix("v")
    if isinstance(name, bool) or not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise ValueError(f"{name} is no version: write it like 3, v3 or policy-v3")
    return int(digits)


def directory_name(version: int) -> str:
    return f"{version:06d}"


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Size and sha256 of each file below a directory, by relative path, the manifest left out."""
    return {
        str(path.relative_to(directory)): FileEntry(size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write and fsync the manifest, then the directory."""
    path = directory / MANIFEST
    with path.open("w") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    fsync_directory(directory)


def read_manifest(directory: Path) -> Manifest:
    """Raises BrokenPolicy, with one line, when there is none or it says nothing; OSError when nobody can tell."""
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise BrokenPolicy(": ".join([str(path), *map(str, first["loc"]), first["msg"]])) from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        raise BrokenPolicy(f"{directory}: {error}") from error


def verify_files(
    directory: Path, manifest: Manifest, *, digests: bool = True, besides: frozenset[str] = frozenset()
) -> None:
    """Raises BrokenPolicy unless the directory holds exactly the files described, to the byte or only by size.

    Files named in `besides` may be there too. OSErrors are the disk's: they say nothing about the policy.
    """
    found = _names_below(directory) - {MANIFEST} - besides
    if found != set(manifest.files):
        raise BrokenPolicy(f"{directory}: files differ from the manifest: {sorted(found ^ set(manifest.files))}")
    for name, entry in manifest.files.items():
        path = directory / name
        if path.is_symlink() or path.suffix not in ALLOWED_SUFFIXES:
            raise BrokenPolicy(f"{path}: not a plain file of an allowed kind")
        if path.stat().st_size != entry.size or (digests and sha256_of(path) != entry.sha256):
            raise BrokenPolicy(f"{path}: content differs from the manifest")


def _names_below(directory: Path) -> set[str]:
    """All but directories. Unlike rglob it does not pass over what it may not, or cannot, read."""

    def fail(error: OSError) -> None:
        raise error

    paths = []
    for parent, directories, files in os.walk(directory, onerror=fail):
        paths += [Path(parent, name) for name in files]
        paths += [path for name in directories if (path := Path(parent, name)).is_symlink()]
    return {str(path.relative_to(directory)) for path in paths}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(directory: Path) -> None:
    """Make renames inside a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
