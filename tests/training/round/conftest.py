"""An installation with a tiny base model: ledger, registry, and the worker processes as the supervisor starts them."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback.judgements import Comparison, Demonstration, Feedback
from feedback.policies.registry import PolicyRegistry
from feedback.records import Completion, Message, new_id
from feedback.rounds.book import RoundBook, RoundRecord
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.celery import make_app
from training.register import register_base
from training.round.round import environment

LORA = {"lora_rank": 2, "lora_alpha": 4, "lora_layers": 1}
#: Everything small, and a gate that any finite policy passes.
CONFIG: dict[str, Any] = {
    "min_demonstrations": 4,
    "sft": {**LORA, "epochs": 10, "batch_size": 2, "checkpoint_every": 1},
    "reward": {**LORA, "learning_rate": 2e-3, "epochs": 10, "batch_rankings": 4, "checkpoint_every": 1},
    "ppo": {**LORA, "iterations": 6, "rollouts_per_iteration": 4, "minibatch": 4, "microbatch": 4, "max_new_tokens": 8},
    "gate": {
        "prompts": 4, "max_kl": 1e6, "min_score_gain_ci": -1e6, "min_held_out_accuracy": 0.0, "max_length_ratio": 1e3,
        "min_length_ratio": 0.0, "max_repetition": 1.0, "max_repetition_rise": 1.0, "bootstrap_samples": 50,
        "max_log_loss_rise": 1e6, "max_lm_loss_rise": 1e6,
    },
}  # fmt: skip


class Installation:
    """A data directory whose base serves, a ledger that people have written into, and the worker's processes."""

    def __init__(self, url: str, home: Path, model: Path) -> None:
        self.settings = Settings(
            home=home, redis_url=url, base_model=str(model), evaluation_share=0.0, min_rankings=10_000
        )
        self.redis = connect(url, timeout_s=10)
        self.book, self.ledger = RoundBook(self.redis), Ledger(self.redis)
        self.registry = PolicyRegistry(self.redis, self.settings.policies_dir)
        self.processes: list[subprocess.Popen[bytes]] = []
        home.mkdir(parents=True)
        self.configure()
        register_base(self.settings)

    def open_round(self) -> int:
        round_id, _ = self.book.request(trigger="operator", actor="test")
        return round_id

    def configure(self, **overrides: Any) -> None:
        """Write round.json: what the tests use, with some sections or fields of them changed."""
        merged = {
            name: {**CONFIG.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in overrides.items()
        }
        (self.settings.home / "round.json").write_text(json.dumps({**CONFIG, **merged}))

    def speak(
        self, comparisons: int, demonstrations: int = 0, seed: int = 0, rater: str = "r", plain: bool = False
    ) -> None:
        """People ask prompts of their own and prefer shorter answers. Of seed 0 the first seven train."""
        draw = random.Random(seed)
        for n in range(comparisons):
            prompt = tuple(draw.randrange(200) for _ in range(6))
            ids = [f"c{seed}-{n}-{side}:0" for side in "ab"]
            for answer in [_completion(id, prompt, draw.randrange(2, 9), rater, plain) for id in ids]:
                self.ledger.append_answer(answer.frame(model="m"), [answer])
            known = self.ledger.completions(tuple(ids))
            shorter = min(ids, key=lambda id: len(known[id].completion_token_ids))
            winner = "left" if shorter == ids[0] else "right"
            self._say(Comparison(left=ids[0], right=ids[1], winner=winner), rater)
            if n < demonstrations:
                self._say(Demonstration(completion_id=ids[0], content=f"Answer {n}."), rater)

    def _say(self, judgement: Comparison | Demonstration, rater: str = "r") -> None:
        record = Feedback(id=new_id("f_"), judgement=judgement, rater=rater, split="train", created=time.time())
        self.ledger.append_feedback(record)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`python -m training ...` as the supervisor would start it."""
        log = (self.settings.home / "log.txt").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *arguments],
            env={**os.environ, **environment(self.settings)},
            stdout=log,
            stderr=log,
        )
        self.processes.append(process)
        return process

    def log(self) -> str:
        """What the processes have said."""
        return (self.settings.home / "log.txt").read_text()

    def hint(self, round_id: int) -> None:
        """What the tick sends."""
        app = make_app(self.settings)
        app.send_task("training.tasks.advance", [round_id], queue="training")
        app.close()

    def record(self, round_id: int) -> RoundRecord:
        record = self.book.get(round_id)
        assert record is not None
        return record

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds} s; {self.book.list()}\n{self.log()[-3000:]}")
            time.sleep(0.01)

    def wait_for_end(self, round_id: int, seconds: float = 280.0) -> RoundRecord:
        self.wait_until(lambda: not self.record(round_id).is_open, f"end of round {round_id}", seconds)
        return self.record(round_id)

    def published(self) -> list[int]:
        return [line.version for line in self.registry.audit() if line.action == "publish" and line.version]

    def child(self, process: subprocess.Popen[bytes], stage: str, beyond: int | None = None) -> int:
        """Wait until `process` runs `stage` and is inside it beyond a step, if one is given; the stage's process id."""
        found: list[int] = []

        def running() -> bool:
            round = self.book.open_round()
            if round is None:
                assert not self.book.list(), f"the round ended before {stage}: {self.book.list()}"
                return False
            at = round.progress
            inside = beyond is None or (at.get("stage") == stage and beyond < at["step"] < at["total"])
            # By its command: a worker that starts has other children too, for a moment.
            alive = [
                pid for pid in children(process.pid) if ["stage", stage] == command_line(pid)[3:5] and not gone(pid)
            ]
            found[:] = alive if round.stage == stage and inside else []
            return bool(found)

        self.wait_until(running, f"stage {stage}")
        return found[0]

    def wait_until_gone(self, pid: int) -> None:
        self.wait_until(lambda: gone(pid), f"end of process {pid}", 10)

    def wait_until_claimed(self, round_id: int, token: int) -> None:
        self.wait_until(lambda: self.record(round_id).token >= token, f"attempt {token} of round {round_id}")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _completion(id: str, prompt: tuple[int, ...], length: int, rater: str, plain: bool) -> Completion:
    tokens = tuple(range(10, 10 + length))
    return Completion(
        id=id, response_id=id.removesuffix(":0"), choice=0, conversation_id=id, rater=rater, text="text",
        messages=(Message(role="user", content=f"Prompt {prompt}!"),), prompt_token_ids=prompt,
        completion_token_ids=tokens,
        logprobs=(-1.0,) * length, sampling={}, plain=plain, finish_reason="stop", policy_version=0,
        created=0.0,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> list[str]:
    """Nothing of processes that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(pid: int) -> bool:
    """True for processes that ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Stages take all the cores they are given, and threads cost such small matrices more than they bring."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def installation(valkey_url: str, tmp_path: Path, base_directory: Path) -> Iterator[Installation]:
    installation = Installation(valkey_url, tmp_path / "home", base_directory)
    yield installation
    installation.close()
