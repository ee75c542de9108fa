"""The gateway's log: a line for each request, and nothing that people wrote or keep secret."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.people.keys import KeyRing
from feedback.settings import Settings
from feedback.store import connect
from serving.logs import JsonFormatter
from serving.machine.childlog import ChildLog
from serving.machine.terminal import Terminal
from serving.machine.up import gateway_spec
from tests.conftest import free_port, wait_for

ROOT = Path(__file__).parents[3]
PROMPT = "my-secret-question"
WORD = "veiled"
DEMONSTRATION = "my-secret-correction"
WRONG_KEY = "rk-wrong-and-secret"


class GatewayProcess:
    """`python -m serving` with a real ledger and the fake engine; its stderr goes to a file."""

    def __init__(self, settings: Settings, log: Path, format: str) -> None:
        port = free_port()
        self.log, self.url = log, f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                stderr=stderr,
                cwd=ROOT,
                env=environment
                | {
                    "RATCHET_HOME": str(settings.home),
                    "RATCHET_REDIS_URL": str(settings.redis_url),
                    "RATCHET_ENGINE_URL": str(settings.engine_url),
                    "RATCHET_ENGINE_KEY": str(settings.engine_key),
                    "RATCHET_PORT": str(port),
                    "RATCHET_LOG_FORMAT": format,
                },
            )
        wait_for(self.ready, seconds=60, what="the gateway's start")

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").is_success
        except httpx.TransportError:
            return False

    def end(self) -> str:
        self.process.terminate()
        self.process.wait(timeout=20)
        return self.log.read_text()


@pytest.fixture
def key(settings: Settings) -> str:
    return KeyRing(connect(settings.resolved_redis_url()), settings.secrets().pepper).create(name="root", role="admin")


def use(url: str, key: str) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
    """A chat, a correction of the answer, and a call with a wrong key."""
    headers = {"authorization": f"Bearer {key}", "x-client-request-id": "mine-1"}
    body = {"model": "policy", "messages": [{"role": "user", "content": PROMPT}]}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        chat = http.post("/v1/chat/completions", json=body)
        id = chat.json()["ratchet"]["completion_ids"][0]
        correction = {"type": "demonstration", "completion_id": id, "content": DEMONSTRATION}
        said = http.post("/v1/feedback", json=correction)
        refused = http.get(f"/v1/models/{PROMPT}", headers={"authorization": f"Bearer {WRONG_KEY}"})
    assert (chat.status_code, said.status_code, refused.status_code) == (200, 201, 401)
    assert WORD in chat.json()["choices"][0]["message"]["content"]
    return chat, said, refused


@pytest.mark.parametrize("format", ["json", "text"])
def test_the_log_has_a_line_for_each_request_and_no_secrets(
    settings: Settings, shelf: Any, key: str, tmp_path: Path, format: str
) -> None:
    shelf.publish(1, move=0.4, word=WORD)
    gateway = GatewayProcess(settings, tmp_path / "gateway.log", format)
    try:
        chat, said, refused = use(gateway.url, key)
    finally:
        log = gateway.end()
    for secret in (key, WRONG_KEY, PROMPT, WORD, DEMONSTRATION, "Bearer", str(settings.engine_key)):
        assert secret not in log
    for response in (chat, said, refused):
        [line] = [line for line in log.splitlines() if response.headers["x-request-id"] in line]
        assert str(response.status_code) in line
    if format == "json":
        check_fields([json.loads(line) for line in log.splitlines()], chat, refused)


def check_fields(lines: list[dict[str, Any]], chat: httpx.Response, refused: httpx.Response) -> None:
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any("swap" in line["message"] for line in lines), "other loggers write here too"
    by_id = {line["request_id"]: line for line in lines if line["logger"] == "serving.access"}
    line = by_id[chat.headers["x-request-id"]]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["level"], line["client_request_id"], line["response_id"]) == ("INFO", "mine-1", chat.json()["id"])
    assert line["key_id"]
    assert 0 < line["seconds"] < 30
    unknown = by_id[refused.headers["x-request-id"]]
    assert (unknown["route"], unknown["status"]) == ("/v1/models/{id}", 401)
    assert "key_id" not in unknown
    assert "/ready" not in [line["route"] for line in by_id.values() if line["status"] == 200], "probes are no news"


async def test_what_a_client_calls_its_request_is_kept_only_if_it_can_stand_in_a_line(
    live: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="serving.access")
    sent = {"fine-1": True, "a b": False, "x" * 64: True, "x" * 65: False, "ä": False, "": False}
    for id, kept in sent.items():
        caplog.clear()
        answer = await live.http.get("/v1/models", headers={"x-client-request-id": id.encode("latin-1")})
        assert answer.headers["x-request-id"].startswith("req_")
        [record] = caplog.records
        assert record.access.get("client_request_id") == (id if kept else None)  # type: ignore[attr-defined]


async def test_a_bug_is_counted_and_answered_with_the_id_that_its_traceback_carries(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [handler])

    def stumble() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(live.gateway.registry, "states", stumble)
    answer = await live.http.get("/v1/policies")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert "ZeroDivisionError" in line["exception"]
    assert line["request_id"] == answer.headers["x-request-id"]
    metrics = (await live.http.get("/metrics")).text
    assert 'ratchet_requests_total{method="GET",route="/v1/policies",status="500"} 1.0' in metrics


def test_an_exception_stays_one_line_of_json() -> None:
    try:
        raise ValueError("it\nbroke")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "cannot %s", ("go on",), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["message"]) == ("ERROR", "cannot go on")
    assert "ValueError: it\nbroke" in line["exception"]


@pytest.fixture
def shown(settings: Settings, tmp_path: Path) -> Iterator[list[str]]:
    """What the terminal of `ratchet up` shows of lines that the gateway writes."""
    lines: list[str] = []

    class Listening(Terminal):
        def relay(self, name: str, line: str) -> None:
            lines.append(line)

    log = ChildLog(tmp_path / "x.log", name="gateway", terminal=Listening(), shown=gateway_spec(settings).shown)
    reading, writing = os.pipe()
    written = [
        '{"time": "T", "level": "INFO", "logger": "serving.access", "message": "client_request_id=ERROR status=500"}',
        "2026-01-01 00:00:00,000 INFO serving.access: method=GET route=other status=404 client_request_id=ERROR",
        '{"time": "T", "level": "WARNING", "logger": "serving.chat", "message": "not stored"}',
        "2026-01-01 00:00:00,000 ERROR serving.hotswap: swap FAILED",
    ]
    os.write(writing, "\n".join(written).encode())
    os.close(writing)
    log._copy(os.fdopen(reading, "rb"))
    yield lines


def test_requests_do_not_flood_the_terminal_and_troubles_reach_it(shown: list[str]) -> None:
    assert ["not stored" in line or "swap FAILED" in line for line in shown] == [True, True]
