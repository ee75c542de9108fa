"""The README's snippets are run as they stand: the tour and the guide are promises to application developers."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import app
from tests.guide import FENCE, README, follow, snippets

ROOT = Path(__file__).parents[2]
# What is run or checked; and what only shows something.
LANGUAGES = ("python", "bash", "text")


def check_command(words: list[str]) -> None:
    """Whether there is such a target, or such a command with these options; nothing is done."""
    if words[0] == "make":
        rules = (ROOT / "Makefile").read_text()
        known = re.findall(r"^([a-z]+):", rules, re.MULTILINE) + re.findall(r"\$\(([A-Z]+)\)", rules)
        assert [word for word in words[1:] if word.partition("=")[0] not in known] == []
        return
    depth = 3 if words[1] in {group.name for group in app.registered_groups} else 2
    shown = CliRunner().invoke(app, [*words[1:depth], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, f"no command {words}: {shown.output}"
    unknown = {word for word in words if word.startswith("--")} - set(re.findall(r"--[a-z-]+", shown.output))
    assert unknown == set()


async def test_every_python_and_shell_snippet_succeeds(live: Any, tmp_path: Path) -> None:
    live.shelf.publish(7, move=0.4, stable=False)  # to be released
    await asyncio.to_thread(follow, live.url, live.admin_key, tmp_path)


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
