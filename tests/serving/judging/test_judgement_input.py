"""Whatever is sent as a ranking or as text: it is what it says, byte by byte, or it is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback.judgements import Ranking
from serving.http.errors import ApiError
from serving.judging.said import parse

CANDIDATES = ["chatcmpl-1:0", "chatcmpl-1:1", "chatcmpl-1:2"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(CANDIDATES)
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
NEARLY = st.lists(st.lists(st.sampled_from([*CANDIDATES, "other"]), max_size=3), max_size=4)
LETTERS = st.lists(st.sampled_from(["A", "B", "C", "D", "a", "b", ">", "=", " ", "AB", "1"]), max_size=7).map("".join)


def tiers_of(ranking: Any) -> list[set[str]] | None:
    """The oracle: the groups that this is, or None if it is no ordered partition of the three candidates."""
    if isinstance(ranking, str):
        groups = [[letter.strip() for letter in group.split("=")] for group in ranking.split(">")]
        names = {"A": CANDIDATES[0], "B": CANDIDATES[1], "C": CANDIDATES[2]}
        names |= {name.lower(): candidate for name, candidate in names.items()}
        if not all(letter in names for group in groups for letter in group):
            return None
        ranking = [[names[letter] for letter in group] for group in groups]
    if not isinstance(ranking, list) or not all(isinstance(group, list) and group for group in ranking):
        return None
    placed = [one for group in ranking for one in group]
    if not all(isinstance(one, str) for one in placed) or sorted(placed) != CANDIDATES:
        return None
    return [set(group) for group in ranking]


@given(ranking=ANY_JSON | NEARLY | LETTERS | st.permutations(CANDIDATES).map(lambda order: [[one] for one in order]))
def test_a_ranking_is_an_ordered_partition_or_refused_by_name(ranking: Any) -> None:
    expected = tiers_of(ranking)
    try:
        judgement = parse({"type": "ranking", "candidates": CANDIDATES, "ranking": ranking})
    except ApiError as error:
        assert expected is None, f"refused: {error.message}"
        assert error.status == 400
        assert error.param is not None
        assert error.param.split(".")[0] == "ranking"
    else:
        assert isinstance(judgement, Ranking)
        assert [set(group) for group in judgement.ranking] == expected


@given(candidates=ANY_JSON | st.lists(st.sampled_from([*CANDIDATES, ""]), max_size=20))
def test_candidates_are_two_to_sixteen_different_names_or_refused_by_name(candidates: Any) -> None:
    names = candidates if isinstance(candidates, list) else []
    legal = 2 <= len(names) <= 16 and all(isinstance(name, str) and 1 <= len(name) <= 128 for name in names)
    legal = legal and len(set(names)) == len(names)
    try:
        parse({"type": "ranking", "candidates": candidates, "ranking": [[name] for name in names]})
    except ApiError as error:
        assert not legal, error.message
        assert error.param is not None
        assert error.param.split(".")[0] in ("candidates", "ranking")
    else:
        assert legal


@pytest.mark.parametrize("count", [17, 10_000])
def test_ten_thousand_candidates_are_too_many(count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    with pytest.raises(ApiError) as refused:
        parse({"type": "ranking", "candidates": names, "ranking": [[name] for name in names]})
    assert refused.value.param == "candidates"


@pytest.mark.parametrize("ranking", [[["a"]] * 17, [["a"] * 17, ["b"]]])
def test_a_ranking_has_no_more_groups_than_candidates_nor_one_more_members(ranking: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Ranking.model_validate({"candidates": ["a", "b"], "ranking": ranking})
    assert [(fault["type"], fault["ctx"]["max_length"]) for fault in refused.value.errors()] == [("too_long", 16)]


def test_letters_beyond_all_bounds_are_not_read() -> None:
    with pytest.raises(ApiError, match="must look like") as refused:
        parse({"type": "ranking", "candidates": CANDIDATES, "ranking": ">".join("A" * 129)})
    assert refused.value.param == "ranking"
    assert parse({"type": "ranking", "candidates": CANDIDATES, "ranking": " > ".join("ABC").ljust(256)})


MANY_FAULTS = {
    "numbers": {"type": "ranking", "candidates": CANDIDATES, "ranking": [0] * 1024},
    "empty groups": {"type": "ranking", "candidates": CANDIDATES, "ranking": [[]] * 1024},
    "candidates": {"type": "ranking", "candidates": [0] * 1024, "ranking": "A > B"},
    "in one group": {"type": "ranking", "candidates": CANDIDATES, "ranking": [[0] * 1024]},
    "unknown fields": {"type": "flag", **{f"x{number}": 0 for number in range(1024)}},
    "tags": {"type": "flag", "completion_id": "c", "tags": {f"x{number}": 0 for number in range(1024)}},
}


@pytest.mark.parametrize("body", MANY_FAULTS.values(), ids=MANY_FAULTS.keys())
@pytest.mark.parametrize("path", ["/v1/feedback", "/feedback"])
async def test_what_holds_a_thousand_faults_is_not_looked_at(
    live: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """All of them are counted out before the first is told."""
    monkeypatch.setattr("serving.judging.said.validated", None)
    monkeypatch.setattr("serving.judging.alias.validated", None)
    refused = await live.http.post(path, json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "the body holds more than 1024 values"


async def test_the_most_that_may_be_said_at_once_is_taken(live: Any) -> None:
    """Each character escaped, as many clients do."""
    ids = await live.completion_ids(n=2)
    tags = {"\U0001f600" * 62 + f"{number:02}": "\U0001f600" * 512 for number in range(16)}
    around = {"tags": tags, "presented_order": ids * 8, "client_id": "x" * 256, "shown_at": 5, "answered_at": 7.5}
    content = {"type": "demonstration", "completion_id": ids[0], "content": "\U0001f600" * 32_768}
    reasons = ["\U0001f600" * 63 + f"{number:x}" for number in range(16)]
    flag = {"type": "flag", "completion_id": ids[0], "comment": "\U0001f600" * 32_768, "reasons": reasons}
    for body in (content, flag):
        raw = json.dumps({**body, **around, "client_id": body["type"]})
        assert len(raw) > 500_000
        assert (await live.http.post("/v1/feedback", content=raw)).status_code == 201


@pytest.mark.parametrize("value", [2, -0.5, "1 ", "up", True, None, [], {}, 10**400, -(10**400)])
def test_a_rating_is_a_thumb_or_a_mark(value: Any) -> None:
    with pytest.raises(ApiError) as refused:
        parse({"type": "rating", "completion_id": "c", "value": value})
    assert (refused.value.status, refused.value.param) == (400, "value")


ODD = {
    "NUL": "a\x00b", "line separators": "a\u2028b\u2029c\u0085d", "right to left": "\u202eabc\u202c שלום",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467", "lines": "a\nb\r\nc", "controls": "\x1b[31m\x7f",
    "not a token": "<|im_end|>", "braces": '{"a": "\\u0000"}\\', "byte order": "a\ufeffb",
    "long": "\U0001f600" * 32_768,
}  # fmt: skip


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
async def test_odd_text_comes_back_as_it_was_sent_and_is_one_line(live: Any, text: str) -> None:
    [id] = await live.completion_ids()
    body = {"type": "demonstration", "completion_id": id, "content": text, "tags": {"odd": text[:100]}}
    answer = await live.http.post("/v1/feedback", json=body)
    assert answer.status_code == 201, answer.text
    kept = (await live.http.get(f"/v1/feedback/{answer.json()['id']}")).json()
    assert (kept["judgement"]["content"], kept["circumstances"]["tags"]["odd"]) == (text, text[:100])
    [stored] = live.ledger.standing(live.ledger.watermark())
    assert stored.judgement.content.encode() == text.encode()
    assert len(stored.model_dump_json().encode().split(b"\n")) == 1


async def test_half_a_megabyte_of_one_emoji_is_too_long(live: Any) -> None:
    [id] = await live.completion_ids()
    body = {"type": "comment", "completion_id": id, "content": "\U0001f600" * 125_000}
    refused = await live.http.post("/v1/feedback", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content")
    assert len(refused.text) < 1000


@pytest.mark.parametrize(
    ("around", "param"),
    [
        ({"tags": {"x" * 65: "y"}}, "tags"),
        ({"tags": {"": "y"}}, "tags"),
        ({"tags": {"x": "y" * 513}}, "tags.x"),
        ({"tags": {str(number): "y" for number in range(17)}}, "tags"),
        ({"shown_at": "5"}, "shown_at"),
        ({"answered_at": True}, "answered_at"),
    ],
)
async def test_circumstances_have_bounds_and_no_other_types(live: Any, around: dict[str, Any], param: str) -> None:
    [id] = await live.completion_ids()
    refused = await live.http.post("/v1/feedback", json={"type": "flag", "completion_id": id, **around})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    whole = {"tags": {"x" * 64: "y" * 512}, "shown_at": 5, "answered_at": 7.5}
    kept = await live.http.post("/v1/feedback", json={"type": "flag", "completion_id": id, **whole})
    assert kept.status_code == 201


@pytest.mark.parametrize("raw", [b'{"comment": "\xff"}', b'{"comment": "\xed\xa0\x80"}', b"\x00", b"\xfe\xff{}"])
async def test_bytes_that_are_no_text_are_refused(live: Any, raw: bytes) -> None:
    refused = await live.http.post("/v1/feedback", content=raw)
    assert refused.status_code == 400
    refused.json()["error"]["message"].encode()
