"""What was served, found again: pages, branches and their parents, and what is private or blind."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.erasure import Eraser
from feedback.judgements import Comparison, Feedback, Rating
from feedback.records import Offer, Slot, new_id

Turns = list[tuple[str, str]]


def pages(shop: Any, limit: int, **choice: Any) -> list[str]:
    """The ids on all of ann's pages, one after the other."""
    wanted = {"metadata": {}, "model": None, "newest_first": False} | choice
    ids: list[str] = []
    while True:
        found, has_more = shop.archive.responses("ann", after=ids[-1] if ids else None, limit=limit, **wanted)
        ids += [response.id for response in found]
        assert len(found) == limit or not has_more
        if not has_more:
            return ids


def test_what_is_asked_again_goes_on_from_the_answer_whose_words_it_repeats(shop: Any) -> None:
    first = shop.ask(("user", "hi"), answer="hello", n=2)
    assert first.parent_id is None
    on = shop.ask(("user", "hi"), ("assistant", "hello 1"), ("user", "well?"), answer="fine")
    again = shop.ask(("user", "hi"), ("assistant", "hello 1"), ("user", "well?"), answer="very fine")
    edited = shop.ask(("user", "hi"), ("assistant", "hello 1"), ("user", "and you?"), answer="me too")
    other = shop.ask(("user", "hi"), ("assistant", "hello"), ("user", "well?"), answer="so so")
    assert [each.parent_id for each in (on, again, edited, other)] == [f"{first.id}:1"] * 3 + [f"{first.id}:0"]
    assert [each.id for each in shop.archive.branches("ann", "c")] == [
        each.id for each in (first, on, again, edited, other)
    ]


@pytest.mark.parametrize(
    ("turns", "found"),
    [
        ([("system", "it is May"), ("user", "hi"), ("assistant", "hello"), ("user", "so?")], True),
        ([("user", " hi\n"), ("assistant", "hello "), ("user", "so?")], True),
        ([("user", "hi"), ("assistant", "hello"), ("user", "a"), ("tool", "b")], True),
        ([("user", "hi"), ("assistant", "hello, edited"), ("user", "so?")], False),
        ([("user", "hi there"), ("assistant", "hello"), ("user", "so?")], False),
        ([("user", "hi")], False),
    ],
)
def test_parent_is_found_by_turns_and_not_by_what_clients_add(shop: Any, turns: Turns, found: bool) -> None:
    first = shop.ask(("system", "it is April"), ("user", "hi"), answer="hello")
    assert shop.ask(*turns, answer="next").parent_id == (f"{first.id}:0" if found else None)


def test_no_parent_is_found_in_another_conversation_or_at_somebody_elses(shop: Any) -> None:
    shop.ask(("user", "hi"), answer="hello")
    turns = ("user", "hi"), ("assistant", "hello"), ("user", "so?")
    assert shop.ask(*turns, answer="x", conversation="d").parent_id is None
    assert shop.ask(*turns, answer="x", rater="bob").parent_id is None


def test_a_conversation_may_be_named_like_anything(shop: Any) -> None:
    """Names that look like parts of other keys meet nothing."""
    for name in ("c", "c:responses", "c:paths", "bob:c", "", "🦀/ tree"):
        shop.ask(("user", name), answer="a", conversation=name)
        shop.ask(("user", name), ("assistant", "a"), ("user", "b"), answer="c", conversation=name)
        first, second = shop.archive.branches("ann", name)
        assert second.parent_id == f"{first.id}:0"
        conversation = shop.archive.conversation("ann", name)
        assert conversation is not None
        assert (conversation.title, conversation.head) == (name, f"{second.id}:0")


def test_changes_keep_what_they_do_not_name_and_bring_the_conversation_to_the_front(shop: Any) -> None:
    first = shop.ask(("user", "hi  you"), answer="hello", conversation="c")
    shop.ask(("user", "hi"), answer="hello", conversation="d")
    made = shop.archive.conversation("ann", "c")
    assert made is not None
    assert (made.title, made.allow_training, made.head) == ("hi you", True, f"{first.id}:0")
    assert [each.id for each in shop.archive.conversations("ann", after=None, limit=9).items] == ["d", "c"]
    assert shop.archive.change_conversation("ann", "c", allow_training=False)
    assert shop.archive.change_conversation("ann", "c", title="0")
    changed = shop.archive.conversation("ann", "c")
    assert changed is not None
    assert changed == made.model_copy(update={"title": "0", "allow_training": False, "updated": changed.updated})
    assert changed.updated > made.updated
    assert [each.id for each in shop.archive.conversations("ann", after=None, limit=9).items] == ["c", "d"]
    assert shop.archive.private([("ann", "c"), ("ann", "d"), ("bob", "c")]) == {("ann", "c")}


def test_what_does_not_exist_is_not_made_by_a_change(shop: Any) -> None:
    assert not shop.archive.change_conversation("ann", "c", title="x")
    assert not shop.archive.annotate("chatcmpl-1", {"a": "b"})
    assert shop.archive.conversation("ann", "c") is None
    assert shop.archive.conversations("ann", after=None, limit=9) == ([], None, False)
    assert shop.archive.response("chatcmpl-1") is None
    for nowhere in ("gone", "nan:c", "inf:c", "1.5"):
        with pytest.raises(KeyError):
            shop.archive.conversations("ann", after=nowhere, limit=9)


def test_annotation_replaces_the_metadata(shop: Any) -> None:
    response = shop.ask(("user", "hi"), answer="hello", a="1", b="2")
    assert response.metadata == {"a": "1", "b": "2"}
    assert shop.archive.annotate(response.id, {"b": "3"})
    assert shop.archive.response(response.id) == response.model_copy(update={"metadata": {"b": "3"}})
    assert pages(shop, 5, metadata={"b": "3"}) == [response.id]
    assert pages(shop, 5, metadata={"a": "1"}) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(0, 12), limit=st.integers(1, 5), newest_first=st.booleans())
def test_pages_of_any_size_give_each_once_in_order(
    shop: Any, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, count: int, limit: int, newest_first: bool
) -> None:
    monkeypatch.setattr("feedback.archive.SCAN", data.draw(st.integers(1, 4)))
    shop.ledger.redis.flushdb()
    colours = [data.draw(st.sampled_from(["red", "blue"])) for _ in range(count)]
    for number, colour in enumerate(colours):
        shop.ask(("user", "x"), answer="y", id=f"chatcmpl-{number:03}", model=f"{colour}-model", colour=colour)
        shop.ask(("user", "x"), answer="y", id=f"cmp_{number}")
        shop.ask(("user", "x"), answer="y", id=f"chatcmpl-{number:03}b", rater="bob")

    def expected(*wanted: str) -> list[str]:
        ids = [f"chatcmpl-{number:03}" for number, colour in enumerate(colours) if colour in wanted]
        return ids[::-1] if newest_first else ids

    assert pages(shop, limit, newest_first=newest_first) == expected("red", "blue")
    assert pages(shop, limit, newest_first=newest_first, metadata={"colour": "red"}) == expected("red")
    assert pages(shop, limit, newest_first=newest_first, model="blue-model") == expected("blue")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(used=st.lists(st.sampled_from("abcdefgh"), max_size=12), limit=st.integers(1, 5))
def test_conversations_come_once_each_the_last_used_first(shop: Any, used: list[str], limit: int) -> None:
    shop.ledger.redis.flushdb()
    for name in used:
        shop.ask(("user", "x"), answer="y", conversation=name)
    for by_place in (False, True):
        found: list[str] = []
        after, has_more = None, True
        while has_more:
            page, last, has_more = shop.archive.conversations("ann", after=after, limit=limit)
            found += [conversation.id for conversation in page]
            after = last if by_place or not found else found[-1]
        assert found == list(dict.fromkeys(reversed(used)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), times=st.lists(st.sampled_from([1.0, 2.0, 2.5]), min_size=2, max_size=8))
def test_a_page_goes_on_where_the_one_before_ended_whatever_became_of_that(
    shop: Any, data: st.DataObject, times: list[float]
) -> None:
    """Those of one moment stand in the order of their names."""
    shop.ledger.redis.flushdb()
    for number, moment in enumerate(times):
        shop.ask(("user", "x"), answer="y", conversation=f"{number}: é:🦀")
        shop.ledger.redis.zadd("conversations:ann", {f"{number}: é:🦀": moment})
    everything = shop.archive.conversation_ids("ann")[::-1]
    limit = data.draw(st.integers(1, len(times) - 1))
    page = shop.archive.conversations("ann", after=None, limit=limit)
    assert [each.id for each in page.items] == everything[:limit]
    for id in data.draw(st.sets(st.sampled_from(everything[:limit]))):
        if data.draw(st.booleans()):
            Eraser(shop.archive).conversation("ann", id)
        else:
            shop.ask(("user", "x"), answer="y", conversation=id)
    rest = shop.archive.conversations("ann", after=page.last, limit=9)
    assert [each.id for each in rest.items] == everything[limit:]


@pytest.mark.parametrize("scan", [1, 2, 200])
def test_conversations_are_found_by_all_words_of_their_titles(
    shop: Any, scan: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.archive.SCAN", scan)
    titles = {"a": "Green tea", "b": "Black TEA", "c": "Coffee, black", "d": "Tea, green and black", "e": "Straße"}
    for id, title in titles.items():
        shop.ask(("user", title), answer="y", conversation=id)

    def found(*words: str, after: str | None = None, limit: int = 9) -> tuple[str, bool]:
        page, _, has_more = shop.archive.conversations("ann", after=after, limit=limit, words=words)
        return "".join(each.id for each in page), has_more

    assert found("tea") == ("dba", False)
    assert found("BLACK", "tea") == ("db", False)
    assert found("strasse") == ("e", False)
    assert found("milk") == ("", False)
    assert found("tea", limit=2) == ("db", True)
    assert found("tea", limit=2, after="b") == ("a", False)
    assert found("tea", limit=2, after=shop.archive.conversations("ann", after=None, limit=4).last) == ("a", False)
    assert found("tea", limit=3) == ("dba", False)


def test_a_search_stops_after_so_many_titles_and_goes_on_from_the_last_one(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.archive.SCAN", 2)
    monkeypatch.setattr("feedback.archive.MOST_LOOKED_AT", 4)
    for id in "abcdefghi":
        shop.ask(("user", {"a": "Green tea", "h": "Black tea"}.get(id, "Coffee")), answer="y", conversation=id)
    pages, last, has_more = [], None, True
    while has_more:
        found, last, has_more = shop.archive.conversations("ann", after=last, limit=3, words=["tea"])
        pages.append((" ".join(each.id for each in found), last[-1], has_more))
    assert pages == [("h", "f", True), ("", "b", True), ("a", "a", False)]
    unnamed = shop.archive.conversations("ann", after=None, limit=3)
    assert ([each.id for each in unnamed.items], unnamed.last[-2:]) == (["i", "h", "g"], ":g")


def test_answers_laid_side_by_side_are_blind_until_the_vote(shop: Any) -> None:
    response = shop.ask(("user", "x"), answer="y", id="cmp_1", n=2)
    plain = shop.ask(("user", "x"), answer="y")
    left, right = response.completion_ids
    offer = Offer(
        id="cmp_1", rater="ann", conversation_id="c", propensity=0.5, created=1.0,
        slots=(Slot(completion_id=left, arm="policy"), Slot(completion_id=right, arm="policy")),
    )  # fmt: skip
    shop.archive.add_offer(offer)
    assert shop.archive.offer("cmp_1") == offer
    assert shop.archive.offer(plain.id) is None

    def say(judgement: Rating | Comparison) -> None:
        record = Feedback(id=new_id("fb_"), judgement=judgement, rater="ann", split="train", created=1.0)
        shop.ledger.append_feedback(record)

    assert shop.archive.blind([plain, response]) == {"cmp_1"}
    say(Rating(completion_id=left, value=1))
    assert shop.archive.blind([plain, response]) == {"cmp_1"}, "a thumb is no vote"
    say(Comparison(left=left, right=right, winner="left"))
    assert shop.archive.blind([plain, response]) == set()
