"""A home directory: checks before a start, and what is remembered of it."""

from pathlib import Path

import pytest

from feedback.settings import Settings
from serving import installation
from serving.children import CannotStart
from serving.installation import settings_as_started, settings_of


def test_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"GiB are free at .*, 1048576\.0 are needed: make room"):
        installation.check_disk(tmp_path, needed_bytes=2**50)


def test_later_commands_know_how_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.record_start(settings_of(tmp_path, port=9123, redis_url="redis://elsewhere/0"))
    assert (tmp_path / "started.json").stat().st_mode & 0o777 == 0o600
    assert settings_as_started(tmp_path).port == 9123
    monkeypatch.setenv("RATCHET_PORT", "9124")
    settings = settings_as_started(tmp_path)
    assert (settings.port, settings.redis_url) == (9124, "redis://elsewhere/0")


def test_children_see_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path, port=9123, base_model="some/model")
    for name, value in installation.environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
