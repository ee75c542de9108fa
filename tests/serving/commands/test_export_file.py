"""The file of an export: whole or not there, whatever the file system and whoever was killed before."""

import os
from pathlib import Path

import pytest

from serving.commands.feedback import _opened
from serving.commands.shared import Failure


def test_what_a_killed_export_left_under_two_names_is_not_written_into(tmp_path: Path) -> None:
    moved, left, out = tmp_path / "backup", tmp_path / "out.part", tmp_path / "out"
    left.write_bytes(b"old")
    os.link(left, moved)
    with _opened(out) as file:
        file.write(b"new")
    assert (moved.read_bytes(), out.read_bytes()) == (b"old", b"new")


@pytest.mark.parametrize("links", [True, False])
def test_it_is_whole_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    out = tmp_path / "out"
    with _opened(out) as file:
        file.write(b"all")
    assert ([each.name for each in tmp_path.iterdir()], out.read_bytes()) == (["out"], b"all")
    late = tmp_path / "late"
    with pytest.raises(Failure, match="nothing is overwritten"), _opened(late) as file:
        file.write(b"mine")
        late.write_bytes(b"theirs")
    assert late.read_bytes() == b"theirs" and {each.name for each in tmp_path.iterdir()} == {"out", "late"}
