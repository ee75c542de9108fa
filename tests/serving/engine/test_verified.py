"""A version is looked through once, and again as soon as anything of it was touched."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.manifest import BrokenPolicy, verify_files
from serving.engine import verified
from serving.engine.verified import read_policy


def in_place(file: Path) -> None:
    """One byte, as a careless hand would: the file's size and its time are what they were."""
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.seek(3)
        opened.write(b"X")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def another(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[3:4] = b"X"
    other = file.with_name("other")
    other.write_bytes(content)
    other.replace(file)


def beside(file: Path) -> None:
    file.with_name("left-over.json").write_text("{}")


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("touch", [in_place, another, beside, gone])
def test_what_was_touched_since_is_looked_at_again(shelf: Any, touch: Callable[[Path], None]) -> None:
    shelf.publish(1, move=0.4)
    policy = read_policy(shelf.registry, 1)
    assert policy.manifest.version == 1
    touch(policy.model_dir / "weights.json")
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(BrokenPolicy):
            read_policy(shelf.registry, 1)


def test_what_was_not_touched_is_not_read_again(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.publish(1, move=0.4)
    shelf.publish(2, move=0.5)
    looked: list[str] = []

    def counted(directory: Path, *arguments: Any) -> None:
        looked.append(directory.name)
        verify_files(directory, *arguments)

    monkeypatch.setattr(verified, "verify_files", counted)
    for version in (1, 2, 1, 2, 1):
        assert read_policy(shelf.registry, version).manifest.version == version
    assert looked == ["000001", "000002"]
    weights = shelf.registry.directory(1) / "model" / "weights.json"
    weights.write_bytes(weights.read_bytes())  # the same bytes, but nobody can know without a look
    assert read_policy(shelf.registry, 1).manifest.version == 1
    assert looked == ["000001", "000002", "000001"]
