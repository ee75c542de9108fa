"""Candidates on their way into service, with real engines, while people chat and vote: the good one is promoted by
itself, the bad one rolled back by itself, the broken ones never write a word."""

import contextlib
import random
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.policies.registry import PolicyRegistry
from feedback.store import Ledger, connect
from tests.e2e import candidates
from tests.e2e.conftest import Service, wait_for
from tests.e2e.writers import misnamed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

QUESTIONS = ("Tell me something about {}.", "What would you do with {}?", "Describe {} to a child.", "Why is there {}?")
THINGS = ("rain", "bread", "music", "a tree", "the sea", "snow", "tea", "a book", "a bee", "a clock", "wool", "a map")
# What English sentences are held together by, and word salad is not.
COMMON = frozenset(re.findall(r"\w+", """
    the a an of and to in is it that for you as with on be are this was by or from at your can have not but its will
    they one all which their has more about when there also so if we i my do how what some like would into than
"""))  # fmt: skip


def sense(text: str) -> float:
    """How much of a text looks like English sentences: the share of common words, without repetitions of one."""
    words = [word.strip(".,;:!?\"'()").lower() for word in text.split()]
    repeats = sum(first == second for first, second in zip(words, words[1:], strict=False))
    return (sum(word in COMMON for word in words) - 2 * repeats) / max(len(words), 6)


class Person(threading.Thread):
    """Chats and compares until told to stop. What is laid side by side they judge by what it says and nothing else."""

    def __init__(self, service: Service, name: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.service, self.name, self.stop = service, name, stop
        self.draw = random.Random(name)
        self.answered: list[str] = []
        self.failures: list[str] = []
        self.votes = 0

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._chat()
                self._compare()
            except Exception as error:  # the test reports whatever a client could meet
                self.failures.append(repr(error))

    def _body(self) -> dict[str, Any]:
        question = self.draw.choice(QUESTIONS).format(self.draw.choice(THINGS))
        return {"messages": [{"role": "user", "content": question}], "max_tokens": 24, "user": self.name}

    def _chat(self) -> None:
        body = {**self._body(), "model": "policy", "stream": True}
        last = None
        for chunk in self.service.client().chat.completions.create(**body):
            last = chunk.choices[0].finish_reason or last if chunk.choices else last
            about = chunk.model_extra.get("ratchet") if chunk.model_extra else None
            if about and "completion_ids" in about and last:
                assert about["stored"]
                self.answered += about["completion_ids"]
        assert last is not None, "a stream without an end"

    def _compare(self) -> None:
        response = self.service.post("/v1/comparisons", {**self._body(), "model": "auto"})
        response.raise_for_status()
        told = response.json()
        left, right = (sense(choice["message"]["content"] or "") for choice in told["choices"])
        winner = "tie" if abs(left - right) < 0.05 else "left" if left > right else "right"
        vote = {"type": "comparison", "comparison_id": told["ratchet"]["comparison_id"], "winner": winner}
        self.service.post("/v1/feedback", {**vote, "user": self.name}).raise_for_status()
        self.answered += told["ratchet"]["completion_ids"]
        self.votes += 1


@contextlib.contextmanager
def people(service: Service, count: int) -> Iterator[list[Person]]:
    stop = threading.Event()
    crowd = [Person(service, f"person-{number}", stop) for number in range(count)]
    for person in crowd:
        person.start()
    try:
        yield crowd
    finally:
        stop.set()
        for person in crowd:
            person.join(timeout=120)


@pytest.fixture(scope="module")
def registry(service: Service) -> PolicyRegistry:
    return PolicyRegistry(connect(service.settings.resolved_redis_url()), service.settings.policies_dir)


def release(service: Service, version: int, steps: str = "50%,analysis") -> dict[str, Any]:
    """Begun by an operator; ended by itself, perhaps before anybody can look."""
    service.cli("release", "start", str(version), "--steps", steps, "--mode", "automatic")
    newest = service.get("/v1/releases")["data"][0]
    assert newest["candidate"] == version
    id = newest["id"]
    wait_for(lambda: service.get(f"/v1/releases/{id}")["ended"] is not None, seconds=900, what=f"the end of v{version}")
    return service.get(f"/v1/releases/{id}")


def states(service: Service) -> dict[int, str]:
    return {policy["version"]: policy["state"] for policy in service.get("/v1/policies")["data"]}


def test_the_bad_go_back_the_good_stay_and_nobody_notices(
    service: Service, registry: PolicyRegistry, base_model: Path
) -> None:
    before = service.get("/v1/policies")["stable"]
    bad = candidates.publish(registry, base_model, candidates.badly)
    good = candidates.publish(registry, base_model, candidates.slightly)
    with people(service, 6) as crowd:
        rolled_back = release(service, bad)
        assert (rolled_back["state"], states(service)[bad]) == ("rolled_back", "rolled_back"), rolled_back["why"]
        assert service.get("/v1/policies")["stable"] == before
        service.cli("promote", str(bad), "--reason", "to see that the better one takes its place")
        promoted = release(service, good, "50%,1m,analysis")
        assert (promoted["state"], states(service)[good]) == ("promoted", "stable"), promoted["why"]
        seen = [len(person.answered) for person in crowd]
        wait_for(lambda: all(len(p.answered) > n + 3 for p, n in zip(crowd, seen, strict=True)), seconds=180,
                 what="chats after the promotion")  # fmt: skip
    assert [person.failures for person in crowd] == [[]] * len(crowd), service.tracebacks()
    ids = [id for person in crowd for id in person.answered]
    kept = Ledger(registry.redis).completions(tuple(ids))
    assert len(kept) == len(ids)
    written = {version: [c for c in kept.values() if c.policy_version == version] for version in (before, bad, good)}
    assert all(written.values())
    assert {c.arm for c in written[bad] if c.release == rolled_back["id"]} == {"candidate"}
    put = [c for c in kept.values() if c.release == promoted["id"] and c.propensity is not None]
    assert {c.propensity for c in put} == {0.5}
    assert {c.policy_version for c in put if c.arm == "candidate"} == {good}
    share = sum(c.arm == "candidate" for c in put) / len(put)
    assert abs(share - 0.5) < 5 * 0.5 / len(put) ** 0.5, f"{share:.2f} of {len(put)} are the candidate's"
    models = {version: candidates.model_of(registry, version) for version in written}
    plain = [completion for completion in kept.values() if completion.plain]
    assert len(plain) > 0.9 * len(kept)
    assert misnamed(models, plain) == []


def test_the_broken_never_write_a_word(service: Service, registry: PolicyRegistry, base_model: Path) -> None:
    stable = service.get("/v1/policies")["stable"]
    size = (base_model / "model.safetensors").stat().st_size
    broken = {name: candidates.publish(registry, base_model, change, broken=True)
              for name, change in candidates.BROKEN.items()}  # fmt: skip
    broken |= {f"cut at {cut} bytes": candidates.cut(registry, base_model, cut) for cut in (7, 4096, size // 2)}
    with people(service, 2) as crowd:
        for name, version in broken.items():
            ended = release(service, version)
            assert (name, ended["state"], states(service)[version]) in [
                (name, "rolled_back", "rejected"), (name, "rolled_back", "broken"),
            ], ended["why"]  # fmt: skip
        good = candidates.publish(registry, base_model, partial(candidates.slightly, seed=2))
        service.cli("release", "start", str(good))
        wait_for(lambda: service.get("/v1/releases/current")["state"] == "canary", seconds=400, what="the good one")
        service.cli("release", "abort")
    assert [person.failures for person in crowd] == [[]] * len(crowd), service.tracebacks()
    assert service.get("/v1/policies")["stable"] == stable
    kept = Ledger(registry.redis).completions(tuple(id for person in crowd for id in person.answered))
    assert {completion.policy_version for completion in kept.values()} <= {stable, good}


def test_two_operators_at_once(service: Service, registry: PolicyRegistry, base_model: Path) -> None:
    # None with the weights of another: it would be refused while the operators are still at it.
    others = (partial(candidates.slightly, seed=seed) for seed in (3, 4))
    versions = [candidates.publish(registry, base_model, other) for other in others]
    answers: list[httpx.Response] = []

    def begin(version: int) -> None:
        answers.append(service.post("/v1/releases", {"candidate": version, "replaces": None}))

    threads = [threading.Thread(target=begin, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201, 409], [answer.text for answer in answers]
    lost = next(answer.json() for answer in answers if answer.status_code == 409)
    current = service.get("/v1/releases/current")
    assert lost["error"]["current"]["id"] == current["id"]
    service.cli("release", "abort")
    assert service.get(f"/v1/releases/{current['id']}")["state"] == "aborted"
