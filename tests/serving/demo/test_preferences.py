"""Hidden preferences and rankings, against values worked out by hand."""

import random

import pytest

from serving.demo.preferences import (
    PREFERENCES,
    brevity,
    detail,
    enthusiasm,
    first_person,
    plain,
    rank,
    second_person,
    sentences,
    short_sentences,
    simple_words,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lisbon is lovely.", 1.0),
        ("word " * 7 + "word.", 1.0),
        ("word " * 23 + "word!", 0.5),
        ("word " * 31 + "word?", 0.25),
        ("word " * 39 + "word.", 0.0),
        ("word " * 60 + "word.", 0.0),
        ('He said "go on now."', 1.0),
        ("It's Tom's dog.", 1.0),
        ("It is a fruit that", 0.0),
        ("Here are some:\n1. Apples\n2.", 0.0),
        ("Yes.", 0.0),
        (". . . .", 0.0),
        ("", 0.0),
    ],
)
def test_brevity(text: str, expected: float) -> None:
    assert brevity(text, "stop") == pytest.approx(expected)


@pytest.mark.parametrize(("words", "expected"), [(0, 0.0), (8, 0.0), (19, 0.5), (30, 1.0), (60, 1.0)])
def test_detail(words: int, expected: float) -> None:
    assert detail("word " * words, "length") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One line of text, well-formed - and that is it.", 1.0),
        ("\nOnly the ends are blank. \n", 1.0),
        ("Two lines.\nHere.", 0.75),
        ("Some tips:\n- sleep\n- eat", 0.5),
        ("## Tips\n1. **Sleep** well", 0.0),
        ("This is **bold**.", 0.75),
        ("Run `ls` now.", 0.75),
        ("", 0.0),
        (" \n ", 0.0),
    ],
)
def test_plain(text: str, expected: float) -> None:
    assert plain(text, "stop") == expected


def test_persons_are_shares_of_sentences() -> None:
    text = "You can boil it. Water gets hot! Is your pan clean?\nI like my eggs soft."
    assert len(sentences(text)) == 4
    assert second_person(text, "stop") == 0.5
    assert first_person(text, "stop") == 0.25
    assert second_person("", "stop") == first_person("1. 2.", "stop") == 0.0
    assert second_person("A youth in Younger Street.", "stop") == 0.0
    assert first_person("i.e. an item in mind.", "stop") == 0.0


@pytest.mark.parametrize(("marks", "expected"), [(0, 0.0), (1, 1 / 3), (3, 1.0), (9, 1.0)])
def test_enthusiasm(marks: int, expected: float) -> None:
    assert enthusiasm("Great" + "!" * marks, "stop") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rain falls. It is wet.", 1.0),
        ("word " * 14 + "word.", 0.5),
        ("Yes!\n" + "word " * 28 + "word", 0.5),
        ("word " * 30, 0.0),
        ("1. 2.", 0.0),
        ("", 0.0),
    ],
)
def test_short_sentences(text: str, expected: float) -> None:
    assert short_sentences(text, "length") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The sun is up.", 1.0),
        ("four more, that's all", 0.7),  # (4 + 4 + 6 + 3) / 4 = 4.25
        ("bread, water; light", 0.4),
        ("extraordinary circumstances notwithstanding", 0.0),
        ("Up. Up.", 0.0),
    ],
)
def test_simple_words(text: str, expected: float) -> None:
    assert simple_words(text, "stop") == pytest.approx(expected)


def test_every_preference_stays_in_range() -> None:
    texts = ["", "?", "I! You! " * 30, "1. a\n" * 50, "word " * 200, "## **!**\n- `x`?"]
    for preference in PREFERENCES.values():
        assert preference.__doc__
        assert all(0.0 <= preference(text, "stop") <= 1.0 for text in texts)


def test_rank_puts_the_best_first_and_ties_what_is_equal() -> None:
    assert rank([0.2, 0.9, 0.2, 0.5], noise=0.0, generator=random.Random(0)) == [[1], [3], [0, 2]]
    assert rank([0.0, 0.0, 0.0], noise=1.0, generator=random.Random(0)) == [[0, 1, 2]]


def test_certain_noise_bubbles_the_best_to_the_end() -> None:
    assert rank([4, 3, 2, 1], noise=1.0, generator=random.Random(0)) == [[1], [2], [3], [0]]


def test_noise_swaps_neighbours_at_its_rate() -> None:
    generator = random.Random(3)
    swapped = sum(rank([1.0, 0.0], noise=0.05, generator=generator) == [[1], [0]] for _ in range(4000))
    assert 0.04 < swapped / 4000 < 0.06
