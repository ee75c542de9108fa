"""`ratchet rm` as people start it: real processes on a tiny base model, without Redis or an installation."""

import fcntl
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.reward_fit import Fit, RatingFit
from tests.conftest import wait_for
from tests.training.conftest import write_tiny_base

SHAPE = {"lora_rank": 4, "lora_alpha": 8, "lora_layers": 2}
CONFIG = {"reward": {**SHAPE, "checkpoint_every": 1, "batch_rankings": 4}}
WEIGHTS = ("adapter_model.safetensors", "head.safetensors")
SECONDS = 240  # a process imports torch and transformers, on slow machines beside others

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Where there is no installation, and no Redis."""
    told = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_REDIS_URL": "redis://127.0.0.1:1/0"}
    return {**os.environ, **told, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERMINAL_WIDTH": "200"}


@pytest.fixture
def rm(env: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), env=env, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    return run


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "serving.cli", "rm", *map(str, arguments)]


def judgements(path: Path, count: int) -> Path:
    """Rankings of three answers by how many of four letters are z, two lines that are none, gzipped."""
    draw = random.Random(0)
    lines: list[Any] = []
    for _ in range(count):
        goods = [draw.randrange(5) for _ in range(3)]
        answers = ["".join(draw.sample("z" * good + "xyxy"[: 4 - good], 4)) for good in goods]
        asked = [{"role": "user", "content": "".join(draw.choice("abcdef") for _ in range(6))}]
        lines.append({"messages": asked, "responses": answers, "ranks": [4 - good for good in goods]})
    texts = [json.dumps(line) for line in lines]
    texts[2:2] = ['{"messages": ', '{"messages": [], "responses": ["a", "b"], "ranks": [0, 1]}']
    path.write_bytes(gzip.compress("\n".join(texts).encode()))
    return path


@pytest.fixture
def given(tmp_path: Path, base: Path) -> list[object]:
    """What names the judgements, the base and the config."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    file = judgements(tmp_path / "rankings.jsonl.gz", 40)
    return ["--from", file, "--base", base, "--config", config, "--learning-rate", 0.01]


def weights(out: Path) -> list[bytes]:
    return [(out / "reward" / name).read_bytes() for name in WEIGHTS]


def test_from_a_file_to_scores(rm: Run, given: list[object], tmp_path: Path) -> None:
    out, html = tmp_path / "rm", tmp_path / "rm.html"
    result = rm("train", *given, "--out", out, "--epochs", 6, "--classifier", "--html", html)
    assert result.returncode == 0, result.stderr
    assert "rankings.jsonl.gz, line 3: the line is not JSON" in result.stderr
    assert "rankings.jsonl.gz, line 4: messages must be a list of messages" in result.stderr
    assert "reward 1/" in result.stderr and "loss" in result.stderr
    report = json.loads((out / "report.json").read_text())
    counts = report["counts"]
    assert (counts["rankings"] + counts["held_out_rankings"], report["config"]["reward"]["epochs"]) == (40, 6)
    trained = f"{counts['rankings']} rankings and 0 ratings of {counts['prompts']} prompts trained"
    measured = f"{counts['held_out_rankings']} rankings of {counts['held_out_prompts']} others measured"
    assert result.stdout.splitlines() == [
        f"written to {html}", f"{out}: {trained}, {measured}, 2 lines refused"
    ]  # fmt: skip
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [each["line"] for each in rejected] == [3, 4]
    assert (out / "classifier" / "model.safetensors").exists()
    assert html.read_text().startswith("<!doctype html>")
    exported = rm("export", out, tmp_path / "exported")
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.startswith(f"{tmp_path / 'exported'}: the reward model of {out}, as AutoModelForSequence")
    one, other = (
        (directory / "model.safetensors").read_bytes() for directory in (out / "classifier", tmp_path / "exported")
    )
    assert one == other

    again = rm("train", *given, "--out", out, "--epochs", 6)
    assert (again.returncode, again.stdout) == (2, "")
    assert "holds a finished reward model, which is never overwritten: give another --out" in again.stderr

    evaluated = rm("eval", out, *given[:2], "--json")
    found = json.loads(evaluated.stdout)
    assert (found["left_out"], found["rejected"], found["name"]) == (counts["rankings"], 2, str(out))
    ours, theirs = Fit.model_validate(found["held_out"]), Fit.model_validate(report["held_out"])
    assert (ours.pairs, ours.accuracy.mean) == (theirs.pairs, pytest.approx(theirs.accuracy.mean))
    assert ours.accuracy.mean > 0.8

    lines = [json.dumps({"prompt": "abc", "response": text, "n": n}) for n, text in enumerate(["zzzz", "xyxy"])]
    scored = rm("score", out, stdin="\n".join([lines[0], "no line", lines[1]]) + "\n")
    assert scored.returncode == 1
    assert scored.stderr.startswith("line 2: the line is not JSON")
    first, second = (json.loads(line) for line in scored.stdout.splitlines())
    assert (first["n"], second["n"], second["response"]) == (0, 1, "xyxy")
    assert first["score"] > second["score"]
    rankings = rm("score", out, given[1])
    assert (rankings.returncode, len(rankings.stderr.splitlines())) == (1, 2)
    ranked = [json.loads(line) for line in rankings.stdout.splitlines()]
    assert [len(line["scores"]) for line in ranked] == [3] * 40
    hits = [x > y for line in ranked for x, y in combinations_in_order(line["ranks"], line["scores"])]
    assert sum(hits) / len(hits) > 0.8
    file = tmp_path / "answers.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    from_file = rm("score", out, file)
    assert (from_file.returncode, from_file.stderr) == (0, "")
    assert [json.loads(line)["score"] for line in from_file.stdout.splitlines()] == pytest.approx(
        [first["score"], second["score"]], abs=1e-5
    )


def test_thumbs_are_measured_where_there_are_no_pairs(rm: Run, given: list[object], tmp_path: Path) -> None:
    draw, lines = random.Random(1), []
    for n in range(40):
        good = draw.random() < 0.5
        lines.append(json.dumps({"prompt": f"q{n}", "completion": "zzzz" if good else "xyxy", "label": good}))
    file, out, html = tmp_path / "thumbs.jsonl", tmp_path / "rm", tmp_path / "rm.html"
    file.write_text("\n".join(lines))
    trained = rm("train", "--from", file, *given[2:], "--out", out, "--epochs", 4)
    assert trained.returncode == 0, trained.stderr
    known = json.loads((out / "report.json").read_text())["counts"]["ratings"]
    found = json.loads(rm("eval", out, "--from", file, "--json").stdout)
    ratings = RatingFit.model_validate(found["ratings"])
    assert (found["held_out"], found["left_out"], ratings.ratings) == (None, known, 40 - known)
    assert ratings.log_loss.mean < 0.6
    shown = rm("eval", out, "--from", file, "--html", html)
    assert (shown.returncode, html.exists()) == (0, False)
    text = " ".join(shown.stdout.replace("│", " ").split())
    assert f"log-loss of ratings {ratings.log_loss.mean:.3f} " in text
    assert f"nats on {40 - known} ratings of {40 - known} prompts, {ratings.approval:.0%} approval" in text
    assert "no held-out ranking in which one answer is preferred, hence no page" in text
    assert f"{known} judgements on prompts that it has learned from are left out" in text


def combinations_in_order(ranks: list[int], scores: list[float]) -> list[tuple[float, float]]:
    """The scores of each two answers of which one is better, its first."""
    pairs = [sorted(pair) for pair in combinations(zip(ranks, scores, strict=True), 2)]
    return [(better[1], worse[1]) for better, worse in pairs if better[0] < worse[0]]


def test_the_table_is_shown(rm: Run, given: list[object], tmp_path: Path) -> None:
    result = rm("train", *given, "--out", tmp_path / "rm", "--epochs", 1, "--seed", 3, "--held-out", 0.5)
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith(f"reward model of {tmp_path / 'rm'}: ")
    assert any(line.startswith("accuracy ") and "a coin has 0.5" in line for line in lines), result.stdout
    assert not any(line.startswith("beside the last") for line in lines)
    report = json.loads((tmp_path / "rm" / "report.json").read_text())
    assert (report["seed"], report["config"]["reward"]["held_out_fraction"]) == (3, 0.5)


def test_killed_or_interrupted_the_same_command_goes_on_to_the_same_weights(
    rm: Run, given: list[object], env: dict[str, str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = [*given, "--epochs", 12]
    assert rm("train", *arguments, "--out", whole).returncode == 0

    def steps() -> int:
        return max((int(path.name.removeprefix("step-")) for path in broken.glob("checkpoints/step-*")), default=0)

    def begin() -> subprocess.Popen[str]:
        """In the background of a script, where Ctrl-C is ignored."""
        process = subprocess.Popen(
            command("train", *arguments, "--out", broken), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )  # fmt: skip
        before = steps()
        wait_for(lambda: steps() > before or process.poll() is not None, seconds=SECONDS, what="a checkpoint")
        return process

    killed = begin()
    killed.kill()
    killed.communicate()
    wait_for(lambda: is_free(broken / ".lock"), seconds=30, what="the end of the child")
    reached = steps()
    assert reached > 0 and not (broken / "report.json").exists()

    interrupted = begin()
    child = int(Path(f"/proc/{interrupted.pid}/task/{interrupted.pid}/children").read_text())
    for pid in (child, interrupted.pid):  # as a service manager does
        os.kill(pid, signal.SIGTERM)
    _, told = interrupted.communicate(timeout=SECONDS)
    assert interrupted.returncode == 130, told
    assert "stopped after step" in told and "the same command goes on from the last checkpoint" in told
    assert steps() > reached and not (broken / "report.json").exists()

    last = rm("train", *arguments, "--out", broken, "--json")
    assert last.returncode == 0, last.stderr
    assert weights(broken) == weights(whole)
    reports = [json.loads((out / "report.json").read_text()) for out in (broken, whole)]
    assert reports[0] == reports[1]
    assert json.loads(last.stdout)["held_out"] == reports[0]["held_out"]


def is_free(path: Path) -> bool:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "--out", "{tmp}/rm", "--from", "{tmp}/none.jsonl"], "{tmp}/none.jsonl: no such file"),
        (["eval", "{tmp}", "--format", "csv"], "format must be one of arena, auto, "),
        (["score", "{tmp}", "{tmp}/none.jsonl"], "{tmp}/none.jsonl: no such file"),
        (["score", "{tmp}", "{tmp}/none.jsonl", "--ledger"], "give a file or --ledger, not both"),
        (["train", "--out", "{tmp}/rm"], "there is no installation in {tmp}/home: "),
    ],
)
def test_faults_are_one_line(arguments: list[str], complaint: str, rm: Run, tmp_path: Path) -> None:
    result = rm(*(each.format(tmp=tmp_path) for each in arguments))
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert result.stderr.startswith(f"ratchet: {complaint.format(tmp=tmp_path)}")
    assert result.stderr.count("\n") == 1
