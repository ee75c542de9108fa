"""What others have published, read from their packages: single functions and passages, without what those import."""

import __future__

import ast
import io
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Package:
    """A wheel, a source archive, or the directory of either unpacked."""

    path: Path

    def source(self, name: str) -> str:
        """The text of the one file whose path in the package ends with `name`; FileNotFoundError without one."""
        found = [content for path, content in self._files() if f"/{path}".endswith(f"/{name}")]
        if not found:
            raise FileNotFoundError(f"{self.path} has no {name}")
        return found[0]

    def _files(self) -> list[tuple[str, str]]:
        if self.path.is_dir():
            return [(str(path), path.read_text()) for path in sorted(self.path.rglob("*.py"))]
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as archive:
                return [(n, archive.read(n).decode()) for n in archive.namelist() if n.endswith(".py")]
        with tarfile.open(self.path) as archive:
            members = [(m.name, archive.extractfile(m)) for m in archive.getmembers() if m.name.endswith(".py")]
            return [(name, io.TextIOWrapper(file).read()) for name, file in members if file is not None]


def _compiled(statements: list[ast.stmt]) -> CodeType:
    flags = __future__.annotations.compiler_flag  # what annotations name need not be there
    return compile(ast.Module(statements, []), "<peer>", "exec", flags=flags)


def define(source: str, names: set[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Functions, methods, classes and constants of `source` by name, undecorated; they see `known` and each other."""
    tree = ast.parse(source)
    wanted: list[ast.stmt] = [s for s in tree.body if isinstance(s, ast.Assign) and names & _stored(s, nested=False)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            node.decorator_list = []
            wanted.append(node)
    namespace = dict(known)
    exec(_compiled(wanted), namespace)
    missing = names - namespace.keys()
    if missing:
        raise LookupError(f"the peer no longer has {', '.join(sorted(missing))}")
    return namespace


def _stored(statement: ast.stmt, nested: bool) -> set[str]:
    """Names and attributes that a statement assigns."""
    nodes = list(ast.walk(statement)) if nested else getattr(statement, "targets", [])
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


def passage(source: str, function: str, first: str, last: str) -> CodeType:
    """The statements within `function` from the one that assigns `first` to the last of that block to assign `last`."""
    for outer in ast.walk(ast.parse(source)):
        if not (isinstance(outer, ast.FunctionDef) and outer.name == function):
            continue
        for block in ast.walk(outer):
            body = block.body if isinstance(block, ast.stmt) and hasattr(block, "body") else []
            begins = [n for n, statement in enumerate(body) if first in _stored(statement, nested=False)]
            ends = [n for n, statement in enumerate(body) if last in _stored(statement, nested=True)]
            if begins and ends:
                return _compiled(body[begins[0] : ends[-1] + 1])
    raise LookupError(f"the peer's {function} no longer goes from {first} to {last}")


def run(code: CodeType, **names: Any) -> dict[str, Any]:
    """The names after a passage has run."""
    exec(code, names)
    return names
