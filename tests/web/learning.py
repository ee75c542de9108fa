"""An installation that learns: a round in the middle of PPO, one that was refused, reward models of two versions."""

import math
from collections.abc import Callable
from typing import Any

from feedback.policies.manifest import read_manifest, write_manifest
from feedback.policies.reward_fit import Bin, Fit
from feedback.rounds.book import RoundBook
from feedback.statistics import Interval
from tests.serving.live import Shelf
from training.round.progress import Progress

ITERATIONS = 60
COLLECTED = {"rankings": 54, "held_out_rankings": 21, "ratings": 17, "new_demonstrations": 0, "prompts": 168}
SKIPPED = {"skipped": "0 new demonstrations, 16 are needed"}


def around(mean: float) -> Interval:
    return Interval(mean, mean - 0.06, mean + 0.05)


def fit(accuracy: float) -> Fit:
    """Of a reward model that is too sure of itself."""
    sure = (0.55, 0.65, 0.75, 0.85, 0.95)
    bins = tuple(Bin(predicted=each, observed=each - 0.3 * (each - 0.5), pairs=24) for each in sure)
    return Fit(
        prompts=60, rankings=66, pairs=120, ties=9, confidence=0.95, accuracy=around(accuracy),
        log_loss=around(1.2 - accuracy), log_loss_with_ties=None, brier=around(0.18), ece=around(0.07),
        kendall_tau=None, length_slope=around(0.1), agreement=around(0.82), agreement_pairs=40, bins=bins,
        raters=(), lengths=(),
    )  # fmt: skip


def stock(shelf: Shelf) -> None:
    """The base, and policy-v1 and policy-v2 with their reward models."""
    for version, accuracy in ((1, 0.66), (2, 0.74)):
        shelf.publish(version, move=0.4 * version, stable=False)
        directory = shelf.registry.directory(version)
        metrics = {"reward": {"loss": 0.5, "held_out": fit(accuracy).model_dump(mode="json")}}
        write_manifest(directory, read_manifest(directory).model_copy(update={"metrics": metrics}))


def figures(iteration: int) -> dict[str, float]:
    """Of one iteration of PPO: it learns, pays for it, and says less."""
    gone = iteration / ITERATIONS
    return {
        "objective/score": 1.4 * (1 - math.exp(-3 * gone)) - 0.5 + 0.06 * math.sin(9 * iteration),
        "objective/kl": 5.0 * gone**0.8 + 0.1 * math.sin(7 * iteration),
        "objective/entropy": 2.9 - 0.5 * gone + 0.03 * math.sin(5 * iteration),
        "completion/length": 36 - 12 * gone + math.sin(4 * iteration),
        "ppo/clipfrac": 0.1 * gone,
        "ppo/explained_variance": 1 - 1 / iteration,
        "ppo/approxkl": 0.02 * gone,
        "ppo/value_clipfrac": 0.05 * gone,
        "completion/finished": 1 - 0.1 * gone,
        "completion/repetition": 0.02 * gone,
        "importance/ratio": 1 + 0.002 * math.sin(3 * iteration),
        "importance/ess": 1 - 0.1 * gone,
    }


def refused(book: RoundBook) -> int:
    """A round whose candidate went too far."""
    id, _ = book.request(trigger="count", actor="beat")
    token = taken(book, id)
    went(Progress(book, id, token, now=iter(range(10**6)).__next__), up_to=ITERATIONS)
    checks = [
        {"name": "score gain, lower bound", "value": 0.41, "sign": ">", "threshold": 0.0, "passed": True},
        {"name": "KL to the reference", "value": 14.25, "sign": "<=", "threshold": 12.0, "passed": False},
    ]
    gate = {"gate/score_gain": 0.52, "gate/score_gain_low": 0.41, "gate/score_gain_high": 0.63, "checks": checks}
    held_out = fit(0.7).model_dump(mode="json")
    metrics = {"collect": COLLECTED, "sft": SKIPPED, "reward": {"held_out": held_out}, "ppo": {}, "gate": gate}
    book.write(id, token, stage="gate", metrics=metrics)
    book.finish(id, token, "refused", reason="KL to the reference is 14.2, threshold 12")
    return id


def under_way(book: RoundBook, up_to: int = 24) -> tuple[int, Callable[[int], None]]:
    """A round in the middle of PPO, and what lets it go on to an iteration."""
    id, _ = book.request(trigger="operator", actor="root")
    token = taken(book, id)
    metrics = {"collect": COLLECTED, "sft": SKIPPED, "reward": {"held_out": fit(0.7).model_dump(mode="json")}}
    book.write(id, token, stage="ppo", metrics=metrics)
    seconds = iter(range(10**6))
    progress = Progress(book, id, token, now=lambda: float(next(seconds)))
    went(progress, up_to=up_to)
    return id, lambda step: progress("ppo", step, ITERATIONS, figures(step))


def judging(book: RoundBook, up_to: int = 12) -> int:
    """A round in the middle of its reward model."""
    id, _ = book.request(trigger="operator", actor="root")
    token = taken(book, id)
    book.write(id, token, stage="reward", metrics={"collect": COLLECTED, "sft": SKIPPED})
    progress = Progress(book, id, token, now=iter(range(10**6)).__next__)
    for step in range(1, up_to + 1):
        progress("reward", step, 40, {"reward/loss": 0.7 - 0.02 * step})
    return id


def taken(book: RoundBook, id: int) -> int:
    token = book.claim(id, owner="test", lease_s=600)
    assert token is not None
    return token


def went(progress: Any, *, up_to: int) -> None:
    progress("ppo", 0, ITERATIONS, {})
    for iteration in range(1, up_to + 1):
        progress("ppo", iteration, ITERATIONS, figures(iteration))
