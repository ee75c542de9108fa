"""Reward models that are finished: in a directory of `ratchet rm train`, or of a policy version."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis

from feedback.people.keys import KeyRing
from feedback.policies.registry import WITHOUT_WEIGHTS, PolicyRegistry
from feedback.rounds.sides import Sides
from feedback.settings import Settings
from training.config import RewardConfig
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.offline.run_directory import REPORT, SPLIT, Report, SplitFile
from training.reward.likelihoods import Labels, fitted_labels
from training.round.version import REWARD


class NoRewardModel(ValueError):
    """There is none, or it cannot be loaded; the message is one line."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model on disk. `trained` finds, among digests of prompts and questions, those it has learned from."""

    name: str
    directory: Path  # of the adapter, or the layers, and the head
    base: Path
    config: RewardConfig
    labels: Labels | None
    threshold: float | None  # in log-odds, of an even chance of a thumb up; None where it learned from no rating
    trained: Callable[[Iterable[str]], set[str]]

    def require_base(self, base: Path) -> None:
        """Raises ValueError when `base`, the ledger's base model, is another than this one reads tokens of."""
        if base.resolve() != self.base.resolve():
            raise ValueError(f"{self.name} reads tokens of {self.base}, not of the ledger's {base}: give a file")

    def scorer(self) -> Scorer:
        """Ready to score. Raises NoRewardModel as `trunk` does."""
        return Scorer(self.trunk(), [], self.config)

    def trunk(self) -> Trunk:
        """The base model with this one in the role reward. Raises NoRewardModel as `load_into` does."""
        trunk = load_trunk(self.base, self.config)
        self.load_into(trunk)
        return trunk

    def load_into(self, trunk: Trunk) -> None:
        """Make the trunk's role reward this model. Raises NoRewardModel when its weights are not of the config."""
        try:
            trunk.load_adapter("reward", self.directory)
        except (OSError, ValueError) as error:
            raise NoRewardModel(f"{self.directory}: {error}") from error


def load_trunk(base: Path, config: RewardConfig, seed: int = 0) -> Trunk:
    """The base model, ready for a reward adapter or whole layers, and heads."""
    full = config.trains == "full"
    return Trunk.load(base, config, reward_heads=config.reward_heads, full_reward=full, seed=seed)


def in_directory(directory: Path, base: Path | None = None) -> RewardModel:
    """What `ratchet rm train` left there; `base` when the base model has moved. Raises NoRewardModel."""
    if not ((directory / REPORT).exists() and (directory / SPLIT).exists()):
        raise NoRewardModel(
            f"{directory} holds no finished reward model: `ratchet rm train --out {directory}` makes one"
        )
    try:
        report = Report.model_validate_json((directory / REPORT).read_text())
        split = SplitFile.model_validate_json((directory / SPLIT).read_text())
        config = RewardConfig.from_dict(report.config["reward"])
    except (OSError, ValidationError) as error:
        raise NoRewardModel(f"{directory}: {str(error).splitlines()[0]}; another release made it") from error
    found, seen = base or Path(report.base), {*split.trained, *split.trained_questions}
    return RewardModel(
        name=str(directory),
        directory=directory / REWARD,
        base=_existing(found),
        config=config,
        labels=fitted_labels(config.ties, report.fitted.get("tie_width")),
        threshold=_threshold(report.fitted),
        trained=lambda digests: seen.intersection(digests),
    )


def of_version(settings: Settings, redis: Redis, version: int, base: Path | None = None) -> RewardModel:
    """A policy version's. Raises NoRewardModel, UnknownPolicy or BrokenPolicy."""
    registry = PolicyRegistry(redis, settings.policies_dir)
    manifest = registry.manifest(version)
    if manifest.kind == "base":
        raise NoRewardModel(f"{manifest.name} is the base model: it has no reward model yet")
    if (state := registry.states()[version]) in WITHOUT_WEIGHTS:
        raise NoRewardModel(f"{manifest.name} is {state}: its reward model is gone")
    try:
        config = RewardConfig.from_dict(manifest.config["reward"])
    except (KeyError, ValidationError) as error:
        raise NoRewardModel(f"{manifest.name}: another release of Ratchet trained it") from error
    sides = Sides(redis, KeyRing(redis, settings.secrets().pepper).salt("sides"))
    fitted = manifest.metrics.get("reward", {})
    return RewardModel(
        name=manifest.name,
        directory=registry.directory(version) / REWARD,
        base=_existing(base or Path(registry.manifest(0).model_path)),
        config=config,
        labels=fitted_labels(config.ties, fitted.get("tie_width")),
        threshold=_threshold(fitted),
        trained=lambda digests: {each for each, side in sides.of(digests).items() if side == "train"},
    )


def _threshold(fitted: dict[str, Any]) -> float | None:
    return fitted["threshold"] / fitted["temperature"] if fitted.get("ratings") else None


def _existing(base: Path) -> Path:
    if not base.is_dir():
        raise NoRewardModel(f"the base model is not in {base} any more: tell where with --base")
    return base
