"""How the evidence on a release came to be: the figures after each vote are those of the decision after it."""

import time
from math import log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.people.raters import Raters
from feedback.policies.ppo_curves import thinned
from feedback.policies.registry import PolicyRegistry
from feedback.releases.ballots import votes_of_release
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.decisions import Rules, decide
from feedback.releases.evidence import course, evidence_of
from feedback.releases.judge import rules_of
from feedback.releases.plan import Plan
from feedback.releases.start import begin_release
from feedback.releases.votes import Vote
from feedback.store import FEEDBACK
from tests.feedback.booth import Booth
from tests.feedback.policies.test_registry import publish

PLAIN = Rules(plot=0.0)


def test_evidence_by_hand() -> None:
    """One win: the mean of 2p over p in [1/2, 1] is 3/2, over [0, 1/2] 1/2; a tie adds nothing."""
    votes = [Vote("ann", "candidate", True, time=10.0), Vote("bob", "tie", True, time=20.0)]
    first, second = course(votes, PLAIN)
    assert (first.vote, first.time, first.wins, first.losses, first.ties) == (1, 10.0, 1, 0, 0)
    assert first.log_e == first.log_e_better == pytest.approx(log(1.5), abs=1e-12)
    assert first.log_e_worse == pytest.approx(log(0.5), abs=1e-12)
    assert (first.win_rate.mean, first.win_rate.high) == (1.0, 1.0)
    assert (second.vote, second.time, second.ties, second.log_e) == (2, 20.0, 1, first.log_e)
    assert course([], PLAIN) == []


voting = st.lists(
    st.builds(
        Vote,
        rater=st.sampled_from("abcdefgh"),
        winner=st.sampled_from(["candidate", "candidate", "stable", "tie"]),
        candidate_left=st.booleans(),
    ),
    max_size=60,
)


@given(votes=voting, plot=st.sampled_from([0.0, 0.25]))
def test_each_point_is_what_the_decision_was_after_that_vote(votes: list[Vote], plot: float) -> None:
    rules = Rules(alpha=0.2, plot=plot)
    points = iter(course(votes, rules))
    before = decide([], rules=rules)
    for number in range(1, len(votes) + 1):
        now = decide(votes[:number], rules=rules)
        if (now.wins, now.losses, now.ties) != (before.wins, before.losses, before.ties):
            point = next(points)
            assert (point.wins, point.losses, point.ties) == (now.wins, now.losses, now.ties)
            assert point.vote == now.wins + now.losses + now.ties
            assert (point.log_e, point.log_e_better, point.log_e_worse, point.win_rate) == (
                now.log_e_standing, now.log_e_better, now.log_e_worse, now.win_rate,
            )  # fmt: skip
        before = now
    assert next(points, None) is None


@given(last=st.integers(0, 3000), most=st.integers(2, 500))
def test_points_are_spread_from_the_first_to_the_last(last: int, most: int) -> None:
    kept = [1 + index for index in thinned(last, most)]
    assert len(kept) == min(last, most)
    assert not kept or (kept[0], kept[-1]) == (1, last)
    gaps = {after - before for before, after in zip(kept, kept[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_of_many_votes_so_many_points_are_kept() -> None:
    votes = [Vote(f"r{n}", "candidate" if n % 2 else "stable", True, time=float(n)) for n in range(40)]
    whole, few = course(votes, PLAIN), course(votes, PLAIN, most=5)
    assert [point.vote for point in whole] == [*range(1, 41)]
    assert [point.vote for point in few] == [1, 11, 21, 30, 40]
    assert all(point in whole for point in few)


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


@pytest.fixture
def book(booth: Booth, tmp_path: Path) -> ReleaseBook:
    registry = PolicyRegistry(booth.ledger.redis, tmp_path / "policies")
    publish(registry, 2)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    return ReleaseBook(registry)


def begun(booth: Booth, book: ReleaseBook) -> Release:
    return begin_release(booth.ledger, book.registry, 1, Plan(), mode="manual", actor="ann", reason="try", seen=None)


def test_the_ledger_tells_it_again_up_to_the_end(booth: Booth, book: ReleaseBook) -> None:
    booth.compare(0, 1, lane="release", release=1, rater="zoe", created=time.time())  # who voted before may vote
    release = begun(booth, book)
    facts = {"lane": "release", "release": release.id}
    for rater, winner in (("ann", "right"), ("bob", "left"), ("cay", "tie"), ("dan", "right")):
        booth.compare(0, 1, winner=winner, rater=rater, created=time.time(), **facts)
    points = evidence_of(booth.ledger, release)
    assert [(each.wins, each.losses, each.ties) for each in points] == [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)]
    assert [each.time for each in points] == [vote.time for vote in votes_of_release(booth.ledger, release)]
    assert min(each.time for each in points) >= release.created
    found = decide(votes_of_release(booth.ledger, release), rules=rules_of(booth.ledger, release))
    assert points[-1].log_e == found.log_e_standing
    assert (found.raters, release.voters) == (4, 1), "who came later votes too"
    over = book.end(release, "aborted", actor="ann", reason="enough")
    booth.compare(0, 1, rater="eve", created=time.time() + 60, **facts)
    assert evidence_of(booth.ledger, over) == points
    assert len(evidence_of(booth.ledger, release)) == 5, "were it still open, it would count"


def test_what_came_after_the_end_of_a_release_is_not_read(booth: Booth, book: ReleaseBook) -> None:
    release = begun(booth, book)
    booth.compare(0, 1, lane="release", release=release.id, created=time.time())
    over = book.end(release, "aborted", actor="ann", reason="enough")
    assert over.ended is not None
    booth.ledger.redis.xadd(FEEDBACK, {"data": "no judgement"}, id=f"{int(over.ended * 1000) + 60_001}-0")
    assert len(evidence_of(booth.ledger, over)) == 1
    with pytest.raises(ValueError, match="Invalid JSON"):
        evidence_of(booth.ledger, release)


def test_the_bar_of_a_release_is_that_of_its_beginning(booth: Booth, book: ReleaseBook) -> None:
    for rater in ("ann", "bob", "cay"):
        booth.compare(0, 1, rater=rater, created=time.time())
    release = begun(booth, book)
    Raters(booth.ledger.redis).quarantine("bob", actor="op", reason="bought")
    assert (release.voters, rules_of(booth.ledger, release).raters) == (3, 3)
    assert book.get(release.id) == release, "another process reads the same bar"
    older = release.model_copy(update={"voters": None})
    assert rules_of(booth.ledger, older).raters == 2, "of those that began before it was kept"
