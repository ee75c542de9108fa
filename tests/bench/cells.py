"""Results of a benchmark by name, on the disk as soon as they are known: one that was broken off goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(width=130)


class Cells:
    """What is known is never run twice; another file is another benchmark."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str, run: Callable[[], Any]) -> Any:
        """What `run` gives, as JSON has it."""
        if name not in self.known:
            console.print(f"running {name}")
            self.keep(name, run())
        return self.known[name]

    def keep(self, name: str, value: Any) -> None:
        self.known[name] = json.loads(json.dumps(value))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.known, indent=1) + "\n")
        beside.replace(self.path)
