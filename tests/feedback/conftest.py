"""Somebody who asks and is answered, straight into the ledger; and a key ring by a clock of its own."""

import time

import pytest

from feedback.archive import Archive
from feedback.people.keys import KeyRing
from feedback.records import Completion, Message, Response, new_id
from feedback.store import Ledger, connect


class Shop:
    """Asks, and is answered, in somebody's name."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(connect(url))
        self.archive = Archive(self.ledger)

    def ask(
        self, *turns: tuple[str, str], answer: str, id: str | None = None, rater: str = "ann",
        conversation: str = "c", n: int = 1, model: str = "policy-v0", created: float | None = None, **metadata: str,
    ) -> Response:  # fmt: skip
        """One request, which is answered with `answer` and, as further choices, `answer 1` and so on."""
        id = id or new_id("chatcmpl-")
        completions = [
            Completion(
                id=f"{id}:{choice}", response_id=id, choice=choice, conversation_id=conversation, rater=rater,
                messages=tuple(Message(role=role, content=text) for role, text in turns),
                text=f"{answer} {choice}" if choice else answer, prompt_token_ids=(1, 2), completion_token_ids=(5, 2),
                logprobs=(-1.0, -1.0), sampling={}, finish_reason="stop", policy_version=0,
                created=created or time.time(),
            )
            for choice in range(n)
        ]  # fmt: skip
        frame = completions[0].frame(model=model, choices=n, metadata=metadata)
        self.ledger.append_answer(frame, completions)
        kept = self.archive.response(id)
        assert kept is not None
        return kept


@pytest.fixture
def shop(valkey_url: str) -> Shop:
    return Shop(valkey_url)


class Clock:
    """Time that passes when it is told to. It begins now: Redis forgets by its own clock."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(valkey_url: str, clock: Clock) -> KeyRing:
    return KeyRing(connect(valkey_url), "pepper", clock)
