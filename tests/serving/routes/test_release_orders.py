"""Orders of operators that come after the pointer was moved outside of the release."""

from pathlib import Path
from typing import Any

import pytest

from feedback.policies.registry import PointerMoved, PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.orders import give
from feedback.store import connect
from tests.feedback.policies.test_registry import publish
from tests.feedback.releases.test_releases import canary


@pytest.fixture
def book(valkey_url: str, tmp_path: Path) -> ReleaseBook:
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    return ReleaseBook(registry)


@pytest.mark.parametrize("order", ["promote", "rollback"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_release_that_was_passed_by_is_neither_promoted_nor_rolled_back(
    book: ReleaseBook, order: Any, version: int
) -> None:
    release = canary(book, 1)
    book.registry.point_stable(version, expected=0, actor="bob", reason="by hand")
    with pytest.raises(PointerMoved, match=f"it is policy-v{version}"):
        give(book, order, None, actor="ann", reason="so", now=1.0, full=True)
    assert (book.open(), book.registry.stable()) == (release, version)
    assert give(book, "abort", None, actor="ann", reason="so", now=1.0).state == "aborted"
    assert book.registry.stable() == version
