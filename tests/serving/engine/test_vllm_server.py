"""How the vLLM server is started, and the middleware of ours that runs inside it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from feedback.settings import Settings
from serving.engine.guard import RequireKey
from serving.machine import vllm_server


def test_engine_command_keeps_its_key_out_of_argv(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for gpu in (False, True):
        command = vllm_server.engine_command(settings, Path("model"), "float32", gpu=gpu)
        assert command.env["VLLM_API_KEY"] == settings.resolved_engine_key()
        assert settings.resolved_engine_key() not in " ".join(command.argv)
        assert command.argv[command.argv.index("--dtype") + 1] == "float32"
        assert ("--enforce-eager" in command.argv, "--enable-lora" in command.argv) == (not gpu, gpu)
    # With the default of one, a second adapter waits for ever while the first has traffic.
    assert int(command.argv[command.argv.index("--max-loras") + 1]) >= 3


def test_what_else_the_engine_is_told_counts_but_not_where_it_listens(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, engine_mode="adapter", engine_args="--gpu-memory-utilization 0.8 --seed '7'")
    argv = vllm_server.engine_command(settings, Path("model"), "float32", gpu=True, port=9).argv
    assert argv[-8:] == ("--gpu-memory-utilization", "0.8", "--seed", "7", "--host", "127.0.0.1", "--port", "9")
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.5", "training has the other half of the card"
    with pytest.raises(ValidationError, match="no shell would take this"):
        Settings(home=tmp_path, engine_args="--seed '7")


def test_few_cores_are_all_used() -> None:
    argv, env = vllm_server.few_cores(2)
    assert argv == ["--distributed-executor-backend", "uni"]
    assert env["OMP_NUM_THREADS"] == "2"
    assert vllm_server.few_cores(16) == ([], {})


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/pause", [], 401),
        ("/pause", [(b"authorization", b"Bearer wrong")], 401),
        ("/pause", [(b"authorization", b"Bearer right")], 200),
        ("/health", [], 200),
        ("/health/../pause", [], 401),
    ],
)
async def test_engine_guard(
    path: str, headers: list[tuple[bytes, bytes]], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "right")
    sent: list[Any] = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await RequireKey(vllm)({"type": "http", "path": path, "headers": headers}, receive, send)
    assert sent[0]["status"] == status


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("(EngineCore pid=7) ERROR 11-23 00:17:23 [core.py:1512] RuntimeError: Executor failed.", True),
        ("(EngineCore pid=7) ERROR 11-23 00:17:23 [core.py:1512] Traceback (most recent call last):", False),
        ('(EngineCore pid=7) ERROR 11-23 00:17:23 [core.py:1512]   File "core.py", line 1551, in run', False),
        ("(EngineCore pid=7) WARNING 11-23 00:17:23 [cpu.py:224] Triton is not installed.", False),
        ("(APIServer pid=9) ERROR 11-24 03:53:35 [validation.py:151] RequestValidationError caught.", False),
        ("(APIServer pid=9) ERROR 11-24 03:52:19 [hermes_tool_parser.py:117] Error in extracting tool call.", False),
    ],
)
def test_of_a_traceback_only_the_cause_is_shown(line: str, shown: bool) -> None:
    assert bool(vllm_server.SHOWN.search(line)) == shown
