"""On which side of the split each prompt is: fixed by the first round that trains on others, for good."""

import hmac
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from redis import Redis

SIDES = "prompts:sides"
CHUNK = 1000

Side = Literal["train", "held_out"]


class Sides:
    """The sides of one installation's prompts, named by their digests.

    Stored under `salt`, a secret of the installation: who reads Redis cannot find out whether a prompt was ever asked.
    """

    def __init__(self, redis: Redis, salt: bytes) -> None:
        self.redis: Any = redis
        self._salt = salt

    def of(self, prompts: Iterable[str]) -> dict[str, Side]:
        """The sides of those among the digests that have one."""
        found: dict[str, Side] = {}
        for chunk in _chunks(prompts):
            sides = self.redis.hmget(SIDES, [self._name(prompt) for prompt in chunk])
            found |= {prompt: side for prompt, side in zip(chunk, sides, strict=True) if side}
        return found

    def fix(self, prompts: Iterable[str], side: Side) -> None:
        """Put prompts on a side; those that have one stay where they are."""
        for chunk in _chunks(prompts):
            with self.redis.pipeline() as pipe:
                for prompt in chunk:
                    pipe.hsetnx(SIDES, self._name(prompt), side)
                pipe.execute()

    def _name(self, prompt: str) -> str:
        return hmac.digest(self._salt, prompt.encode(), "sha256").hex()[:32]


def _chunks(prompts: Iterable[str]) -> Iterator[list[str]]:
    ordered = list(prompts)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))
