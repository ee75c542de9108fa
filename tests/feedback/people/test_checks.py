"""Checks of raters: counted by hand, who is suspected of what, what comes again; and that nobody learns from them."""

import math
from typing import Any

import pytest

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.exchange.exporting import Wanted, export
from feedback.judgements import Comparison, Feedback, Ranking, Rating
from feedback.leaderboard.ballots import votes_in
from feedback.people.checks import Checked, again, checked, counted, repeat_id, repeatable, suspects
from feedback.records import CHECKS, Completion, Lane, Message, Offer, Slot
from tests.feedback.booth import Booth


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


def vote(
    left: str, right: str, winner: str, id: str | None = "cmp", lane: Lane | None = None, **facts: Any
) -> Feedback:
    judgement = Comparison.model_validate({"left": left, "right": right, "winner": winner, "comparison_id": id})
    told = {"id": "fb", "judgement": judgement, "rater": "ann", "split": "train", "lane": lane, "created": 0.0}
    return Feedback.model_validate(told | facts)


def laid(booth: Booth, lane: Lane | None = None, arms: tuple[str, str] = ("policy@stable",) * 2) -> Offer:
    """A pair of answers of two versions; what has the arm gold is a decoy."""
    ids = booth.answers(1, 2)
    id = ids[0].partition(":")[0]
    slots = tuple(Slot(completion_id=each, arm=arm) for each, arm in zip(ids, arms, strict=True))
    offer = Offer(id=id, rater="ann", conversation_id="c", slots=slots, propensity=0.5, lane=lane, created=0.0)
    Archive(booth.ledger).add_offer(offer)
    return offer


def say(booth: Booth, offer: Offer, winner: str, **facts: Any) -> str:
    left, right = offer.completion_ids
    told = {"left": left, "right": right, "winner": winner, "comparison_id": offer.id}
    return booth.say(Comparison.model_validate(told), lane=offer.lane, **facts)


def test_checks_are_counted_by_hand() -> None:
    said = [
        vote("a", "decoy", "left", lane="gold"),
        vote("decoy", "b", "left", lane="gold"),
        vote("c", "decoy", "both_bad", lane="gold"),
        vote("d", "e", "right"),
        vote("e", "d", "left", lane="repeat"),
        vote("f", "g", "left", lane="release"),
        vote("g", "f", "left", lane="repeat"),
        vote("h", "i", "left"),
        vote("i", "h", "tie", lane="repeat"),
        vote("j", "k", "left", id=None),  # nobody drew its sides
        vote("x", "y", "left", lane="repeat", rater="bob"),  # what he said first does not stand any more
    ]
    ranking = Ranking(candidates=("l", "m"), ranking=(("m",), ("l",)), comparison_id="cmp")
    said.append(vote("l", "m", "left").model_copy(update={"judgement": ranking}))
    three = Ranking(candidates=("n", "o", "p"), ranking=(("n",), ("o", "p")), comparison_id="cmp")
    said.append(vote("n", "o", "left").model_copy(update={"judgement": three}))
    assert counted(said, {"decoy"}) == {
        # Left: a, the decoy, f, h; right: e, m. What comes again has no side of chance.
        "ann": Checked(passed=1, failed=1, same=1, other=1, left=4, right=2),
        "bob": Checked(),
    }


def test_evidence_by_hand() -> None:
    # One loss is worth 3 against passing over 80%; a second one (mean of (1 - p)^2 up to 0.8, by 0.04) 31/3.
    assert math.exp(Checked(failed=1).log_e_careless) == pytest.approx(3)
    assert math.exp(Checked(failed=2).log_e_careless) == pytest.approx((1 - 0.2**3) / 3 / 0.8 / 0.04)
    assert math.exp(Checked(passed=1).log_e_careless) == pytest.approx(1 / 2)
    assert math.exp(Checked(other=1).log_e_fickle) == pytest.approx(3 / 2)  # 2 * integral of 2 p from 1/2
    assert math.exp(Checked(same=1).log_e_fickle) == pytest.approx(1 / 2)
    assert math.exp(Checked(left=8).log_e_side) == pytest.approx(256 / 9)


def test_suspects_are_named_with_every_reason() -> None:
    fair = {f"fair{n}": Checked(passed=9, failed=1, same=8, other=2, left=52, right=48) for n in range(20)}
    careless = Checked(passed=10, failed=20, same=2, other=1, left=20, right=20)
    sided = Checked(passed=5, failed=5, same=1, other=19, left=2, right=60)
    found = suspects({**fair, "eve": careless, "lea": sided})
    assert found == {
        "eve": ["preferred 20 of 30 decoys"],
        "lea": ["said otherwise 19 of 20 times with sides swapped", "chose right 60 of 62 times"],
    }
    assert suspects(fair) == suspects({}) == {}


def test_what_comes_again_has_a_slot_of_its_own(booth: Booth) -> None:
    a, b = booth.answers(1, 2)
    first = booth.say(Comparison(left=a, right=b, winner="left", comparison_id="cmp_a"))
    for winner in ("left", "tie"):
        again = Comparison(left=b, right=a, winner=winner, comparison_id="cmp_b")  # type: ignore[arg-type]
        last = booth.say(again, lane="repeat")
    standing = booth.ledger.standing(booth.ledger.watermark())
    assert [item.id for item in standing] == [first, last]
    assert [(kept.revision, kept.stands) for kept in booth.ledger.kept([first, last])] == [(1, True), (2, True)]
    # And the first vote is revised as ever, in lanes that decide too.
    revised = booth.say(Comparison(left=a, right=b, winner="tie", comparison_id="cmp_a"), lane="release", release=1)
    assert [item.id for item in booth.ledger.standing(booth.ledger.watermark())] == [revised, last]


@pytest.mark.parametrize("lane", CHECKS)
def test_checks_are_neither_votes_nor_exported(booth: Booth, lane: Lane) -> None:
    booth.compare(1, 2, lane=lane)
    assert votes_in(booth.ledger) == []
    assert list(export(booth.ledger, Wanted("ratchet", private=True), b"salt")) == []
    assert list(export(booth.ledger, Wanted("trl", private=True), b"salt")) == []
    booth.compare(1, 2, lane="release")
    assert len(votes_in(booth.ledger)) == 1
    assert len(list(export(booth.ledger, Wanted("trl", private=True), b"salt"))) == 0  # both say "So."
    assert len(list(export(booth.ledger, Wanted("ratchet"), b"salt"))) == 1


def test_a_decoy_is_judged_in_no_lane(booth: Booth) -> None:
    """Somebody may set it beside the other answer, or rate it, without naming the comparison."""
    good, bad = decoyed(booth)
    booth.say(Comparison(left=good, right=bad, winner="left"))
    booth.say(Rating(completion_id=bad, value=-1))
    assert votes_in(booth.ledger) == []
    assert list(export(booth.ledger, Wanted("ratchet", private=True), b"salt")) == []
    booth.say(Rating(completion_id=good, value=1))
    assert len(list(export(booth.ledger, Wanted("ratchet", private=True), b"salt"))) == 1


def decoyed(booth: Booth, first: bool = False) -> list[str]:
    """Answers of two versions to one question, one of them a decoy; the good one's id, then the decoy's."""
    booth.count += 1
    id, both = f"cmp_{booth.count}", []
    for choice in range(2):
        both.append(
            Completion(
                id=f"{id}:{choice}", response_id=id, choice=choice, conversation_id="c", rater="ann",
                messages=(Message(role="user", content="Why?"),), text=f"So {choice}.", prompt_token_ids=(1,),
                completion_token_ids=(5,), logprobs=(-1.0,), sampling={}, finish_reason="stop",
                policy_version=choice + 1, decoy=first == (choice == 0), created=0.0,
            )
        )  # fmt: skip
    for batch in (both,) if not first else (both[:1], both[1:]):
        booth.ledger.append_answer(both[0].frame(model="policy", choices=2), batch)
    return sorted((each.id for each in both), key=lambda id: id == next(one.id for one in both if one.decoy))


@pytest.mark.parametrize("first", [False, True])
def test_a_decoy_is_never_the_head(booth: Booth, first: bool) -> None:
    """Not even if it is finished and stored first, nor when what went on is erased."""
    archive = Archive(booth.ledger)
    good, bad = decoyed(booth, first)
    assert bad.endswith(":0") == first
    conversation = archive.conversation("ann", "c")
    assert conversation is not None and conversation.head == good
    [later] = booth.answers(1)
    response = archive.response(later.partition(":")[0])
    assert response is not None
    Eraser(archive).response(response)
    conversation = archive.conversation("ann", "c")
    assert conversation is not None and conversation.head == good


def test_what_can_be_repeated(booth: Booth) -> None:
    archive = Archive(booth.ledger)
    chosen, tied, young, checked_already, gold, aa = (
        laid(booth, lane) for lane in (None, None, None, None, "gold", "aa")
    )
    say(booth, chosen, "left", created=100.0)
    say(booth, tied, "tie", created=100.0)
    say(booth, young, "left", created=101.0)
    say(booth, checked_already, "right", created=100.0)
    say(booth, again(checked_already, 100.0), "right", created=100.0)
    say(booth, gold, "left", created=100.0)
    say(booth, aa, "right", created=100.0)
    taken_back = laid(booth)
    booth.ledger.retract(say(booth, taken_back, "left", created=100.0))
    somebody_elses = laid(booth)
    say(booth, somebody_elses, "left", rater="bob", created=100.0)
    booth.compare(1, 2, created=0.0)  # never offered
    assert {offer.id for offer in repeatable(archive, "ann", 100.0)} == {chosen.id, aa.id}


def test_what_comes_again_has_its_sides_swapped(booth: Booth) -> None:
    first = laid(booth, "release").model_copy(update={"release": 4})
    second = again(first, 7.0)
    assert second.completion_ids == first.completion_ids[::-1]
    assert (second.lane, second.release, second.created, second.rater) == ("repeat", None, 7.0, "ann")
    assert second.id == repeat_id(first.id) != first.id and second.id.startswith("cmp_")


def test_decoys_are_known_by_what_was_laid(booth: Booth) -> None:
    for winner in ("left", "left", "right"):
        say(booth, laid(booth, "gold", ("gold", "policy@stable")), winner)
    found = checked(booth.ledger.standing(booth.ledger.watermark()), Archive(booth.ledger))
    assert found == {"ann": Checked(passed=1, failed=2, left=2, right=1)}


def test_an_answer_that_is_erased_does_not_come_again(booth: Booth) -> None:
    archive, first = Archive(booth.ledger), laid(booth)
    say(booth, first, "left", created=0.0)
    second = again(first, 7.0)
    archive.add_offer(second)
    assert archive.offer_ids("ann") == sorted([first.id, second.id])
    say(booth, second, "left")
    Eraser(archive).conversation("ann", "c")
    assert archive.offer_ids("ann") == [] and archive.judgement_ids("ann") == []
    archive.add_offer(second)  # who was about to lay it
    assert archive.offers([first.id, second.id]) == {}
