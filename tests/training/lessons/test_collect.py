"""The ledger's records as training data, by hand: who may train, what is left out, what is held out."""

import time
from ast import literal_eval
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any, Literal

import pytest

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.judgements import Comment, Comparison, Demonstration, Feedback, Flag, Judgement, Ranking, Rating
from feedback.records import CHECKS, Completion, Lane, Message, digest, path_digest
from feedback.rounds.sides import Sides
from feedback.store import Ledger, connect
from training.config import GateConfig, RoundConfig, WeightsConfig
from training.lessons.collect import Refused, TrainingData, collect
from training.lessons.prompts import MAX_PROMPTS_PER_RATER, question_of

CONFIG = replace(RoundConfig(), gate=GateConfig(prompts=2))


def completion(
    id: str, *, prompt: tuple[int, ...] = (1, 2), tokens: tuple[int, ...] = (7, 8), **fields: object
) -> Completion:
    known = {
        "id": id, "response_id": id, "choice": 0, "conversation_id": "c", "rater": "ann",
        "messages": (Message(role="user", content=f"prompt {prompt}"),), "text": "text", "prompt_token_ids": prompt,
        "completion_token_ids": tokens, "logprobs": (-1.0,) * len(tokens), "sampling": {}, "finish_reason": "stop",
        "policy_version": 0, "created": 0.0,
    }  # fmt: skip
    return Completion.model_validate(known | fields)


def question(prompt: tuple[int, ...]) -> str:
    """The digest of what `completion` has it ask."""
    return path_digest([Message(role="user", content=f"prompt {prompt}")])


def prompts(number: int, *, below: bool) -> list[tuple[int, ...]]:
    """The first so many of whose questions the digests lie below a fifth of all digests, or above."""
    found = ((n, 6) for n in count() if (question((n, 6)) < f"{2**32 // 5:08x}") == below)
    return list(islice(found, number))


class Crowd:
    """Writes into a ledger and collects from it."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(connect(url))
        self.sides = Sides(self.ledger.redis, b"salt")
        self.quarantined: set[str] = set()
        self._ids = 0
        self.encoded: list[str] = []

    def encode(self, messages: Sequence[Message], text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Letters as token ids; what holds a control token cannot be encoded."""
        self.encoded.append(text)
        if "<|" in text:
            raise ValueError("this text would become a control token")
        return tuple(map(ord, messages[-1].content)), tuple(map(ord, text))

    def answer(self, *completions: Completion) -> None:
        for each in completions:
            self.ledger.append_answer(each.frame(model="m"), [each])

    def say(self, judgement: Judgement, *, rater: str = "ann", lane: Lane | None = None) -> str:
        self._ids += 1
        split = "eval" if rater.startswith("judge") else "train"
        record = Feedback(
            id=f"f{self._ids}", judgement=judgement, rater=rater, split=split, lane=lane, created=time.time()
        )
        return self.ledger.append_feedback(record).id

    def compare(self, *asked: tuple[int, ...], rater: str = "ann") -> None:
        """Two answers to each prompt, the first of them better, and thumbs up for it, and something better still."""
        for prompt in asked:
            a, b = (f"{rater}{prompt}{side}" for side in "ab")
            self.answer(completion(a, prompt=prompt), completion(b, prompt=prompt))
            self.say(Comparison(left=a, right=b, winner="left"), rater=rater)
            self.say(Rating(completion_id=a, value=1), rater=rater)
            self.say(Demonstration(completion_id=a, content="better"), rater=rater)

    def collect(
        self,
        *,
        watermark: str | None = None,
        since: str = "0",
        config: RoundConfig = CONFIG,
        seed: int = 0,
        writers: Sequence[int] = (),
    ) -> TrainingData:
        return collect(
            self.ledger, watermark=watermark or self.ledger.watermark(), since=since, parent=0, seed=seed,
            config=config, is_held_out=lambda rater: rater.startswith("judge"), encode=self.encode,
            sides_of=self.sides.of, quarantined=self.quarantined, writers=writers,
        )  # fmt: skip

    def fix(self, data: TrainingData) -> None:
        """What the stage does once it is certain that the round trains."""
        self.sides.fix((*data.trained, *data.trained_questions), "train")
        self.sides.fix((*data.held_out, *data.held_out_questions), "held_out")


def trained(data: TrainingData) -> set[tuple[int, ...]]:
    """The prompts that anything trains on; each must be there in all kinds, or in none."""
    kinds = {
        "rankings": {ranked.prompt_ids for ranked in data.rankings},
        "ratings": {rated.prompt_ids for rated in data.ratings},
        "demonstrations": {literal_eval(d.messages[0].content.removeprefix("prompt ")) for d in data.demonstrations},
        "prompts": set(data.prompts),
    }
    assert len(set(map(frozenset, kinds.values()))) == 1, kinds
    return kinds["prompts"]


@pytest.fixture
def crowd(valkey_url: str) -> Crowd:
    return Crowd(valkey_url)


@pytest.mark.parametrize("lane", CHECKS)
def test_checks_of_raters_train_and_weigh_nothing(crowd: Crowd, lane: Lane) -> None:
    """Neither ranked nor rated, though each answer could be; nor is anybody's agreement counted from them."""
    asked = prompts(3, below=False)
    crowd.compare(*asked, rater="bob")
    for prompt in asked:
        a, b = (f"bob{prompt}{side}" for side in "ab")
        for winner in ("right", "both_bad"):
            comparison = Comparison.model_validate({"left": a, "right": b, "winner": winner, "comparison_id": winner})
            checked = crowd.say(comparison, lane=lane)
            assert checked not in crowd.collect().judged_ids
    assert [weight.rater for weight in crowd.collect().weights] == ["bob"]
    crowd.say(Comparison(left=a, right=b, winner="right", comparison_id="cmp"), lane="release")
    assert [weight.rater for weight in crowd.collect().weights] == ["ann", "bob"]


def test_a_decoy_never_trains(crowd: Crowd) -> None:
    """Whatever is said of it, in whatever lane; and nobody practises on its question."""
    mine, elsewhere, other = prompts(3, below=False)
    crowd.compare(other)
    before = crowd.collect()
    crowd.answer(completion("good", prompt=mine), completion("bad", prompt=elsewhere, decoy=True, tokens=(9,)))
    crowd.say(Comparison(left="good", right="bad", winner="left"))
    crowd.say(Ranking(candidates=("bad", "good"), ranking=(("bad",), ("good",))))
    crowd.say(Rating(completion_id="bad", value=-1))
    crowd.say(Demonstration(completion_id="bad", content="better"))
    data = crowd.collect()
    assert (data.rankings, data.ratings) == (before.rankings, before.ratings)
    assert data.demonstrations == before.demonstrations
    assert set(data.prompts) == {mine, other}, "the good answer's question is one like all others"
    assert digest(elsewhere) not in (*data.trained, *data.held_out)


def test_ranking_keeps_the_order_of_candidates_and_ties(crowd: Crowd) -> None:
    crowd.answer(*(completion(id, tokens=(n,)) for n, id in enumerate("abcd")))
    crowd.say(Ranking(candidates=tuple("abcd"), ranking="D > C = A > B"))
    (ranked,) = crowd.collect().rankings
    assert ranked.prompt_ids == (1, 2)
    assert ranked.completions == ((0,), (1,), (2,), (3,))
    assert ranked.tiers == (1, 2, 1, 0)


def test_comparison_is_a_ranking_of_two(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"), completion("c"))
    crowd.say(Comparison(left="a", right="b", winner="right"))
    crowd.say(Comparison(left="b", right="c", winner="tie"))
    assert [ranked.tiers for ranked in crowd.collect().rankings] == [(1, 0), (0, 0)]


def test_both_bad_is_two_thumbs_down_and_no_order(crowd: Crowd) -> None:
    crowd.answer(completion("a", tokens=(3,)), completion("b", tokens=(4,)))
    crowd.say(Comparison(left="a", right="b", winner="both_bad"))
    data = crowd.collect()
    assert data.rankings == ()
    assert [(rated.completion_ids, rated.label) for rated in data.ratings] == [((3,), 0.0), ((4,), 0.0)]
    assert [rated.weight for rated in data.ratings] == [0.5, 0.5], "one judgement"


@pytest.mark.parametrize(("value", "label"), [(1, 1.0), (-1, 0.0), (0.25, 0.25)])
def test_rating_becomes_a_share_of_approval(crowd: Crowd, value: float, label: float) -> None:
    crowd.answer(completion("a"))
    crowd.say(Rating(completion_id="a", value=value))
    assert [rated.label for rated in crowd.collect().ratings] == [label]


def test_only_a_rating_of_the_whole_answer_trains(crowd: Crowd) -> None:
    crowd.answer(completion("a"))
    crowd.say(Rating(completion_id="a", value=0.75))
    crowd.say(Rating(completion_id="a", value=-1, metric="tone"))
    crowd.say(Rating(completion_id="a", value=0.5, metric="length"))
    data = crowd.collect()
    assert [rated.label for rated in data.ratings] == [0.75]
    assert data.judged_ids == ["f1"]


def test_demonstration_keeps_text_and_messages(crowd: Crowd) -> None:
    crowd.answer(completion("a"))
    crowd.say(Demonstration(completion_id="a", content="better"))
    (written,) = crowd.collect().demonstrations
    assert written.content == "better"
    assert written.messages == (Message(role="user", content="prompt (1, 2)"),)


@pytest.mark.parametrize(
    "unusable",
    [
        {"consent": False},
        {"version_changed_at": 1},
        {"completion_token_ids": (), "logprobs": ()},
        {"prompt_token_ids": ()},
    ],
)
def test_unusable_completion_leaves_the_ranking(crowd: Crowd, unusable: dict[str, object]) -> None:
    """Without consent, written by two policies, or empty: the others keep their places; one alone ranks nothing."""
    crowd.answer(completion("a"), completion("b"), completion("c", **unusable))
    crowd.say(Ranking(candidates=("a", "b", "c"), ranking="C > A > B"))
    crowd.say(Comparison(left="a", right="c", winner="left"))
    crowd.say(Rating(completion_id="c", value=1))
    crowd.say(Demonstration(completion_id="c", content="better"))
    data = crowd.collect()
    assert [ranked.tiers for ranked in data.rankings] == [(1, 2)]
    assert data.ratings == ()
    assert data.demonstrations == ()


def test_consent_that_was_taken_back_since_counts_until_it_is_named_again(crowd: Crowd) -> None:
    """What was refused when asking cannot be given afterwards."""
    archive = Archive(crowd.ledger)
    crowd.answer(completion("a"), completion("b", consent=False))
    for id in "ab":
        crowd.say(Rating(completion_id=id, value=1))
    for metadata, left in [
        ({"consent": "False"}, 0), ({"app": "x"}, 0), ({"consent": "TRUE"}, 1), ({}, 1),
    ]:  # fmt: skip
        for id in "ab":
            assert archive.annotate(id, metadata)
        assert len(crowd.collect().ratings) == left, metadata


def test_conversation_that_is_private_now_trains_nothing(crowd: Crowd) -> None:
    """Of that person only: others may have named theirs alike."""
    archive = Archive(crowd.ledger)
    crowd.answer(completion("a"), completion("b"), completion("c", conversation_id="d", prompt=(8,)))
    crowd.answer(completion("e", rater="bob", prompt=(9,)))
    crowd.say(Comparison(left="a", right="b", winner="left"))
    for id in ("a", "c", "e"):
        crowd.say(Rating(completion_id=id, value=1))
    open_prompts = {(1, 2), (8,), (9,)}
    for private, left in [(False, open_prompts), (True, {(8,), (9,)}), (False, open_prompts)]:
        archive.change_conversation("ann", "c", allow_training=not private)
        data = crowd.collect()
        assert {*data.prompts, *data.held_out_prompts} == left
        assert len(data.rankings + data.held_out_rankings) == (not private)
        assert {rated.prompt_ids for rated in data.ratings} <= left


def test_raters_are_all_whose_prompts_or_judgements_train(crowd: Crowd) -> None:
    ranked, practised, shared, rated = prompts(4, below=False)
    low = prompts(6, below=True)
    crowd.compare(*low, rater="held-out")
    crowd.answer(completion("a", prompt=ranked, rater="asked"), completion("b", prompt=ranked, rater="asked"))
    crowd.say(Comparison(left="a", right="b", winner="left"), rater="ranked")
    crowd.say(Comparison(left=f"held-out{low[0]}a", right=f"held-out{low[0]}b", winner="left"), rater="judge")
    crowd.answer(completion("p", prompt=practised, rater="practised"))
    crowd.answer(completion("q", prompt=shared, rater="one"), completion("r", prompt=shared, rater="other"))
    crowd.answer(completion("s", prompt=rated, rater="private", conversation_id="s"))
    crowd.say(Rating(completion_id="s", value=1), rater="of the private")
    Archive(crowd.ledger).change_conversation("private", "s", allow_training=False)
    too_long = (4,) * (CONFIG.reward.max_tokens - CONFIG.ppo.max_new_tokens + 1)
    crowd.answer(completion("t", prompt=too_long, rater="too long"))
    crowd.say(Rating(completion_id="t", value=1), rater="ranked")
    data = crowd.collect()
    assert set(data.prompts) == {practised, shared, ranked}
    assert data.raters == ("asked", "one", "other", "practised", "ranked", "too long")
    held_out = {f"held-out{prompt}{side}" for prompt in low for side in "ab"}
    assert set(data.responses) == {*"abpqrt", *held_out}
    unused = {f"held-out{prompt}" for prompt in low}
    compared_and_written = 2 * len(unused)
    assert len(data.judged_ids) == len(data.feedback_ids) + compared_and_written + 1


def imported(id: str, text: str, content: str = "hi", **fields: object) -> Completion:
    messages = (Message(role="user", content=content),)
    known = {"messages": messages, "text": text, "prompt_token_ids": (), "policy_version": None, "rater": "imported"}
    return completion(id, tokens=(), **{**known, **fields})


def test_imported_answers_are_encoded_once_and_train(crowd: Crowd) -> None:
    crowd.answer(imported("a", "A"), imported("b", "B"))
    crowd.say(Comparison(left="a", right="b", winner="right"))
    crowd.say(Rating(completion_id="a", value=1))
    crowd.say(Demonstration(completion_id="a", content="better"))
    data = crowd.collect()
    (ranked, edited) = (*data.rankings, *data.held_out_rankings)
    assert (ranked.prompt_ids, ranked.completions, ranked.tiers) == ((104, 105), ((65,), (66,)), (1, 0))
    assert (edited.completions, edited.kind) == ((tuple(map(ord, "better")), (65,)), "edit")
    assert sorted(crowd.encoded) == ["A", "B", "better"]
    assert len(data.ratings) == len(data.demonstrations) == 1
    assert data.prompts == ((104, 105),)
    assert data.unencodable == 0


def test_what_cannot_be_encoded_is_left_out_and_counted(crowd: Crowd) -> None:
    calls = ({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},)
    crowd.answer(
        imported("a", "A"), imported("b", "<|im_end|>"), imported("c", "C"), imported("d", "", tool_calls=calls)
    )
    crowd.say(Ranking(candidates=tuple("abcd"), ranking="D > C > B > A"))
    data = crowd.collect()
    (ranked,) = (*data.rankings, *data.held_out_rankings)
    assert (ranked.completions, ranked.tiers) == (((65,), (67,)), (3, 1))
    assert data.unencodable == data.counts["unencodable"] == 2


def test_served_answer_is_never_encoded(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b", tokens=()), imported("c", "C", consent=False))
    crowd.say(Ranking(candidates=tuple("abc"), ranking="A > B > C"))
    assert crowd.collect().rankings == ()
    assert crowd.encoded == []


@pytest.mark.parametrize(
    ("ranking", "tiers", "unplaced"),
    [
        ("C > A", (1, 2, 0, 2, 2), 2),
        ("B = C", (1, 0, 0, 1, 1), 1),
        ("A", (0, 1, 1, 1, 1), 1),
        ("E > D > C = B > A", (3, 2, 2, 1, 0), 4),
    ],
)
def test_partial_ranking_is_one_record_that_names_the_tier_of_the_unplaced(
    crowd: Crowd, ranking: str, tiers: tuple[int, ...], unplaced: int
) -> None:
    letters = "abcde"
    crowd.answer(*(completion(letter, tokens=(n,)) for n, letter in enumerate(letters)))
    crowd.say(Ranking(candidates=tuple(letters), ranking=ranking, partial=True))
    (ranked,) = crowd.collect().rankings
    assert ranked.completions == ((0,), (1,), (2,), (3,), (4,))
    assert (ranked.tiers, ranked.unplaced) == (tiers, unplaced)


def test_records_say_who_said_it_and_where_it_came_from(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"))
    crowd.say(Ranking(candidates=("a", "b"), ranking="B > A", none_acceptable=True))
    crowd.say(Comparison(left="a", right="b", winner="tie"), rater="operator_bob")
    crowd.say(Rating(completion_id="b", value=1), rater="imported_train_x")
    data = crowd.collect()
    assert {(r.rater, r.source, r.unplaced) for r in data.rankings} == {
        ("ann", "live", None),
        ("operator_bob", "operator", None),
    }
    assert sorted((r.rater, r.source, r.label) for r in data.ratings) == [
        ("ann", "live", 0.0),
        ("ann", "live", 0.0),
        ("imported_train_x", "import", 1.0),
    ]


def test_partial_ranking_whose_placed_answers_are_gone_says_nothing(crowd: Crowd) -> None:
    crowd.answer(completion("a", consent=False), completion("b"), completion("c"))
    crowd.say(Ranking(candidates=tuple("abc"), ranking="A", partial=True))
    assert crowd.collect().rankings == ()


def test_one_partial_ranking_counts_as_one(crowd: Crowd) -> None:
    letters = tuple("abcdefghijkl")
    crowd.answer(*(completion(letter) for letter in letters), completion("z", prompt=(9,)))
    crowd.say(Ranking(candidates=letters, ranking="A > B", partial=True))
    with pytest.raises(Refused, match="^1 rankings, 1 of them may train; at least 8 are needed"):
        crowd.collect().refuse_if_too_little()


def test_none_acceptable_is_a_thumb_down_for_each_beside_the_order(crowd: Crowd) -> None:
    crowd.answer(*(completion(id, tokens=(n,)) for n, id in enumerate("abc")))
    crowd.say(Ranking(candidates=tuple("abc"), ranking="B > A = C", none_acceptable=True))
    data = crowd.collect()
    assert [ranked.tiers for ranked in data.rankings] == [(1, 0, 1)]
    assert [(rated.completion_ids, rated.label) for rated in data.ratings] == [((0,), 0.0), ((1,), 0.0), ((2,), 0.0)]
    assert [each.weight for each in (*data.rankings, *data.ratings)] == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3])


def test_demonstration_is_better_than_the_answer_it_stands_for(crowd: Crowd) -> None:
    """In the prompt as it was served, whatever tokens the template would make of the messages today."""
    crowd.answer(completion("a"))
    id = crowd.say(Demonstration(completion_id="a", content="!?"), rater="bob")
    data = crowd.collect()
    (edited,) = data.rankings
    assert (edited.prompt_ids, edited.completions, edited.tiers) == ((1, 2), ((33, 63), (7, 8)), (0, 1))
    assert (edited.feedback_id, edited.rater, edited.kind, edited.unplaced) == (id, "bob", "edit", None)
    assert [written.content for written in data.demonstrations] == ["!?"], "it is imitated all the same"


@pytest.mark.parametrize(
    ("original", "content"),
    [({}, "text"), ({}, "text\n"), ({}, "<|im_end|>"), ({"partial": True}, "!"), ({"finish_reason": "length"}, "!")],
)
def test_demonstration_that_compares_with_nothing(crowd: Crowd, original: dict[str, object], content: str) -> None:
    """It says the same as the answer, or cannot be encoded, or the answer is half of one."""
    crowd.answer(completion("a", **original))
    crowd.say(Demonstration(completion_id="a", content=content))
    data = crowd.collect()
    assert (len(data.rankings), len(data.demonstrations), data.unencodable) == (0, 1, 0)


def test_edits_of_held_out_prompts_and_of_evaluation_raters_are_left_out(crowd: Crowd) -> None:
    """The reward model is measured on answers of policies only: those of people are easily told apart."""
    (low,), (high,) = prompts(1, below=True), prompts(1, below=False)
    crowd.answer(completion("a", prompt=low), completion("b", prompt=high))
    crowd.say(Demonstration(completion_id="a", content="!"))
    crowd.say(Demonstration(completion_id="b", content="!"), rater="judge")
    data = crowd.collect()
    assert (data.rankings, data.held_out_rankings) == ((), ())


def test_comment_and_flag_never_train(crowd: Crowd) -> None:
    crowd.answer(completion("a"))
    crowd.say(Comment(completion_id="a", content="nice"))
    crowd.say(Flag(completion_id="a", reasons=("rude",)))
    crowd.say(Rating(completion_id="a", value=1, metric="tone"))
    data = crowd.collect()
    assert (data.feedback_ids, data.unused) == ([], 0)


def test_stopped_answer_is_ranked_and_not_rated(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b", partial=True))
    crowd.say(Comparison(left="a", right="b", winner="left"))
    crowd.say(Rating(completion_id="a", value=1))
    crowd.say(Rating(completion_id="b", value=1))
    crowd.say(Comparison(left="b", right="a", winner="both_bad"), rater="bob")
    data = crowd.collect()
    assert [ranked.tiers for ranked in data.rankings] == [(0, 1)]
    assert sorted(rated.label for rated in data.ratings) == [0.0, 1.0]
    assert data.unused == data.counts["unused"] == 1, "the rating of what was stopped"


def test_truncated_completion_trains(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b", finish_reason="length"))
    crowd.say(Comparison(left="a", right="b", winner="left"))
    assert len(crowd.collect().rankings) == 1


def test_evaluation_raters_never_train(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"), completion("j", rater="judge", prompt=(9,)))
    crowd.say(Comparison(left="a", right="b", winner="left"), rater="judge")
    crowd.say(Rating(completion_id="a", value=1), rater="judge")
    crowd.say(Demonstration(completion_id="a", content="mine"), rater="judge")
    data = crowd.collect()
    assert (data.rankings, data.ratings, data.demonstrations) == ((), (), ())
    assert [ranked.tiers for ranked in data.held_out_rankings] == [(0, 1)]
    assert data.prompts == ()
    assert data.held_out_prompts == ((9,), (1, 2)), "by digest"


def test_revision_counts_once_and_only_up_to_the_watermark(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"))
    crowd.say(Comparison(left="a", right="b", winner="left"))
    before = crowd.ledger.watermark()
    crowd.say(Comparison(left="a", right="b", winner="right"))
    assert [ranked.tiers for ranked in crowd.collect().rankings] == [(1, 0)]
    assert [ranked.tiers for ranked in crowd.collect(watermark=before).rankings] == [(0, 1)]


def test_new_demonstrations_are_those_since_the_last_round(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"))
    crowd.say(Demonstration(completion_id="a", content="old"))
    since = crowd.ledger.watermark()
    assert crowd.collect(since=since).new_demonstrations == 0
    crowd.say(Demonstration(completion_id="b", content="new"))
    data = crowd.collect(since=since)
    assert [(written.content, written.new) for written in data.demonstrations] == [("old", False), ("new", True)]
    assert data.new_demonstrations == 1


def test_a_demonstration_that_nothing_imitated_has_not_trained(crowd: Crowd) -> None:
    """One of half an answer is no ranking either; what it says is kept in the data, which an erasure must know."""
    (asked,) = prompts(1, below=False)
    crowd.answer(completion("a", prompt=asked, finish_reason="length"))
    half = crowd.say(Demonstration(completion_id="a", content="better"), rater="bob")
    few = crowd.collect(config=replace(CONFIG, min_demonstrations=2))
    assert (few.too_few_demonstrations, few.feedback_ids) == ("1 new demonstrations, 2 are needed", [])
    assert few.judged_ids == [half] and len(few.demonstrations) == 1 and "bob" not in few.raters
    enough = crowd.collect(config=replace(CONFIG, min_demonstrations=1))
    mixed_in = crowd.collect(config=replace(CONFIG, min_demonstrations=2, ppo=replace(CONFIG.ppo, ptx_coef=0.1)))
    for data in (enough, mixed_in):
        assert data.feedback_ids == [half] and "bob" in data.raters


def test_demonstrations_of_held_out_prompts_measure_and_count_as_used(crowd: Crowd) -> None:
    """Whoever wrote them. Those of an evaluation-only rater never train, nor do they measure where others train."""
    above, below = prompts(4, below=False), prompts(12, below=True)
    crowd.answer(*(completion(f"{prompt}", prompt=prompt) for prompt in (*above, *below)))
    taught = [crowd.say(Demonstration(completion_id=f"{prompt}", content="t")) for prompt in above]
    measured = [crowd.say(Demonstration(completion_id=f"{prompt}", content="m")) for prompt in below]
    measured.append(crowd.say(Demonstration(completion_id=f"{below[0]}", content="m"), rater="judge"))
    neither = crowd.say(Demonstration(completion_id=f"{above[0]}", content="n"), rater="judge")
    data = crowd.collect()
    ids = [written.feedback_id for written in data.held_out_demonstrations]
    assert {written.content for written in data.held_out_demonstrations} == {"m"} and set(ids) == set(measured)
    assert [written.feedback_id for written in data.demonstrations] == taught
    assert (data.counts["demonstrations"], data.counts["held_out_demonstrations"]) == (4, 13)
    assert set(taught) <= set(data.feedback_ids) and not set(measured) & set(data.feedback_ids)
    assert set(measured) <= set(data.judged_ids) and neither not in data.judged_ids
    assert ids == [written.feedback_id for written in crowd.collect(seed=1).held_out_demonstrations]
    assert ids != sorted(ids, key=lambda id: int(id[1:])), "the first so many must not be the oldest"


def test_data_tells_where_it_comes_from(crowd: Crowd) -> None:
    crowd.compare((1,))
    end = crowd.ledger.watermark()
    data = crowd.collect(since="1-0", seed=7)
    assert (data.watermark, data.since, data.parent, data.seed, data.config) == (end, "1-0", 0, 7, CONFIG.to_dict())


def test_prompts_are_distinct_capped_and_shuffled_by_the_seed(crowd: Crowd) -> None:
    asked, held_out = prompts(10, below=False), prompts(4, below=True)
    crowd.answer(*(completion(f"a{n}", prompt=(*asked, *held_out)[n % 14]) for n in range(28)))
    data = crowd.collect(seed=1)
    assert sorted(data.prompts) == asked
    assert sorted(data.held_out_prompts) == held_out
    assert crowd.collect(seed=1) == data
    assert crowd.collect(seed=2).prompts != data.prompts
    assert crowd.collect(seed=2).held_out_prompts == data.held_out_prompts
    crowd.answer(*(completion(f"b{n}", rater="bob", prompt=(n, 7)) for n in range(MAX_PROMPTS_PER_RATER + 30)))
    data = crowd.collect()
    bobs = sorted(prompt for prompt in (*data.prompts, *data.held_out_prompts) if prompt[1] == 7)
    assert bobs == [(n, 7) for n in range(30, MAX_PROMPTS_PER_RATER + 30)], "the newest count"


def test_prompt_that_cannot_be_scored_whole_is_left_out(crowd: Crowd) -> None:
    longest = CONFIG.reward.max_tokens - CONFIG.ppo.max_new_tokens
    crowd.answer(completion("a", prompt=(1,) * longest), completion("b", prompt=(1,) * (longest + 1)))
    data = crowd.collect()
    assert {len(prompt) for prompt in (*data.prompts, *data.held_out_prompts)} == {longest}


def test_prompt_below_the_threshold_never_trains_and_one_above_always_may(crowd: Crowd) -> None:
    """However many others there come to be."""
    low, high = prompts(24, below=True), prompts(96, below=False)
    for step in range(1, 4):
        crowd.compare(*low[8 * (step - 1) : 8 * step], *high[32 * (step - 1) : 32 * step])
        data = crowd.collect(seed=step)
        assert trained(data) == set(high[: 32 * step])
        assert {ranked.prompt_ids for ranked in data.held_out_rankings} == set(low[: 8 * step])
        assert set(data.held_out_prompts) == set(low[: 8 * step])
        assert data.new_demonstrations == len(data.demonstrations)


def test_prompt_that_an_evaluation_rater_ranked_or_asked_trains_nothing(crowd: Crowd) -> None:
    above = prompts(12, below=False)
    crowd.compare(*above, *prompts(2, below=True))
    ranked, asked = above[0], above[1]
    crowd.say(Comparison(left=f"ann{ranked}a", right=f"ann{ranked}b", winner="left"), rater="judge")
    crowd.answer(completion("j", rater="judge", prompt=asked))
    data = crowd.collect()
    assert trained(data) == set(above[2:])
    assert {ranked, asked} <= set(data.held_out_prompts)
    assert data.held_out_rankings[0].prompt_ids == ranked


def test_side_of_a_prompt_is_drawn_once(crowd: Crowd) -> None:
    """Whatever the threshold becomes, and whoever asks or ranks it later: what has trained proves nothing."""
    crowd.compare(*prompts(12, below=False), *prompts(5, below=True))
    data = crowd.collect()
    crowd.fix(data)
    late = prompts(12, below=False)[0]
    crowd.say(Comparison(left=f"ann{late}a", right=f"ann{late}b", winner="left"), rater="judge")
    for fraction in (0.0, 0.9):
        config = replace(CONFIG, reward=replace(CONFIG.reward, held_out_fraction=fraction))
        later = crowd.collect(config=config)
        assert trained(later) == trained(data) == set(prompts(12, below=False))
        assert later.held_out_prompts == data.held_out_prompts
        assert {ranked.rater for ranked in later.held_out_rankings} == {"ann"}


def daily(prompt: tuple[int, ...], day: int) -> dict[str, Any]:
    """The same question another day: a client's system message has the date, and so have the tokens."""
    system = Message(role="system", content=f"Sat, {day} Nov 2026, 10:{day % 60:02d} PM")
    asks = Message(role="user", content=f"prompt {prompt}")
    return {"prompt": (1000 + day, *prompt), "messages": (system, asks)}


def ask_daily(crowd: Crowd, asked: Sequence[tuple[int, ...]], days: Iterable[int], rater: str = "ann") -> None:
    for prompt in asked:
        for day in days:
            a, b = (f"{rater}{prompt}{day}{side}" for side in "ab")
            crowd.answer(*(completion(id, rater=rater, **daily(prompt, day)) for id in (a, b)))
            crowd.say(Comparison(left=a, right=b, winner="left"), rater=rater)


def sides_by_question(data: TrainingData) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    """What is asked by what trains and by what is held out, in whatever kind."""
    train = {*data.prompts, *(ranked.prompt_ids for ranked in data.rankings)}
    held_out = {*data.held_out_prompts, *(ranked.prompt_ids for ranked in data.held_out_rankings)}
    return {prompt[1:] for prompt in train}, {prompt[1:] for prompt in held_out}


def test_a_question_is_on_one_side_whatever_the_system_message_says(crowd: Crowd) -> None:
    """The same rounds later, in tokens that no earlier round has seen, when those that it saw are gone."""
    high, low = prompts(9, below=False), prompts(3, below=True)
    judged = high[0]
    ask_daily(crowd, high, (1, 2))
    ask_daily(crowd, low, (1, 2))
    ask_daily(crowd, [judged], (3,), rater="judge")
    data = crowd.collect()
    assert sides_by_question(data) == (set(high[1:]), {*low, judged})
    crowd.ledger.redis.flushdb()
    crowd.fix(data)
    ask_daily(crowd, (*high, *low), (7,))
    for fraction in (0.0, 0.9):
        config = replace(CONFIG, reward=replace(CONFIG.reward, held_out_fraction=fraction))
        assert sides_by_question(crowd.collect(config=config)) == (set(high[1:]), {*low, judged})


def test_what_trained_when_sides_were_those_of_tokens_trains_on(crowd: Crowd) -> None:
    """And nothing else that was fixed then moves: a held-out prompt's question is held out in all its tokens."""
    high, low = prompts(9, below=False), prompts(9, below=True)
    ask_daily(crowd, (*high, *low), (1,))
    crowd.sides.fix([digest(daily(low[0], 1)["prompt"])], "train")
    crowd.sides.fix([digest(daily(high[0], 1)["prompt"])], "held_out")
    ask_daily(crowd, (low[0], high[0]), (2,))
    data = crowd.collect()
    assert sides_by_question(data) == ({*high[1:], low[0]}, {*low[1:], high[0]})
    crowd.sides.fix([digest(daily(high[0], 2)["prompt"])], "train")
    assert sides_by_question(crowd.collect()) == ({*high, low[0]}, {*low[1:]}), "asked on both sides, it has trained"


def test_what_a_system_message_says_beside_the_date_is_part_of_the_question() -> None:
    """An application may put all that changes there, and ask of each document the same."""

    def asked(system: str) -> str:
        told = (Message(role="system", content=system), Message(role="user", content="Sum it up."))
        return question_of(completion("c", messages=told))

    assert asked("Today is Monday, 1st May 2026. The contract.") == asked("today is Friday, 2 June 2026: the contract")
    assert len({asked(document) for document in ("The contract.", "The will.", "")}) == 3


def test_system_messages_alone_are_questions_of_their_own(crowd: Crowd) -> None:
    for n in range(40):
        alone = (Message(role="system", content=f"Tell me of {n}."),)
        crowd.answer(completion(f"{n}", prompt=(n, 6), messages=alone))
    data = crowd.collect()
    assert data.prompts and data.held_out_prompts


def test_rated_prompt_that_is_held_out_never_trains_however_old_it_is(crowd: Crowd) -> None:
    """Practice takes each person's newest prompts only; the side of the others is the same."""
    (low,) = prompts(1, below=True)
    crowd.answer(completion("old", prompt=low))
    crowd.say(Rating(completion_id="old", value=1))
    crowd.answer(*(completion(f"a{n}", prompt=(n, 7)) for n in range(MAX_PROMPTS_PER_RATER)))
    data = crowd.collect()
    assert low not in data.held_out_prompts, "it is too old to be asked again"
    assert data.ratings == ()


def test_quarantined_rater_is_as_if_never_there(crowd: Crowd) -> None:
    """Neither their judgements nor their prompts, nor what others said of their answers."""
    mine, theirs = prompts(12, below=False)[:6], prompts(12, below=False)[6:]
    crowd.compare(*mine, *prompts(3, below=True))
    without = crowd.collect(watermark=(before := crowd.ledger.watermark()))
    for prompt in theirs:
        crowd.answer(*(completion(f"eve{prompt}{side}", prompt=prompt, rater="eve") for side in "ab"))
        crowd.say(Comparison(left=f"eve{prompt}a", right=f"eve{prompt}b", winner="left"), rater="eve")
    crowd.say(Comparison(left=f"ann{mine[0]}a", right=f"ann{mine[0]}b", winner="right"), rater="eve")
    crowd.say(Comparison(left=f"eve{theirs[0]}a", right=f"eve{theirs[0]}b", winner="left"), rater="ann")
    crowd.say(Comparison(left=f"ann{mine[1]}a", right=f"ann{mine[1]}b", winner="left"), rater="judge-eve")
    assert crowd.collect().raters == ("ann", "eve")
    crowd.quarantined = {"eve", "judge-eve"}
    data = crowd.collect()
    assert data.quarantined == 2
    assert data.unused == without.unused + 1, "what ann said of eve's answers"
    assert data.model_copy(update={"watermark": before, "quarantined": 0, "unused": without.unused}) == without


def test_rater_who_contradicts_everybody_loses_weight_and_is_left_out_at_last(crowd: Crowd) -> None:
    (asked,) = prompts(1, below=False)
    letters = tuple("abcdefgh")
    crowd.answer(*(completion(letter, prompt=asked, tokens=(n,)) for n, letter in enumerate(letters)))
    honest = {"ann", "bob", "cat", "dan"}
    for rater in (*honest, "eve"):
        for letter in letters:
            crowd.say(Rating(completion_id=letter, value=0.0 if rater == "eve" else 1.0), rater=rater)
    crowd.say(Comparison(left="a", right="b", winner="left"), rater="eve")
    patient = replace(CONFIG, weights=WeightsConfig(prior_judgements=40.0))
    weights = {r.rater: r.weight for r in crowd.collect(config=patient).ratings}
    assert {weights[rater] for rater in honest} == {1.0}
    assert 0 < weights["eve"] < 0.5
    data = crowd.collect()
    assert {r.rater for r in data.ratings} == honest
    assert data.rankings == ()
    assert data.feedback_ids == sorted(r.feedback_id for r in data.ratings)
    assert {each.rater: each.reliability for each in data.weights}["eve"] == 0.0


def test_source_and_age_make_weights(crowd: Crowd) -> None:
    (asked,) = prompts(1, below=False)
    crowd.answer(completion("a", prompt=asked), completion("b", prompt=asked, tokens=(9,)))
    crowd.say(Rating(completion_id="a", value=1), rater="imported_train_x")
    crowd.say(Rating(completion_id="b", value=1), rater="ann")
    weights = WeightsConfig(source_weights={"import": 0.25}, recency_half_life_days=1.0)
    data = crowd.collect(config=replace(CONFIG, weights=weights))
    assert [(r.source, r.weight) for r in data.ratings] == [("import", pytest.approx(0.25, rel=1e-3)), ("live", 1.0)]


def test_gate_looks_first_at_the_lowest_digests_whoever_asked(crowd: Crowd) -> None:
    crowd.answer(*(completion(f"j{n}", rater="judge", prompt=(n, 6)) for n in range(40)))
    crowd.answer(*(completion(f"a{n}", prompt=prompt) for n, prompt in enumerate(prompts(20, below=True))))
    held_out = crowd.collect().held_out_prompts
    assert list(held_out) == sorted(held_out, key=digest)
    assert list(held_out) != sorted(held_out)


@pytest.mark.parametrize("below", [0, 1])
def test_small_round_holds_a_third_of_its_prompts_out_whatever_their_digests(crowd: Crowd, below: int) -> None:
    asked = [*prompts(14 - below, below=False), *prompts(below, below=True)]
    crowd.compare(*asked)
    data = crowd.collect()
    data.refuse_if_too_little()
    lowest = sorted(asked, key=question)
    assert trained(data) == set(lowest[4:])
    assert set(data.held_out_prompts) == set(lowest[:4])
    assert {ranked.prompt_ids for ranked in data.held_out_rankings} == set(lowest[:4])
    crowd.fix(data)
    crowd.compare(*prompts(4, below=True))
    later = crowd.collect()
    assert trained(later) == trained(data)
    assert set(later.held_out_prompts) == {*data.held_out_prompts, *prompts(4, below=True)}


def test_too_few_rankings_are_refused(crowd: Crowd) -> None:
    crowd.answer(*(completion(f"z{n}", prompt=(n, 6)) for n in range(20)))
    asked = prompts(8, below=False)
    for n, prompt in enumerate(asked):
        crowd.answer(completion(f"a{n}", prompt=prompt), completion(f"b{n}", prompt=prompt))
    for n in range(7):
        crowd.say(Comparison(left=f"a{n}", right=f"b{n}", winner="left"))
    words = r"^7 rankings, 5 of them may train \(.*\); at least 8 are needed, on several prompts: "
    with pytest.raises(Refused, match=words):
        crowd.collect().refuse_if_too_little()
    crowd.say(Comparison(left="a7", right="b7", winner="left"))
    data = crowd.collect()
    data.refuse_if_too_little()
    assert len(data.feedback_ids) == 6, "two of eight are held out"


def test_people_who_only_thumb_are_told_what_else_is_needed(crowd: Crowd) -> None:
    for n, prompt in enumerate(prompts(20, below=False)):
        crowd.answer(completion(f"a{n}", prompt=prompt))
        crowd.say(Rating(completion_id=f"a{n}", value=1))
    told = "comparisons, rankings or edits, since thumbs alone do not tell which answer is better"
    with pytest.raises(Refused, match=f"^0 rankings, 0 of them may train; at least 8 are needed, .*: {told}$"):
        crowd.collect().refuse_if_too_little()


def test_too_few_held_out_prompts_are_refused(crowd: Crowd) -> None:
    for prompt in prompts(5, below=False):
        for rater in ("ann", "bob"):
            crowd.compare(prompt, rater=rater)
    with pytest.raises(Refused, match="^1 held-out prompts; the gate needs at least 2$"):
        crowd.collect().refuse_if_too_little()


def test_data_survives_its_file(crowd: Crowd) -> None:
    crowd.answer(completion("a"), completion("b"))
    crowd.say(Comparison(left="a", right="b", winner="left"))
    crowd.say(Demonstration(completion_id="a", content="better"))
    data = crowd.collect()
    assert TrainingData.model_validate_json(data.model_dump_json()) == data
    assert RoundConfig.from_dict(data.config) == CONFIG


def live_config(rollouts: Literal["fresh", "live", "mix"], **fields: int) -> RoundConfig:
    return replace(CONFIG, ppo=replace(CONFIG.ppo, rollouts=rollouts, max_new_tokens=2, **fields))


def test_live_completions_are_those_of_training_prompts_and_people(crowd: Crowd) -> None:
    """Two of the ten that were received: the others differ from them in one thing each."""
    archive = Archive(crowd.ledger)
    ours = {name: prompt for name, prompt in zip("abcdefghi", prompts(9, below=False), strict=True)}
    for name, prompt in ours.items():
        rater = {"c": "judge", "e": "eve"}.get(name, "ann")
        where = {"conversation_id": "private" if name == "d" else "c", "consent": name != "f", "plain": name != "g"}
        writer = {"h": 5, "b": 2}.get(name, 3)
        where |= {"response_id": name, "rater": rater, "policy_version": writer}
        crowd.answer(completion(f"{name}:0", prompt=prompt, **where))
    [held_out] = prompts(1, below=True)
    crowd.answer(completion("held out", prompt=held_out, plain=True, policy_version=3))
    assert archive.change_conversation("ann", "private", allow_training=False)
    assert archive.annotate("i", {"consent": "false"})
    crowd.quarantined.add("eve")
    data = crowd.collect(config=live_config("live"), writers=(3, 2))
    assert {each.response_id for each in data.live} == {"a", "b"}
    assert {(each.prompt_ids, each.completion_ids, each.log_probs) for each in data.live} == {
        (ours["a"], (7, 8), (-1.0, -1.0)), (ours["b"], (7, 8), (-1.0, -1.0)),
    }  # fmt: skip
    assert {"a", "b"} <= set(data.responses)
    assert data.raters == ("ann",)
    assert data.counts["live"] == 2
    assert crowd.collect(config=live_config("fresh"), writers=(3, 2)).live == ()
    assert crowd.collect(config=live_config("mix"), writers=(3,)).live != ()
    response = archive.response("a")
    assert response is not None
    Eraser(archive).response(response)
    assert {each.response_id for each in crowd.collect(config=live_config("live"), writers=(3, 2)).live} == {"b"}


def test_a_live_round_of_too_few_is_refused_by_name(crowd: Crowd) -> None:
    crowd.compare(*prompts(10, below=False), *prompts(4, below=True))
    data = crowd.collect(config=live_config("live"))
    with pytest.raises(Refused, match="0 completions that people received may be learnt from, .* takes 32"):
        data.refuse_if_too_little()
    crowd.collect(config=live_config("mix")).refuse_if_too_little()


def test_prompts_are_weighted_beside_one_another(crowd: Crowd) -> None:
    """Each of one that asks four counts half as much as that of another person; held-out ones do not."""
    *four, one = prompts(5, below=False)
    for prompt in four:
        crowd.answer(completion(f"{prompt}", prompt=prompt))
    for prompt in (one, *prompts(2, below=True)):
        crowd.answer(completion(f"{prompt}", prompt=prompt, rater="bob"))
    data = crowd.collect()
    weights = dict(zip(data.prompts, data.prompt_weights, strict=True))
    assert set(weights) == {*four, one}
    assert [weights[prompt] for prompt in four] == pytest.approx([weights[one] / 2] * 4)
    assert TrainingData.model_validate_json(data.model_dump_json()) == data
