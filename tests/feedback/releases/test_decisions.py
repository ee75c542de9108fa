"""What becomes of a candidate: by its votes, by its guardrails, and whatever a few raters plot."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.e_values import Moments, log_e_better
from feedback.releases.decisions import Decision, Rules, decide
from feedback.releases.guardrails import Failures, failure_guardrail, mean_guardrail
from feedback.releases.votes import Caps, Vote, Winner
from feedback.statistics import Interval
from tests.bench.releases_runs import crowd

PLAIN = Rules(plot=0.0)
OTHER: dict[Winner, Winner] = {"candidate": "stable", "stable": "candidate", "tie": "tie"}


def strangers(*winners: Winner) -> list[Vote]:
    """Each vote somebody else's, the candidate left and right by turns."""
    return [Vote(f"r{n}", winner, bool(n % 2)) for n, winner in enumerate(winners)]


def test_the_first_evidence_that_is_enough_decides() -> None:
    """2^9 / 9 less next to nothing passes 40 at the eighth win in a row: 56.8; the seventh gave 31.9."""
    seven, eight, more = (decide(strangers(*["candidate"] * n), rules=PLAIN) for n in (7, 8, 30))
    assert seven.outcome == "undecided" and eight.outcome == "promote"
    assert math.exp(seven.log_e_better) == pytest.approx((2**8 - 1) / 8, rel=1e-9)
    assert math.exp(eight.log_e_better) == pytest.approx((2**9 - 1) / 9, rel=1e-9)
    assert math.exp(eight.log_threshold) == pytest.approx(40)
    assert more == eight  # what comes later changes nothing
    assert decide(strangers(*["stable"] * 8), rules=PLAIN).outcome == "roll back"


def test_every_figure_is_told() -> None:
    guardrails = [failure_guardrail("errors", [Failures(0.5, 20, 20, 0, 0)])]
    votes = strangers(*["candidate"] * 18, *["tie"] * 3, *["stable"] * 12)
    found = decide(votes, guardrails, PLAIN, thumbs=Interval(0.1, -0.1, 0.3))
    assert (found.wins, found.losses, found.ties, found.votes, found.capped) == (8, 0, 0, 8, 0)
    mixed = random.Random(1).sample(votes, len(votes))
    found = decide(mixed, guardrails, PLAIN, thumbs=Interval(0.1, -0.1, 0.3))
    assert (found.wins, found.losses, found.ties, found.votes, found.capped) == (18, 12, 3, 30, 0)
    assert found.outcome == "undecided" and found.still_needed is not None
    assert found.reason == (
        f"The candidate won 18 of 30 decisive votes, which decides nothing: about {found.still_needed} more are needed."
    )
    assert found.sides.first + found.sides.second == 30
    assert found.guardrails == tuple(guardrails) and found.thumbs == (0.1, -0.1, 0.3)
    assert Decision.model_validate_json(found.model_dump_json()) == found


def test_without_a_difference_stable_stays() -> None:
    found = decide(strangers(*["candidate", "stable"] * 50), rules=Rules(max_votes=60))
    assert found.outcome == "inconclusive" and found.votes == 60 and found.still_needed is None
    assert "No difference was found by 60 decisive votes" in found.reason
    nothing = decide([])
    assert nothing.outcome == "undecided" and nothing.still_needed is None and "no telling" in nothing.reason


def test_a_forecast_looks_no_further_than_votes_may_come() -> None:
    """Of 100 votes 95 stand; 75 more decide, and 70 more end it."""
    votes = strangers(*["stable"] * 36, *["candidate"] * 64)
    votes = random.Random(3).sample(votes, len(votes))
    found, short = (decide(votes, rules=Rules(max_votes=most)) for most in (175, 170))
    assert found.log_e_standing == log_e_better(59, 36)
    assert found.still_needed == 75 and short.outcome == "undecided" and short.still_needed is None


def test_a_breached_guardrail_outweighs_all_votes() -> None:
    errors = failure_guardrail("errors", [Failures(0.5, 20, 20, 20, 0)])
    length = mean_guardrail("length", Moments.of(1.0, 2.0), Moments.of(1.0, 2.0), limit=0.2)
    found = decide(strangers(*["candidate"] * 8), [errors, length])
    assert found.outcome == "roll back" and found.reason == "The candidate breaks a guardrail: errors."
    assert decide(strangers(*["candidate"] * 8), [length], PLAIN).outcome == "promote"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(list(OTHER))), max_size=120))
def test_candidate_and_stable_are_treated_alike(said: list[tuple[str, Winner]]) -> None:
    rules = Rules(alpha=0.4, plot=0.1, caps=Caps(per_day=12))
    votes = [Vote(rater, winner, True) for rater, winner in said]
    one = decide(votes, rules=rules)
    other = decide([Vote(vote.rater, OTHER[vote.winner], False) for vote in votes], rules=rules)
    mirrored = {"promote": "roll back", "roll back": "promote"}
    assert other.outcome == mirrored.get(one.outcome, one.outcome)
    assert (other.wins, other.losses, other.ties, other.capped) == (one.losses, one.wins, one.ties, one.capped)
    assert other.sides == one.sides and other.still_needed == one.still_needed
    assert other.log_e_better == one.log_e_worse
    if one.outcome == "promote":
        assert one.log_e_better >= one.log_threshold and one.win_rate.low > 0.5


def test_nobody_decides_alone() -> None:
    alone = decide([Vote("ann", "candidate", True)] * 100, rules=PLAIN)
    assert alone.outcome == "undecided" and (alone.wins, alone.capped) == (50, 50)


def test_a_plot_of_as_many_as_allowed_for_changes_nothing() -> None:
    """Without the 20 who were bought the other 94 are what decides."""
    bought = [Vote(f"b{n}", "candidate", True) for n in range(20)]
    honest = strangers(*["candidate", "stable"] * 47)
    votes = [*honest[:40], *bought, *honest[40:]]
    assert decide(votes, rules=Rules(alpha=0.4, plot=0.0)).outcome == "promote"
    for rules in (Rules(alpha=0.4, plot=0.2), Rules(alpha=0.4, raters=400)):
        found = decide(votes, rules=rules)
        assert found.outcome == "undecided" and found.still_needed is None


def test_the_first_who_vote_may_be_a_plot_where_it_is_known_how_many_may() -> None:
    """5 of 100 are struck out of the first 12 who vote, 1 of 12 where nobody knows."""
    votes = strangers(*["candidate"] * 12)
    known, unknown = decide(votes, rules=Rules(raters=100)), decide(votes, rules=Rules())
    assert known.outcome == "undecided" and unknown.outcome == "promote"
    assert math.exp(known.log_e_standing) == pytest.approx((2**8 - 1) / 8, rel=1e-9)  # 7 wins
    assert known.log_e_better > known.log_threshold > known.log_e_standing
    assert decide(strangers(*["candidate"] * 13), rules=Rules(raters=100)).outcome == "promote"


@pytest.mark.parametrize("rates", [[0.9] * 50 + [0.1] * 50, [0.45] * 90 + [0.95] * 10], ids=["halves", "skewed"])
@pytest.mark.parametrize("known", [0, 100])
def test_raters_whose_tastes_differ_and_who_vote_in_runs_decide_no_more_equals_than_promised(
    rates: list[float], known: int
) -> None:
    found = crowd(rates, Rules(raters=known, max_votes=600), runs=60, in_a_row=10, rng=np.random.default_rng(3))
    assert max(found["promoted"], found["rolled back"]) <= 0.05
