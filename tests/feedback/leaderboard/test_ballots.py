"""Judgements of the ledger as votes on versions: whose, on which side, by how much longer, and what does not count."""

import math
from pathlib import Path

import pytest

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.judgements import Circumstances, Comparison, Ranking
from feedback.leaderboard.ballots import board_of, votes_in
from feedback.leaderboard.bradley_terry import Vote
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry, UnknownPolicy
from tests.feedback.booth import Booth


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


def test_a_comparison_is_a_vote_on_who_wrote_left_and_right(booth: Booth) -> None:
    for winner in ("left", "right", "tie", "both_bad"):
        booth.compare(3, 7, winner=winner)
    longer = round(8 * math.log(3 / 5)) / 8  # 2 tokens beside 4
    assert votes_in(booth.ledger) == [Vote(3, 7, result, "ann", 1.0, longer) for result in (1.0, 0.0, 0.5, 0.5)]


def test_a_ranking_is_a_vote_for_each_pair_of_different_versions(booth: Booth) -> None:
    a, b, c, d = booth.answers(1, 2, 1, 3)
    booth.say(Ranking(candidates=(a, b, c, d), ranking=((b,), (a, c)), partial=True, comparison_id="cmp"))
    said = [(v.left, v.right, v.result, v.side) for v in votes_in(booth.ledger)]
    assert said == [(1, 2, 0.0, 1.0), (1, 3, 1.0, 1.0), (2, 1, 1.0, 1.0), (2, 3, 1.0, 1.0), (1, 3, 1.0, 1.0)]


def test_what_a_partial_ranking_left_out_is_not_compared(booth: Booth) -> None:
    a, b, c = booth.answers(1, 2, 3)
    booth.say(Ranking(candidates=(a, b, c), ranking=((c,),), partial=True, comparison_id="cmp"))
    assert [(v.left, v.right, v.result) for v in votes_in(booth.ledger)] == [(1, 3, 0.0), (2, 3, 0.0)]


def test_sides_are_those_that_were_shown_or_unknown(booth: Booth) -> None:
    (a,), (b,) = booth.answers(1), booth.answers(2)
    ranking = Ranking(candidates=(a, b), ranking=((a,), (b,)))
    booth.say(ranking, rater="bob")
    booth.say(ranking, rater="eve", circumstances=Circumstances(presented_order=(b, a)))
    assert [(v.left, v.right, v.result, v.side) for v in votes_in(booth.ledger)] == [(1, 2, 1.0, 0), (2, 1, 0.0, 1)]
    assert votes_in(booth.ledger, blind=True) == []


def test_answers_of_one_offer_were_laid_blind_also_where_their_ids_are_named(booth: Booth) -> None:
    """In the places where they stood; and of what was said of one offer the first word, of whichever answers."""
    a, b, c = booth.answers(1, 2, 3)
    booth.say(Ranking(candidates=(c, a), ranking=((a,), (c,))))
    booth.say(Ranking(candidates=(a, b, c), ranking=((b,), (a,), (c,))))
    assert [(v.left, v.right, v.result, v.side) for v in votes_in(booth.ledger, blind=True)] == [(1, 3, 1.0, 1.0)]
    (x,), (y,) = booth.answers(1), booth.answers(2)
    booth.say(Comparison(left=x, right=y, winner="left"), rater="bob")
    assert len(votes_in(booth.ledger, blind=True)) == 1, "answers of two offers were not laid side by side"


def test_what_no_single_version_wrote_does_not_count(booth: Booth) -> None:
    booth.compare(1, None)
    booth.compare(2, 2)
    a, b = booth.answers(1, 2, version_changed_at=1)
    booth.say(Comparison(left=a, right=b, winner="left"))
    assert votes_in(booth.ledger) == []


def test_the_last_word_counts_unless_it_was_taken_back_or_erased(booth: Booth) -> None:
    left, right = booth.answers(1, 2)
    for winner in ("left", "right"):
        booth.say(Comparison(left=left, right=right, winner=winner))  # type: ignore[arg-type]
    booth.ledger.retract(booth.compare(1, 2))
    booth.compare(1, 2, rater="eve")
    assert [(v.rater, v.result) for v in votes_in(booth.ledger)] == [("ann", 0.0), ("eve", 1.0)]
    Eraser(Archive(booth.ledger)).person("eve")
    assert [v.rater for v in votes_in(booth.ledger)] == ["ann"]


def test_of_what_was_laid_blind_the_first_word_counts_unless_it_was_erased(booth: Booth) -> None:
    left, right = booth.answers(1, 2)
    for winner in ("left", "right"):
        vote = Comparison(left=left, right=right, winner=winner, comparison_id="cmp")  # type: ignore[arg-type]
        booth.say(vote)
    booth.ledger.retract(booth.compare(1, 2, winner="right"))
    booth.compare(1, 2, rater="eve")
    assert [(v.rater, v.result) for v in votes_in(booth.ledger)] == [("ann", 0.0), ("eve", 1.0)]
    assert [(v.rater, v.result) for v in votes_in(booth.ledger, blind=True)] == [
        ("ann", 1.0),
        ("ann", 0.0),
        ("eve", 1.0),
    ]
    Eraser(Archive(booth.ledger)).person("eve")
    assert [v.rater for v in votes_in(booth.ledger, blind=True)] == ["ann", "ann"]


def test_whose_votes_count(booth: Booth) -> None:
    booth.compare(1, 2, rater="ann")
    booth.compare(1, 2, rater="bob", split="eval")
    booth.compare(1, 2, rater="eve")
    ledger = booth.ledger
    assert {v.rater for v in votes_in(ledger)} == {"ann", "bob", "eve"}
    assert {v.rater for v in votes_in(ledger, whose="evaluation")} == {"bob"}
    assert {v.rater for v in votes_in(ledger, whose="training", quarantined={"eve"})} == {"ann"}


def test_the_board_of_a_ledger_leaves_quarantine_out(booth: Booth, tmp_path: Path) -> None:
    registry = PolicyRegistry(booth.ledger.redis, tmp_path)
    for rater, winner in [("ann", "left"), ("bob", "right"), ("eve", "left"), ("eve", "left")]:
        booth.compare(1, 0, winner=winner, rater=rater)
    Raters(booth.ledger.redis).quarantine("eve", actor="test", reason="a bot")
    board = board_of(booth.ledger, registry)
    assert (board.votes, board.raters) == (2, 2)
    booth.ledger.redis.hset("policy:states", "0", "stable")
    with pytest.raises(UnknownPolicy):
        board_of(booth.ledger, registry, anchor=9)
