"""Steps as operators write them: read as they are meant, written so that they can be read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.releases.plan import MOST_PERCENT, Analysis, BadPlan, Pause, SetWeight, Step
from serving.views.release_steps import in_short, in_words, steps_of

PERCENT = st.floats(0, MOST_PERCENT, exclude_min=True)
STEPS: st.SearchStrategy[Step] = (
    PERCENT.map(lambda percent: SetWeight(set_weight=percent))
    | st.one_of(st.none(), st.floats(0, 1e9), st.integers(0, 10**9)).map(lambda seconds: Pause(pause=seconds))
    | st.just(Analysis(analysis=True))
)


def test_each_word_is_a_step() -> None:
    assert steps_of("5%, 30m,12.5%,PAUSE,90s,2h,1d,analysis") == (
        SetWeight(set_weight=5), Pause(pause=1800), SetWeight(set_weight=12.5), Pause(pause=None), Pause(pause=90),
        Pause(pause=7200), Pause(pause=86400), Analysis(analysis=True),
    )  # fmt: skip


def test_steps_are_told_in_the_largest_whole_unit() -> None:
    steps = steps_of("12.5%,5400s,90s,3600s,172800s,0.5s,pause,analysis")
    assert in_short(steps) == "12.5%,90m,90s,1h,2d,0.5s,pause,analysis"
    assert [in_words(step) for step in steps] == [
        "12.5% of conversations", "wait 90 minutes", "wait 90 seconds", "wait 1 hour", "wait 2 days",
        "wait 0.5 seconds", "wait for an operator", "wait for the votes",
    ]  # fmt: skip


@given(st.lists(STEPS, min_size=1, max_size=32))
def test_what_is_written_reads_the_same(steps: list[Step]) -> None:
    again = steps_of(in_short(steps))
    assert [type(step) for step in again] == [type(step) for step in steps]
    for one, other in zip(again, steps, strict=True):
        if isinstance(other, SetWeight):
            assert one == other
        elif isinstance(one, Pause) and isinstance(other, Pause) and other.pause is not None:
            assert one.pause == pytest.approx(other.pause, rel=1e-12)
        else:
            assert one == other


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "steps: '' is no step"),
        ("5%,,analysis", "steps: '' is no step"),
        ("5", "steps: '5' is no step"),
        ("5%;30m", "steps: '5%;30m' is no step"),
        ("30 m", "steps: '30 m' is no step"),
        ("95%", "less than or equal to 90"),
        ("0%", "greater than 0"),
        (",".join(["1s"] * 33), "at most 32 items"),
    ],
)
def test_what_is_no_step_is_named(text: str, named: str) -> None:
    with pytest.raises(BadPlan) as told:
        steps_of(text)
    assert named in str(told.value)


@given(st.text(max_size=30))
def test_whatever_is_written_is_steps_or_a_bad_plan(text: str) -> None:
    try:
        steps = steps_of(text)
    except BadPlan:
        return
    assert steps_of(in_short(steps)) == steps
