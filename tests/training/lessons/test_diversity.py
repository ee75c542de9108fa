"""What each prompt counts, by hand, and how often it then comes."""

from collections import Counter
from itertools import islice
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.lessons.diversity import prompt_weights
from training.ppo.live import in_proportion

Ids = tuple[int, ...]


def test_weights_by_hand() -> None:
    """Two of three prompts share one of their two runs of three tokens, of rarity log 4/2; the other's is log 4/1.

    Their likeness is log(2)^2 / (log(2)^2 + log(4)^2) = 1/5, so each is 6/5 ordinary. Of one rater they are 2 / (6/5)
    different prompts.
    """
    a, b, c = (1, 2, 3, 4), (1, 2, 3, 5), (7, 8, 9, 10)
    alike = prompt_weights([a, b, c], {a: "ann", b: "bob", c: "cy"})
    assert alike == pytest.approx((0.9375, 0.9375, 1.125), abs=1e-12)  # 5/6, 5/6 and 1, to mean 1
    shared = prompt_weights([a, b, c], {a: "ann", b: "ann", c: "cy"})
    assert shared[2] / shared[0] == pytest.approx(6 / 5 * sqrt(5 / 3), abs=1e-12)
    assert prompt_weights([c, b, a], {a: "ann", b: "ann", c: "cy"}) == pytest.approx(shared[::-1], abs=1e-12)


def test_many_that_say_the_same_count_together_like_few() -> None:
    """A question of ten tokens asked by 100 people, each with another word at its end, beside 100 that differ."""
    template = (900, 901, 902)
    alike: list[Ids] = [(*template, *range(10), 1000 + n) for n in range(100)]
    others: list[Ids] = [(*template, *range(2000 + 20 * n, 2011 + 20 * n)) for n in range(100)]
    raters = {prompt: str(n) for n, prompt in enumerate(alike + others)}
    weights = prompt_weights(alike + others, raters)
    assert sum(weights[:100]) < 0.1 * sum(weights[100:])


def test_who_asks_much_fills_no_round_and_who_asks_once_neither() -> None:
    """A hundred different prompts of one person count together like ten people with one each."""
    prompts: list[Ids] = [(n, 1000 + n) for n in range(101)]
    weights = prompt_weights(prompts, {prompt: "many" if n else "one" for n, prompt in enumerate(prompts)})
    assert sum(weights[1:]) / weights[0] == pytest.approx(10, abs=1e-9)


def test_a_prompt_of_one_token_and_no_prompt_at_all() -> None:
    assert prompt_weights([], {}) == ()
    assert prompt_weights([(5,), (6,)], {(5,): "a", (6,): "a"}) == pytest.approx((1, 1))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_each_comes_as_often_as_its_weight_says(weights: list[int], seed: int) -> None:
    """Exactly so in every period of the whole, and the order is the seed's alone."""
    drawn = list(islice(in_proportion(weights, seed), 3 * sum(weights)))
    for start in range(0, len(drawn), sum(weights)):
        assert Counter(drawn[start : start + sum(weights)]) == Counter(dict(enumerate(weights)))
    assert drawn == list(islice(in_proportion(weights, seed), len(drawn)))


def test_passes_are_in_different_orders() -> None:
    order = list(islice(in_proportion([1.0] * 20, 3), 60))
    assert len({tuple(order[start : start + 20]) for start in (0, 20, 40)}) == 3
    assert order[:20] != list(islice(in_proportion([1.0] * 20, 4), 20))
