"""Judgements page by page: what fits, in which order, and how much is read for it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback import listing
from feedback.judgements import Comparison, Feedback, Rating
from feedback.listing import Sought, listed, policies_of
from feedback.people.raters import Raters
from tests.feedback.booth import Booth

START = 1_767_225_600
HOURS = range(7)


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


def said(booth: Booth, hour: int, rater: str = "ann", split: str = "train", version: int | None = 1) -> str:
    """A thumb on an answer of that version; its id is made as the service makes them."""
    [target] = booth.answers(version)
    created = START + 3600.0 * hour
    id = f"fb_{int(created * 1000):012x}{booth.count:020x}"
    judgement = Rating(completion_id=target, value=1)
    known = {"id": id, "judgement": judgement, "rater": rater, "split": split, "created": created}
    booth.ledger.append_feedback(Feedback.model_validate(known))
    return id


def imported(booth: Booth, name: str, hour: int) -> str:
    known = {"id": f"fb_import_{name}", "rater": "import_x", "split": "train", "created": START + 3600.0 * hour}
    [target] = booth.answers(None)
    record = Feedback.model_validate(known | {"judgement": Rating(completion_id=target, value=0)})
    booth.ledger.append_feedback(record)
    return record.id


def pages(booth: Booth, limit: int = 3, **sought: Any) -> list[str]:
    """All that is found, page by page."""
    found: list[str] = []
    after = ""
    while True:
        page = listed(booth.ledger, Sought(**sought), after, limit)
        assert len(page.items) <= limit
        found += [kept.feedback.id for kept in page.items]
        if not page.more:
            return found
        assert page.last is not None and page.last != after, "it goes on"
        after = page.last


def test_pages_go_either_way_and_imported_ones_come_last(booth: Booth) -> None:
    given = [said(booth, hour) for hour in HOURS]
    both = [imported(booth, name, hour=3) for name in ("a", "b")]
    assert pages(booth) == given + both
    assert pages(booth, newest_first=True) == given[::-1] + both[::-1]
    assert pages(booth, limit=1, newest_first=True) == given[::-1] + both[::-1]
    assert pages(booth, rater="ann", newest_first=True) == given[::-1]


def test_times_are_from_and_before(booth: Booth) -> None:
    given = [said(booth, hour) for hour in HOURS]
    old, new = imported(booth, "old", hour=0), imported(booth, "new", hour=5)
    since, until = START + 2 * 3600.0, START + 5 * 3600.0
    assert pages(booth, since=since, until=until) == given[2:5]
    assert pages(booth, since=since, newest_first=True) == given[:1:-1] + [new]
    assert pages(booth, until=until) == given[:5] + [old]
    assert pages(booth, since=since, until=since) == []


def test_what_is_known_of_a_judgement_can_be_asked_for(booth: Booth) -> None:
    anns, bobs, other = said(booth, 0), said(booth, 1, "bob", "eval"), said(booth, 2, version=2)
    check = booth.compare(2, 3, lane="gold", rater="cay")
    Raters(booth.ledger.redis).quarantine("bob", actor="root", reason="x")
    assert pages(booth, rater="bob") == pages(booth, split="eval") == pages(booth, quarantined=True) == [bobs]
    assert pages(booth, quarantined=False) == [anns, other, check]
    assert pages(booth, lane="gold") == pages(booth, type="comparison") == pages(booth, policy_version=3) == [check]
    assert pages(booth, policy_version=2) == [other, check]
    assert pages(booth, policy_version=9) == pages(booth, rater="nobody") == []


def test_of_one_answer_there_are_few(booth: Booth) -> None:
    left, right = booth.answers(1, 2)
    first = booth.say(Rating(completion_id=left, value=1))
    second = booth.say(Comparison(left=left, right=right, winner="left"), rater="bob")
    booth.say(Rating(completion_id=right, value=1))
    assert pages(booth, limit=1, completion_id=left) == [first, second]
    assert pages(booth, limit=1, completion_id=left, newest_first=True) == [second, first]
    assert pages(booth, completion_id=left, rater="bob") == [second]


def test_what_stands_no_more_is_left_out(booth: Booth) -> None:
    gone, stays = said(booth, 0), said(booth, 1)
    booth.ledger.retract(gone)
    assert pages(booth) == [stays]


def test_a_page_that_finds_little_ends_and_says_where_to_go_on(booth: Booth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "BATCH", 2)
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 4)
    given = [said(booth, hour) for hour in HOURS]
    rare = booth.compare(1, 2, winner="left")  # fb_N sorts after what begins with fb_0
    first = listed(booth.ledger, Sought(type="comparison"), "", 3)
    assert (first.items, first.last, first.more) == ([], given[3], True)
    assert pages(booth, type="comparison") == [rare]
    assert pages(booth) == [*given, rare]


def test_policies_stand_in_the_order_of_what_is_judged(booth: Booth) -> None:
    ids = [booth.compare(*versions) for versions in ((3, 2), (2, 2), (None, 4))]
    judged = [kept.feedback for kept in booth.ledger.kept(ids)]
    assert policies_of(booth.ledger, judged) == {ids[0]: [3, 2], ids[1]: [2], ids[2]: [4]}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    hours=st.lists(st.tuples(st.sampled_from(HOURS), st.sampled_from(["ann", "bob"])), max_size=12),
    limit=st.integers(1, 5),
    newest_first=st.booleans(),
    since=st.none() | st.sampled_from(HOURS),
    rater=st.none() | st.just("bob"),
)
def test_pages_join_to_what_a_plain_search_finds(
    booth: Booth, hours: list[tuple[int, str]], limit: int, newest_first: bool, since: int | None, rater: str | None
) -> None:
    booth.ledger.redis.flushdb()
    made = sorted((said(booth, hour, who), hour, who) for hour, who in hours)
    fits = [id for id, hour, who in made if hour >= (since or 0) and rater in (None, who)]
    moment = None if since is None else START + 3600.0 * since
    found = pages(booth, limit, newest_first=newest_first, since=moment, rater=rater)
    assert found == (fits[::-1] if newest_first else fits)
