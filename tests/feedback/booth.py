"""Answers of several policy versions in a ledger, and people who vote on them."""

import time
from typing import Any

from feedback.judgements import Comparison, Feedback
from feedback.records import Completion, Message
from feedback.store import Ledger, connect


class Booth:
    def __init__(self, url: str) -> None:
        self.ledger = Ledger(connect(url))
        self.count = 0

    def answers(
        self, *versions: int | None, tokens: int = 2, conversation: str = "c", rater: str = "ann", **facts: Any
    ) -> list[str]:
        """To one prompt, an answer of each version; their ids."""
        self.count += 1
        id = f"cmp_{self.count}"
        completions = [
            Completion(
                id=f"{id}:{choice}", response_id=id, choice=choice, conversation_id=conversation, rater=rater,
                messages=(Message(role="user", content="Why?"),), text="So.", prompt_token_ids=(1,),
                completion_token_ids=(5,) * tokens * (choice + 1), logprobs=(-1.0,) * tokens * (choice + 1),
                sampling={}, finish_reason="stop", policy_version=version, created=time.time(), **facts,
            )
            for choice, version in enumerate(versions)
        ]  # fmt: skip
        self.ledger.append_answer(completions[0].frame(model="policy", choices=len(versions)), completions)
        return [each.id for each in completions]

    def say(self, judgement: Any, rater: str = "ann", split: str = "train", **facts: Any) -> str:
        self.count += 1
        record = {"id": f"fb_{self.count}", "judgement": judgement, "rater": rater, "split": split, "created": 0.0}
        self.ledger.append_feedback(Feedback.model_validate(record | facts))
        return f"fb_{self.count}"

    def compare(self, *versions: int | None, winner: str = "left", **facts: Any) -> str:
        left, right = self.answers(*versions)
        return self.say(Comparison(left=left, right=right, winner=winner, comparison_id="cmp"), **facts)  # type: ignore[arg-type]
