"""How long a rollback takes while people chat: from the command, or the request, to the first answer by the one before.

`ratchet up` with the real engine, two versions made on purpose, and people who chat without pause. The versions are
adapters where the engine holds several, as on a GPU, else whole weights. Each turn promotes the newer one and rolls it
back, by `ratchet rollback` and by `POST /v1/rollback` in turn; a probe asks for one token at a time and notes who wrote
it. The swap's own figures are the service's: how long the engine stood still, how long clients saw nothing new.
What is known is in the JSON file after every turn.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import httpx
import rig
from rich.console import Console
from rich.table import Table

from feedback.policies.registry import PolicyRegistry
from feedback.store import connect
from serving.machine.installation import settings_as_started
from tests.e2e import candidates
from tests.e2e.conftest import Service
from tests.e2e.test_release import people

WAYS = {"ratchet rollback": lambda service: service.cli("rollback"),
        "POST /v1/rollback": lambda service: service.post("/v1/rollback", {}).raise_for_status()}  # fmt: skip
FIGURES = {
    "first_answer_s": "to the first answer",
    "returned_s": "to the end of the command",
    "pause_s": "the engine stood still",
    "held_s": "clients saw nothing new",
}


@dataclass(frozen=True)
class Turn:
    """One rollback, in seconds."""

    way: str
    first_answer_s: float
    returned_s: float
    pause_s: float
    held_s: float


@dataclass
class Findings:
    """The turns so far, and how many requests failed meanwhile."""

    engine_mode: str
    people: int
    cores: int = len(rig.CORES)
    failed: int = 0
    turns: list[Turn] = field(default_factory=list)


class Probe(threading.Thread):
    """Asks for a token again and again: `versions` says which policy each answer named, and when it was there."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.service, self.ended = service, threading.Event()
        self.versions: list[tuple[float, str]] = []
        self.failures = 0

    def run(self) -> None:
        body = {"model": "policy", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        headers = {"Authorization": f"Bearer {self.service.key}"}
        with httpx.Client(base_url=self.service.url, headers=headers, timeout=60, trust_env=False) as client:
            while not self.ended.is_set():
                response = client.post("/v1/chat/completions", json=body)
                self.failures += not response.is_success
                self.versions.append((time.monotonic(), response.headers.get("x-policy-version", "")))

    def first(self, version: int, since: float) -> float:
        """When the first answer by a version came after `since`; waits for it for a minute."""
        deadline = since + 60
        while time.monotonic() < deadline:
            for at, named in list(self.versions):
                if at > since and named == str(version):
                    return at
            time.sleep(0.01)
        raise TimeoutError(f"nobody was answered by policy-v{version}")


@contextmanager
def probing(service: Service) -> Iterator[Probe]:
    probe = Probe(service)
    probe.start()
    try:
        yield probe
    finally:
        probe.ended.set()
        probe.join()


def promote(service: Service, probe: Probe, version: int) -> None:
    begun = time.monotonic()
    service.cli("promote", str(version))
    probe.first(version, begun)


def turn(service: Service, probe: Probe, older: int, newer: int, way: str) -> Turn:
    promote(service, probe, newer)
    begun = time.monotonic()
    WAYS[way](service)
    returned = time.monotonic() - begun
    first = probe.first(older, begun) - begun
    swap = service.get("/v1/policies")["last_swap"]
    return Turn(way, first, returned, swap["pause_s"], swap["held_s"])


def two_versions(service: Service, model: Path, engine_mode: str) -> tuple[int, int]:
    registry = PolicyRegistry(connect(service.settings.resolved_redis_url()), service.settings.policies_dir)
    if engine_mode == "adapter":
        older, newer = (candidates.publish_adapter(registry, model, seed) for seed in (1, 2))
    else:
        older, newer = (candidates.publish(registry, model, partial(candidates.slightly, seed=n)) for n in (1, 2))
    return older, newer


def measured(model: Path, options: argparse.Namespace) -> Findings:
    with tempfile.TemporaryDirectory() as home:
        service = Service(Path(home), model).start()
        try:
            found = Findings(settings_as_started(service.home).engine_mode, options.people)
            older, newer = two_versions(service, model, found.engine_mode)
            with people(service, options.people) as crowd, probing(service) as probe:
                promote(service, probe, older)
                for way in list(WAYS) * options.turns:
                    found.turns.append(turn(service, probe, older, newer, way))
                    found.failed = probe.failures + sum(len(person.failures) for person in crowd)
                    options.json.write_text(json.dumps(asdict(found)))
            return found
        finally:
            service.stop()


def show(found: Findings) -> None:
    beside = f"{found.engine_mode} engine, beside {found.people} people"
    table = Table(title=f"rollback, {beside}, seconds: median, least, most; {found.failed} requests failed")
    for column in ("", *WAYS):
        table.add_column(column)
    for name, label in FIGURES.items():
        sides = [[getattr(result, name) for result in found.turns if result.way == way] for way in WAYS]
        table.add_row(label, *(f"{median(side):.2f}, {min(side):.2f}, {max(side):.2f}" for side in sides))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a chat model in Hugging Face format")
    parser.add_argument("--people", type=int, default=6, help="who chat at once; default %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="default %(default)s")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/rollback.json"), help="default: %(default)s")
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    show(measured(options.model.absolute(), options))


if __name__ == "__main__":
    main()
