"""The bench counts votes in whole arrays: what it says of a release is what the service decides, vote by vote."""

from collections import Counter

import numpy as np

from feedback.releases.decisions import Rules, decide
from feedback.releases.votes import Vote
from tests.bench.releases_runs import UNCAPPED, stops

RUNS, MOST = 200, 300


def test_runs_end_where_and_how_releases_do() -> None:
    rng = np.random.default_rng(7)
    rates = rng.uniform(0.2, 0.8, RUNS)
    won = rng.random((RUNS, MOST)) < rates[:, None]
    rules = Rules(plot=0.0, caps=UNCAPPED, max_votes=MOST)
    outcomes: Counter[str] = Counter()
    for run, stop, promoted in zip(won, *stops(won, rules.alpha), strict=True):
        votes = (Vote(f"r{n}", "candidate" if w else "stable", bool(n % 2)) for n, w in enumerate(run))
        decided = decide(votes, rules=rules)
        outcomes[decided.outcome] += 1
        if decided.outcome == "inconclusive":
            assert (stop, decided.votes) == (MOST + 1, MOST)
        else:
            assert (stop, promoted) == (decided.votes, decided.outcome == "promote")
    assert min(outcomes[each] for each in ("promote", "roll back", "inconclusive")) >= 20, outcomes
