"""Judgements to train reward models on outside of rounds: files of them, and people who write them into a ledger."""

import gzip
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.judgements import Comparison, Feedback, Judgement
from feedback.people.keys import KeyRing
from feedback.records import Completion, Message
from feedback.rounds.sides import Sides
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.config import RoundConfig
from training.lessons.collect import TrainingData
from training.offline import reward as offline_reward
from training.round.stages import TextEncoder

RM = {"learning_rate": 1e-2, "epochs": 4, "lora_rank": 8, "lora_alpha": 16, "lora_layers": 2, "checkpoint_every": 2}
SHAPE = {"lora_rank": 8, "lora_alpha": 16, "lora_layers": 2}
CONFIG = RoundConfig.from_dict({"reward": RM, "sft": SHAPE, "ppo": SHAPE})


def file_of(path: Path, lines: Sequence[Any]) -> Path:
    raw = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def planted(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rankings by how many of four letters are z; like counts are ties."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        prompt = "".join(draw.choice("abcdef") for _ in range(6))
        goods = [draw.randrange(5) for _ in range(3)]
        answers = ["".join(draw.sample("z" * good + "xyxy"[: 4 - good], 4)) for good in goods]
        lines.append({"messages": [{"role": "user", "content": prompt}], "responses": answers,
                      "ranks": [4 - good for good in goods]})  # fmt: skip
    return lines


class People:
    """Writes into a ledger with tokens of the tiny base; who is asked of prefers more z."""

    def __init__(self, url: str, base: Path, home: Path) -> None:
        self.settings = Settings(home=home, redis_url=url, evaluation_share=0.0)
        self.settings.secrets()
        self.redis = connect(url)
        self.ledger, self.encode = Ledger(self.redis), TextEncoder(base).encode
        self.base, self._said = base, 0

    def ask(self, prompt: str, answers: Sequence[str], rater: str, **fields: Any) -> list[Completion]:
        messages = (Message(role="user", content=prompt),)
        found = []
        for choice, answer in enumerate(answers):
            asked, tokens = self.encode(messages, answer)
            one = Completion(
                id=f"{rater}-{prompt}-{choice}:0", response_id=f"{rater}-{prompt}-{choice}", choice=0,
                conversation_id=prompt, rater=rater, messages=messages, text=answer, prompt_token_ids=asked,
                completion_token_ids=tokens, logprobs=(-1.0,) * len(tokens), sampling={}, finish_reason="stop",
                policy_version=0, created=0.0,
            ).model_copy(update=fields)  # fmt: skip
            self.ledger.append_answer(one.frame(model="m"), [one])
            found.append(one)
        return found

    def say(self, judgement: Judgement, rater: str, split: Any = "train") -> None:
        self._said += 1
        item = Feedback(id=f"f{self._said}", judgement=judgement, rater=rater, split=split, created=time.time())
        self.ledger.append_feedback(item)

    def compare(self, prompt: str, rater: str = "ann", split: Any = "train", **fields: Any) -> tuple[int, ...]:
        """Returns the prompt's tokens."""
        good, bad = self.ask(prompt, ["zzzz", "yyyy"], rater, **fields)
        self.say(Comparison(left=good.id, right=bad.id, winner="left"), rater, split)
        return good.prompt_token_ids

    def data(self) -> TrainingData:
        return offline_reward.of_ledger(
            self.settings, self.redis, base=self.base, config=CONFIG, watermark=self.ledger.watermark()
        )

    @property
    def sides(self) -> Sides:
        return Sides(self.redis, KeyRing(self.redis, self.settings.secrets().pepper).salt("sides"))
