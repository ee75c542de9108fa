"""Policies outside of rounds, on a tiny base: what a file gives, what is left, and what a run goes on with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from feedback.judgements import Demonstration
from feedback.records import Message
from tests.training.people import SHAPE, People, file_of, planted
from training.config import RoundConfig
from training.model.export import MERGED
from training.model.samples import Sample, encode_chat, encode_demonstration
from training.model.trunk import Trunk
from training.offline import policy as offline_policy
from training.offline import reward as offline_reward
from training.offline.datafile import BadLines
from training.offline.demonstrations import Demonstrations, demonstrations_of_file, demonstrations_of_ledger
from training.offline.policy import POLICY, Practice, policy_in, prompts_kept
from training.offline.promptfile import read_prompts
from training.offline.reward_models import RewardModel, in_directory
from training.offline.run_directory import REPORT, CannotTrain, Plan, PolicyReport
from training.ppo.collapse import Collapsed
from training.round.stages import TextEncoder

SFT = {**SHAPE, "learning_rate": 1e-2, "epochs": 4, "checkpoint_every": 2}
PPO = {
    **SHAPE, "iterations": 3, "rollouts_per_iteration": 8, "minibatch": 4, "microbatch": 4, "max_new_tokens": 6,
    "learning_rate": 1e-2, "value_learning_rate": 1e-2,
}  # fmt: skip
CONFIG = RoundConfig.from_dict({"sft": SFT, "reward": {**SHAPE, "learning_rate": 1e-2, "max_tokens": 64}, "ppo": PPO})
USER = {"role": "user", "content": "hi"}
GOOD = {"role": "assistant", "content": "good"}
SYSTEM = {"role": "system", "content": "be kind"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def demonstrations(tmp_path: Path, base_directory: Path) -> Demonstrations:
    lines: list[Any] = [
        {"messages": [user(f"p{n}"), {"role": "assistant", "content": "zzzz"}]} | ({"split": "eval"} if n > 19 else {})
        for n in range(23)
    ]
    path = file_of(tmp_path / "chats.jsonl.gz", lines)
    return demonstrations_of_file(path, "auto", base=base_directory)


@pytest.fixture
def practice(tmp_path: Path, base_directory: Path) -> Practice:
    path = file_of(tmp_path / "prompts.jsonl", [{"prompt": f"p{n}"} for n in range(6)])
    return offline_policy.prompts_of_file(path, "auto", base=base_directory, config=CONFIG)


@pytest.fixture
def model(tmp_path: Path, base_directory: Path) -> RewardModel:
    path = file_of(tmp_path / "planted.jsonl", planted(20))
    data = offline_reward.of_file(path, "auto", base=base_directory, config=CONFIG)
    offline_reward.train_on(data, source="planted", base=base_directory, out=tmp_path / "rm")
    return in_directory(tmp_path / "rm")


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ({"prompt": "hi"}, [USER]),
        ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"messages": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"messages": [USER, GOOD]}, [USER]),
        ({"messages": [USER, GOOD, user("more"), GOOD]}, [USER, GOOD, user("more")]),
        ({"prompt": "hi", "completion": "good"}, [USER]),
        ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, [USER]),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad"}, [USER]),
        ({"messages": [USER], "responses": ["a", "b"], "ranks": [0, 1]}, [USER]),
        ({"messages": [SYSTEM, USER], "demonstration": "good"}, [SYSTEM, USER]),
    ],
)
def test_the_prompt_of_a_line(
    line: dict[str, Any], asked: Sequence[dict[str, str]], tmp_path: Path, base_directory: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    path = file_of(tmp_path / "one.jsonl", [line])
    found = offline_policy.prompts_of_file(path, "auto", base=base_directory, config=CONFIG)
    assert found.prompts == (tuple(encode_chat(tokenizer, asked, True)),)


def test_prompts_are_distinct_may_train_and_leave_room_for_an_answer(tmp_path: Path, base_directory: Path) -> None:
    """Of 64 tokens an answer takes up to 6; a letter is one, and the template adds as many as it does to nothing."""
    wordless = len(TextEncoder(base_directory).prompt((Message(role="user", content=""),)))
    room = 64 - 6 - wordless
    lines = [
        {"prompt": "a"}, b"{\n", {"messages": [user("b")]}, {"prompt": "a"}, {"prompt": "c", "split": "eval"},
        {"prompt": "x" * room}, {"prompt": "x" * (room + 1)}, {"question": "d"}, {"messages": [GOOD]},
    ]  # fmt: skip
    path = file_of(tmp_path / "prompts.jsonl", lines)
    found = offline_policy.prompts_of_file(path, "auto", base=base_directory, config=CONFIG)
    encode = TextEncoder(base_directory).prompt
    expected = [encode((Message(role="user", content=text),)) for text in ("a", "b", "x" * room)]
    assert list(found.prompts) == expected
    assert found.counts == {"prompts": 3, "too_long": 1, "unencodable": 0, "rejected": 3}
    with pytest.raises(BadLines, match="prompts.jsonl, line 2: the line is not JSON"):
        offline_policy.prompts_of_file(path, "auto", base=base_directory, config=CONFIG, strict=True)


def test_what_cannot_be_encoded_is_counted_once(tmp_path: Path) -> None:
    def encode(messages: Sequence[Message]) -> tuple[int, ...]:
        if messages[0].content == "bad":
            raise ValueError("cannot")
        return (len(messages[0].content),)

    path = file_of(tmp_path / "p.jsonl", [{"prompt": text} for text in ("bad", "fine", "bad", "four")])
    assert read_prompts(path, "prompts", encode, max_tokens=9)._asdict() == {
        "ids": ((4,),), "too_long": 0, "unencodable": 1, "rejected": 0
    }  # fmt: skip


def test_who_only_evaluates_gives_nothing_that_trains(tmp_path: Path, base_directory: Path) -> None:
    """But demonstrations to measure by, save of prompts that train."""

    def line(asked: str, split: str) -> dict[str, Any]:
        return {"messages": [user(asked)], "demonstration": "good", "rater": split, "split": split}

    path = file_of(tmp_path / "d.jsonl", [line("ours", "train"), line("theirs", "eval"), line("ours", "eval")])
    shown = demonstrations_of_file(path, "auto", base=base_directory)
    asked = offline_policy.prompts_of_file(path, "auto", base=base_directory, config=CONFIG)
    ours, theirs = (TextEncoder(base_directory).prompt((Message(**user(text)),)) for text in ("ours", "theirs"))
    assert [sample.prompt_ids for sample in shown.samples] == [ours] == list(asked.prompts)
    assert [sample.prompt_ids for sample in shown.held_out] == [theirs]
    assert shown.counts == {"demonstrations": 1, "held_out_demonstrations": 1, "unencodable": 0, "rejected": 0}


def test_sft_leaves_an_adapter_and_a_whole_model_that_others_load(
    demonstrations: Demonstrations, base_directory: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    out = tmp_path / "sft"
    report = offline_policy.sft_on(
        demonstrations, config=CONFIG, source="chats", base=base_directory, out=out, merged=True
    )
    assert report.counts == {"demonstrations": 20, "held_out_demonstrations": 3, "unencodable": 0, "rejected": 0}
    assert report.fitted["held_out"] == 3
    assert report.fitted["held_out_after"] < report.fitted["held_out_before"] - 1
    assert report.fitted["last_loss"] < report.fitted["first_loss"] - 1
    assert PolicyReport.model_validate_json((out / REPORT).read_text()) == report
    assert {path.name for path in out.iterdir()} == {".lock", "run.json", REPORT, POLICY, MERGED}
    sample = encode_demonstration(tokenizer, [user("new")], "zzzz")
    base = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
    before = answer_loss(base, sample)
    whole = answer_loss(AutoModelForCausalLM.from_pretrained(out / MERGED, dtype=torch.float32), sample)
    adapter = answer_loss(PeftModel.from_pretrained(base, out / POLICY), sample)
    assert adapter < before - 1
    assert whole == pytest.approx(adapter, abs=0.05)  # merged weights are rounded to the base's bf16
    assert AutoTokenizer.from_pretrained(out / MERGED).chat_template == tokenizer.chat_template


@torch.no_grad()
def answer_loss(model: Any, sample: Sample) -> float:
    """Nats per completion token."""
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    log_probs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
    return float(-log_probs[len(sample.prompt_ids) - 1 :].mean())


def test_ppo_begins_as_the_policy_that_it_is_given_and_measures_kl_from_it(
    demonstrations: Demonstrations, practice: Practice, model: RewardModel, base_directory: Path, tmp_path: Path
) -> None:
    sft = tmp_path / "sft"
    offline_policy.sft_on(demonstrations, config=CONFIG, source="chats", base=base_directory, out=sft)
    trunk = offline_policy.opposed(model, policy_in(sft), CONFIG)
    states = [trunk.state(role) for role in ("policy", "ref")]
    expected = Trunk.load(base_directory, CONFIG.sft)
    expected.load_adapter("policy", sft / POLICY)
    for name, tensor in expected.state("policy").items():
        assert all(torch.equal(state[name], tensor) for state in states)
    report = ppo_on(practice, model, tmp_path / "ppo", policy=policy_in(sft))
    assert len(report.history) == 3 and report.history[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert set(report.given) == {"reward model", "policy"}
    assert report.counts["prompts"] == 6
    again = offline_policy.opposed(model, policy_in(tmp_path / "ppo", base_directory), CONFIG)
    assert not all(torch.equal(again.state("policy")[name], tensor) for name, tensor in states[0].items())


def test_the_policy_that_is_left_is_told_of_and_held_to_the_bounds(
    practice: Practice, model: RewardModel, tmp_path: Path
) -> None:
    once = replace(CONFIG, ppo=replace(CONFIG.ppo, iterations=1))
    report = ppo_on(practice, model, tmp_path / "left", once)
    assert report.history[0]["objective/kl"] == pytest.approx(0, abs=1e-6)
    assert report.fitted["objective/kl"] > 1e-3 and report.fitted["ppo/steps"] > 0
    strict = replace(once, ppo=replace(once.ppo, collapse_kl=report.fitted["objective/kl"] / 2))
    with pytest.raises(Collapsed, match="after the last update"):
        ppo_on(practice, model, tmp_path / "lost", strict)
    assert not (tmp_path / "lost" / REPORT).exists() and not (tmp_path / "lost" / POLICY).exists()


def ppo_on(
    practice: Practice, model: RewardModel, out: Path, config: RoundConfig = CONFIG, **more: Any
) -> PolicyReport:
    given = {"policy": None, "source": "prompts", "config": config} | more
    return offline_policy.ppo_on(practice, model=model, out=out, **given)


class Killed(BaseException):
    pass


def stop(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
    raise Killed


def test_prompts_count_by_their_weights_and_are_kept_with_them(
    practice: Practice, model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def train(*_: Any, **given: Any) -> None:
        told.update(given)
        raise Killed

    monkeypatch.setattr(offline_policy, "train_ppo", train)
    weighted = practice._replace(weights=(2.0, 0.5, 0.5, 1.0, 1.0, 1.0), responses=("a", "b"))
    with pytest.raises(Killed):
        ppo_on(weighted, model, tmp_path / "ppo")
    assert told["weights"] == weighted.weights
    assert prompts_kept(tmp_path / "ppo") == weighted


def test_a_run_goes_on_with_nothing_else(
    practice: Practice, demonstrations: Demonstrations, model: RewardModel, base_directory: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "ppo", tmp_path / "other"
    with pytest.raises(Killed):
        ppo_on(practice, model, out, progress=stop)
    with pytest.raises(CannotTrain, match="was begun with kl_coef 0.1, not 0.5: remove it, or give another --out"):
        ppo_on(practice, model, out, replace(CONFIG, ppo=replace(CONFIG.ppo, kl_coef=0.5)))
    with pytest.raises(CannotTrain, match="was begun with prompts "):
        ppo_on(practice._replace(watermark="sha256:0"), model, out)
    with pytest.raises(CannotTrain, match="was begun with other prompts, some of which are gone"):
        ppo_on(practice._replace(prompts=practice.prompts[1:]), model, out)
    with pytest.raises(CannotTrain, match="was begun with `ratchet ppo train`: remove it"):
        offline_policy.sft_on(demonstrations, config=CONFIG, source="chats", base=base_directory, out=out)
    offline_policy.sft_on(demonstrations, config=CONFIG, source="chats", base=base_directory, out=other)
    with pytest.raises(CannotTrain, match="was begun with policy none, not "):
        ppo_on(practice, model, out, policy=policy_in(other))
    trained = next(model.directory / name for name in ("adapter_model.safetensors",))
    trained.write_bytes((other / POLICY / "adapter_model.safetensors").read_bytes())
    with pytest.raises(CannotTrain, match="was begun with reward model "):
        ppo_on(practice, model, out)
    assert Plan.kept(out) is not None and not (out / REPORT).exists()


def test_what_cannot_be_trained_is_said_before(
    practice: Practice, demonstrations: Demonstrations, model: RewardModel, base_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(CannotTrain, match=r"no prompt to practise on \(too long: 2\)"):
        ppo_on(practice._replace(prompts=(), counts={"prompts": 0, "too_long": 2}), model, tmp_path / "a")
    with pytest.raises(CannotTrain, match="there is no demonstration to learn from"):
        offline_policy.sft_on(
            demonstrations._replace(samples=(), counts={}), config=CONFIG, source="c", base=base_directory,
            out=tmp_path / "a",
        )  # fmt: skip
    for wanted in ({"rollouts": "live"}, {"rollouts": "mix"}, {"ptx_coef": 0.5}):
        with pytest.raises(CannotTrain, match=rf"ppo\.{next(iter(wanted))} is .*: only rounds"):
            ppo_on(
                practice, model, tmp_path / "a", RoundConfig.from_dict({**CONFIG.to_dict(), "ppo": {**PPO, **wanted}})
            )
    insists = replace(CONFIG, ppo=replace(CONFIG.ppo, sampler="vllm"))
    with pytest.raises(CannotTrain, match="of 2 processes that train each samples its own share"):
        ppo_on(practice, model, tmp_path / "a", insists, processes=2)
    assert not (tmp_path / "a").exists()
    sft = tmp_path / "sft"
    narrow = RoundConfig.from_dict({stage: {**SHAPE, "lora_rank": 2} for stage in ("sft", "reward", "ppo")})
    offline_policy.sft_on(demonstrations, config=narrow, source="c", base=base_directory, out=sft)
    with pytest.raises(CannotTrain, match="do not fit the policy adapter; the reward model has lora_rank 8"):
        ppo_on(practice, model, tmp_path / "b", policy=policy_in(sft))
    with pytest.raises(CannotTrain, match="is a policy of .*base, not of /elsewhere"):
        policy_in(sft, Path("/elsewhere"))
    with pytest.raises(CannotTrain, match="holds no finished policy"):
        policy_in(tmp_path / "rm")


def test_sft_killed_goes_on_to_the_very_same_weights(
    demonstrations: Demonstrations, base_directory: Path, tmp_path: Path
) -> None:
    def kill_at(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise Killed

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given: dict[str, Any] = {"config": CONFIG, "source": "chats", "base": base_directory}
    expected = offline_policy.sft_on(demonstrations, out=whole, **given)
    with pytest.raises(Killed):
        offline_policy.sft_on(demonstrations, out=broken, progress=kill_at, **given)
    assert offline_policy.sft_on(demonstrations, out=broken, **given) == expected
    left = [(out / POLICY / "adapter_model.safetensors").read_bytes() for out in (whole, broken)]
    assert left[0] == left[1]
    with pytest.raises(CannotTrain, match="holds a finished policy, which is never overwritten"):
        offline_policy.sft_on(demonstrations, out=broken, **given)


def test_the_ledger_by_the_rules_of_a_round(people: People) -> None:
    for n in range(12):
        [shown] = people.ask(f"p{n}", ["zzzz"], "ann")
        people.say(Demonstration(completion_id=shown.id, content="better"), "ann")
    people.compare("private", consent=False)
    watermark = people.ledger.watermark()
    given: dict[str, Any] = {"base": people.base, "config": CONFIG, "watermark": watermark}
    data = offline_reward.of_ledger(people.settings, people.redis, **given)
    asked = offline_policy.prompts_of_ledger(people.settings, people.redis, **given)
    assert (asked.prompts, asked.watermark) == (data.prompts, watermark)
    assert asked.weights == data.prompt_weights and len(asked.weights) == len(asked.prompts)
    assert 0 < len(asked.prompts) < 12  # some are held out
    shown_by = demonstrations_of_ledger(people.settings, people.redis, **given)
    assert len(shown_by.samples) == len(data.demonstrations) == shown_by.counts["demonstrations"] > 0
    assert {sample.prompt_ids for sample in shown_by.samples} == set(data.prompts)
    assert {sample.prompt_ids for sample in shown_by.held_out} == set(data.held_out_prompts)
    assert len(shown_by.held_out) == shown_by.counts["held_out_demonstrations"] > 1
    few = replace(CONFIG, gate=replace(CONFIG.gate, demonstrations=1))
    limited = demonstrations_of_ledger(people.settings, people.redis, **(given | {"config": few}))
    assert len(limited.held_out) == 1
