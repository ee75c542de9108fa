"""What the page's bench measures: the files of a build by what they are for, and answers of 10,000 tokens."""

from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

TOKENS, PIECE = 10_000, 4  # characters that the scripted engine takes for a token
# By the name that the build gives a file before its digest; anything else keeps its own.
PURPOSES = {
    "index": "the chat", "Console": "the console", "drawing": "plots", "math": "formulas",
    "highlight": "code in colours",
}  # fmt: skip
PROSE = "This is a paragraph with **bold** words, `code`, and a [link](https://example.org) that goes on for a while. "


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


def section(number: int) -> str:
    code = "```python\nfor i in range(10):\n    print(i)\n```"
    return f"## Part {number}\n\n{PROSE * 3}\n\n- one item\n- another item\n\n{code}\n\n$x^{{{number}}}$ and so on.\n\n"


def until_enough(part: Callable[[int], str]) -> str:
    """Parts, by their number, until there are tokens enough."""
    text = ""
    for number in count(1):
        if len(text) >= TOKENS * PIECE:
            break
        text += part(number)
    return text


ANSWERS = {
    "mixed": until_enough(section),
    "one list": until_enough(lambda number: f"- item {number} of a long list with **bold** text\n"),
    "one paragraph": until_enough(lambda _: PROSE),
    "one code block": "```python\n"
    + until_enough(lambda number: f"print({number}, 'a long line of code')\n")
    + "```\n",
}
