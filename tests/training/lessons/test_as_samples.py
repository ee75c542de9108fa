"""Demonstrations as samples, by chat templates that are pickier than the tiny one."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from feedback.records import Message
from training.lessons.as_samples import written_samples
from training.lessons.judged import WrittenAnswer
from training.round.stages import TextEncoder

#: As Llama 3.1's and its successors' does, it takes a message that has `tool_calls` at all for one that calls a tool.
PICKY = (
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{% if message.role == 'developer' %}{{ none|length }}{% endif %}"
    "{% if 'tool_calls' in message %}{% if message.tool_calls|length != 1 %}{{ raise_exception('one at a time') }}"
    "{% endif %}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture
def base(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    tokenizer.chat_template = PICKY
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def written(*messages: Message) -> WrittenAnswer:
    return WrittenAnswer(feedback_id="f", messages=messages, content="Hello")


def test_a_message_has_only_the_fields_that_it_uses(base: Path) -> None:
    """A template that asks whether there are calls of tools must not find a None."""
    asked = Message(role="user", content="Hi")
    (sample,), unusable = written_samples([written(asked)], base)
    assert (sample.prompt_ids, sample.completion_ids) == TextEncoder(base).encode([asked], "Hello")
    assert unusable == 0


@pytest.mark.parametrize(
    "refused",
    [
        Message(role="tool", content="4"),
        Message(role="developer", content="Be brief."),
        Message(role="assistant", content="", tool_calls=(CALL, CALL)),
    ],
)
def test_what_the_template_cannot_say_is_left_out_and_counted(base: Path, refused: Message) -> None:
    asked = Message(role="user", content="Hi")
    samples, unusable = written_samples([written(asked, refused), written(asked)], base)
    assert (len(samples), unusable) == (1, 1)
