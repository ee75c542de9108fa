"""What the page's bench measures: the files of a build by what they are for."""

from collections import defaultdict
from pathlib import Path
from typing import Any

# By the name that the build gives a file before its digest; anything else keeps its own.
PURPOSES = {
    "index": "the chat", "Console": "the console", "drawing": "plots", "math": "formulas",
    "highlight": "code in colours",
}  # fmt: skip


def sizes(dist: Path) -> list[dict[str, Any]]:
    """Scripts and styles in kB, as they are and as they are sent; the largest first."""
    plain: defaultdict[str, int] = defaultdict(int)
    sent: defaultdict[str, int] = defaultdict(int)
    for file in (dist / "assets").iterdir():
        if file.suffix in (".js", ".css"):
            name = file.stem.partition("-")[0]
            what = PURPOSES.get(name, name)
            zipped = file.with_name(f"{file.name}.gz")
            plain[what] += file.stat().st_size
            sent[what] += (zipped if zipped.is_file() else file).stat().st_size
    order = sorted(plain, key=lambda what: -sent[what])
    return [{"what": what, "plain": plain[what] / 1000, "sent": sent[what] / 1000} for what in order]
