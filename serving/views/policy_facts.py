"""A policy version in full, and two beside each other, as operators are shown them over the API."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from feedback.policies.fixed_answers import Answer, read_answers
from feedback.policies.lineage import Lineage, lineage_of
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.ppo_curves import Curves
from feedback.policies.registry import PolicyRegistry
from feedback.policies.reward_fit import Fit
from feedback.records import Record
from serving.views.round_metrics import checks
from serving.views.version_diff import difference

KINDS = ("rankings", "ratings", "demonstrations")
NOTHING: dict[str, Any] = {
    "config": {}, "ancestors": (), "descendants": (), "round": None, "judgements": {}, "gate": [], "reward_fit": None,
    "curves": None,
}  # fmt: skip


def in_full(registry: PolicyRegistry, version: int) -> dict[str, Any]:
    """What a list of versions leaves out; nothing of a version that cannot be read. Raises UnknownPolicy."""
    try:
        manifest, lineage = registry.manifest(version), lineage_of(registry, version)
    except (BrokenPolicy, OSError):
        return dict(NOTHING)
    metrics = manifest.metrics
    return {
        "config": manifest.config,
        "ancestors": lineage.ancestors,
        "descendants": lineage.descendants,
        "round": lineage.round,
        "judgements": judgements(lineage),
        "gate": [check._asdict() for check in checks(metrics)],
        "reward_fit": _read(Fit, metrics, "reward", "held_out"),
        "curves": _read(Curves, metrics, "ppo", "curves"),
    }


def judgements(lineage: Lineage) -> dict[str, int]:
    """How much trained: judgements in all and by kind, the people behind them, answers that PPO learnt from."""
    by_kind = {kind: lineage.judgements.get(kind, 0) for kind in KINDS}
    return {"all": len(lineage.feedback_ids), **by_kind, "raters": lineage.raters, "live": lineage.live}


def side_by_side(registry: PolicyRegistry, left: int, right: int) -> dict[str, Any]:
    """In what two versions differ, and what each says to the same prompts. Raises UnknownPolicy or BrokenPolicy."""
    try:
        manifests = registry.manifest(left), registry.manifest(right)
        told = difference(*manifests, lineage_of(registry, left), lineage_of(registry, right))
    except OSError as error:
        raise BrokenPolicy(f"policy-v{left} and policy-v{right} cannot be read: {error}") from error
    return {**told, **answers(registry, left, right)}


def answers(registry: PolicyRegistry, left: int, right: int) -> dict[str, Any]:
    """To the prompts that both were asked; without any where one has no answers, as `answers_missing` says."""
    said = {version: read_answers(registry.directory(version)) for version in (left, right)}
    of_left, of_right = said[left] or {}, said[right] or {}
    return {
        "answers": [beside(answer, of_right[prompt]) for prompt, answer in of_left.items() if prompt in of_right],
        "answers_missing": [version for version, found in said.items() if found is None],
    }


def beside(left: Answer, right: Answer) -> dict[str, Any]:
    """What two versions say to one prompt."""
    said = {"prompt": left.prompt, "left": left.text, "right": right.text}
    return {**said, "left_cut": left.cut, "right_cut": right.cut}


def _read(kind: type[Record], metrics: Mapping[str, Any], stage: str, name: str) -> dict[str, Any] | None:
    """What a stage measured; None where it was not reached, or where another release of Ratchet measured it."""
    measured = metrics.get(stage, {}).get(name)
    try:
        return None if measured is None else kind.model_validate(measured).model_dump(mode="json")
    except ValidationError:
        return None
