"""What versions say to the fixed prompts, against a slow way of coming to the same."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from feedback.policies.fixed_answers import FixedAnswers, read_answers, write_answers
from feedback.policies.manifest import describe_files
from training.config import AdapterConfig
from training.model.layers import UnsupportedModel
from training.model.roles import Role
from training.model.samples import encode_chat
from training.model.trunk import Trunk
from training.ppo.rollout import likeliest_completions
from training.round.fixed_answers import MAX_TOKENS, PROMPTS, answers_of
from training.round.version import base_answers


@torch.no_grad()
def slowly(trunk: Trunk, prompt: list[int], role: Role | None, end: int, most: int) -> list[int]:
    """The likeliest token after the whole sequence, by itself and without any cache, until `end`."""
    ids = list(prompt)
    while len(ids) < len(prompt) + most and ids[-1:] != [end]:
        sequence = torch.tensor([ids])
        states = trunk.upper(trunk.lower(sequence, torch.ones_like(sequence)), torch.ones_like(sequence), role)
        ids.append(int(trunk.model.lm_head(states[0, -1]).argmax()))
    return ids[len(prompt) :]


def test_there_are_eight_prompts_of_different_kinds() -> None:
    assert len(set(PROMPTS)) == 8 and max(map(len, PROMPTS)) < 80


@pytest.mark.parametrize("role", [None, "policy"])
def test_each_answer_is_the_likeliest_token_at_every_step(perturbed: Trunk, role: Role | None) -> None:
    prompts = [[5, 6, 7], [9], [30, 31, 32, 33, 34, 35]]
    free = [slowly(perturbed, prompt, role, -1, 12) for prompt in prompts]
    end = free[0][4]  # which so ends one of them early
    heard: list[int] = []
    found = likeliest_completions(
        perturbed, prompts, role=role, eos_ids=frozenset([end]), max_new_tokens=12, alive=heard.append
    )
    assert [list(each) for each in found] == [slowly(perturbed, prompt, role, end, 12) for prompt in prompts]
    assert len(found[0]) <= 5 and heard == list(range(len(heard))) and len(heard) == max(map(len, found))


def test_answers_are_text_without_control_tokens(base_directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_directory)
    trunk = Trunk.load(base_directory, AdapterConfig(lora_layers=2))
    said = answers_of(trunk, "policy", base_directory, frozenset([2]), lambda _: None)
    assert (tuple(answer.prompt for answer in said.answers), said.max_tokens) == (PROMPTS, MAX_TOKENS)
    prompt = encode_chat(tokenizer, [{"role": "user", "content": PROMPTS[3]}], True)
    first = slowly(trunk, prompt, None, 2, 4)
    assert said.answers[3].text.startswith(tokenizer.decode(first[:-1], skip_special_tokens=True))
    assert not any("<|" in answer.text for answer in said.answers)
    anything = frozenset(range(trunk.model.config.vocab_size))
    ended = answers_of(trunk, "policy", base_directory, anything, lambda _: None)
    assert not any(answer.cut for answer in ended.answers)
    assert base_answers(base_directory) == said, "an adapter that was never trained says what the base says"


def test_a_base_that_cannot_be_trained_has_no_answers(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=300, n_positions=32, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="GPT2LMHeadModel"):
        Trunk.load(tmp_path, AdapterConfig())
    assert base_answers(tmp_path) is None


def test_the_base_answers_without_a_gpu_that_an_engine_may_fill(
    base_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and whoever goes there fails
    monkeypatch.setattr("training.round.fixed_answers.MAX_TOKENS", 2)
    said = base_answers(base_directory)
    assert said is not None and len(said.answers) == len(PROMPTS)
    assert [answer.cut for answer in said.answers] == [True] * len(PROMPTS)


def test_what_is_written_is_read_and_named_with_its_digest(tmp_path: Path) -> None:
    said = FixedAnswers.model_validate({"max_tokens": 4, "answers": [{"prompt": "Why?", "text": 'Be\ncause "so".'}]})
    write_answers(tmp_path, said)
    assert read_answers(tmp_path) == {"Why?": said.answers[0]} and said.answers[0].cut is None
    assert list(describe_files(tmp_path)) == ["answers.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe", b'{"max_tokens":4}', b'{"max_tokens":4,"answers":[{"prompt":"a","text":null}]}',
     b'{"max_tokens":4,"answers":[{"prompt":"a","text":"\\ud800"}]}',
     b'{"max_tokens":4,"answers":[{"prompt":"a","text":"%s"}]}' % (b"x" * 2**18)],
)  # fmt: skip
def test_a_file_that_says_nothing_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "answers.json").write_bytes(content)
    assert read_answers(tmp_path) is None and read_answers(tmp_path / "gone") is None
