"""What the operator sees: a line for each thing that happens, coloured and live only on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

COLOURS = {
    "valkey": "magenta", "engine": "cyan", "candidate": "bright_cyan", "gateway": "green", "worker": "yellow",
    "beat": "blue",
}  # fmt: skip


class Terminal:
    """Lines of output; nothing is wrapped, so what is printed can be copied."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def ready(self, name: str, seconds: float, note: str = "") -> None:
        """One line: this part answers."""
        line = Text.assemble(("ready", "green"), "  ", (f"{name:<8}", _colour(name)), f"{seconds:6.1f} s")
        self.console.print(line.append(f"  {note}" if note else ""))

    def trouble(self, name: str, text: str) -> None:
        self.console.print(Text.assemble((name, _colour(name)), (f" {text}", "bold red")))

    def relay(self, name: str, line: str) -> None:
        """A line that a child wrote."""
        self.console.print(Text.assemble((f"[{name}]", _colour(name)), f" {line}"))

    @contextmanager
    def waiting(self, text: str) -> Iterator[Status | None]:
        """A spinner on a terminal, nothing elsewhere."""
        if not self.console.is_terminal:
            yield None
            return
        with self.console.status(text) as status:
            yield status


def _colour(name: str) -> str:
    return COLOURS.get(name, "bold")
