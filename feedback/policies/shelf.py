"""Directories of policy versions: each is there whole or not at all, and a deleted one's manifest stays."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from feedback.policies.manifest import (
    MANIFEST,
    TOMBSTONE,
    BrokenPolicy,
    Manifest,
    fsync_directory,
    read_manifest,
    verify_files,
    write_manifest,
)

Build = Callable[[Path, int], Manifest]


def place(target: Path, version: int, token: int, build: Build) -> Manifest:
    """Make `target` exist whole or not at all. One that is there came from an earlier attempt and is only verified."""
    if not target.exists():
        for leftover in target.parent.glob(f".{target.name}.*"):
            if int(leftover.suffix[1:]) <= token:  # a newer one belongs to whoever took this round over
                shutil.rmtree(leftover)
        temporary = target.parent / f".{target.name}.{token:04d}"
        temporary.mkdir(parents=True)
        write_manifest(temporary, build(temporary, version))
        _fsync_tree(temporary)
        _rename_once(temporary, target)
        fsync_directory(target.parent)
    manifest = read_manifest(target)
    verify_files(target, manifest)
    return manifest


def fault(directory: Path, version: int, *, digests: bool) -> str | None:
    """Why a version's directory is not what its manifest says; None when it is. Raises OSError if nobody can tell."""
    try:
        manifest = read_manifest(directory)
        if manifest.version != version:
            return f"{directory} says that it is version {manifest.version}"
        verify_files(directory, manifest, digests=digests, besides=frozenset({TOMBSTONE}))
    except (BrokenPolicy, FileNotFoundError, NotADirectoryError) as error:
        return str(error)
    return None


def unfinished(policies_dir: Path) -> Iterator[tuple[int, Path]]:
    """(version, directory) of what `place` was killed over, or is at work on."""
    for path in policies_dir.glob(".*.*"):
        number = path.stem[1:]
        if number.isdigit() and path.suffix[1:].isdigit():
            yield int(number), path


def clear(directory: Path) -> None:
    """Delete all of a version but its manifest, and leave a tombstone, first: what is gone without one was lost.

    Killed, it is finished by doing it again.
    """
    if not has_tombstone(directory):
        with (directory / TOMBSTONE).open("w") as file:
            file.write("These weights were deleted on purpose; the registry's audit says by whom, and why.\n")
            file.flush()
            os.fsync(file.fileno())
        fsync_directory(directory)
    for path in sorted(directory.iterdir()):
        if path.name in (MANIFEST, TOMBSTONE):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    fsync_directory(directory)


def has_tombstone(directory: Path) -> bool:
    """Its weights were deleted on purpose, or that was begun."""
    return (directory / TOMBSTONE).is_file()


def remove_tombstone(directory: Path) -> None:
    """Its weights are back."""
    (directory / TOMBSTONE).unlink()
    fsync_directory(directory)


def _rename_once(temporary: Path, target: Path) -> None:
    """A worker that lost the round may be first: what it wrote counts, and is verified like any other."""
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        shutil.rmtree(temporary)


def _fsync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_directory(directory)
