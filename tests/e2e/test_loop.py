"""From a chat to a better policy serving, with real parts, while people chat."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI, OpenAIError

from tests.e2e.conftest import Service, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

QUESTIONS = [f"Tell me something about {thing}." for thing in
             ("cats", "rain", "bread", "music", "trees", "the sea", "trains", "snow", "tea", "books", "bees", "clocks",
              "wool", "maps")]  # fmt: skip


class Chatter(threading.Thread):
    """A person who streams one short answer after another until told to stop."""

    def __init__(self, client: OpenAI, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.client, self.stop = client, stop
        self.versions: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._chat()
            except Exception as error:  # the test reports whatever a client could meet
                self.failures.append(repr(error))

    def _chat(self) -> None:
        stream = self.client.chat.completions.create(
            model="policy", messages=[{"role": "user", "content": "Count to ten."}], max_tokens=24, stream=True
        )
        finish = None
        for chunk in stream:
            if chunk.choices:
                finish = chunk.choices[0].finish_reason or finish
            model = chunk.model
        if finish is None:
            self.failures.append("stream without a finish reason")
        self.versions.append(model)


@contextlib.contextmanager
def chatting(service: Service, count: int) -> Iterator[list[Chatter]]:
    stop = threading.Event()
    chatters = [Chatter(service.client(), stop) for _ in range(count)]
    for chatter in chatters:
        chatter.start()
    try:
        yield chatters
    finally:
        stop.set()
        for chatter in chatters:
            chatter.join(timeout=120)


def ask(service: Service, question: str, n: int = 4) -> tuple[list[str], str]:
    """Ids of n answers that were stored, and the ranking that likes the shortest best."""
    answer = service.client().chat.completions.create(
        model="policy", messages=[{"role": "user", "content": question}], n=n, max_tokens=16
    )
    about = answer.model_extra["ratchet"]  # type: ignore[index]
    assert about["stored"], "answered without the ledger"
    ids: list[str] = about["completion_ids"]
    lengths = [len(choice.message.content or "") for choice in answer.choices]
    groups = [[letter for letter, own in zip("ABCD", lengths, strict=False) if own == length]
              for length in sorted(set(lengths))]  # fmt: skip
    return ids, " > ".join(" = ".join(group) for group in groups)


def rank(service: Service, ids: list[str], ranking: str) -> httpx.Response:
    return service.post("/v1/feedback", {"type": "ranking", "candidates": ids, "ranking": ranking})


def rank_shortest_first(service: Service, question: str) -> dict[str, Any]:
    response = rank(service, *ask(service, question))
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()
    return data


class Rater(threading.Thread):
    """A person who asks and ranks until told to stop, and takes note of what was answered and what was acknowledged."""

    def __init__(self, service: Service, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.service, self.stop = service, stop
        self.answered: list[tuple[list[str], str]] = []
        self.acknowledged: list[str] = []
        self.refused: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.answered.append(ask(self.service, "Name a bird.", n=2))
                response = rank(self.service, *self.answered[-1])
                response.raise_for_status()
                self.acknowledged.append(response.json()["id"])
            except (OpenAIError, httpx.HTTPError, AssertionError) as error:  # an outage may refuse, and must not forget
                self.refused.append(repr(error))
                self.stop.wait(0.2)


@contextlib.contextmanager
def rating(service: Service, count: int) -> Iterator[list[Rater]]:
    """People who rate meanwhile; after it, all that any of them was answered and acknowledged is still there."""
    stop = threading.Event()
    raters = [Rater(service, stop) for _ in range(count)]
    for rater in raters:
        rater.start()
    wait_for(lambda: all(rater.acknowledged for rater in raters), seconds=60, what="load")
    try:
        yield raters
        before = [len(rater.acknowledged) for rater in raters]
        wait_for(lambda: all(len(r.acknowledged) > n for r, n in zip(raters, before, strict=True)), seconds=120,
                 what="judgements being taken again")  # fmt: skip
    finally:
        stop.set()
        for rater in raters:
            rater.join(timeout=120)
    for rater in raters:
        assert [service.get(f"/v1/feedback/{id}")["id"] for id in rater.acknowledged] == rater.acknowledged
        assert {rank(service, *answered).status_code for answered in rater.answered} <= {200, 201}


def served(service: Service) -> str:
    answer = service.client().chat.completions.create(
        model="policy", messages=[{"role": "user", "content": "Hi."}], max_tokens=4
    )
    return answer.model


def test_the_sdk_streams_and_every_answer_names_its_policy(service: Service) -> None:
    text, names = "", set()
    for chunk in service.client().chat.completions.create(
        model="policy",
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        seed=1,
        stop=["\n\n\n"],
    ):
        names.add(chunk.model)
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text.strip()
    assert names == {"policy-v0"}
    assert chunk.usage is not None and chunk.usage.completion_tokens > 0


def test_a_round_trains_and_swaps_while_eight_people_chat(service: Service) -> None:
    for question in QUESTIONS:
        rank_shortest_first(service, question)
    with chatting(service, 8) as chatters:
        round_id = service.post("/v1/rounds", {}).json()["id"]
        wait_for(lambda: service.get(f"/v1/rounds/{round_id}")["state"] not in ("queued", "running"), seconds=900,
                 what="the round's end")  # fmt: skip
        record = service.get(f"/v1/rounds/{round_id}")
        assert record["state"] == "published", record
        wait_for(lambda: served(service) == "policy-v1", seconds=60, what="the swap")
        seen = [len(chatter.versions) for chatter in chatters]
        wait_for(lambda: all(len(c.versions) > n + 1 for c, n in zip(chatters, seen, strict=True)), seconds=120,
                 what="chats after the swap")  # fmt: skip
    assert [chatter.failures for chatter in chatters] == [[]] * 8
    assert all(chatter.versions[0] == "policy-v0" and chatter.versions[-1] == "policy-v1" for chatter in chatters)
    assert service.get("/v1/policies")["last_swap"]["pause_s"] < 5


def test_rollback_returns_to_the_policy_before(service: Service) -> None:
    service.cli("rollback")
    wait_for(lambda: served(service) == "policy-v0", seconds=30, what="the rollback")
    service.cli("rollback", "1")
    wait_for(lambda: served(service) == "policy-v1", seconds=30, what="the way back")


def test_killed_valkey_comes_back_with_everything_acknowledged(service: Service) -> None:
    with rating(service, 4):
        (pid,) = service.pids("valkey-server")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: service.pids("valkey-server") not in ([], [pid]), seconds=60, what="a new valkey")
        wait_for(service.ready, seconds=120, what="readiness after valkey's death")


def test_killed_engine_comes_back_with_the_policy_that_served(service: Service) -> None:
    with rating(service, 4) as raters:
        for pid in (*service.pids("vllm.entrypoints"), *service.pids("VLLM::")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not service.ready(), seconds=30, what="the loss being noticed")
        response = rank(service, *raters[0].answered[0])
        assert response.status_code in (200, 201)  # feedback is taken while the engine is away
        wait_for(service.ready, seconds=300, what="a new engine")
    assert served(service) == "policy-v1"


def test_a_round_survives_kill_9_of_the_worker_and_publishes_once(service: Service) -> None:
    with rating(service, 2):
        round_id = service.post("/v1/rounds", {}).json()["id"]

        def stage() -> str:
            return str(service.get(f"/v1/rounds/{round_id}")["stage"])

        wait_for(lambda: stage() in ("reward", "ppo"), seconds=200, what="training")
        for pid in service.pids("celeryd"):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: service.get(f"/v1/rounds/{round_id}")["state"] not in ("queued", "running"), seconds=900,
                 what="the round's end")  # fmt: skip
    assert service.get(f"/v1/rounds/{round_id}")["state"] == "published"
    wait_for(lambda: served(service) == "policy-v2", seconds=60, what="the swap")
    assert [policy["version"] for policy in service.get("/v1/policies")["data"]] == [0, 1, 2]


def test_ctrl_c_ends_all_and_a_second_start_goes_on(service: Service) -> None:
    service.stop()
    service.start()
    assert served(service) == "policy-v2"
