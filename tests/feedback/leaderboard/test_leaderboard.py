"""From votes to standings: who cannot be ranked and why, and what the first place hangs on."""

import math
import random
import time
from itertools import combinations

import pytest

from feedback.leaderboard.board import leaderboard, win_share
from feedback.leaderboard.bradley_terry import Vote
from feedback.leaderboard.standings import Figure, Fragility


def votes(left: int, right: int, won: int, lost: int = 0, tied: int = 0) -> list[Vote]:
    results = [1.0] * won + [0.0] * lost + [0.5] * tied
    return [Vote(left, right, result, f"r{i % 5}", side=0.0) for i, result in enumerate(results)]


def test_what_is_told_of_a_version() -> None:
    board = leaderboard(votes(1, 0, 30, 20, 10), versions=range(3), stable=0)
    assert (board.votes, board.ties, board.raters) == (60, 10, 5)
    best, base, new = board.standings
    assert (best.version, best.votes, best.wins, best.ties, best.losses, best.raters) == (1, 60, 30, 10, 20, 5)
    assert (base.version, base.wins, base.losses) == (0, 20, 30)
    assert best.strength is not None and best.elo is not None and best.against_stable is not None
    assert best.strength.value == pytest.approx(math.log(1.5), abs=1e-4)
    assert best.elo.value == pytest.approx(1000 + 400 * math.log10(1.5), abs=0.02)
    assert best.against_stable.value == pytest.approx(35 / 60, abs=1e-4), "a tie counts half"
    assert base.strength is not None and (base.strength.value, base.strength.low, base.strength.high) == (0, 0, 0)
    assert (new.version, new.status, new.strength, new.votes) == (2, "no_votes", None, 0)
    assert board.left_wins is None and board.longer_wins is None


def test_side_and_length_are_told_as_shares() -> None:
    said = [Vote(i % 2, 1 - i % 2, float(i % 8 < 6), f"r{i % 16 // 2}", 1.0, 0.0) for i in range(160)]
    board = leaderboard(said)
    assert board.left_wins is not None and board.left_wins.value == pytest.approx(0.75, abs=1e-4)
    assert board.longer_wins is None
    longer = [Vote(i % 2, 1 - i % 2, float(i % 8 < 6), f"r{i % 16 // 2}", 0.0, math.log(2)) for i in range(160)]
    twice = leaderboard(longer).longer_wins
    assert twice is not None and twice.value == pytest.approx(0.75, abs=1e-4)


def test_a_version_without_a_most_likely_strength_has_none() -> None:
    said = [*votes(1, 0, 3, 2), *votes(2, 1, 9), *votes(3, 0, 0, 9), *votes(5, 4, 3, 3)]
    board = leaderboard(said, versions=range(7))
    assert {s.version: s.status for s in board.standings} == {
        0: "ranked", 1: "ranked", 2: "one_sided", 3: "one_sided", 4: "unlinked", 5: "unlinked", 6: "no_votes",
    }  # fmt: skip
    assert all((s.strength is None) == (s.status != "ranked") == (s.elo is None) for s in board.standings)
    assert [s.version for s in board.standings[:2]] == [1, 0], "the ranked ones first, the strongest at the top"
    assert board.standings[0].strength is not None
    assert board.standings[0].strength.value == pytest.approx(math.log(1.5), abs=1e-2), "9 wins of 2 change nothing"
    other = leaderboard(said, versions=range(7), anchor=4)
    assert {s.version for s in other.standings if s.status == "ranked"} == {4, 5}


def test_without_votes_there_is_nothing_to_rank() -> None:
    board = leaderboard([], versions=[0, 1], stable=0)
    assert [(s.version, s.status, s.strength) for s in board.standings] == [
        (0, "no_votes", None),
        (1, "no_votes", None),
    ]
    assert board.fragility is None and leaderboard([]).standings == ()


def test_the_share_of_wins_by_hand() -> None:
    assert win_share(0, 5.0) == 0.5
    assert win_share(math.log(4), 0.0) == pytest.approx(0.8, abs=1e-12)
    assert win_share(math.log(4), 1.0) == pytest.approx((2 + 0.5) / (2 + 0.5 + 1), abs=1e-12)


def test_the_first_place_hangs_on_a_lead_of_wins() -> None:
    """10 to 5: five less is a draw, six less is a defeat."""
    found = leaderboard(votes(1, 0, 10, 5)).fragility
    assert found is not None
    assert (found.leader, found.rival, found.dropped) == (1, 0, 6)


def test_the_fewest_votes_are_found_and_do_what_is_said_of_them() -> None:
    """Against all ways to leave out so many votes on three versions."""
    said = [*votes(1, 0, 3, 2), *votes(2, 0, 3, 2), *votes(1, 2, 3, 2, 1)]
    found = leaderboard(said).fragility
    assert found is not None and found.dropped is not None

    def first(rest: list[Vote]) -> int:
        return leaderboard(rest).standings[0].version

    assert first(said) == found.leader == 1
    assert any(
        first([v for i, v in enumerate(said) if i not in gone]) == found.rival
        for gone in combinations(range(len(said)), found.dropped)
    )


def test_a_lead_that_half_of_the_votes_cannot_turn_is_said_to_be_firm() -> None:
    found = leaderboard([*votes(1, 0, 95, 2)]).fragility
    assert found is not None and (found.leader, found.rival, found.dropped) == (1, None, None)


def test_intervals_may_come_from_draws_of_raters() -> None:
    said = [*votes(1, 0, 30, 20), *(vote._replace(rater="zoe") for vote in votes(1, 0, 1, 4))]
    plain, drawn = leaderboard(said), leaderboard(said, draws=50)
    assert plain.standings[0].strength is not None and drawn.standings[0].strength is not None
    assert plain.standings[0].strength.value == drawn.standings[0].strength.value
    assert plain.standings[0].strength.low != drawn.standings[0].strength.low


def crowd(count: int, versions: int) -> list[Vote]:
    """Of 40 people who find each version a little better than those before, and what stands on the left as well."""
    draw, said = random.Random(4), []
    for _ in range(count):
        a, b = draw.sample(range(versions), 2)
        chance = 1 / (1 + math.exp((b - a) / versions - 0.2))
        result = draw.choices([1.0, 0.0, 0.5], [chance, 1 - chance, 0.3])[0]
        said.append(Vote(a, b, result, f"r{draw.randrange(40)}", 1.0, draw.randrange(-8, 9) / 8))
    return said


def is_close(told: Figure | None, *want: float) -> bool:
    return told is not None and (told.value, told.low, told.high) == pytest.approx(want, abs=1e-9)


def test_a_hundred_versions_take_seconds_and_their_figures_are_those_of_loops() -> None:
    """The figures are what plain Python said, vote by vote and row by row, in ten times as long."""
    said, start = crowd(30_000, 100), time.process_time()
    board = leaderboard(said, stable=70)
    assert time.process_time() - start < 8
    last, second = (next(row for row in board.standings if row.version == version) for version in (99, 1))
    assert is_close(last.strength, 0.8409438169020356, 0.5712926454522183, 1.1105949883518529)
    assert is_close(last.against_stable, 0.5674441199495701, 0.5163366523694558, 0.6170091884126595)
    assert is_close(second.strength, 0.026743370031658487, -0.24712239938723368, 0.3006091394505507)
    assert is_close(second.against_stable, 0.41412864624214557, 0.3646166255978615, 0.46564147608802914)
    assert is_close(board.left_wins, 0.549948713569005, 0.5431677461397485, 0.5567111727030837)
    assert is_close(board.longer_wins, 0.5002796509274856, 0.49201068782558705, 0.5085484610614293)
    assert board.fragility == Fragility(leader=83, rival=98, dropped=2)


def test_draws_are_those_of_loops() -> None:
    board = leaderboard(crowd(600, 6), stable=1, draws=20)
    first, *_, last = board.standings
    assert (first.version, last.version, board.fragility) == (3, 0, Fragility(leader=3, rival=5, dropped=5))
    assert is_close(first.strength, 0.8813930486579654, 0.32705226990838476, 1.3605906795336247)
    assert is_close(last.against_stable, 0.46638247954668843, 0.3864582093584338, 0.5482771159342874)
