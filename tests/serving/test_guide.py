"""The README's snippets are run as they stand: the tour and the guide are promises to application developers."""

import ast
import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS, PLACEHOLDER = "http://127.0.0.1:8000", "rk-…"
# What is run or checked; and what only shows something.
LANGUAGES = ("python", "bash", "text")


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


def check_command(words: list[str]) -> None:
    """Whether there is such a target, or such a command with these options; nothing is done."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if word not in targets] == []
        return
    depth = 3 if words[1] in {group.name for group in app.registered_groups} else 2
    shown = CliRunner().invoke(app, [*words[1:depth], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, f"no command {words}: {shown.output}"
    unknown = {word for word in words if word.startswith("--")} - set(re.findall(r"--[a-z-]+", shown.output))
    assert unknown == set()


async def test_every_python_and_shell_snippet_succeeds(live: Any, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for snippet in snippets():
        code = snippet.code.replace(ADDRESS, live.url).replace(PLACEHOLDER, live.admin_key)
        if snippet.language == "python":
            await asyncio.to_thread(run_python, snippet, code, names)
        elif snippet.language == "bash" and not snippet.operates:
            await asyncio.to_thread(run_bash, snippet, code, tmp_path, live.admin_key)


def commands() -> Iterator[list[str]]:
    """Those of the blocks, and those inside the text."""
    for snippet in snippets():
        yield from snippet.commands if snippet.operates else ()
    for command in re.findall("`((?:make|ratchet) [^`]+)`", FENCE.sub("", README.read_text())):
        yield shlex.split(command)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_commands_of_an_installation_exist(words: list[str]) -> None:
    check_command(words)


def test_no_block_is_passed_over() -> None:
    fences = [line for line in README.read_text().splitlines() if "```" in line]
    assert len(fences) == 2 * len(list(snippets())), "there is a fence that is not seen"
    assert {each.line: each.language for each in snippets() if each.language not in LANGUAGES} == {}


def test_each_part_of_the_guide_has_a_snippet() -> None:
    parts = README.read_text().partition("## API guide")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(parts) > 1
    assert [part.splitlines()[0] for part in parts if "```python" not in part and "```bash" not in part] == []


@pytest.mark.parametrize(
    "line", ["ratchet keys create ann --rule user", "ratchet trane", "ratchet keys make", "make rum"]
)
def test_commands_that_do_not_exist_are_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check_command(line.split())
