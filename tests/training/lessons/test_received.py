"""Which completions that people received may be learnt from, one reason at a time."""

from types import SimpleNamespace
from typing import Any

import pytest

from feedback.policies.registry import UnknownPolicy
from feedback.records import Completion, Message
from training.config import PPOConfig
from training.lessons.prompts import MAX_PROMPTS_PER_RATER
from training.lessons.received import Received, TooFewLive, live_per_turn, received
from training.round.origin import line_of

LOG_PROBS = (-0.1, -0.2, -0.3, -0.4, -0.5)


def completion(id: str, **fields: Any) -> Completion:
    known = {
        "id": f"{id}:0", "response_id": id, "choice": 0, "conversation_id": "c", "rater": "ann", "text": "text",
        "messages": (Message(role="user", content="x"),), "prompt_token_ids": (1, 2), "plain": True,
        "completion_token_ids": (5, 6, 7, 8, 2), "logprobs": LOG_PROBS, "sampling": {}, "finish_reason": "stop",
        "policy_version": 3, "created": 0.0,
    }  # fmt: skip
    return Completion.model_validate(known | fields)


def taken(*completions: Completion, max_new_tokens: int = 5) -> tuple[Received, ...]:
    return received(
        completions,
        prompts={(n, 2) for n in range(300)},
        writers=(3, 2),
        max_new_tokens=max_new_tokens,
        may_train=lambda rater: rater != "judge",
    )


def test_what_is_known_of_one() -> None:
    assert taken(completion("a")) == (
        Received(
            completion_id="a:0", response_id="a", rater="ann", policy_version=3, prompt_ids=(1, 2),
            completion_ids=(5, 6, 7, 8, 2), log_probs=LOG_PROBS,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"plain": False}, "its log-probs are not those of the draw"),
        ({"policy_version": 1}, "too old"),
        ({"policy_version": 4}, "of a policy that was left"),
        ({"policy_version": None}, "nobody's"),
        ({"rater": "judge"}, "evaluation only"),
        ({"prompt_token_ids": (1, 3)}, "a prompt that does not train"),
        ({"partial": True, "finish_reason": "stopped"}, "somebody stopped it"),
        ({"finish_reason": "error"}, "an error"),
        ({"finish_reason": "tool_calls"}, "a call"),
        ({"completion_token_ids": (5, 6), "logprobs": (-0.1, -0.2), "finish_reason": "length"}, "no room was left"),
        ({"sampling": {"max_tokens": 4}}, "might have gone on"),
        ({"sampling": {"max_tokens": 9, "max_completion_tokens": 4}}, "might have gone on"),
    ],
)
def test_what_is_left_out(fields: dict[str, Any], reason: str) -> None:
    assert taken(completion("a", **fields)) == (), reason


@pytest.mark.parametrize("fields", [{"policy_version": 2}, {"sampling": {"max_tokens": 5, "temperature": 1.0}}])
def test_what_is_not(fields: dict[str, Any]) -> None:
    assert len(taken(completion("a", **fields))) == 1


def test_a_long_one_is_cut_where_a_fresh_one_would_be() -> None:
    """Whatever ended it later. A short one that stopped by itself is whole."""
    for reason in ("stop", "length"):
        [cut] = taken(completion("a", finish_reason=reason), max_new_tokens=3)
        assert (cut.completion_ids, cut.log_probs) == ((5, 6, 7), LOG_PROBS[:3])
    assert taken(completion("a"), max_new_tokens=40)[0].completion_ids == (5, 6, 7, 8, 2)


def test_the_first_of_each_prompt_counts_and_of_nobody_too_many() -> None:
    """Whoever has an answer written anew stops when one is good: the last one is no fair draw."""
    first, again = completion("a"), completion("b")
    assert [each.response_id for each in taken(first, again)] == ["a"]
    assert [each.response_id for each in taken(first.model_copy(update={"plain": False}), again)] == ["b"]
    assert [each.response_id for each in taken(first.model_copy(update={"rater": "judge"}), again)] == ["b"]
    older = [completion(id, policy_version=2) for id in ("y", "z")]
    assert [each.response_id for each in taken(*older, first, again)] == ["a"], "the nearer policy's come first"
    assert [each.response_id for each in taken(*older)] == ["y"]
    many = [completion(f"{n}", prompt_token_ids=(n, 2)) for n in range(250)]
    assert [each.response_id for each in taken(*many)] == [f"{n}" for n in range(249, 249 - MAX_PROMPTS_PER_RATER, -1)]


@pytest.mark.parametrize(
    "outcome",
    [
        {"partial": True, "finish_reason": "stopped"},
        {"finish_reason": "error", "completion_token_ids": (5,), "logprobs": (-0.1,)},
        {"finish_reason": "length", "completion_token_ids": (5, 6), "logprobs": (-0.1, -0.2)},
    ],
)
def test_a_first_answer_that_ended_badly_is_not_replaced_by_the_next(outcome: dict[str, Any]) -> None:
    """Not by one that was asked for because of that, and not by an older policy's either."""
    again, older = completion("b"), completion("z", policy_version=2)
    assert taken(older, completion("a", **outcome), again) == ()
    assert [each.response_id for each in taken(again, completion("a", **outcome))] == ["b"]
    limited = completion("a", sampling={"max_tokens": 4}, **outcome)
    assert [each.response_id for each in taken(limited, again)] == ["b"], "what was asked is no outcome"


def test_how_many_of_an_iteration_are_live() -> None:
    def config(rollouts: Any, **fields: Any) -> PPOConfig:
        return PPOConfig(rollouts_per_iteration=32, rollouts=rollouts, **fields)

    assert live_per_turn(config("fresh"), 100) == 0
    assert live_per_turn(config("live"), 32) == 32
    assert [live_per_turn(config("mix", live_share=0.25), n) for n in (0, 3, 8, 100)] == [0, 3, 8, 8]
    with pytest.raises(TooFewLive, match="31 completions that people received .* an iteration takes 32"):
        live_per_turn(config("live"), 31)


def test_log_probs_are_known_at_temperature_1_only() -> None:
    with pytest.raises(ValueError, match=r"ppo\.temperature must be 1"):
        PPOConfig(rollouts="live", temperature=0.7)
    with pytest.raises(ValueError, match="live_share"):
        PPOConfig(rollouts="mix", live_share=1.0)


def test_policies_are_counted_by_descent_and_not_by_number() -> None:
    """After a rollback from 4 to 1, 7 comes from 1; 9's parent is lost."""
    parents = {0: None, 1: 0, 4: 1, 7: 1}

    class Registry:
        def manifest(self, version: int) -> SimpleNamespace:
            if version not in parents:
                raise UnknownPolicy(version)
            return SimpleNamespace(parent=parents[version])

    registry: Any = Registry()
    assert [line_of(registry, 7, n) for n in (0, 1, 2, 9)] == [(7,), (7, 1), (7, 1, 0), (7, 1, 0)]
    assert line_of(registry, 9, 1) == (9,)
