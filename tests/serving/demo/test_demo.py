"""The demo against a fake service that speaks the public API."""

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import TypeAdapter
from rich.console import Console

from feedback.judgements import Comparison, Judgement, Ranking, Rating
from feedback.statistics import Interval
from serving.demo import crowd
from serving.demo.crowd import Answer, Asked, BackgroundChats, Chat, Service, judgements
from serving.demo.demo import DemoOptions, gather_all, run_demo, split_prompts
from serving.demo.preferences import brevity
from serving.demo.report import DemoReport, ProgressLine, Traffic, judge, show

OPTIONS = DemoOptions(
    url="http://fake", key="rk-demo", prompts=12, held_out=8, max_tokens=8, poll_s=0.01, swap_timeout_s=5.0
)


@dataclass
class Fake:
    """Answers of about 24 words under version 1 and `words_after` under version 2, which a round publishes."""

    words_after: int = 10
    outcome: str = "published"
    serves: bool = True
    stream_fault: str | None = None
    polls_until_end: int = 3
    version: int = 1
    bodies: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    rounds_opened: int = 0
    streams: int = 0
    polls: int = 0
    streamed_new: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/chat/completions")(self.chat)
        app.post("/v1/feedback")(self.judge)
        app.post("/v1/rounds")(self.open_round)
        app.get("/v1/rounds/{id}")(self.round)
        app.get("/v1/policies")(self.policies)
        return app

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers["authorization"])
        if request.headers["authorization"] != "Bearer rk-demo":
            error = {"message": "no such key", "type": "invalid_request_error", "param": None, "code": "invalid_key"}
            return JSONResponse({"error": error}, status_code=401)
        if body.get("stream"):
            self.streams += 1
            fault = self.stream_fault if self.streams == 3 else None
            if fault == "status":
                return JSONResponse({"error": {"message": "the engine is busy"}}, status_code=503)
            return StreamingResponse(self.chunks(fault), media_type="text/event-stream")
        if self.version == 2 and "seed" in body:
            await self.streamed_new.wait()  # so that the background has seen the new version before the demo ends
        prompt = body["messages"][0]["content"]
        texts = [self.text(prompt, body.get("seed"), index) for index in range(body["n"])]
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ]
        ids = [f"{random.getrandbits(64):x}-{index}" for index in range(body["n"])]
        ratchet = {"policy_version": self.version, "completion_ids": ids}
        return JSONResponse({"choices": choices, "ratchet": ratchet})

    def text(self, prompt: str, seed: int | None, index: int) -> str:
        center = 24 if self.version == 1 else self.words_after
        words = center + random.Random(f"{prompt}{seed}{index}{self.version}").randrange(-2, 3)
        return "word " * (words - 1) + "word."

    async def chunks(self, fault: str | None) -> AsyncIterator[str]:
        version = {"policy_version": self.version}
        yield data({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "ratchet": version})
        yield ": ping\n\n"
        for _ in range(3):
            yield data({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})
        if fault == "error":
            yield data({"error": {"message": "the engine died"}})
        if fault != "no finish":
            yield data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield data({"choices": [], "usage": {"completion_tokens": 3}})
        if fault != "no done":
            yield "data: [DONE]\n\n"
        if version["policy_version"] == 2:
            self.streamed_new.set()

    async def judge(self, request: Request) -> dict[str, Any]:
        self.feedback.append(await request.json())
        return {"object": "feedback", "id": f"fb_{len(self.feedback)}"}

    async def open_round(self) -> dict[str, Any]:
        self.rounds_opened += 1
        return self.record("queued")

    async def round(self, id: int) -> dict[str, Any]:
        self.polls += 1
        if self.polls < self.polls_until_end:
            return self.record("running")
        if self.outcome == "published" and self.serves:
            self.version = 2
        return self.record(self.outcome)

    async def policies(self) -> dict[str, Any]:
        return {"served": self.version, "last_swap": {"to_version": 2, "pause_s": 0.31, "held_s": 0.52}}

    def record(self, state: str) -> dict[str, Any]:
        progress = {"stage": "ppo", "step": 2, "total": 8, "eta_s": 41.0, "metrics": {"kl": 0.02}}
        metrics = {
            "reward": {"loss": 0.6, "held_out": {"prompts": 6, "accuracy": {"mean": 0.71, "low": 0.6, "high": 0.8}}},
            "gate": {"gate/kl": 1.5, "checks": []},
        }
        reason = {"refused": "the score did not rise", "failed": "out of memory"}.get(state)
        return {
            "id": 7,
            "state": state,
            "stage": "ppo",
            "restarts": 0,
            "progress": progress if state == "running" else {},
            "metrics": metrics if state in ("published", "refused") else {},
            "reason": reason,
            "policy_version": 2 if state == "published" else None,
        }


def data(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


@pytest.fixture(autouse=True)
def eager_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "NEXT_CHAT_AFTER_S", 0.001)


async def play(fake: Fake, options: DemoOptions = OPTIONS) -> tuple[DemoReport, str]:
    output = io.StringIO()
    console = Console(file=output, width=110)
    report = await run_demo(options, console, transport=httpx.ASGITransport(fake.app()))
    return report, output.getvalue()


async def test_a_service_that_learns(tmp_path: Path) -> None:
    fake = Fake()
    path = tmp_path / "demo.json"
    report, output = await play(fake, replace(OPTIONS, json_path=path))
    assert (report.verdict, report.exit_code) == ("improved", 0)
    # 24 words score 0.5 and 10 words 0.9375, each word more or less 1/32 of a point (cut at 1).
    assert all(0.43 < value < 0.57 for value in report.before) and len(report.before) == 8
    assert all(0.87 < value <= 1.0 for value in report.after) and len(report.after) == 8
    assert report.change is not None
    assert report.change.mean == pytest.approx(sum(report.after) / 8 - sum(report.before) / 8)
    assert 0.35 < report.change.low < report.change.mean < report.change.high < 0.5
    assert (report.policies_before, report.policies_after, report.round) == ((1,), (2,), 7)
    assert (report.reward_accuracy, report.kl, report.swap_pause_s, report.rankings) == (0.71, 1.5, 0.31, 12)
    assert report.traffic.chats == fake.streams > 0 and report.traffic.failures == ()
    assert report.traffic.chats_during_swap > 0 and report.traffic.longest_gap_during_swap_s is not None
    assert list(report.seconds) == ["before", "ask", "rank", "train", "swap", "after"]
    for shown in ("v1 → v2", "0.710", "1.500", "0.31 s", "0.52 s", "(6 prompts)", f"{fake.streams} / 0", "improved"):
        assert shown in output
    saved = json.loads(path.read_text())
    assert saved["exit_code"] == 0 and saved["change"]["low"] == report.change.low
    assert saved["before"] == list(report.before) and saved["traffic"]["failures"] == []


async def test_the_same_held_out_questions_before_and_after() -> None:
    fake = Fake()
    await play(fake)
    asked = [body for body in fake.bodies if body.get("n") == 4]
    seeded = [(body["messages"][0]["content"], body["seed"]) for body in asked if "seed" in body]
    training = {body["messages"][0]["content"] for body in asked if "seed" not in body}
    assert len(seeded) == 16 and sorted(seeded[:8]) == sorted(seeded[8:]) and len(set(seeded)) == 8
    assert len(training) == 12 and not training & {prompt for prompt, _ in seeded}
    assert all(("seed" in body) == (body.get("metadata") == {"consent": "false"}) for body in asked)
    assert all(body["temperature"] == 1.0 and body["max_tokens"] == 8 for body in asked)


async def test_the_preference_is_never_sent() -> None:
    fake = Fake()
    await play(fake)
    sent = json.dumps(fake.bodies + fake.feedback)
    assert "brevity" not in sent and "preference" not in sent
    assert {key for body in fake.feedback for key in body} == {
        *("type", "candidates", "ranking", "user", "client_id"),
        *("left", "right", "winner", "completion_id", "value"),
    }


async def test_judgements_are_what_the_ledger_accepts() -> None:
    fake = Fake()
    await play(fake)
    adapter: TypeAdapter[Any] = TypeAdapter(Judgement)
    kinds = []
    for body in fake.feedback:
        judgement = {key: value for key, value in body.items() if key not in ("user", "client_id")}
        kinds.append(type(adapter.validate_python(judgement)))
    assert [kinds.count(kind) for kind in (Ranking, Comparison, Rating)] == [12, 3, 3]
    assert len({body["client_id"] for body in fake.feedback}) == 18
    assert {body["user"] for body in fake.feedback} <= {f"demo-rater-{place}" for place in range(12)}


async def test_the_same_seed_plays_the_same_demo() -> None:
    first, second, other = [(await play(Fake(), replace(OPTIONS, seed=seed)))[0] for seed in (5, 5, 6)]
    assert (first.before, first.after, first.change) == (second.before, second.after, second.change)
    assert first.before != other.before


async def test_a_refused_gate_is_told_plainly() -> None:
    report, output = await play(Fake(outcome="refused"))
    assert (report.verdict, report.exit_code) == ("refused", 3)
    assert "the gate of round 7 refused the new policy: the score did not rise" in output
    assert len(report.before) == 8 and report.after == () and report.change is None
    assert report.reward_accuracy == 0.71


async def test_a_failed_round() -> None:
    report, output = await play(Fake(outcome="failed"))
    assert (report.verdict, report.exit_code) == ("failed", 3)
    assert "round 7 failed: out of memory" in output


async def test_published_but_never_served() -> None:
    report, output = await play(Fake(serves=False), replace(OPTIONS, swap_timeout_s=0.05))
    assert (report.verdict, report.exit_code) == ("not served", 3)
    assert "policy-v2 was published, but after 0.05 s policy-v1 serves" in output


async def test_a_round_that_never_ends() -> None:
    report, _ = await play(Fake(polls_until_end=10**9), replace(OPTIONS, timeout_minutes=1 / 60))
    assert (report.verdict, report.exit_code) == ("out of time", 3)
    assert report.traffic.failures == ()


async def test_no_change_is_no_success() -> None:
    report, _ = await play(Fake(words_after=24))
    assert (report.verdict, report.exit_code) == ("unclear", 1)
    assert report.change is not None and report.change.low < 0 < report.change.high


async def test_a_wrong_key_ends_with_the_service_own_words() -> None:
    report, output = await play(Fake(), replace(OPTIONS, key="rk-other"))
    assert (report.verdict, report.exit_code) == ("stopped", 1)
    assert "POST /v1/chat/completions: 401: no such key" in output


@pytest.mark.parametrize(
    "answer", [Response("<html>hello</html>"), JSONResponse({"choices": []}), JSONResponse([1]), JSONResponse("hi")]
)
async def test_a_service_that_is_not_ratchet_is_said_so(answer: Response) -> None:
    async def chat(request: Request) -> Response:
        return answer

    fake = Fake()
    fake.chat = chat  # type: ignore[method-assign]
    report, output = await play(fake)
    assert (report.verdict, report.exit_code) == ("stopped", 1)
    assert "POST /v1/chat/completions: what answers there is not Ratchet" in " ".join(output.split())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("status", "503: the engine is busy"),
        ("error", "the engine died"),
        ("no finish", "the stream ended without a finish_reason"),
        ("no done", "the stream ended without [DONE]"),
    ],
)
async def test_one_failed_stream_fails_the_demo(fault: str, message: str) -> None:
    report, output = await play(Fake(stream_fault=fault))
    assert (report.verdict, report.exit_code) == ("requests failed", 1)
    assert report.traffic.failures == (message,)
    assert report.change is not None and report.change.low > 0
    assert message in output


class Broken(httpx.AsyncByteStream):
    """A connection that breaks after one line."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield data({"choices": [{"index": 0, "delta": {"content": "word"}}]}).encode()
        raise httpx.ReadError("connection reset")


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (Broken(), "ReadError: connection reset"),
        (httpx.ByteStream(b'data: {"choices": [{}]}\n\n'), "KeyError: 'delta'"),
        (httpx.ByteStream(b"data: <html>\n\n"), "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ],
)
async def test_a_broken_stream_is_a_failed_chat(stream: httpx.AsyncByteStream, error: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=stream))
    async with httpx.AsyncClient(transport=transport, base_url="http://fake") as client:
        chat = await Service(client).chat("hello", user="guest", max_tokens=4)
    assert chat.error == error


def test_gaps_are_measured_between_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [data({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})] * 4
    lines += [data({"choices": [{"delta": {}, "finish_reason": "stop"}]}), "data: [DONE]\n\n"]
    clock = iter([100.0, 101.5, 101.6, 104.1, 104.2, 110.0])  # start, four tokens, end
    monkeypatch.setattr(crowd, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    reader = crowd._StreamReader()
    for line in "".join(lines).splitlines():
        reader.read(line)
    chat = reader.result()
    assert (chat.started, chat.finished, chat.error) == (100.0, 110.0, None)
    assert chat.first_token_s == pytest.approx(1.5) and chat.longest_gap_s == pytest.approx(2.5)


def test_chats_around_the_swap() -> None:
    def chat(started: float, finished: float, version: int | None) -> Chat:
        return Chat(started, finished, 0.1, finished - started, version, None)

    background = BackgroundChats.__new__(BackgroundChats)
    through, last_old, first_new = chat(5, 9, 1), chat(8, 12, 1), chat(9.5, 11, 2)
    background.chats = [chat(0, 2, 1), through, last_old, first_new, chat(13, 15, 2)]
    # The last start under version 1 is at 8, the first end under version 2 at 11.
    assert background.during_swap(1, 2) == [through, last_old, first_new]
    assert background.during_swap(1, 3) == []


def test_equal_answers_are_tied_and_bad_pairs_are_called_bad() -> None:
    answers = tuple(Answer(f"c{index}", text, "stop", 1) for index, text in enumerate(["no end", "cut off", "never"]))
    asked = Asked("why?", "demo-rater-0", answers)
    ranking, comparison = judgements(asked, brevity, place=1, noise=1.0, generator=random.Random(0))
    assert ranking["ranking"] == [["c0", "c1", "c2"]] and ranking["candidates"] == ["c0", "c1", "c2"]
    assert comparison["winner"] == "both_bad"


def test_the_thumb_follows_the_score() -> None:
    answers = (Answer("good", "This is short.", "stop", 1), Answer("bad", "cut", "length", 1))
    for seed in range(8):
        asked = Asked("why?", "demo-rater-0", answers)
        _, rating = judgements(asked, brevity, place=3, noise=0.0, generator=random.Random(seed))
        assert rating["value"] == (1 if rating["completion_id"] == "good" else -1)


def test_prompts_are_split_by_seed_without_overlap() -> None:
    prompts = split_prompts(64, 32, seed=1)
    sets = [set(prompts.training), set(prompts.held_out), set(prompts.background)]
    assert [len(prompts.training), len(prompts.held_out)] == [64, 32]
    assert len(set.union(*sets)) == sum(map(len, sets)) >= 140
    assert all(prompt.strip() == prompt != "" for prompt in set.union(*sets))
    assert split_prompts(64, 32, seed=1) == prompts != split_prompts(64, 32, seed=2)
    with pytest.raises(ValueError, match="^--prompts 200: there are [0-9]+, beside 32 to measure by$"):
        split_prompts(200, 32, seed=0)


def test_verdict_needs_an_interval_clear_of_zero() -> None:
    assert judge(Interval(0.2, 0.01, 0.4), Traffic())[0] == "improved"
    assert judge(Interval(0.2, 0.0, 0.4), Traffic())[0] == "unclear"
    assert "worse" in judge(Interval(-0.2, -0.4, -0.1), Traffic())[1]
    assert judge(Interval(0.2, 0.1, 0.4), Traffic(failures=("lost",)))[0] == "requests failed"


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="preference must be one of brevity, detail, plain"):
        replace(OPTIONS, preference="kindness")
    with pytest.raises(ValueError, match="candidates"):
        replace(OPTIONS, candidates=1)


def test_plain_progress_speaks_once_per_phase() -> None:
    output = io.StringIO()
    line = ProgressLine(Console(file=output))
    for step in range(5):
        line.show("ask", f"{step}/5")
    line.show("rank", "0/5")
    line.end()
    assert output.getvalue().splitlines() == ["ask: 0/5", "rank: 0/5"]


def test_markup_in_answers_is_printed_as_it_is() -> None:
    output = io.StringIO()
    report = DemoReport("plain", 0, "unclear", "why [not]", example={"before": "[red]a[/red]\n[/b]"})
    show(report, Console(file=output, width=100))
    assert "[red]a[/red] [/b]" in output.getvalue() and "why [not]" in output.getvalue()


async def test_gather_all_cancels_the_rest_when_one_fails() -> None:
    waiting = asyncio.Event()
    cancelled = []

    async def wait() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fail() -> None:
        await waiting.wait()
        raise KeyError("lost")

    with pytest.raises(KeyError):
        await gather_all([wait(), fail()])
    await asyncio.wait_for(_until(cancelled), 5)


async def _until(happened: list[bool]) -> None:
    while not happened:
        await asyncio.sleep(0)


def test_in_a_pipe_a_line_that_says_nothing_new_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.demo.report.PLAIN_LINE_EVERY_S", 0.0)
    written = io.StringIO()
    line = ProgressLine(Console(file=written, width=80))
    for note in ("0/6", "0/6", "0/6", "1/6"):
        line.show("round 2: ppo", note)
    assert written.getvalue().splitlines() == ["round 2: ppo: 0/6", "round 2: ppo: 1/6"]
