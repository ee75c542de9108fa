"""What the page's bench says of a build."""

from pathlib import Path

from tests.bench.page_parts import sizes


def test_files_are_counted_by_what_they_are_for_and_as_they_are_sent(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    lengths = {
        "index-a1.js": 5000, "index-a1.js.gz": 2000, "index-b-2.css": 900, "Console-c3.js": 4000,
        "Console-c3.js.gz": 2500, "runtime-d4.js": 500, "KaTeX_Main-e5.woff2": 9000,
    }  # fmt: skip
    for name, length in lengths.items():
        (assets / name).write_bytes(bytes(length))
    assert sizes(tmp_path) == [
        {"what": "the chat", "plain": 5.9, "sent": 2.9},  # the style sheet is too small to be compressed
        {"what": "the console", "plain": 4.0, "sent": 2.5},
        {"what": "runtime", "plain": 0.5, "sent": 0.5},
    ]
