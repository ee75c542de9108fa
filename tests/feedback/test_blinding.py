"""Who wrote what is told of nothing that is still compared blind, whatever it is set against."""

import pytest

from feedback.archive import Archive
from feedback.blinding import blind
from feedback.judgements import Comparison, Ranking, Rating
from feedback.listing import Sought, listed
from feedback.records import Offer, Slot
from tests.feedback.booth import Booth


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


def laid(booth: Booth, *versions: int) -> list[str]:
    """Answers of these versions side by side; their ids."""
    ids = booth.answers(*versions)
    slots = tuple(Slot(completion_id=id, arm="policy") for id in ids)
    offer = Offer(
        id=ids[0].partition(":")[0], rater="ann", conversation_id="c", propensity=0.5, created=1.0, slots=slots
    )
    Archive(booth.ledger).add_offer(offer)
    return ids


def unseen(booth: Booth, *ids: str) -> set[str]:
    return blind(booth.ledger, [kept.feedback for kept in booth.ledger.kept(ids)])


def by_version(booth: Booth, version: int) -> list[str]:
    return [kept.feedback.id for kept in listed(booth.ledger, Sought(policy_version=version), "", 9).items]


def test_a_comparison_with_an_answer_from_elsewhere_is_no_vote(booth: Booth) -> None:
    left, right = laid(booth, 1, 2)
    [elsewhere] = booth.answers(3)
    ids = [
        booth.say(Comparison(left=left, right=elsewhere, winner="left")),
        booth.say(Comparison(left=elsewhere, right=right, winner="left")),
        booth.say(Ranking(candidates=(elsewhere, left, right), ranking=((right,), (left,), (elsewhere,)))),
        booth.say(Rating(completion_id=left, value=1)),
    ]
    assert unseen(booth, *ids) == {*ids}
    assert by_version(booth, 1) == by_version(booth, 2) == by_version(booth, 3) == []
    vote = booth.say(Comparison(left=left, right=right, winner="right"))
    assert unseen(booth, *ids, vote) == set()
    assert by_version(booth, 1) == [ids[0], *ids[2:], vote]


def test_what_was_never_laid_side_by_side_is_not_blind(booth: Booth) -> None:
    left, right = booth.answers(1, 2)
    assert unseen(booth, booth.say(Comparison(left=left, right=right, winner="left"))) == set()
    assert unseen(booth, booth.say(Rating(completion_id=left, value=1))) == set()


def test_a_comparison_across_two_offers_waits_for_both(booth: Booth) -> None:
    (first, beside), (second, other) = laid(booth, 1, 2), laid(booth, 2, 1)
    across = booth.say(Comparison(left=first, right=second, winner="left"))
    booth.say(Comparison(left=first, right=beside, winner="left"))
    assert unseen(booth, across) == {across}
    booth.say(Comparison(left=second, right=other, winner="left"))
    assert unseen(booth, across) == set()
