"""Who wrote an answer, told from its log-probs: what is read in batches is what is read one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from feedback.records import Completion
from tests.e2e.writers import AT_ONCE, misnamed, own_log_probs

PROMPTS = ((1, 2, 3, 4, 5), (9, 8, 7))
TEXTS = [(PROMPTS[at % 2], tuple((at + 3 * step) % 32 for step in range(1 + at % 6))) for at in range(2 * AT_ONCE + 6)]


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def directories(tmp_path: Path) -> dict[int, Path]:
    for seed in range(3):
        model(seed).save_pretrained(tmp_path / str(seed))
    return {seed: tmp_path / str(seed) for seed in range(3)}


@torch.no_grad()
def one_by_one(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> list[float]:
    logits = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return [float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(completion)]


def answer(number: int, version: int, *writers: int, changed: int | None = None) -> Completion:
    """One that names `version`, by the first of `writers` up to where it changed, and by the other from there on."""
    prompt, completion = PROMPTS[0], tuple((number + 5 * step) % 32 for step in range(12))
    first, last = (one_by_one(model(writer), prompt, completion) for writer in (writers[0], writers[-1]))
    cut = len(completion) if changed is None else changed
    return Completion(
        id=f"chatcmpl-{number}:0", response_id=f"chatcmpl-{number}", choice=0, conversation_id="c", rater="r",
        messages=(), text="", prompt_token_ids=prompt, completion_token_ids=completion,
        logprobs=tuple(first[:cut] + last[cut:]), sampling={}, plain=True, finish_reason="length",
        policy_version=version, version_changed_at=changed, created=0.0,
    )  # fmt: skip


def test_log_probs_of_many_are_those_of_each_alone() -> None:
    tiny = model(0)
    found = own_log_probs(tiny, TEXTS)
    assert [len(each) for each in found] == [len(completion) for _, completion in TEXTS]
    for log_probs, (prompt, completion) in zip(found, TEXTS, strict=True):
        assert log_probs.tolist() == pytest.approx(one_by_one(tiny, prompt, completion), abs=1e-5)


def test_an_answer_under_another_name_is_found(directories: dict[int, Path]) -> None:
    answers = [answer(1, 0, 0), answer(2, 1, 2), answer(3, 2, 2), answer(4, 0, 1)]
    assert misnamed(directories, answers) == ["chatcmpl-2:0", "chatcmpl-4:0"]


def test_a_change_of_the_version_is_looked_at_on_both_sides(directories: dict[int, Path]) -> None:
    true = answer(1, 0, 0, 2, changed=5)
    begun_by_another = answer(2, 0, 1, 2, changed=5)
    never_changed = answer(3, 0, 0, 0, changed=5)
    untold = answer(4, 0, 0, 2, changed=2).model_copy(update={"version_changed_at": None})
    last_word = answer(5, 0, 0, changed=12)
    found = misnamed(directories, [true, begun_by_another, never_changed, untold, last_word])
    assert found == [begun_by_another.id, never_changed.id, untold.id]
