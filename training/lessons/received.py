"""Completions that people received, as PPO may learn from them: they have been paid for already.

What is taken or left must not depend on how a completion turned out, or the policy would learn what was left out. So a
long one is cut where a fresh one would be, of which it then is a fair sample, and what a request limited more tightly
is left out however it ended. Of several answers to a prompt it is the first, since who has others written goes on until
one pleases: if that one cannot be used, because it was stopped or failed, none is.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from feedback.records import Completion, Record
from training.config import PPOConfig
from training.lessons.answers import Ids
from training.lessons.prompts import MAX_PROMPTS_PER_RATER


class TooFewLive(ValueError):
    """People have received too few completions that may be learnt from."""


class Received(Record):
    """One completion with its writer's log-probs, and which policy that was."""

    completion_id: str
    response_id: str
    rater: str
    policy_version: int
    prompt_ids: Ids
    completion_ids: Ids
    log_probs: tuple[float, ...]


def received(
    completions: Sequence[Completion],
    *,
    prompts: Collection[Ids],
    writers: Sequence[int],
    max_new_tokens: int,
    may_train: Callable[[str], bool],
) -> tuple[Received, ...]:
    """Of each of the `prompts` the first answer by the earliest in `writers` of those who have answered it, if usable.

    `completions` are oldest first. `may_train` is asked about raters; of each at most so many are taken, the newest.
    """
    found: dict[Ids, Completion] = {}
    for writer in writers:
        answers: dict[Ids, Completion] = {}
        for each in (one for one in completions if one.policy_version == writer and one.prompt_token_ids in prompts):
            if each.prompt_token_ids not in answers and _free(each, max_new_tokens) and may_train(each.rater):
                answers[each.prompt_token_ids] = each
        found = answers | found
    taken: list[Received] = []
    by_rater: Counter[str] = Counter()
    for each in reversed([one for one in completions if found.get(one.prompt_token_ids) is one]):
        if _whole(each, max_new_tokens) and by_rater[each.rater] < MAX_PROMPTS_PER_RATER:
            by_rater[each.rater] += 1
            taken.append(_cut(each, max_new_tokens))
    return tuple(taken)


def live_per_turn(config: PPOConfig, live: int) -> int:
    """How many of an iteration's completions are live; what a mix lacks is written afresh. Raises TooFewLive."""
    size = config.rollouts_per_iteration
    if config.rollouts == "live" and live < size:
        raise TooFewLive(
            f'ppo.rollouts "live": {live} completions that people received may be learnt from, and an iteration takes '
            f'{size}; "mix" writes what is missing'
        )
    return {"fresh": 0, "live": size, "mix": min(round(config.live_share * size), live)}[config.rollouts]


def _free(completion: Completion, max_new_tokens: int) -> bool:
    """Whether the policy was asked to write as it would have for the trainer. That is known before it writes."""
    return completion.plain and _limit(completion.sampling) >= max_new_tokens


def _whole(completion: Completion, max_new_tokens: int) -> bool:
    """Whether it goes as far as the trainer would have let it. That is an outcome."""
    whole = completion.finish_reason == "stop" or len(completion.completion_token_ids) >= max_new_tokens
    return whole and completion.finish_reason in ("stop", "length") and not completion.partial


def _limit(sampling: dict[str, Any]) -> float:
    asked = (sampling.get(name) for name in ("max_tokens", "max_completion_tokens"))
    return min((limit for limit in asked if limit is not None), default=math.inf)


def _cut(completion: Completion, max_new_tokens: int) -> Received:
    assert completion.policy_version is not None
    return Received(
        completion_id=completion.id,
        response_id=completion.response_id,
        rater=completion.rater,
        policy_version=completion.policy_version,
        prompt_ids=completion.prompt_token_ids,
        completion_ids=completion.completion_token_ids[:max_new_tokens],
        log_probs=completion.logprobs[:max_new_tokens],
    )
