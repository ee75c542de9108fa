"""`python -m training.finetune` in this process: on files and on a ledger, and what it says when it cannot."""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.judgements import Demonstration
from feedback.policies.manifest import Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from tests.training.conftest import write_tiny_base
from tests.training.people import RM, SHAPE, People, file_of, planted
from training import finetune, rm
from training.config import RoundConfig
from training.offline import reward as offline_reward
from training.offline.run_directory import REJECTED, REPORT, Plan

Command = Callable[..., int]
PPO = {"iterations": 2, "rollouts_per_iteration": 4, "minibatch": 4, "microbatch": 4, "max_new_tokens": 4}
CONFIG = {"sft": {**SHAPE, "epochs": 1}, "reward": {**RM, "epochs": 1}, "ppo": PPO}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a reward model."""
    here = tmp_path_factory.mktemp("finished")
    base = write_tiny_base(here / "base")
    config = RoundConfig.from_dict({**CONFIG, "ppo": {**SHAPE, **PPO}})
    data = offline_reward.of_file(file_of(here / "r.jsonl", planted(20)), "auto", base=base, config=config)
    offline_reward.train_on(data, source="planted", base=base, out=here / "rm")
    return here


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs one of the modules where there is no installation."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_REDIS_URL", "redis://127.0.0.1:1/0")

    def run(name: str, *arguments: object) -> int:
        module = rm if name == "rm" else finetune
        words = ["train", *arguments] if name == "rm" else [name, *arguments]
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        return module.main()

    return run


@pytest.fixture
def installed(people: People, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs it on the people's installation, of which version 0 is the base model."""
    assert people.settings.redis_url is not None
    monkeypatch.setenv("RATCHET_REDIS_URL", people.settings.redis_url)
    monkeypatch.setenv("RATCHET_EVALUATION_SHARE", "0")
    ppo = {**SHAPE, **PPO}
    (people.settings.home / "round.json").write_text(json.dumps({**CONFIG, "ppo": ppo}))
    registry = PolicyRegistry(people.redis, people.settings.policies_dir)
    directory = registry.directory(0)
    directory.mkdir(parents=True)
    write_manifest(directory, Manifest(
        version=0, kind="base", parent=None, base_model="tiny", dtype="float32", model_path=str(people.base),
        created=0.0, files=describe_files(directory), weights={}, golden=(), golden_logprobs=(),
    ))  # fmt: skip
    registry.publish(0, actor="test", reason="test")
    for n in range(20):
        people.compare(f"p{n}")
        [shown] = people.ask(f"p{n}", ["zz"], "ann")
        people.say(Demonstration(completion_id=shown.id, content="better"), "ann")
    return command


def test_from_files_to_a_policy(
    command: Command, base_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    chats = [{"messages": [{"role": "user", "content": f"p{n}"}, {"role": "assistant", "content": "z"}]}
             for n in range(8)]  # fmt: skip
    rankings, shown = file_of(tmp_path / "r.jsonl", planted(20)), file_of(tmp_path / "s.jsonl", [*chats, b"{\n"])
    given = ["--base", base_directory, "--config", config]
    assert command("rm", "--from", rankings, "--out", tmp_path / "rm", *given) == 0
    capsys.readouterr()
    assert command("sft", "--from", shown, "--out", tmp_path / "sft", "--epochs", 3, "--seed", 4, *given) == 0
    sft = json.loads(capsys.readouterr().out)
    assert (sft["counts"]["demonstrations"], sft["rejected"], sft["seed"]) == (8, 1, 4)
    assert (sft["config"]["sft"]["epochs"], sft["fitted"]["steps"]) == (3, 3)
    assert json.loads((tmp_path / "sft" / REJECTED).read_text())["line"] == 9
    ppo = ["--prompts", rankings, "--reward", tmp_path / "rm", "--policy", tmp_path / "sft", "--config", config]
    assert command("ppo", *ppo, "--out", tmp_path / "ppo", "--iterations", 3, "--kl-coef", 0.2, "--merged") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found == {
        "name": str(tmp_path / "ppo"),
        "rejected": 0,
        **json.loads((tmp_path / "ppo" / REPORT).read_text()),
    }
    assert (found["config"]["ppo"]["kl_coef"], found["config"]["ppo"]["lora_rank"]) == (0.2, SHAPE["lora_rank"])
    assert len(found["history"]) == 3 and found["counts"]["prompts"] == 20
    assert (tmp_path / "ppo" / "merged" / "model.safetensors").exists()
    assert "ppo 0/3" in told.err


def test_on_the_ledger_up_to_where_it_was_begun(
    people: People, installed: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    assert installed("rm", "--out", tmp_path / "rm") == 0
    commands = [
        ("sft", "train_sft", ("--out", tmp_path / "sft")),
        ("ppo", "train_ppo", ("--out", tmp_path / "ppo", "--reward", tmp_path / "rm", "--policy", tmp_path / "sft")),
    ]
    for name, train, arguments in commands:
        with monkeypatch.context() as patch:
            patch.setattr(f"training.offline.policy.{train}", stop)
            assert installed(name, *arguments) == 130
        assert "the same command goes on from the last checkpoint" in capsys.readouterr().err
        begun = Plan.kept(tmp_path / name)
        assert begun is not None and (begun.source, begun.watermark) == ("ledger", people.ledger.watermark())
        people.compare(f"later than {name}")
        assert installed(name, *arguments) == 0, capsys.readouterr().err
        found = json.loads(capsys.readouterr().out)
        assert (found["watermark"], found["data"], found["stage"]) == (begun.watermark, begun.data, name)


@pytest.mark.parametrize("during", ["prompts_of_file", "opposed", "train_ppo"])
def test_stopped_while_it_loads_a_run_stands_where_it_was_left(
    during: str, command: Command, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"training.offline.policy.{during}", stop)
    out, asked = tmp_path / "ppo", file_of(tmp_path / "p.jsonl", planted(20))
    ppo = ["ppo", "--prompts", asked, "--reward", finished / "rm", "--out", out]
    assert command(*ppo) == 130
    first = "stopped" if during == "prompts_of_file" else "stopped before the first step; the same command goes on"
    assert capsys.readouterr().err.splitlines()[-1].startswith(first)
    (out / "checkpoints" / "step-00000003").mkdir(parents=True)
    assert command(*ppo) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "stopped after step 3; the same command goes on from the last checkpoint"


def test_nothing_goes_on_with_what_was_erased(
    people: People, installed: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    people.ask("of somebody else", ["zz"], "bob")
    assert installed("rm", "--out", tmp_path / "rm") == 0
    arguments = ("--out", tmp_path / "ppo", "--reward", tmp_path / "rm")
    with monkeypatch.context() as patch:
        patch.setattr("training.offline.policy.train_ppo", stop)
        assert installed("ppo", *arguments) == 130
    Eraser(Archive(people.ledger)).person("bob")
    assert installed("ppo", *arguments) == 2
    assert "was begun with prompts of which some were erased: remove it" in capsys.readouterr().err


@pytest.mark.parametrize(("serves", "threads"), [(True, 1), (False, 2)])
def test_half_of_few_cores_only_where_an_engine_serves(
    serves: bool, threads: int, command: Command, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two cores; whatever else is wrong is found out later."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    with socket.create_server(("127.0.0.1", 0)) as engine:
        port = engine.getsockname()[1]
        if not serves:
            engine.close()
        monkeypatch.setenv("RATCHET_ENGINE_PORT", str(port))
        few = file_of(tmp_path / "few.jsonl", [b'{"\n'])
        assert command("sft", "--out", tmp_path / "o", "--from", few, "--base", finished / "base") == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("sft --out {tmp}/o", "there is no installation in {tmp}/home: start one"),
        ("sft --out {tmp}/o --from {few}", "there is no base model in {tmp}/home/models/"),
        ("sft --out {tmp}/o --from {tmp}/none --base {base}", "{tmp}/none: no such file"),
        ("sft --out {tmp}/o --from {few} --base {base}", "there is no demonstration to learn from (rejected: 1)"),
        ("sft --out {tmp}/o --from {few} --base {base} --strict", "{few}, line 5: the line is not JSON"),
        ("sft --out {tmp}/o --from {few} --base {base} --epochs 0", "config: sft"),
        ("sft --out {tmp}/o --from {few} --base {base} --format csv", "format must be one of arena, auto"),
        ("ppo --out {tmp}/o --prompts {few} --reward {tmp}", "{tmp} holds no finished reward model"),
        ("ppo --out {tmp}/o --prompts {few} --reward mine", "mine is neither a directory of `ratchet rm train` nor"),
        ("ppo --out {tmp}/o --prompts {few} --reward 3", "there is no installation in {tmp}/home"),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --policy {tmp}", "{tmp} holds no finished policy: `ratchet"),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --iterations 0", "config: ppo"),
        (
            "ppo --out {tmp}/o --prompts {few} --reward {rm} --config {other}",
            "config: ppo has lora_rank 5, lora_layers None, but the reward model lora_rank 8, lora_layers 2, and both",
        ),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --config {odd}", "config: sft, reward and ppo must be JSON"),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --format csv", "format must be one of arena, auto"),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --strict", "{few}, line 5: the line is not JSON"),
        ("ppo --out {tmp}/o --prompts {few} --reward {rm} --max-new-tokens 500", "there is no prompt to practise on ("),
        ("ppo --out {tmp}/o --reward {rm}", "there is no installation in {tmp}/home"),
    ],
)
def test_faults_are_one_line(
    arguments: str, complaint: str, command: Command, finished: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    few = file_of(tmp_path / "few.jsonl", [*planted(4), b'{"\n'])
    shape = {"lora_rank": 5, "lora_alpha": SHAPE["lora_alpha"], "lora_layers": None}
    other = file_of(tmp_path / "other.json", [{"ppo": {**PPO, **shape}}])
    odd = file_of(tmp_path / "odd.json", [{"ppo": 3}])
    places = {"other": other, "odd": odd, "tmp": tmp_path, "base": finished / "base", "few": few, "rm": finished / "rm"}
    name, *rest = arguments.format(**places).split()
    assert command(name, *rest) == 2
    told = capsys.readouterr()
    assert told.out == ""
    *_, last = told.err.splitlines()
    assert last.startswith(f"ratchet: {complaint.format(**places)}"), last
    assert not (tmp_path / "o").exists()
