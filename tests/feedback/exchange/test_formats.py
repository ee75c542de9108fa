"""Lines of each format, by hand; and what survives from records to lines and back, for all records."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.exchange.answers import parse_ratchet, write_ratchet
from feedback.exchange.exporting import pseudonymous
from feedback.exchange.formats import FORMATS, UnknownFormat, recognised
from feedback.exchange.judged import Judged, Line, Origin
from feedback.exchange.lines import decode, encode
from feedback.judgements import Comment, Comparison, Demonstration, Feedback, Flag, Judgement, Ranking, Rating
from feedback.records import Completion, Message

ORIGIN = Origin("file", lambda name, split: f"imported_{split}_{name}", lambda key: "train", None, 5.0)
HI = (Message(role="user", content="hi"),)


def completion(id: str, text: str, messages: tuple[Message, ...] = HI, **fields: Any) -> Completion:
    known = {
        "id": id, "response_id": id, "choice": 0, "conversation_id": "c", "rater": "ann", "messages": messages,
        "text": text, "prompt_token_ids": (1,), "completion_token_ids": (2,), "logprobs": (-0.5,), "sampling": {},
        "finish_reason": "stop", "policy_version": 3, "created": 1.0,
    }  # fmt: skip
    return Completion.model_validate(known | fields)


def judged(judgement: Judgement, *completions: Completion) -> Judged:
    return Judged(Feedback(id="fb", judgement=judgement, rater="ann", split="train", created=7.0), completions)


def write(format: str, *items: Judged) -> list[Line]:
    writer = FORMATS[format].write
    assert writer is not None
    return [decode(encode(line)) for line in writer(items)]


def read(format: str, *lines: Line, origin: Origin = ORIGIN) -> list[Judged]:
    """All lines as one group."""
    return FORMATS[format].read(lines, origin)


def said(item: Judged) -> tuple[Any, ...]:
    """A judgement with texts in place of ids, and without sides."""
    texts = {c.id: c.text for c in item.completions}
    match item.feedback.judgement:
        case Comparison() as comparison if comparison.winner in ("tie", "both_bad"):
            return (comparison.winner, frozenset(texts.values()))
        case Comparison() | Ranking():
            return tuple(sorted((tier, texts[c.id]) for c, tier in item.places))
        case Rating() as rating:
            return (rating.value, *texts.values())
        case Demonstration() as written:
            return (written.content, written.based_on_edit, *texts.values())
    raise AssertionError(item)


A, B, C, D = (completion(letter, text) for letter, text in zip("abcd", ("one", "two", "three", "four"), strict=True))
USER = {"role": "user", "content": "hi"}


def turn(text: str) -> list[Line]:
    return [{"role": "assistant", "content": text}]


def test_trl_has_a_line_for_each_pair_that_is_ordered() -> None:
    """By hand: C best, A and B tied, D last: six pairs, one of them a tie."""
    ranking = Ranking(candidates=("a", "b", "c", "d"), ranking="C > A = B > D")
    lines = write("trl", judged(ranking, A, B, C, D))
    assert lines[0] == {
        "prompt": [USER], "chosen": turn("three"), "rejected": turn("one"), "ranking_id": "fb", "weight": 0.2,
        "kind": "ranking", "rater": "ann", "split": "train", "chosen_policy_version": 3, "rejected_policy_version": 3,
    }  # fmt: skip
    pairs = {(line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in lines}
    assert pairs == {("three", "one"), ("three", "two"), ("one", "four"), ("two", "four"), ("three", "four")}
    assert len(lines) == 5


def test_unplaced_answers_are_worse_than_placed_ones_and_not_compared() -> None:
    partial = Ranking(candidates=("a", "b", "c"), ranking="B", partial=True)
    item = judged(partial, A, B, C)
    assert {(x["chosen"][0]["content"], x["rejected"][0]["content"]) for x in write("trl", item)} == {
        ("two", "one"), ("two", "three"),
    }  # fmt: skip
    assert [line["winner"] for line in write("arena", item)] == ["model_b", "model_a"]


def test_ties_and_edits_in_trl() -> None:
    assert write("trl", judged(Comparison(left="a", right="b", winner="tie"), A, B)) == []
    edit = Demonstration(completion_id="a", content="better", based_on_edit=True)
    (line,) = write("trl", judged(edit, A))
    assert (line["chosen"], line["rejected"], line["kind"]) == (turn("better"), turn("one"), "demonstration")
    assert (line["chosen_policy_version"], line["weight"]) == (None, 1.0)
    assert write("trl", judged(Demonstration(completion_id="a", content="other"), A)) == []


def test_kto_sft_openai_and_hh_by_hand() -> None:
    up, down = Rating(completion_id="a", value=0.5), Rating(completion_id="a", value=-1)
    line = {"prompt": [USER], "completion": turn("one"), "label": True, "rater": "ann", "split": "train"}
    assert write("kto", judged(up, A), judged(down, A)) == [line, {**line, "label": False}]
    tone = judged(Rating(completion_id="a", value=1, metric="tone"), A)
    assert write("kto", tone) == write("oasst", tone) == []
    bad = Comparison(left="a", right="b", winner="both_bad")
    assert [x["label"] for x in write("kto", judged(bad, A, B))] == [False, False]
    none = Ranking(candidates=("a", "b", "c"), ranking="A > B > C", none_acceptable=True)
    assert [x["label"] for x in write("kto", judged(none, A, B, C))] == [False] * 3
    written = Demonstration(completion_id="a", content="mine")
    assert write("sft", judged(written, A)) == [{"messages": [USER, *turn("mine")], "rater": "ann", "split": "train"}]
    better = judged(Comparison(left="a", right="b", winner="right"), A, B)
    assert write("openai_dpo", better) == [
        {"input": {"messages": [USER]}, "preferred_output": turn("two"), "non_preferred_output": turn("one")}
    ]
    assert write("hh", better) == [
        {"chosen": "\n\nHuman: hi\n\nAssistant: two", "rejected": "\n\nHuman: hi\n\nAssistant: one"}
    ]


@pytest.mark.parametrize("content", ["a\n\nHuman: b", "\n\nAssistant:"])
def test_hh_leaves_out_what_it_would_garble(content: str) -> None:
    messages = (Message(role="user", content=content),)
    pair = (completion("a", "one", messages), completion("b", "two", messages))
    assert write("hh", judged(Comparison(left="a", right="b", winner="left"), *pair)) == []
    system = (Message(role="system", content="be brief"), *HI)
    pair = (completion("a", "one", system), completion("b", "two", system))
    assert write("hh", judged(Comparison(left="a", right="b", winner="left"), *pair)) == []


@pytest.mark.parametrize(
    ("winner", "said"),
    [("left", "model_a"), ("right", "model_b"), ("tie", "tie"), ("both_bad", "tie (bothbad)")],
)
def test_arena_by_hand(winner: Any, said: str) -> None:
    other = completion("b", "two", policy_version=4)
    (line,) = write("arena", judged(Comparison(left="a", right="b", winner=winner), A, other))
    assert line["winner"] == said
    assert (line["model_a"], line["model_b"], line["judge"], line["turn"]) == ("policy-v3", "policy-v4", "ann", 1)
    assert line["conversation_b"] == [USER, *turn("two")]
    assert (line["language"], line["tstamp"]) == ("unknown", 7.0)
    (back,) = read("arena", line)
    judgement = back.feedback.judgement
    assert isinstance(judgement, Comparison)
    assert judgement.winner == winner
    assert [c.sampling for c in back.completions] == [{"model": "policy-v3"}, {"model": "policy-v4"}]


def test_oasst_tree_by_hand() -> None:
    later = (*HI, A.answer, Message(role="user", content="more"))
    again = completion("e", "five", later)
    (tree,) = write(
        "oasst",
        judged(Ranking(candidates=("a", "b", "c"), ranking="C > A = B"), A, B, C),
        judged(Rating(completion_id="e", value=1), again),
        judged(Flag(completion_id="b", reasons=("rude",), comment="no"), B),
        judged(Comment(completion_id="b", content="unsaid"), B),
    )
    root = tree["prompt"]
    assert (root["role"], root["text"], root["parent_id"]) == ("prompter", "hi", None)
    assert [(r["message_id"], r["rank"], r["role"]) for r in root["replies"]] == [
        ("a", 1, "assistant"), ("b", 1, "assistant"), ("c", 0, "assistant"),
    ]  # fmt: skip
    (event,) = root["events"]["ranking"]
    assert (event["ranking"], event["ranked_message_ids"], event["tiers"]) == ([2, 0, 1], ["c", "a", "b"], [0, 1, 1])
    (more,) = root["replies"][0]["replies"]
    assert (more["text"], more["parent_id"]) == ("more", "a")
    assert more["replies"][0]["emojis"] == {"+1": 1}
    assert root["replies"][1]["events"]["report"][0]["reasons"] == ["rude"]
    kinds = [item.feedback.judgement.type for item in read("oasst", tree)]
    assert sorted(kinds) == ["flag", "ranking", "rating"]


def test_open_assistants_own_tree_is_read_by_rank_and_thumbs() -> None:
    def reply(id: str, rank: int | None, **more: Any) -> Line:
        return {"message_id": id, "text": f"text {id}", "role": "assistant", "rank": rank, "replies": [], **more}

    replies = [reply("x", 1), reply("y", 0, emojis={"+1": 3, "-1": 1, "_skip": 2}), reply("z", None)]
    prompt = {"message_id": "p", "text": "why", "role": "prompter", "replies": replies}
    ranked, liked = read("oasst", {"message_tree_id": "p", "tree_state": "ready_for_export", "prompt": prompt})
    assert said(ranked) == ((0, "text y"), (1, "text x"))
    assert said(liked) == (0.75, "text y")


def test_lines_of_one_ranking_become_it_again_and_others_stay_pairs() -> None:
    lines = write("trl", judged(Ranking(candidates=("a", "b", "c"), ranking="C > A > B"), A, B, C))
    (whole,) = read("trl", *lines)
    assert said(whole) == ((0, "three"), (1, "one"), (2, "two"))
    assert isinstance(whole.feedback.judgement, Ranking)
    assert len(read("trl", *lines[:2])) == 2, "two of three pairs are no ranking of three"
    cycle = [{**lines[0], "chosen": turn(x), "rejected": turn(y)} for x, y in (("1", "2"), ("2", "3"), ("3", "1"))]
    assert [said(item) for item in read("trl", *cycle)] == [
        ((0, "1"), (1, "2")), ((0, "2"), (1, "3")), ((0, "3"), (1, "1")),
    ]  # fmt: skip


def test_preferences_of_others_in_all_their_shapes() -> None:
    expected = ((0, "good"), (1, "bad"))
    for line in (
        {"prompt": [USER], "chosen": turn("good"), "rejected": turn("bad")},
        {"chosen": [USER, *turn("good")], "rejected": [USER, *turn("bad")]},
        {"prompt": "hi", "chosen": "good", "rejected": "bad"},
    ):
        assert recognised(line) == "trl"
        (item,) = read("trl", line)
        assert said(item) == expected
        assert item.completions[0].messages == HI
    hh = {"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad"}
    assert recognised(hh) == "hh"
    assert said(read("hh", hh)[0]) == expected


def test_sides_of_chosen_and_rejected_are_drawn_by_digest() -> None:
    lines = [{"prompt": f"prompt {n}", "chosen": "good", "rejected": "bad"} for n in range(40)]
    winners = [read("trl", line)[0].feedback.judgement.winner for line in lines]  # type: ignore[union-attr]
    assert winners == [read("trl", line)[0].feedback.judgement.winner for line in lines]  # type: ignore[union-attr]
    assert 8 < winners.count("left") < 32


def test_each_vote_of_pairwise_is_a_rater() -> None:
    line = {"id": 1, "messages": [USER], "a": "x", "b": "y", "label": "a", "votes": ["a", "tie", "b"]}
    assert recognised(line) == "pairwise"
    items = read("pairwise", line)
    assert [said(item) for item in items] == [
        ((0, "x"), (1, "y")), ("tie", frozenset("xy")), ((0, "y"), (1, "x")),
    ]  # fmt: skip
    assert len({item.feedback.rater for item in items}) == 3
    assert len({c.id for item in items for c in item.completions}) == 2, "the answers are the same ones"
    (alone,) = read("pairwise", {"messages": [USER], "a": "x", "b": "y", "label": "b", "models": ["m", "n"]})
    assert said(alone) == ((0, "y"), (1, "x"))
    assert {c.text: c.sampling for c in alone.completions} == {"x": {"model": "m"}, "y": {"model": "n"}}


def test_kwise_thumbs_and_demonstrations_by_hand() -> None:
    kwise = {"messages": [USER], "responses": ["x", "y", "z"], "ranks": [0, 1, 1]}
    thumbs = {"messages": [USER], "response": "x", "up": 3, "down": 1}
    demonstration = {"messages": [USER], "demonstration": "x"}
    assert [recognised(line) for line in (kwise, thumbs, demonstration)] == ["kwise", "thumbs", "demonstrations"]
    assert said(read("kwise", kwise)[0]) == ((0, "x"), (1, "y"), (1, "z"))
    assert said(read("thumbs", thumbs)[0]) == (0.75, "x")
    assert said(read("demonstrations", demonstration)[0]) == ("x", False, "x")


def test_imported_completions_were_served_by_nobody() -> None:
    (item,) = read("kto", {"prompt": "hi", "completion": "x", "label": True, "rater": "bob", "split": "eval"})
    (answer,) = item.completions
    assert (answer.policy_version, answer.prompt_token_ids, answer.completion_token_ids) == (None, (), ())
    assert (answer.finish_reason, answer.sampling, answer.consent) == ("stop", {}, True)
    assert answer.conversation_id.startswith("import:file:")
    assert answer.id == f"{answer.response_id}:0"
    assert item.feedback.rater == answer.rater == "imported_eval_file|bob"
    assert item.feedback.split == "eval"


def test_split_is_the_asked_one_then_the_lines_own_then_hashed() -> None:
    line = {"prompt": "hi", "completion": "x", "label": True}
    asked: list[str] = []

    def assign(key: str) -> Any:
        asked.append(key)
        return "eval"

    for forced, own, expected in (("train", "eval", "train"), (None, "train", "train"), (None, None, "eval")):
        origin = Origin("file", ORIGIN.pseudonym, assign, forced, 5.0)  # type: ignore[arg-type]
        assert read("kto", {**line, "split": own}, origin=origin)[0].feedback.split == expected
    read("kto", {**line, "rater": "bob"}, origin=Origin("file", ORIGIN.pseudonym, assign, None, 5.0))
    assert len(asked) == 2
    assert asked[1] == "bob"
    with pytest.raises(ValueError, match="split must be train or eval"):
        read("kto", {**line, "split": "test"})


@pytest.mark.parametrize(
    ("format", "line", "reason"),
    [
        ("trl", {"prompt": [USER], "chosen": turn("a")}, "rejected is missing"),
        ("trl", {"prompt": [USER], "chosen": turn("a"), "rejected": turn("a")}, "both answers are the same"),
        ("trl", {"prompt": [], "chosen": turn("a"), "rejected": turn("b")}, "prompt must be a list of messages"),
        (
            "trl",
            {"prompt": "x", "chosen": [USER], "rejected": turn("b")},
            "chosen must be one message of the assistant",
        ),
        ("trl", {"prompt": [{"role": "root", "content": ""}], "chosen": "a", "rejected": "b"}, "role out of"),
        ("hh", {"chosen": "Human: x", "rejected": "y"}, "chosen must begin with"),
        ("hh", {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}, "one prompt"),
        ("hh", {"chosen": "\n\nHuman: x\n\nHuman: a", "rejected": "\n\nHuman: x\n\nHuman: b"}, "assistant's turn"),
        ("kto", {"prompt": "x", "completion": "a", "label": 1}, "label must be true or false"),
        ("sft", {"messages": [USER]}, "messages must end with the assistant's turn"),
        ("sft", {"messages": turn("a")}, "there is no prompt"),
        ("sft", {"messages": [USER, *turn("a" * 40_000)]}, "at most 32768"),
        ("arena", {"winner": "model_c", "conversation_a": [], "conversation_b": []}, "winner must be one of"),
        ("pairwise", {"messages": [USER], "a": "x", "b": "y", "label": "c"}, "votes must be a, b or tie"),
        ("kwise", {"messages": [USER], "responses": ["x"], "ranks": [0]}, "two or more responses"),
        ("kwise", {"messages": [USER], "responses": ["x", "y"], "ranks": [0]}, "as many as responses"),
        ("kwise", {"messages": [USER], "responses": list("abcdefghijklmnopq"), "ranks": list(range(17))}, "at most 16"),
        ("thumbs", {"messages": [USER], "response": "x", "up": 0, "down": 0}, "somebody must have voted"),
        ("ratchet", {"feedback": {}, "completions": []}, "Field required"),
    ],
)
def test_lines_that_say_nothing_are_refused_with_a_reason(format: str, line: Line, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(format, line)


def test_unknown_lines_are_not_guessed() -> None:
    with pytest.raises(UnknownFormat, match="arena, demonstrations, hh, kto"):
        recognised({"question": "?", "answer": "!"})


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "é", "\U0001f600", "\r"])
def test_a_line_is_one_line_for_every_reader(mark: str) -> None:
    raw = encode({"text": f"a{mark}b"})
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert len(raw.decode().splitlines()) == 1
    assert decode(raw) == {"text": f"a{mark}b"}
    assert decode(json.dumps({"text": f"a{mark}b"}, ensure_ascii=False).encode()) == {"text": f"a{mark}b"}


def test_pseudonyms_of_an_export_cannot_be_joined_without_the_salt() -> None:
    assert pseudonymous("ann", b"1") == pseudonymous("ann", b"1")
    assert len({pseudonymous("ann", b"1"), pseudonymous("ann", b"2"), pseudonymous("bob", b"1")}) == 3
    assert "ann" not in pseudonymous("ann", b"1")


# Properties.

texts = st.text(st.characters(codec="utf-8"), max_size=12)
names = st.sampled_from(["ann", "bob", "cy"])
turns = st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=texts)
prompts = st.builds(
    lambda system, before, last: (*system, *before, Message(role="user", content=last)),
    st.lists(st.builds(Message, role=st.just("system"), content=texts), max_size=1),
    st.lists(turns, max_size=3),
    texts,
)


@st.composite
def judgements(draw: st.DrawFn, ids: Sequence[str]) -> Judgement:
    kind = draw(st.sampled_from(["rating", "comparison", "ranking", "demonstration", "comment", "flag"]))
    if len(ids) < 2 or kind not in ("comparison", "ranking"):
        content = draw(texts.filter(str.strip))
        match kind:
            case "demonstration":
                return Demonstration(completion_id=ids[0], content=content, based_on_edit=draw(st.booleans()))
            case "comment":
                return Comment(completion_id=ids[0], content=content)
            case "flag":
                return Flag(completion_id=ids[0], reasons=draw(st.just(("rude",)) | st.just(())))
        value = draw(st.just(-1.0) | st.floats(0, 1))
        metric = draw(st.none() | st.sampled_from(["tone", "length"]))
        return Rating(completion_id=ids[0], value=value, metric=metric, reasons=draw(st.just(("nice",)) | st.just(())))
    if kind == "comparison":
        winner = draw(st.sampled_from(["left", "right", "tie", "both_bad"]))
        return Comparison.model_validate({"left": ids[0], "right": ids[1], "winner": winner})
    places = draw(st.lists(st.integers(0, len(ids)), min_size=len(ids), max_size=len(ids)))
    partial = draw(st.booleans()) and len(set(places)) > 1
    groups = [tuple(id for id, at in zip(ids, places, strict=True) if at == place) for place in sorted(set(places))]
    ranking = groups[:-1] if partial else groups
    none = draw(st.booleans())
    return Ranking(candidates=tuple(ids), ranking=tuple(ranking), partial=partial, none_acceptable=none)


@st.composite
def records(draw: st.DrawFn) -> Judged:
    """A judgement over one to five answers to one prompt."""
    messages = draw(prompts)
    ids = [f"{draw(st.integers(0, 10**6))}-{n}" for n in range(draw(st.integers(1, 5)))]
    judgement = draw(judgements(ids))
    answers = tuple(
        completion(
            id, draw(texts), messages, rater=draw(names), created=draw(st.floats(0, 2e9)),
            policy_version=draw(st.none() | st.integers(0, 9)), logprobs=(draw(st.floats(-9, 0)),),
        )
        for id in judgement.targets
    )  # fmt: skip
    split = draw(st.sampled_from(["train", "eval"]))
    id = f"fb-{draw(st.integers(0, 10**6))}"
    feedback = Feedback(id=id, judgement=judgement, rater=draw(names), split=split, created=draw(st.floats(0, 2e9)))
    return Judged(feedback, answers, draw(st.none() | names))


@given(records())
@settings(deadline=None)
def test_ratchets_own_format_loses_nothing(item: Judged) -> None:
    (line,) = write_ratchet(item)
    assert parse_ratchet(decode(encode(line))) == item


def as_text(line: Line) -> str:
    return json.dumps(line, sort_keys=True)


#: What an import names anew.
RENAMED = {
    "rater", "judge", "user_id", "ranking_id", "tstamp", "message_id", "parent_id", "ranked_message_ids", "model_name",
    "ranking_parent_id", "message_tree_id", "synthetic", "chosen_policy_version", "rejected_policy_version", "kind",
}  # fmt: skip


def essence(value: Any) -> Any:
    """A line without names, and without the order of its lists of nodes and events."""
    if isinstance(value, dict):
        kept = {name: essence(item) for name, item in value.items() if name not in RENAMED}
        for name in ("replies", "rating", "report"):
            if isinstance(kept.get(name), list):
                kept[name] = sorted(kept[name], key=as_text)
        return kept
    return [essence(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("format", ["trl", "kto", "sft", "hh", "openai_dpo", "arena", "oasst"])
@given(item=records())
@settings(max_examples=150, deadline=None)
def test_what_a_format_can_say_survives_export_import_export(format: str, item: Judged) -> None:
    lines = write(format, item)
    if not lines:
        return
    grouped = FORMATS[format].group(lines[0]) is not None
    back = read(format, *lines) if grouped else [x for line in lines for x in read(format, line)]
    again = [x for judged in back for x in write(format, judged)]
    if format == "trl" and len({c.text for c in item.completions}) < len(item.completions):
        # A ranking that holds one text twice cannot be told from its pairs: they stay, each with a weight of its own.
        again, lines = ([{**line, "weight": None} for line in some] for some in (again, lines))
    assert sorted(map(essence, again), key=as_text) == sorted(map(essence, lines), key=as_text)


@given(records())
@settings(deadline=None)
def test_the_same_line_becomes_the_same_records(item: Judged) -> None:
    for format in ("trl", "kto", "arena"):
        for line in write(format, item):
            assert read(format, line) == read(format, line)
