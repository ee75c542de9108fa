"""`ratchet feedback`: files in and out of a real ledger."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from feedback.judgements import Feedback, Rating
from feedback.records import Completion, Message
from feedback.settings import load_secrets
from feedback.store import Ledger, connect
from serving.cli import app
from serving.commands.feedback import _opened
from serving.commands.shared import Failure

LINES = [{"prompt": f"prompt {n}", "chosen": "good", "rejected": "bad"} for n in range(5)]


@pytest.fixture
def home(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "home"
    load_secrets(directory)
    monkeypatch.setenv("RATCHET_HOME", str(directory))
    monkeypatch.setenv("RATCHET_REDIS_URL", valkey_url)
    return directory


@pytest.fixture
def ledger(home: Path, valkey_url: str) -> Ledger:
    return Ledger(connect(valkey_url))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["feedback", *map(str, arguments)])


def written(path: Path, lines: list[object]) -> Path:
    raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def test_what_is_imported_can_be_exported(ledger: Ledger, tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.jsonl.gz", [*LINES, {"prompt": "x"}])
    messages = [{"role": "user", "content": "hi"}]
    thumbs = written(tmp_path / "thumbs.jsonl", [{"messages": messages, "response": "x", "up": 1, "down": 0}])
    result = run("import", pairs, thumbs, "--split", "train")
    assert result.exit_code == 0, result.output
    report = tmp_path / "pairs.jsonl.gz.rejected.jsonl"
    assert result.output.splitlines() == [
        f"{pairs} (trl): 6 lines, 5 judgements new, 0 known, 1 lines rejected (see {report})",
        f"{thumbs} (thumbs): 1 lines, 1 judgements new, 0 known, 0 lines rejected",
    ]
    assert json.loads(report.read_text()) == {"line": 6, "reason": "chosen is missing"}
    assert {item.split for item in ledger.standing(ledger.watermark())} == {"train"}
    out = tmp_path / "out.jsonl"
    result = run("export", "--format", "trl", "--out", out)
    assert result.output == f"5 lines in {out}\n"
    assert {json.loads(line)["prompt"][0]["content"] for line in out.read_text().splitlines()} == {
        f"prompt {n}" for n in range(5)
    }
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl"]
    again = run("import", pairs, "--split", "train")
    assert "5 judgements new, 0 known" in again.output
    assert again.output.endswith("lines up to 6 were read before\n")


def test_a_backup_of_this_installation_keeps_its_versions_also_where_redis_was_lost(
    ledger: Ledger, tmp_path: Path, home: Path
) -> None:
    messages = (Message(role="user", content="hi"),)
    answer = Completion(
        id="a:0", response_id="a", choice=0, conversation_id="c", rater="r", messages=messages, text="one",
        prompt_token_ids=(1,), completion_token_ids=(2,), logprobs=(), sampling={}, finish_reason="stop",
        policy_version=3, created=1.0,
    )  # fmt: skip
    ledger.append_answer(answer.frame(model="m"), [answer])
    rating = Rating(completion_id=answer.id, value=1)
    ledger.append_feedback(Feedback(id="fb_1", judgement=rating, rater="r", split="train", created=1.0))
    backup = tmp_path / "backup.jsonl"
    run("export", "--format", "ratchet", "--out", backup)
    for version in (3, None):
        ledger.redis.flushall()
        assert "1 judgements new" in run("import", backup).output
        assert ledger.completions((answer.id,))[answer.id].policy_version == version
        (home / "secrets.json").unlink()  # from here on it is another installation
        load_secrets(home)


def test_export_to_standard_output_holds_lines_only(ledger: Ledger, tmp_path: Path) -> None:
    run("import", written(tmp_path / "pairs.jsonl", LINES), "--split", "train")
    result = run("export", "--format", "trl", "--limit", 2)
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 2
    assert result.stderr == "2 lines\n"


def test_an_export_overwrites_nothing(ledger: Ledger, tmp_path: Path) -> None:
    run("import", written(tmp_path / "pairs.jsonl", LINES), "--split", "train")
    mine = tmp_path / "mine.jsonl"
    mine.write_text("mine")
    result = run("export", "--format", "trl", "--out", mine)
    assert (result.exit_code, result.stderr) == (1, f"ratchet: {mine} exists: nothing is overwritten\n")
    assert mine.read_text() == "mine"
    late = tmp_path / "late.jsonl"
    with pytest.raises(Failure, match="nothing is overwritten"), _opened(late) as file:
        file.write(b"ours")
        late.write_text("theirs")
    assert late.read_text() == "theirs"


def test_dry_run_names_what_would_be_new(ledger: Ledger, tmp_path: Path) -> None:
    result = run("import", written(tmp_path / "pairs.jsonl", LINES), "--dry-run")
    assert "5 judgements would be new" in result.output
    assert ledger.watermark() == "0"


def test_faults_are_one_line(ledger: Ledger, tmp_path: Path) -> None:
    odd = written(tmp_path / "odd.jsonl", [{"question": 1}])
    assert "not recognised; with --format, format must be one of arena" in run("import", odd).output
    assert "format must be one of arena, auto" in run("import", odd, "--format", "csv").output
    assert "format must be one of arena, hh" in run("export", "--format", "csv").output
    assert "soon is no time" in run("export", "--format", "trl", "--since", "soon").output
    cut = written(tmp_path / "cut.jsonl.gz", LINES)
    cut.write_bytes(cut.read_bytes()[:-12])
    result = run("import", cut, "--format", "trl")
    assert result.exit_code == 1
    assert "is damaged after line" in result.output
    assert "the same command goes on" in result.output


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    count = 8000
    lines = [{"prompt": f"prompt {n}", "chosen": "good", "rejected": "bad"} for n in range(count)]
    path = written(tmp_path / "big.jsonl", lines)
    command = [sys.executable, "-m", "serving.cli", "feedback", "import", str(path), "--split", "train"]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ledger.redis.keys("import:*"):
        assert time.monotonic() < deadline, "nothing was imported"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    stopped = re.search(r"stopped after line (\d+); run the same command again to go on", stderr)
    assert stopped is not None, stderr
    assert 0 < ledger.redis.xlen("feedback") < count
    result = run("import", path, "--split", "train")
    assert result.output.endswith(f"lines up to {stopped[1]} were read before\n")
    assert len(ledger.standing(ledger.watermark())) == ledger.redis.xlen("feedback") == count
