"""The README's snippets, to be run as they stand against any service: the tour and the guide are promises."""

import ast
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS, PLACEHOLDER = "http://127.0.0.1:8000", "rk-…"


def follow(url: str, key: str, directory: Path) -> None:
    """Do all of it with the service at `url` and an admin's key, except what needs an installation of its own."""
    names: dict[str, Any] = {}
    for snippet in snippets():
        code = snippet.code.replace(ADDRESS, url).replace(PLACEHOLDER, key)
        if snippet.language == "python":
            run_python(snippet, code, names)
        elif snippet.language == "bash" and not snippet.operates:
            run_bash(snippet, code, directory, key)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of the README; `line` is where its first line stands."""

    language: str
    code: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell snippet, without comments."""
        lines = (shlex.split(line, comments=True) for line in self.code.replace("\\\n", "").splitlines())
        return [words for words in lines if words]

    @property
    def operates(self) -> bool:
        """Whether it needs a whole installation: a shell snippet with nothing but `make` and `ratchet` in it."""
        return self.language == "bash" and {words[0] for words in self.commands} <= {"make", "ratchet"}


def snippets() -> Iterator[Snippet]:
    text = README.read_text()
    for block in FENCE.finditer(text):
        yield Snippet(block[1], block[2], text[: block.start(2)].count("\n") + 1)


def run_python(snippet: Snippet, code: str, names: dict[str, Any]) -> None:
    """In the names of the snippets before; a failure shows the README's line."""
    tree = ast.increment_lineno(ast.parse(code), snippet.line - 1)
    exec(compile(tree, str(README), "exec"), names)


def run_bash(snippet: Snippet, code: str, directory: Path, key: str) -> None:
    command = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(
        command, cwd=directory, env=os.environ | {"KEY": key}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"README.md:{snippet.line} exited with {done.returncode}\n{done.stderr}"
