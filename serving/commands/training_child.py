"""Commands whose work is training's, in a child process: what `ratchet rm`, `sft` and `ppo` share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback import defaults
from feedback.exchange.formats import FORMATS, UnknownFormat
from feedback.hardware import TRAINING_ENVIRONMENT
from feedback.settings import Settings
from serving.commands.shared import Failure
from serving.machine.installation import environment

AUTO = "auto"

File = Annotated[
    Path | None, typer.Option("--from", help="JSON lines, gzip or plain (default: the installation's ledger)")
]
Format = Annotated[str, typer.Option(help="Of --from: auto | " + " | ".join(sorted(FORMATS)))]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first line that cannot be used.")]
Out = Annotated[Path, typer.Option(help="Directory for the model, new or of a run that was stopped.")]
Base = Annotated[Path | None, typer.Option(help="Directory of the base model (default: the installation's)")]
Config = Annotated[
    Path | None, typer.Option(help="JSON like round.json (default: the defaults; for the ledger its round.json)")
]
Seed = Annotated[
    int | None, typer.Option(help=f"Of the order and of the weights to begin with (default: {defaults.SEED})")
]


def check(file: Path | None, format: str, known: Collection[str] = FORMATS) -> None:
    """Raises Failure at once for what would be found out only after training has been loaded."""
    if format not in {AUTO, *known}:
        raise Failure(str(UnknownFormat((AUTO, *known))))
    if file is not None and not file.is_file():
        raise Failure(f"{file}: no such file")


def options(**given: Any) -> list[str]:
    """The command line of what was given."""
    words: list[str] = []
    for name, value in given.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f"{name}={value}")
    return words


def require_training(instead: str) -> None:
    """Raises Failure where training is not installed, as in the gateway's image; `instead` does the same beside it."""
    if find_spec("training") is None:
        raise Failure(f"training is not installed here; with compose.yaml run `docker compose {instead}`")


class Child:
    """A process of training's. Ctrl-C, or SIGTERM, is passed on once and awaited, so that it can say how to go on."""

    def __init__(self, settings: Settings, module: str, *arguments: str, capture: bool = False) -> None:
        """Raises Failure where training is not installed."""
        require_training(f"exec worker python -m {module} {arguments[0]} …")
        with _interruptible_later():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, f"--parent={os.getpid()}", *arguments],
                env={**TRAINING_ENVIRONMENT, **os.environ, **environment(settings)},
                stdout=subprocess.PIPE if capture else None,
                text=True,
                start_new_session=True,  # the terminal would interrupt it a second time
            )

    def wait(self) -> int:
        """Its exit code."""
        return self.output()[0]

    def output(self) -> tuple[int, str]:
        """Its exit code, and what it wrote if that was to be kept."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            try:
                written, _ = self._process.communicate()
            except KeyboardInterrupt:
                self._process.send_signal(signal.SIGINT)
                written, _ = self._process.communicate()
        finally:
            self._process.kill()  # a second Ctrl-C
            self._process.wait()
            signal.signal(signal.SIGTERM, before)
        code = self._process.returncode
        return (128 - code if code < 0 else code), written or ""


@contextmanager
def _interruptible_later() -> Iterator[None]:
    """A process begun in the block hears of Ctrl-C and SIGTERM when it asks to: its imports take seconds, and would
    say where they were interrupted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def answer(settings: Settings, module: str, *arguments: str) -> Mapping[str, Any]:
    """What training answers. It has said why where it does not."""
    code, written = Child(settings, module, *arguments, capture=True).output()
    if code:
        raise typer.Exit(code)
    found: dict[str, Any] = json.loads(written)
    return found
