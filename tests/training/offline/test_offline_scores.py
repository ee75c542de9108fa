"""Scores of a reward model, outside of rounds: on lines of every format, and of what was judged in the ledger."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from feedback.exchange.exporting import Wanted, export
from feedback.exchange.importing import Importer
from feedback.exchange.judged import Line, Origin
from feedback.exchange.reading import Rejected
from feedback.judgements import Comparison, Demonstration, Rating
from feedback.people.keys import KeyRing
from feedback.people.raters import Raters
from tests.training.people import CONFIG, People, file_of, planted
from training.model.samples import Sample, collate, encode_demonstration
from training.offline import reward as offline_reward
from training.offline.reward_models import RewardModel, in_directory
from training.offline.scores import score_ledger, score_lines

USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
HH = "\n\nHuman: hi\n\nAssistant: "
ONE_EPOCH = replace(CONFIG, reward=replace(CONFIG.reward, epochs=1))


@pytest.fixture
def model(base_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    """In float32: in bf16 a batch's size shows."""
    monkeypatch.setattr("training.model.trunk.local_dtype", lambda: "float32")
    file, out = file_of(tmp_path / "planted.jsonl", planted(20)), tmp_path / "rm"
    data = offline_reward.of_file(file, "auto", base=base_directory, config=ONE_EPOCH)
    offline_reward.train_on(data, source="planted", base=base_directory, out=out)
    return in_directory(out)


def numbered(*lines: Any) -> list[tuple[int, bytes]]:
    return [(n, json.dumps(line).encode()) for n, line in enumerate(lines, start=1)]


def alone(model: RewardModel, sample: Sample) -> float:
    """The score of one sample, in a batch of its own."""
    trunk = model.scorer()._trunk
    return float(trunk.score(collate([sample], trunk.pad_id)).item())


def test_lines_get_their_scores_in_order_however_they_are_batched(model: RewardModel) -> None:
    texts = ["z", "zzzz", "x" * 40, "zz", "yyyy"]
    lines: list[Line] = [{"messages": [USER], "completion": text, "n": n} for n, text in enumerate(texts)]
    lines += [{"prompt": "hi", "response": [{"role": "assistant", "content": "zzzz"}]}]
    given = numbered(*lines)
    given[3:3] = [(90, b"{"), (91, b'{"messages": [], "completion": "x"}'), (92, b'{"prompt": "hi"}')]
    by_size = [list(score_lines(model, given, batch_size=size)) for size in (1, 2, 100)]
    for found in by_size:
        bad = [(item.line, item.reason) for item in found if isinstance(item, Rejected)]
        assert [number for number, _ in bad] == [90, 91, 92]
        assert bad[1:] == [
            (91, "messages must be a list of messages"),
            (92, "there is no completion or response, nor what a format has instead"),
        ]
        good = [item for item in found if not isinstance(item, Rejected)]
        assert [{name: line[name] for name in line if name != "score"} for line in good] == lines
        assert [line["score"] for line in good] == pytest.approx(
            [line["score"] for line in by_size[0] if not isinstance(line, Rejected)], abs=1e-5
        )
        assert good[1]["score"] == pytest.approx(good[5]["score"], abs=1e-6)
        assert len({round(line["score"], 5) for line in good}) == 5


def replying(id: str, role: str, text: str, *replies: Line) -> Line:
    return {"message_id": id, "role": role, "text": text, "replies": list(replies)}


ONE, TWO, DEEP = ("hi",), ("hi", "good", "why?"), ("hi", "bad", "why?")
LOWER = [replying(f"{n}q", "prompter", "why?", replying(f"{n}a", "assistant", f"because {n}")) for n in (1, 2)]
TREE = {
    "message_tree_id": "t",
    "prompt": replying(
        "p", "prompter", "hi", replying("a", "assistant", "good", LOWER[0]), replying("b", "assistant", "bad", LOWER[1])
    ),
}
#: A line of each format, and what it has as answers to which turns, in its order.
LINES: list[tuple[Line, list[tuple[tuple[str, ...], str]]]] = [
    ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, [(ONE, "good"), (ONE, "bad")]),
    ({"prompt": "hi", "chosen": "bad", "rejected": "good", "kind": "demonstration"}, [(ONE, "bad"), (ONE, "good")]),
    ({"chosen": [USER, BAD], "rejected": [USER, GOOD]}, [(ONE, "bad"), (ONE, "good")]),
    ({"chosen": HH + "good", "rejected": HH + "bad"}, [(ONE, "good"), (ONE, "bad")]),
    ({"chosen": HH + "bad", "rejected": HH + "good"}, [(ONE, "bad"), (ONE, "good")]),
    (
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        [(ONE, "good"), (ONE, "bad")],
    ),
    (
        {"winner": "model_b", "conversation_a": [USER, BAD], "conversation_b": [USER, GOOD]},
        [(ONE, "bad"), (ONE, "good")],
    ),
    (TREE, [(ONE, "good"), (TWO, "because 1"), (ONE, "bad"), (DEEP, "because 2")]),
    ({"messages": [USER], "a": "bad", "b": "good", "label": "b"}, [(ONE, "bad"), (ONE, "good")]),
    (
        {"messages": [USER], "responses": ["bad", "good", "best"], "ranks": [7, 5, 5]},
        [(ONE, "bad"), (ONE, "good"), (ONE, "best")],
    ),
    ({"prompt": "hi", "completion": "good", "label": True}, [(ONE, "good")]),
    ({"messages": [USER], "response": "good", "up": 3, "down": 1}, [(ONE, "good")]),
    ({"messages": [USER, GOOD]}, [(ONE, "good")]),
    ({"messages": [USER], "demonstration": "good"}, [(ONE, "good")]),
]


def test_a_line_of_each_format_gets_a_score_for_each_of_its_answers(
    model: RewardModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    roles = ("user", "assistant", "user")
    known: dict[tuple[tuple[str, ...], str], float] = {}
    for turns, text in {reply for _, replies in LINES for reply in replies}:
        asked = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
        known[turns, text] = alone(model, encode_demonstration(tokenizer, asked, text))
    assert len({round(score, 5) for score in known.values()}) == len(known)
    found = list(score_lines(model, numbered(*(line for line, _ in LINES)), batch_size=3))
    for (line, replies), scored in zip(LINES, found, strict=True):
        assert isinstance(scored, dict), scored
        name = "score" if len(replies) == 1 else "scores"
        assert {each: value for each, value in scored.items() if each != name} == line
        scores = [scored["score"]] if len(replies) == 1 else scored["scores"]
        assert scores == pytest.approx([known[reply] for reply in replies], abs=1e-5)


def test_an_answer_without_tokens_is_null_beside_others_and_alone_a_reason(model: RewardModel) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    lines: list[Line] = [
        {"prompt": "hi", "chosen": [calling], "rejected": [GOOD]},
        {"prompt": "hi", "chosen": [calling], "rejected": [calling]},
        {"messages": [USER, calling]},
        {"messages": [USER], "responses": [], "ranks": []},
        {"messages": [USER], "responses": 3, "ranks": []},
    ]
    first, *others = score_lines(model, numbered(*lines))
    assert isinstance(first, dict) and first["scores"][0] is None and isinstance(first["scores"][1], float)
    assert others == [
        Rejected(2, "calls of tools cannot be encoded"),
        Rejected(3, "calls of tools cannot be encoded"),
        Rejected(4, "there is no answer"),
        Rejected(5, "responses must be a list"),
    ]


def test_lines_are_read_no_further_than_their_batch(model: RewardModel) -> None:
    read: list[int] = []

    def lines() -> Any:
        for number, text in numbered(*({"prompt": "hi", "chosen": f"{n}", "rejected": "x"} for n in range(6))):
            read.append(number)
            yield number, text

    scored = score_lines(model, lines(), batch_size=2)
    next(scored)
    assert read == [1, 2]


# From here on with a ledger.


def test_a_backup_is_scored_by_its_tokens_and_without_what_may_not_train(people: People, model: RewardModel) -> None:
    left, right = people.ask("cut", ["zzzz", "yyyy"], "ann", finish_reason="length")
    people.say(Comparison(left=left.id, right=right.id, winner="right"), "ann")
    people.compare("private", consent=False)
    backup = list(export(people.ledger, Wanted("ratchet", private=True), b"salt"))
    cut = [_cut(each) for each in backup[0]["completions"]]
    scored, refused = score_lines(model, numbered(backup[0] | {"completions": cut}, backup[1]))
    assert isinstance(scored, dict)
    samples = [Sample(each.prompt_token_ids, each.completion_token_ids[:-1]) for each in (left, right)]
    assert scored["scores"] == pytest.approx([alone(model, each) for each in samples], abs=1e-5)
    assert refused == Rejected(2, "its person keeps it out of training")


def _cut(completion: Line) -> Line:
    """Without its last token: it met its bound."""
    shorter = {name: completion[name][:-1] for name in ("completion_token_ids", "logprobs")}
    return completion | shorter


def test_the_judged_answers_of_the_ledger_are_scored_by_a_rounds_rules(
    people: People, model: RewardModel, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    good, bad, stopped, secret, decoy, unjudged = (
        people.ask(f"p{n}", [text], "ann", **fields)[0]
        for n, (text, fields) in enumerate([
            ("zzzz", {"policy_version": 3}), ("yyyy", {}), ("half", {"partial": True}), ("mine", {"consent": False}),
            ("decoy", {"decoy": True}), ("unjudged", {}),
        ])
    )  # fmt: skip
    for each in (bad, good, stopped, secret, decoy):
        people.say(Rating(completion_id=each.id, value=1), "ann")
    people.say(Demonstration(completion_id=good.id, content="better"), "bob")
    people.compare("spam", rater="troll")
    people.say(Rating(completion_id=unjudged.id, value=1), "troll")
    Raters(people.redis).quarantine("troll", reason="test", actor="test")
    keys = KeyRing(people.redis, people.settings.secrets().pepper)
    file = file_of(tmp_path / "imported.jsonl", [{"prompt": "hi", "completion": "good", "label": True}])
    origin = Origin("imported", keys.imported, lambda key: "train", None, 0.0)
    *_, _ = Importer(people.redis, people.ledger, origin).run(file, "kto", tmp_path / "rejected")
    found = list(score_ledger(people.redis, model, people.base))
    one_by_one = score_ledger(people.redis, model, people.base, batch_size=1)
    assert [line["completion_id"] for line in one_by_one] == [line["completion_id"] for line in found]
    assert [(line["completion_id"], line["policy_version"]) for line in found[:2]] == [(bad.id, 0), (good.id, 3)]
    assert [line["policy_version"] for line in found[2:]] == [None]
    samples = [Sample(each.prompt_token_ids, each.completion_token_ids) for each in (bad, good)]
    samples.append(encode_demonstration(tokenizer, [USER], "good"))
    assert [line["score"] for line in found] == pytest.approx([alone(model, each) for each in samples], abs=1e-5)
    assert all(line.keys() == {"completion_id", "policy_version", "score"} for line in found)
    with pytest.raises(ValueError, match="not of the ledger's"):
        next(score_ledger(people.redis, model, tmp_path))
