"""`python -m training.rm` in this process: on a ledger, on a version, and what it says when it cannot."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.policies.manifest import Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from tests.training.people import RM, SHAPE, People, file_of, planted
from training import rm
from training.config import RewardConfig
from training.offline.progress_line import described
from training.offline.reward_models import in_directory
from training.offline.run_directory import REPORT, Plan

Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs it where there is no installation."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_REDIS_URL", "redis://127.0.0.1:1/0")

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["rm", *map(str, arguments)])
        return rm.main()

    return run


@pytest.fixture
def installed(people: People, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs it on the people's installation."""
    assert people.settings.redis_url is not None
    monkeypatch.setenv("RATCHET_REDIS_URL", people.settings.redis_url)
    monkeypatch.setenv("RATCHET_EVALUATION_SHARE", "0")  # or everything that one person says may be held out
    (people.settings.home / "round.json").write_text(json.dumps({"reward": {**RM, "epochs": 1}}))
    version(people, 0, kind="base", parent=None)
    for n in range(20):
        people.compare(f"p{n}")
    return command


def version(people: People, number: int, **fields: Any) -> None:
    """Publish what stands in the version's directory."""
    registry = PolicyRegistry(people.redis, people.settings.policies_dir)
    directory = registry.directory(number)
    directory.mkdir(parents=True, exist_ok=True)
    known = {
        "version": number, "base_model": "tiny", "dtype": "float32", "model_path": str(people.base), "created": 0.0,
        "files": describe_files(directory), "weights": {}, "golden": (), "golden_logprobs": (),
    }  # fmt: skip
    write_manifest(directory, Manifest.model_validate(known | fields))
    registry.publish(number, actor="test", reason="test")


def test_the_ledger_by_the_installations_config_and_up_to_where_it_was_begun(
    people: People,
    installed: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "rm"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.offline.reward.train_reward_model", stop)
        assert installed("train", "--out", out, "--learning-rate", 0.02) == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err
    begun = Plan.kept(out)
    assert begun is not None and (begun.source, begun.watermark) == ("ledger", people.ledger.watermark())
    people.compare("later")
    assert installed("train", "--out", out, "--learning-rate", 0.02) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["rankings"] + found["counts"]["held_out_rankings"] == 20
    assert (found["watermark"], found["data"]) == (begun.watermark, begun.data)
    reward = found["config"]["reward"]
    assert (reward["learning_rate"], reward["epochs"], reward["lora_rank"]) == (0.02, 1, SHAPE["lora_rank"])
    assert (reward["warmup"], reward["decay"]) == (0.1, True)
    assert installed("eval", out) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["held_out"]["pairs"] >= found["held_out"]["pairs"]
    assert evaluated["left_out"] == 0


@pytest.mark.parametrize(
    ("config", "options", "rate"),
    [({}, (), 1e-5), ({"learning_rate": 2e-3}, (), 2e-3), ({"learning_rate": 2e-3}, ("--learning-rate", 3e-3), 3e-3)],
)
def test_all_weights_train_at_a_rate_of_their_own(
    config: dict[str, float], options: tuple[object, ...], rate: float, command: Command, base_directory: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = file_of(tmp_path / "config.json", [{"reward": {**SHAPE, "epochs": 1, **config}}])
    file, out = file_of(tmp_path / "rankings.jsonl", planted(20)), tmp_path / "rm"
    shared = ("--out", out, "--from", file, "--base", base_directory, "--config", given)
    assert command("train", *shared, "--full", *options) == 0
    reward = json.loads(capsys.readouterr().out)["config"]["reward"]
    assert (reward["trains"], RewardConfig(**reward).rate) == ("full", rate)
    assert (out / "reward" / "layers.safetensors").exists()


def test_a_version_scores_as_the_directory_that_it_came_from(
    people: People, installed: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, lines = tmp_path / "rm", file_of(tmp_path / "lines.jsonl", [{"prompt": "p", "completion": "zz"}, b"{\n"])
    assert installed("train", "--out", out) == 0
    trained = json.loads(capsys.readouterr().out)
    directory = PolicyRegistry(people.redis, people.settings.policies_dir).directory(1)
    directory.mkdir(parents=True)
    (directory / "reward").symlink_to(out / "reward")
    config = json.loads((out / REPORT).read_text())["config"]
    version(people, 1, kind="trained", parent=0, config=config, metrics={"reward": trained["fitted"]})
    capsys.readouterr()
    assert [installed("score", name, lines) for name in (out, 1, "policy-v1", "v1")] == [1] * 4
    told = capsys.readouterr()
    scores = [json.loads(line)["score"] for line in told.out.splitlines()]
    assert scores == [scores[0]] * 4
    assert told.err.count("line 2: the line is not JSON") == 4
    assert installed("score", 1, "--ledger") == 0
    judged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["completion_id"] for each in judged] == [f"ann-p{n}-{side}:0" for n in range(20) for side in (0, 1)]
    assert all(isinstance(each["score"], float) for each in judged)
    assert installed("eval", 1) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "policy-v1"
    assert in_directory(out).config.lora_rank == SHAPE["lora_rank"]
    assert [installed("export", name, tmp_path / f"of-{n}") for n, name in enumerate((out, 1))] == [0, 0]
    assert json.loads(capsys.readouterr().out.splitlines()[1]) == {
        "name": "policy-v1", "classifier": str(tmp_path / "of-1")
    }  # fmt: skip
    one, other = ((tmp_path / f"of-{n}" / "model.safetensors").read_bytes() for n in (0, 1))
    assert one == other
    assert installed("export", 1, tmp_path / "of-1") == 2
    assert "exists and is never overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("train --out {tmp}/rm", "there is no installation in {tmp}/home: start one"),
        ("train --out {tmp}/rm --from {few}", "there is no base model in {tmp}/home/models/"),
        ("train --out {tmp}/rm --from {few} --base {tmp}/none", "{tmp}/none is no directory: give --base DIR"),
        ("train --out {tmp}/rm --from {few} --base {tmp}", "{tmp}/config.json cannot be read"),
        ("train --out {tmp}/rm --from {tmp}/none --base {base}", "{tmp}/none: no such file"),
        ("train --out {tmp}/rm --from {few} --base {base} --format csv", "format must be one of arena, auto"),
        ("train --out {tmp}/rm --from {few} --base {base}", "too little to learn from: "),
        ("train --out {tmp}/rm --from {few} --base {base} --strict", "{few}, line 5: the line is not JSON"),
        ("train --out {tmp}/rm --from {few} --base {base} --epochs 0", "config: reward"),
        ("train --out {tmp}/rm --from {few} --base {base} --config {few}", "{few} is not JSON"),
        ("eval {tmp}", "{tmp} holds no finished reward model"),
        ("export {tmp} {tmp}/classifier", "{tmp} holds no finished reward model"),
        ("score rm-of-mine", "rm-of-mine is neither a directory of `ratchet rm train` nor a version, such as 3"),
        ("score 3", "there is no installation in {tmp}/home"),
    ],
)
def test_faults_are_one_line(
    arguments: str, complaint: str, command: Command, base_directory: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    few = file_of(tmp_path / "few.jsonl", [*planted(4), b'{"\n'])
    places = {"tmp": tmp_path, "base": base_directory, "few": few}
    assert command(*arguments.format(**places).split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    *_, last = told.err.splitlines()
    assert last.startswith(f"ratchet: {complaint.format(**places)}")
    assert not (tmp_path / "rm").exists()


def test_redis_that_is_down_is_named(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Settings(home=tmp_path / "home").secrets()
    assert command("score", 3) == 2
    assert "is `ratchet up` running?" in capsys.readouterr().err


def test_progress_tells_rate_and_rest() -> None:
    """18 steps in 9 seconds; 132 more take 66."""
    told = described("reward", 28, 160, {"reward/loss": 0.61234}, elapsed_s=9.0, first=10)
    assert told == "reward 28/160, loss 0.612, 2.00/s, 1:06 to go"
    assert described("reward", 10, 160, {}, elapsed_s=9.0, first=10) == "reward 10/160"


def test_progress_of_ppo_tells_what_fits_on_a_line() -> None:
    names = (
        "ppo/clipfrac",
        "completion/length",
        "objective/score",
        "objective/entropy",
        "objective/kl",
        "seconds/update",
    )
    told = described("ppo", 1, 6, {name: float(i) for i, name in enumerate(names)}, elapsed_s=0.0, first=1)
    assert told == "ppo 1/6, score 2.000, kl 4.000, entropy 3.000, length 1.000"
