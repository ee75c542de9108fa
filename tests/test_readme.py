"""The file tree in the README is the tree."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def tracked() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).exists()}


def drawn() -> list[str]:
    """Paths in the fenced block after the heading "File tree": two spaces a level, folders end with a slash."""
    block = re.search(r"## File tree\n.*?```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    paths, folders = [], []
    for line in block[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.append("".join(folders) + name)
    return paths


def test_the_tree_in_the_readme_is_the_tree() -> None:
    assert sorted(drawn()) == sorted(tracked())
