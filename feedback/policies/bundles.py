"""A policy version as one file, to take to another installation of the same base model: a plain tar.

It holds `origin.json`, `manifest.json` and the files that the manifest names, and nothing else. None of it is trusted
when it comes in: every path, size and digest is checked before anything gets a version's name. Of the people and the
judgements that a version has learned from only the numbers leave.
"""

import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from feedback.policies.manifest import (
    ALLOWED_SUFFIXES,
    MANIFEST,
    Manifest,
    fsync_directory,
    verify_files,
)
from feedback.policies.registry import BASE, PolicyRegistry
from feedback.policies.shelf import place
from feedback.records import Record, digest

ORIGIN = "origin.json"
MOST_JSON = 64 * 1024**2
MOST_FILES = 10_000
MOST_DEPTH = 50  # a reader of JSON gives up at 200
LATEST = 2.0**32  # the year 2106
RATERS = "raters"
NAMED = (RATERS, "feedback_ids", "live")


class BadBundle(ValueError):
    """The file is no policy that this installation can take; the message is one line."""


class Origin(Record):
    """What the bundle was made from; `base` is the digest of the base model's weights."""

    schema_version: Literal[1] = 1
    version: int
    base: str
    exported: float


class Asked(BaseModel):
    """A check of the gate, as far as people are shown it; `sign` is younger than the rest."""

    model_config = ConfigDict(strict=True)

    name: str
    value: float | None
    sign: str = ""
    threshold: float | None
    passed: bool


def export_version(registry: PolicyRegistry, version: int, file: Path) -> int:
    """Write a version into a new file, whole or not at all; returns its size.

    Raises UnknownPolicy, BrokenPolicy, BadBundle for the base model, and OSError, such as FileExistsError.
    """
    manifest, directory = registry.manifest(version), registry.directory(version)
    if manifest.kind == "base":
        raise BadBundle(f"{manifest.name} is the base model, which is kept in {manifest.model_path}")
    verify_files(directory, manifest)
    origin = Origin(version=version, base=_base_digest(registry), exported=time.time())
    temporary = file.with_name(f"{file.name}.part")
    with temporary.open("xb") as out:
        try:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, ORIGIN, origin.model_dump_json(indent=1).encode())
                _add(tar, MANIFEST, without_people(manifest).model_dump_json(indent=1).encode())
                for name in sorted(manifest.files):
                    _add(tar, name, directory / name)
            out.flush()
            os.fsync(out.fileno())
            os.link(temporary, file)  # unlike a rename it never takes the place of another file
        finally:
            temporary.unlink()
    fsync_directory(file.absolute().parent)
    return file.stat().st_size


def without_people(manifest: Manifest) -> Manifest:
    """The manifest with numbers in place of raters, judgements and answers."""
    counted = {name: len(value) if name in NAMED else value for name, value in manifest.lineage.items()}
    metrics = {stage: _unnamed(measured) for stage, measured in manifest.metrics.items()}
    return manifest.model_copy(update={"lineage": counted, "metrics": metrics})


def _unnamed(measured: Any) -> Any:
    """What a stage measured without what it tells of each rater: of a mapping by name the size, of a list nothing."""
    if not isinstance(measured, Mapping):
        return measured
    return {name: _counted(value) if name == RATERS else _unnamed(value) for name, value in measured.items()}


def _counted(raters: Any) -> Any:
    if isinstance(raters, Mapping):
        return {name: value if isinstance(value, int | float) else len(value) for name, value in raters.items()}
    return []  # such as a figure for each: `Fit` wants a list


def import_version(registry: PolicyRegistry, file: Path, *, actor: str, reason: str) -> int:
    """Take a bundle in as a candidate under a new number; returns it. Nothing is left of one that is refused.

    Raises BadBundle, BrokenPolicy, UnknownPolicy without a base model, and OSError.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            origin, manifest = _read_head(tar)
            _check(registry, origin, manifest)
            version = registry.reserve()
            target = registry.directory(version)
            try:
                place(target, version, 0, lambda directory, _: _unpack(tar, manifest, origin, directory, version))
            finally:
                shutil.rmtree(target.parent / f".{target.name}.0000", ignore_errors=True)
    except tarfile.TarError as error:
        raise BadBundle(str(error)) from error
    registry.publish(version, actor=actor, reason=f"{reason}: policy-v{origin.version} of {file.name}")
    return version


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    """The same bytes for the same content, whoever makes them."""
    info = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, BytesIO(content))
        return
    info.size = content.stat().st_size
    with content.open("rb") as source:
        tar.addfile(info, source)


def _read_head(tar: tarfile.TarFile) -> tuple[Origin, Manifest]:
    """The two descriptions, which come first."""
    try:
        return (
            Origin.model_validate_json(_small(tar, ORIGIN)),
            Manifest.model_validate_json(_small(tar, MANIFEST)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise BadBundle(": ".join([*map(str, first["loc"]), first["msg"]])) from error


def _small(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.next()
    if member is None or member.name != name or not _is_plain(member) or member.size > MOST_JSON:
        raise BadBundle(f"this is no exported policy: {name} is not where it should be")
    return _content(tar, member).read()


def _check(registry: PolicyRegistry, origin: Origin, manifest: Manifest) -> None:
    """That the version can be one of this installation's. Raises BadBundle."""
    ours = registry.manifest(BASE)
    if manifest.kind != "trained":
        raise BadBundle("a base model cannot be imported")
    if origin.base != _base_digest(registry) or manifest.golden != ours.golden or manifest.dtype != ours.dtype:
        raise BadBundle(f"{manifest.base_model} in {manifest.dtype} is not the base model that policies have here")
    held = (manifest.model_path, manifest.adapter_path or "")
    if unsafe := [path for path in (*manifest.files, *filter(None, held)) if not _stays_inside(path)]:
        raise BadBundle(f"a path leads out of the version's directory: {unsafe[0]!r}")
    if not all(path and any(name.startswith(f"{path}/") for name in manifest.files) for path in held):
        raise BadBundle("there are no files of a merged model, or none of an adapter: an engine would serve the base")
    if wrong := [name for name in manifest.files if PurePosixPath(name).suffix not in ALLOWED_SUFFIXES]:
        raise BadBundle(f"{wrong[0]!r} is not a file of an allowed kind")
    needed, free = sum(entry.size for entry in manifest.files.values()), shutil.disk_usage(registry.policies_dir).free
    if len(manifest.files) > MOST_FILES or needed > free:
        raise BadBundle(f"{len(manifest.files)} files of {needed:,} bytes are too much for {free:,} free bytes")
    _check_figures(origin, manifest)


def _check_figures(origin: Origin, manifest: Manifest) -> None:
    """That whoever shows the version, or compares with it, can read what is told of it. Raises BadBundle."""
    if wrong := _no_figure([origin.model_dump(), manifest.model_dump()]):
        raise BadBundle(f"the manifest holds {wrong}")
    if not all(0 <= when <= LATEST for when in (manifest.created, origin.exported)):
        raise BadBundle("the manifest is of no time that there has been")
    if wrong := next((stage for stage, told in manifest.metrics.items() if not isinstance(told, Mapping)), None):
        raise BadBundle(f"the metrics of {wrong[:40]!r} are no figures by name")
    try:
        TypeAdapter(list[Asked]).validate_python(manifest.metrics.get("gate", {}).get("checks", []))
        TypeAdapter(str | None).validate_python(manifest.metrics.get("reward", {}).get("no_change"))
    except ValidationError as error:
        raise BadBundle(f"the metrics of the gate or the reward model: {error.errors()[0]['msg']}") from error


def _no_figure(value: Any, depth: int = 0) -> str | None:
    """What in a tree is no number, or could not be written and read again; None when nothing is."""
    if isinstance(value, int | float):
        return None if abs(value) <= sys.float_info.max else "a number that is infinite or none"
    if depth > MOST_DEPTH:
        return f"something nested deeper than {MOST_DEPTH} levels"
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((wrong for each in inside if (wrong := _no_figure(each, depth + 1))), None)


def _unpack(tar: tarfile.TarFile, manifest: Manifest, origin: Origin, directory: Path, version: int) -> Manifest:
    """Write the files that the manifest names, each no longer than it says, and verify them."""
    missing = dict(manifest.files)
    while (member := tar.next()) is not None:
        entry = missing.pop(member.name, None)
        if entry is None or not _is_plain(member) or member.size != entry.size:
            raise BadBundle(f"{member.name!r} is not a plain file that the manifest names once")
        path = directory / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            shutil.copyfileobj(_content(tar, member), out)
    if missing:
        raise BadBundle(f"{len(missing)} files are missing, such as {min(missing)!r}")
    verify_files(directory, manifest)
    _refuse_code(directory, manifest)
    imported = {"version": origin.version, "exported": origin.exported, "parent": manifest.parent,
                "lineage": manifest.lineage}  # fmt: skip
    # Numbers, watermarks and names of the other installation mean nothing here.
    return manifest.model_copy(update={"version": version, "parent": BASE, "lineage": {"imported": imported}})


def _refuse_code(directory: Path, manifest: Manifest) -> None:
    """Raises BadBundle for a model that asks its loader to run code of its own."""
    for name in manifest.files:
        if PurePosixPath(name).name == "config.json":
            try:
                config = json.loads((directory / name).read_text())
            except ValueError as error:
                raise BadBundle(f"{name} is no JSON: {error}") from error
            if not isinstance(config, Mapping) or "auto_map" in config:
                raise BadBundle(f"{name} asks to run code of its own (auto_map), or is no config")


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None  # it is a plain file
    return source


def _base_digest(registry: PolicyRegistry) -> str:
    return digest(registry.manifest(BASE).weights)
