"""Which votes count, what a plot could change, and who votes by side."""

import math
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.e_values import log_e_better
from feedback.releases.votes import Caps, Tally, Vote, clustering, counted, side_bias, without

WINS, LOSES, TIES = "candidate", "stable", "tie"


def counts(votes: list[Vote], caps: Caps) -> list[bool]:
    return [count for _, count in counted(votes, caps)]


def test_so_many_votes_a_day_each_ties_too() -> None:
    votes = [Vote("ann", w, True, day) for w, day in ((WINS, 1), (TIES, 1), (LOSES, 1), (WINS, 2))]
    votes.insert(2, Vote("bob", WINS, True, 1))
    assert counts(votes, Caps(per_day=2)) == [True, True, True, False, True]


def test_how_many_votes_say_as_much_as_one() -> None:
    one_sided = [Tally(4, 0), Tally(0, 4)]
    assert clustering([]) == clustering([Tally(1, 0), Tally(0, 1)]) == 1
    assert clustering(one_sided) == 4  # of many more: four votes of one say what one does
    assert clustering(one_sided, 2) == 1  # both who may vote were heard alike
    assert clustering([Tally(3, 1)]) == pytest.approx((4**2 / 4 + 4 * 3 / 4) / 4)
    # Half of four were heard: each by 2 more than all would be on average, the others by 2 fewer.
    assert clustering(one_sided, 4) == pytest.approx((2 * 4 + 2 * 4) / 8)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([WINS, LOSES, TIES])), max_size=60))
def test_how_a_vote_went_does_not_decide_whether_it_counts(said: list[tuple[str, str]]) -> None:
    """What keeps the guarantee: the last vote may be any other, and counts or does not all the same."""
    votes = [Vote(rater, winner, True) for rater, winner in said]  # type: ignore[arg-type]
    for n in range(1, len(votes) + 1):
        for winner in (WINS, LOSES, TIES):
            changed = [*votes[: n - 1], Vote(votes[n - 1].rater, winner, True)]  # type: ignore[arg-type]
            assert counts(changed, Caps(per_day=9)) == counts(votes[:n], Caps(per_day=9))


def test_hardly_any_other_choice_of_plotters_leaves_less() -> None:
    rng, excess = random.Random(0), []
    for _ in range(600):
        raters, plotters, rate = rng.randint(4, 8), rng.randint(1, 3), rng.choice((0.5, 0.6, 0.8))
        won = [[rng.random() < rate for _ in range(rng.randint(0, 15))] for _ in range(raters)]
        each = [Tally(sum(votes), len(votes) - sum(votes)) for votes in won]
        least = min(
            log_e_better(sum(t.wins for t in rest), sum(t.losses for t in rest))
            for bought in range(plotters + 1)
            for rest in combinations(each, raters - bought)
        )
        left = without({f"r{n}": tally for n, tally in enumerate(each)}, plotters)
        excess.append(log_e_better(*left) - least)
    assert sum(e > 1e-9 for e in excess) <= 12 and max(excess) < 0.5


def test_left_out_is_who_costs_most() -> None:
    tallies = {"ann": Tally(9, 1), "bob": Tally(5, 0), "cat": Tally(4, 6)}
    assert without(tallies, 0) == (18, 7)
    assert without(tallies, 1) == (9, 6)  # a lead of 8 against one of 5
    assert without(tallies, 3) == (4, 6)  # cat speaks against the candidate: no plot for it
    assert without({}, 1) == (0, 0)


def test_sides_over_all() -> None:
    lefty = [Vote("lea", WINS if n % 2 else LOSES, bool(n % 2)) for n in range(14)]  # what stands left, always
    fair = [Vote("ann", WINS, bool(n % 2)) for n in range(20)]
    over_all = side_bias([*lefty, *fair, Vote("ann", TIES, True)])
    assert (over_all.first, over_all.second) == (24, 10)
    assert over_all.log_e == pytest.approx(math.log(2**34 / 35 / math.comb(34, 10)), rel=1e-9)
    assert side_bias([]).rate.mean == 0.5
