"""Which answers are drawn from the policy as it is, by the request and by what the engine does unasked."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving.engine.plain_draw import engine_defaults, is_plain, is_steered
from tests.serving.live import write_model

PLAIN: list[dict[str, Any]] = [
    {},
    {"temperature": 1, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "max_tokens": 40, "n": 4, "seed": 7},
    {"temperature": None, "stop": None, "tools": None, "logit_bias": {}, "stream_options": {"include_usage": True}},
    {"response_format": {"type": "text"}, "logprobs": True, "top_logprobs": 3},
]
SHAPED: list[dict[str, Any]] = [
    {"temperature": 0.7}, {"temperature": 0}, {"top_p": 0.95}, {"top_k": 50}, {"min_p": 0.05}, {"min_tokens": 2},
    {"presence_penalty": 0.5}, {"frequency_penalty": -0.5}, {"repetition_penalty": 1.1}, {"logit_bias": {"5": 10}},
    {"stop": ["\n"]}, {"stop": "x"}, {"stop_token_ids": [5]}, {"ignore_eos": True}, {"bad_words": ["x"]},
    {"allowed_token_ids": [5]}, {"tools": [{"type": "function"}]}, {"response_format": {"type": "json_object"}},
    {"structured_outputs": {"choice": ["a"]}}, {"thinking_token_budget": 0}, {"what_comes_next_year": True},
]  # fmt: skip


@pytest.mark.parametrize("body", PLAIN)
def test_nothing_that_matters_is_asked(body: dict[str, Any]) -> None:
    assert is_plain(body)


@pytest.mark.parametrize("body", SHAPED)
def test_one_field_is_enough(body: dict[str, Any]) -> None:
    assert not is_plain(body)


def test_what_the_engine_does_unasked_counts_unless_it_is_asked_not_to(tmp_path: Path) -> None:
    assert engine_defaults(tmp_path) == ()
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 2, "temperature": 0.7, "top_p": 1.0, "top_k": 20, "max_new_tokens": 9})
    )
    shaped = engine_defaults(tmp_path)
    assert shaped == ("temperature", "top_k")
    assert not is_plain({}, shaped)
    assert not is_plain({"temperature": 1.0, "top_k": None}, shaped)
    assert is_plain({"temperature": 1.0, "top_k": 0}, shaped)


def test_of_defaults_that_cannot_be_read_nothing_is_believed(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    assert not is_plain({"temperature": 1.0}, engine_defaults(tmp_path))


@pytest.mark.parametrize(("asked", "plain"), [({}, True), ({"temperature": 1}, True), ({"temperature": 0.7}, False)])
async def test_the_ledger_knows(live: Any, asked: dict[str, Any], plain: bool) -> None:
    answer = (await live.chat("hello", max_tokens=3, user="ann", **asked)).json()
    [stored] = live.ledger.completions((f"{answer['id']}:0",)).values()
    assert stored.plain is plain


async def test_the_gateway_reads_what_its_policies_do_unasked(
    shelf: Any, start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await start()
    write = write_model

    def with_defaults(directory: Path, *facts: Any, **more: Any) -> None:
        write(directory, *facts, **more)
        (directory / "generation_config.json").write_text(json.dumps({"top_k": 20}))

    monkeypatch.setattr("tests.serving.live.write_model", with_defaults)
    shelf.publish(1, move=0.5)
    await eventually(lambda: live.served == 1)
    for asked, plain in (({}, False), ({"top_k": -1}, True)):
        answer = (await live.chat("hello", max_tokens=3, **asked)).json()
        [stored] = live.ledger.completions((f"{answer['id']}:0",)).values()
        assert stored.plain is plain


@pytest.mark.parametrize("body", [
    {}, {"temperature": 0.2, "top_p": 0.9, "max_tokens": 5, "seed": 1, "tools": [], "stop": None},
    {"response_format": {"type": "text"}, "repetition_penalty": 1.2},
])  # fmt: skip
def test_a_tempered_draw_is_not_steered(body: dict[str, Any]) -> None:
    assert not is_steered(body)


@pytest.mark.parametrize("body", [
    {"stop": ["a"]}, {"logit_bias": {"2": 100}}, {"tools": [{"type": "function"}]}, {"structured_outputs": {}},
    {"response_format": {"type": "json_object"}}, {"whatever_the_engine_learns_next": 1},
])  # fmt: skip
def test_a_request_that_says_what_may_come_is(body: dict[str, Any]) -> None:
    assert is_steered(body)
