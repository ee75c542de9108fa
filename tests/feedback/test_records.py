import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from feedback.judgements import Comparison, Feedback, Judgement, Ranking, Rating, parse_ranking
from feedback.records import Completion, Message

JUDGEMENT: TypeAdapter[Judgement] = TypeAdapter(Judgement)


def test_ranking_text_follows_the_presented_order() -> None:
    ranking = Ranking.model_validate({"candidates": ["c1", "c2", "c3", "c4"], "ranking": "D > C = A > B"})
    assert ranking.ranking == (("c4",), ("c3", "c1"), ("c2",))
    assert ranking.tiers == (1, 2, 1, 0)


@pytest.mark.parametrize(
    "ranking",
    ["", "A", "A > B > C", "A > A", "A B", "A >> B", "A > ", "1 > 2", [["a"]], [["a"], ["a"]], [["a"], ["b"], []],
     [["a"], ["b"], ["c"]], [[]], None, 7, [["a", "b", "b"]]],
)  # fmt: skip
def test_what_is_not_an_ordered_partition_is_refused(ranking: object) -> None:
    with pytest.raises(ValidationError):
        Ranking.model_validate({"candidates": ["a", "b"], "ranking": ranking})


@st.composite
def weak_orders(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    candidates = draw(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=9, unique=True))
    tiers = [draw(st.integers(0, len(candidates) - 1)) for _ in candidates]
    groups = [[c for c, t in zip(candidates, tiers, strict=True) if t == tier] for tier in sorted(set(tiers))]
    return candidates, groups


@given(weak_orders())
def test_every_weak_order_round_trips_and_keeps_its_pairs(order: tuple[list[str], list[list[str]]]) -> None:
    candidates, groups = order
    ranking = Ranking.model_validate({"candidates": candidates, "ranking": groups})
    assert JUDGEMENT.validate_json(ranking.model_dump_json()) == ranking
    place = {c: i for i, group in enumerate(groups) for c in group}
    assert list(ranking.tiers) == [place[c] for c in candidates]


@given(weak_orders())
def test_letters_say_the_same_as_ids(order: tuple[list[str], list[list[str]]]) -> None:
    candidates, groups = order
    letters = {c: chr(ord("A") + i) for i, c in enumerate(candidates)}
    text = " > ".join(" = ".join(letters[c] for c in group) for group in groups)
    assert parse_ranking(text, candidates) == groups


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
                    max_leaves=8))  # fmt: skip
def test_any_json_is_a_judgement_or_a_validation_error(data: object) -> None:
    try:
        JUDGEMENT.validate_python(data)
    except ValidationError:
        return
    raise AssertionError(f"{data!r} passed")


@pytest.mark.parametrize(("value", "label"), [(1, 1.0), (-1, 0.0), (0, 0.0), (0.25, 0.25)])
def test_rating_label(value: float, label: float) -> None:
    assert Rating(completion_id="c", value=value).label == label


@pytest.mark.parametrize("value", [2, -0.5, 1.01, float("nan"), float("inf")])
def test_rating_out_of_range(value: float) -> None:
    with pytest.raises(ValidationError):
        Rating(completion_id="c", value=value)


@pytest.mark.parametrize(("winner", "tiers"), [("left", (0, 1)), ("right", (1, 0)), ("tie", (0, 0))])
def test_comparison_tiers(winner: str, tiers: tuple[int, int]) -> None:
    assert Comparison.model_validate({"left": "a", "right": "b", "winner": winner}).tiers == tiers


def test_slot_is_the_rater_the_type_and_the_set_of_targets() -> None:
    def slot(rater: str, judgement: Judgement) -> str:
        return Feedback(id="f", judgement=judgement, rater=rater, split="train", created=0.0).slot

    first = Comparison(left="a", right="b", winner="left")
    assert slot("r", first) == slot("r", Comparison(left="b", right="a", winner="tie"))
    assert slot("r", first) != slot("s", first)
    assert slot("r", first) != slot("r", Comparison(left="a", right="c", winner="left"))


def test_completion_refuses_misaligned_logprobs() -> None:
    fields = dict(id="c:0", response_id="c", choice=0, conversation_id="v", rater="r", messages=(), text="hi",
                  prompt_token_ids=(1,), completion_token_ids=(5, 2), logprobs=(-0.1,), sampling={},
                  finish_reason="stop", policy_version=0, created=0.0)  # fmt: skip
    with pytest.raises(ValidationError, match="differ in length"):
        Completion.model_validate(fields)
    untold = {**fields, "logprobs": ()}
    assert Completion.model_validate(untold).logprobs == ()
    with pytest.raises(ValidationError, match="differ in length"):
        Completion.model_validate(untold | {"plain": True})


def test_errors_do_not_quote_what_people_wrote() -> None:
    """They are logged."""
    with pytest.raises(ValidationError) as caught:
        Message(role="user", content=["a private thing"])  # type: ignore[arg-type]
    assert "private" not in str(caught.value)
