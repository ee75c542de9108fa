"""`ratchet sft` and `ratchet ppo` as people start them: real processes on a tiny base, without Redis."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app
from tests.conftest import wait_for
from tests.training.conftest import write_tiny_base
from tests.training.people import SHAPE, file_of, planted
from training.config import PPOConfig, RewardConfig, RoundConfig, SFTConfig

SECONDS = 240  # a process imports torch and transformers, on slow machines beside others
PPO = {"iterations": 60, "rollouts_per_iteration": 4, "minibatch": 4, "microbatch": 4, "max_new_tokens": 4}

Ratchet = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "serving.cli", *map(str, arguments)]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Where there is no installation, and no Redis."""
    told = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_REDIS_URL": "redis://127.0.0.1:1/0"}
    return {**os.environ, **told, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERMINAL_WIDTH": "200"}


@pytest.fixture
def ratchet(env: dict[str, str]) -> Ratchet:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    return run


def test_from_files_to_a_policy_interrupted_once(ratchet: Ratchet, env: dict[str, str], tmp_path: Path) -> None:
    base, config = write_tiny_base(tmp_path / "base"), tmp_path / "config.json"
    config.write_text(json.dumps({"sft": SHAPE, "reward": SHAPE, "ppo": PPO}))
    rankings = file_of(tmp_path / "rankings.jsonl.gz", planted(20))
    chats = [{"messages": [{"role": "user", "content": f"p{n}"}], "demonstration": "zz"} for n in range(12)]
    measured = {"messages": [{"role": "user", "content": "new"}], "demonstration": "zz", "split": "eval"}
    shown = file_of(tmp_path / "shown.jsonl", [*chats, b"{\n", measured])
    asked = file_of(tmp_path / "prompts.jsonl", [{"prompt": f"p{n}"} for n in range(12)])
    given = ["--base", base, "--config", config]
    fitted = ratchet("rm", "train", "--from", rankings, "--out", tmp_path / "rm", "--epochs", 1, *given)
    assert fitted.returncode == 0, fitted.stderr

    sft = ratchet("sft", "train", "--from", shown, "--out", tmp_path / "sft", "--epochs", 1, *given)
    assert sft.returncode == 0, sft.stderr
    assert "shown.jsonl, line 13: the line is not JSON" in sft.stderr and "sft 0/2" in sft.stderr
    assert sft.stdout.startswith(f"{tmp_path / 'sft'}: 12 demonstrations, loss ")
    assert " nats per token in 2 steps, " in sft.stdout
    assert sft.stdout.endswith(" on 1 held out, 1 lines refused\n")

    out = tmp_path / "ppo"
    ppo = ["ppo", "train", "--prompts", asked, "--reward", tmp_path / "rm", "--policy", tmp_path / "sft",
           "--out", out, "--config", config, "--merged"]  # fmt: skip
    process = subprocess.Popen(command(*ppo), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoints = out / "checkpoints"
    wait_for(
        lambda: any(checkpoints.glob("step-*")) or process.poll() is not None, seconds=SECONDS, what="a checkpoint"
    )
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, told
    assert "stopped after step" in told and "the same command goes on from the last checkpoint" in told
    reached = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    assert 0 < reached < PPO["iterations"]
    stopped = CliRunner().invoke(app, ["report", "--run", str(out), "--json"])
    assert stopped.exit_code == 0, stopped.output
    assert reached <= len(json.loads(stopped.stdout)["curves"]["score"]) <= PPO["iterations"]

    again = subprocess.Popen(command(*ppo), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{again.pid}/task/{again.pid}/children")
    wait_for(children.read_text, seconds=SECONDS, what="the child, which has all its imports before it")
    os.kill(int(children.read_text()), signal.SIGINT)
    _, told = again.communicate(timeout=SECONDS)
    assert again.returncode == 130, told
    assert told == f"stopped after step {reached}; the same command goes on from the last checkpoint\n"

    other = ratchet(*ppo, "--seed", 1)
    assert (other.returncode, other.stdout) == (2, "")
    assert (
        other.stderr.splitlines()[-1]
        == f"ratchet: {out} was begun with seed 0, not 1: remove it, or give another --out"
    )

    last = ratchet(*ppo)
    assert last.returncode == 0, last.stderr
    assert f"ppo {reached}/60" in last.stderr
    assert last.stdout.startswith(f"{out}: 60 iterations on 12 prompts, score ")
    assert {"policy", "merged", "report.json"} <= {path.name for path in out.iterdir()}
    told = CliRunner().invoke(app, ["report", "--run", str(out)])
    assert told.stdout.startswith(f"PPO of {out}, iterations: 60 of 60\n"), told.output


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("sft", [(SFTConfig(), "epochs"), (SFTConfig(), "learning_rate")]),
        ("rm", [(RewardConfig(), "epochs"), (RewardConfig(), "rate"), (RewardConfig(), "held_out_fraction")]),
        ("ppo", [(PPOConfig(), n) for n in ("iterations", "kl_coef", "max_new_tokens", "learning_rate")]),
    ],
)
def test_help_tells_what_training_does_by_default(name: str, defaults: list[tuple[object, str]]) -> None:
    told = CliRunner().invoke(app, [name, "train", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output
    lines = [line for line in told.splitlines() if "(default: " in line]
    for config, field in [*defaults, (RoundConfig(), "seed")]:
        option = {"rate": "learning-rate", "held_out_fraction": "held-out"}.get(field, field.replace("_", "-"))
        [line] = [line for line in lines if f"--{option} " in line]
        assert f"(default: {getattr(config, field)})" in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sft", "train", "--out", "{tmp}/o", "--from", "{tmp}/none"], "{tmp}/none: no such file"),
        (["sft", "train", "--out", "{tmp}/o", "--format", "prompts"], "format must be one of arena, auto, "),
        (
            ["ppo", "train", "--out", "{tmp}/o", "--reward", "1", "--format", "csv"],
            "format must be one of arena, auto, ",
        ),
        (["ppo", "train", "--out", "{tmp}/o", "--reward", "1"], "there is no installation in {tmp}/home: "),
    ],
)
def test_faults_are_one_line(arguments: list[str], complaint: str, ratchet: Ratchet, tmp_path: Path) -> None:
    result = ratchet(*(each.format(tmp=tmp_path) for each in arguments))
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert result.stderr.startswith(f"ratchet: {complaint.format(tmp=tmp_path)}")
    assert result.stderr.count("\n") == 1
