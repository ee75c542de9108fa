"""Votes of a release as the ledger keeps them: whose they are, which count, and what an exchange of the arms does."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.archive import Archive
from feedback.e_values import Moments, bounded_difference
from feedback.erasure import Eraser
from feedback.exchange.answers import read_ratchet, write_ratchet
from feedback.exchange.judged import Judged, Origin
from feedback.judgements import Comparison, Feedback, Ranking, Rating
from feedback.people.raters import Raters
from feedback.policies.registry import PolicyRegistry
from feedback.records import Arm, Offer, Slot
from feedback.releases.ballots import SECOND, Place, ReleaseFeedback, aa_votes, vote_of, votes_of_release
from feedback.releases.book import Release
from feedback.releases.plan import Plan
from feedback.releases.start import begin_release
from feedback.releases.votes import Vote
from tests.feedback.booth import Booth
from tests.feedback.policies.test_registry import publish

DAY = 86400.0


@pytest.fixture
def booth(valkey_url: str) -> Booth:
    return Booth(valkey_url)


@pytest.fixture
def release(booth: Booth, tmp_path: Path) -> Release:
    """Of policy-v1 against policy-v0, after somebody has voted."""
    registry = PolicyRegistry(booth.ledger.redis, tmp_path / "policies")
    publish(registry, 3)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    booth.compare(0, 1, lane="release", release=1)
    return begin_release(booth.ledger, registry, 1, Plan(), mode="automatic", actor="ann", reason="try", seen=None)


def laid(release: Release, **facts: Any) -> dict[str, Any]:
    return {"lane": "release", "release": release.id, **facts}


def test_winners_sides_and_days_of_what_was_laid_side_by_side(booth: Booth, release: Release) -> None:
    booth.compare(0, 1, winner="right", rater="ann", created=DAY * 3 + 5, **laid(release))
    booth.compare(1, 0, winner="right", rater="bob", **laid(release))
    booth.compare(1, 0, winner="tie", rater="cay", **laid(release))
    booth.compare(0, 1, winner="both_bad", rater="dan", **laid(release))
    assert votes_of_release(booth.ledger, release) == [
        Vote("ann", "candidate", candidate_left=False, day=3),
        Vote("bob", "stable", candidate_left=True),
        Vote("cay", "tie", candidate_left=True),
        Vote("dan", "tie", candidate_left=False),
    ]


def test_what_is_no_vote_of_the_release(booth: Booth, release: Release) -> None:
    booth.compare(0, 1)  # chosen, not drawn
    booth.compare(0, 1, lane="release", release=release.id + 1)
    booth.compare(0, 1, lane="gold", release=release.id)
    booth.compare(0, 0, **laid(release))
    booth.compare(0, 2, **laid(release))
    left, right = booth.answers(0, 1, version_changed_at=1)
    booth.say(Comparison(left=left, right=right, winner="left"), **laid(release))
    (a, _), (_, b) = booth.answers(0, 1), booth.answers(0, 1)
    booth.say(Comparison(left=a, right=b, winner="left"), **laid(release))
    booth.say(Rating(completion_id=a, value=1.0), **laid(release))
    assert votes_of_release(booth.ledger, release) == []


def brought_in(booth: Booth, id: str) -> None:
    """What was said under an id, as if it came from another installation."""
    [kept] = booth.ledger.kept([id])
    answers = booth.ledger.completions(kept.feedback.judgement.targets)
    judged = Judged(kept.feedback, tuple(answers.values()))
    origin = Origin("file", lambda name, _: f"imported_{name}", lambda _: "train", None, 0.0)
    [again] = read_ratchet(list(write_ratchet(judged)), origin)
    other = {each.id: each.id.replace("cmp_", "far_") for each in again.completions}
    said = again.feedback.judgement.model_dump()
    renamed = said | {name: other[value] for name, value in said.items() if isinstance(value, str) and value in other}
    for each in again.completions:
        far = each.model_copy(update={"id": other[each.id], "response_id": other[each.id].partition(":")[0]})
        booth.ledger.append_answer(far.frame(model="policy", choices=2), [far])
    record = again.feedback.model_dump() | {"id": f"far_{id}", "judgement": renamed}
    booth.ledger.append_feedback(Feedback.model_validate(record))


def test_what_is_imported_is_no_vote_and_no_thumb_and_tests_no_votes(booth: Booth, release: Release) -> None:
    """Another installation's release may have the same number."""
    vote = booth.compare(0, 1, **laid(release))
    answers = booth.answers(0, 1, release=release.id, arm="candidate", propensity=0.1)
    thumb = booth.say(Rating(completion_id=answers[1], value=1.0))
    left, right = booth.answers(0, 0)
    slots = (Slot(completion_id=left, arm="policy@stable"), Slot(completion_id=right, arm=SECOND))
    for name in ("cmp", "far"):
        id = left.partition(":")[0].replace("cmp", name)
        named = tuple(
            slot.model_copy(update={"completion_id": slot.completion_id.replace("cmp", name)}) for slot in slots
        )
        offer = Offer(id=id, rater="r", conversation_id="c", slots=named, propensity=0.5, lane="aa", created=0.0)
        Archive(booth.ledger).add_offer(offer)
    tested = booth.say(Comparison(left=left, right=right, winner="right"), lane="aa")
    reader = ReleaseFeedback(booth.ledger, release)
    found = reader.read()
    assert (len(found[0]), len(aa_votes(booth.ledger, "0"))) == (1, 1)
    for id in (vote, thumb, tested):
        brought_in(booth, id)
    assert reader.read() == found
    assert len(aa_votes(booth.ledger, "0")) == 1
    gold = booth.compare(0, 1, lane="gold")
    brought_in(booth, gold)
    assert [kept.feedback.lane for kept in booth.ledger.kept([f"far_{gold}"])] == ["gold"]


def test_one_rater_has_one_vote_on_a_comparison_and_the_first_word_counts(booth: Booth, release: Release) -> None:
    reader = ReleaseFeedback(booth.ledger, release)
    left, right = booth.answers(0, 1)
    booth.say(Comparison(left=left, right=right, winner="left"), **laid(release))
    booth.compare(0, 1, rater="bob", **laid(release))
    assert [vote.winner for vote in reader.read()[0]] == ["stable", "stable"]
    booth.say(Comparison(left=left, right=right, winner="right"), **laid(release))
    booth.say(Ranking(candidates=(left, right), ranking=((left,), (right,))), **laid(release))
    votes = [Vote("ann", "stable", candidate_left=False), Vote("bob", "stable", candidate_left=False)]
    assert reader.read()[0] == votes == votes_of_release(booth.ledger, release)
    assert booth.say(Comparison(left=left, right=right, winner="right"), rater="cay", **laid(release))
    assert len(reader.read()[0]) == 3


def test_who_was_told_by_a_judgement_that_is_no_vote_votes_no_more(booth: Booth, release: Release) -> None:
    a, b, c = booth.answers(0, 0, 1)
    booth.say(Comparison(left=a, right=b, winner="left"), **laid(release))
    booth.say(Ranking(candidates=(a, b, c), ranking=((c,), (a, b))), **laid(release))
    booth.say(Ranking(candidates=(a, b, c), ranking=((c,), (a, b))), rater="bob", **laid(release))
    assert votes_of_release(booth.ledger, release) == [Vote("bob", "candidate", candidate_left=False)]


def test_what_is_erased_or_by_the_quarantined_is_no_vote_and_what_was_told_cannot_be_taken_back(
    booth: Booth, release: Release
) -> None:
    reader = ReleaseFeedback(booth.ledger, release)
    first = booth.compare(0, 1, rater="ann", **laid(release))
    second = booth.compare(0, 1, rater="bob", **laid(release))
    booth.compare(0, 1, rater="cay", **laid(release))
    booth.compare(0, 1, rater="dan", **laid(release))
    assert [vote.rater for vote in reader.read()[0]] == ["ann", "bob", "cay", "dan"]
    booth.ledger.retract(first)
    erased = booth.ledger.kept([second])[0].feedback.judgement.targets[0].partition(":")[0]
    response = Archive(booth.ledger).response(erased)
    assert response is not None
    Eraser(Archive(booth.ledger)).response(response)
    Raters(booth.ledger.redis).quarantine("cay", actor="op", reason="bought")
    assert [vote.rater for vote in reader.read()[0]] == ["ann", "dan"]
    assert [vote.rater for vote in votes_of_release(booth.ledger, release)] == ["ann", "dan"]


def test_the_evaluation_raters_alone_decide_where_they_do(booth: Booth, release: Release) -> None:
    booth.compare(0, 1, rater="ann", split="eval", **laid(release))
    booth.compare(0, 1, rater="bob", **laid(release))
    evaluated = release.model_copy(update={"whose": "evaluation"})
    assert [vote.rater for vote in votes_of_release(booth.ledger, evaluated)] == ["ann"]
    assert [vote.rater for vote in votes_of_release(booth.ledger, release)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("versions", "tiers", "winner"),
    [
        ((0, 1, 0, 1), ((0,), (1,), (2,), (3,)), "stable"),  # 0 and 2 against 1 and 3
        ((0, 1, 0, 1), ((3,), (1,), (0,), (2,)), "candidate"),
        ((0, 1, 1, 0), ((0,), (1,), (2,), (3,)), "tie"),
        ((0, 1, 0), ((1,), (0, 2)), "candidate"),
        ((1, 0, 1), ((0,), (1,), (2,)), "tie"),
        ((0, 0, 1), ((0, 1, 2),), "tie"),
    ],
)
def test_a_ranking_is_one_vote_by_mean_tiers(
    booth: Booth, release: Release, versions: tuple[int, ...], tiers: tuple[tuple[int, ...], ...], winner: str
) -> None:
    ids = booth.answers(*versions)
    ranking = Ranking(candidates=tuple(ids), ranking=tuple(tuple(ids[i] for i in group) for group in tiers))
    booth.say(ranking, **laid(release))
    [vote] = votes_of_release(booth.ledger, release)
    assert (vote.winner, vote.candidate_left) == (winner, versions[0] == 1)


def test_what_a_partial_ranking_leaves_out_is_last_and_tied(booth: Booth, release: Release) -> None:
    ids = booth.answers(0, 1, 0, 1)
    booth.say(Ranking(candidates=tuple(ids), ranking=((ids[3],),), partial=True), **laid(release))
    ids = booth.answers(1, 0, 0)
    booth.say(Ranking(candidates=tuple(ids), ranking=((ids[1],),), partial=True), rater="bob", **laid(release))
    assert [vote.winner for vote in votes_of_release(booth.ledger, release)] == ["candidate", "stable"]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.data())
def test_exchanged_arms_exchange_the_winner(ranks: list[int], data: st.DataObject) -> None:
    arms: list[Arm] = data.draw(
        st.lists(st.sampled_from(["stable", "candidate"]), min_size=len(ranks), max_size=len(ranks))
    )
    ids = [f"r:{index}" for index in range(len(ranks))]
    groups = [tuple(ids[i] for i, rank in enumerate(ranks) if rank == tier) for tier in sorted(set(ranks))]
    item = Feedback(
        id="f", judgement=Ranking(candidates=tuple(ids), ranking=tuple(groups)), rater="ann", split="train", created=0.0
    )
    there = vote_of(item, [Place("r", index, arm) for index, arm in enumerate(arms)])
    swapped: dict[Arm, Arm] = {"stable": "candidate", "candidate": "stable"}
    back = vote_of(item, [Place("r", index, swapped[arm]) for index, arm in enumerate(arms)])
    if there is None or back is None:
        assert there is back is None and len(set(arms)) == 1
        return
    assert back.winner == {"tie": "tie", **swapped}[there.winner]
    assert back.candidate_left != there.candidate_left


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_of_equals_neither_arm_wins_more_often(count: int) -> None:
    """Over all orders of preference, and both ways to give the odd slot, as chance draws it."""
    won = {"candidate": 0, "stable": 0, "tie": 0}
    for odd, order in itertools.product((0, 1), itertools.permutations(range(count))):
        arms: list[Arm] = ["candidate" if (index + odd) % 2 else "stable" for index in range(count)]
        ids = [f"r:{index}" for index in range(count)]
        ranking = Ranking(candidates=tuple(ids), ranking=((ids[order[0]],),), partial=True)
        item = Feedback(id="f", judgement=ranking, rater="ann", split="train", created=0.0)
        vote = vote_of(item, [Place("r", index, arm) for index, arm in enumerate(arms)])
        assert vote is not None
        won[vote.winner] += 1
    assert won["candidate"] == won["stable"] > 0


def offer(booth: Booth, *versions: int, arms: tuple[str, ...]) -> list[str]:
    ids = booth.answers(*versions)
    slots = tuple(Slot(completion_id=id, arm=arm) for id, arm in zip(ids, arms, strict=True))
    id = ids[0].partition(":")[0]
    Archive(booth.ledger).add_offer(
        Offer(id=id, rater="ann", conversation_id="c", slots=slots, propensity=0.5, lane="aa", created=0.0)
    )
    return ids


def test_of_stable_against_itself_the_second_plays_the_candidate(booth: Booth) -> None:
    before = booth.ledger.watermark()
    for first, second, winner in (("policy@stable", SECOND, "left"), (SECOND, "policy@stable", "left")):
        left, right = offer(booth, 0, 0, arms=(first, second))
        booth.say(Comparison(left=left, right=right, winner=winner), lane="aa")  # type: ignore[arg-type]
    left, right = offer(booth, 0, 1, arms=("policy@stable", SECOND))  # a swap came between
    booth.say(Comparison(left=left, right=right, winner="left"), lane="aa")
    votes = [Vote("ann", "stable", candidate_left=False), Vote("ann", "candidate", candidate_left=True)]
    assert aa_votes(booth.ledger, before) == votes
    assert aa_votes(booth.ledger, booth.ledger.watermark()) == []


def test_thumbs_are_counted_by_conversation_and_arm(booth: Booth, release: Release) -> None:
    def thumb(arm: Arm, value: float, conversation: str, **facts: Any) -> None:
        told = {"release": release.id, "arm": arm, "propensity": 0.1, **facts}
        [id] = booth.answers(1 if arm == "candidate" else 0, conversation=conversation, **told)
        booth.say(Rating(completion_id=id, value=value))

    for value in (1.0, 1.0, -1.0):
        thumb("candidate", value, "c1")
    thumb("candidate", 1.0, "c2")
    for conversation in ("c3", "c4"):
        thumb("stable", -1.0, conversation)
    thumb("stable", 1.0, "c5", release=release.id + 1)
    thumb("stable", 1.0, "c6", propensity=None)  # laid side by side, whatever arm the conversation is on
    booth.say(Rating(completion_id=booth.answers(0, 1)[1], value=1.0))
    thumbs = ReleaseFeedback(booth.ledger, release).read()[1]
    assert thumbs == bounded_difference(Moments.of(2 / 3, 1.0), Moments.of(0.0, 0.0), release.plan.alpha)
    assert thumbs is not None and thumbs.mean == pytest.approx(5 / 6)
    assert thumbs.low < 0 and thumbs.high == pytest.approx(1)  # of two conversations each nothing follows
