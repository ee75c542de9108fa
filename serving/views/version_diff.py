"""Two policy versions beside each other: where they come from, how they were trained, what was measured."""

from collections.abc import Iterable, Mapping
from typing import Any

from feedback.policies.lineage import Lineage
from feedback.policies.manifest import Manifest
from serving.views.round_metrics import checks

#: Longer lists than this are nothing to read.
FEW = 12

Pairs = dict[str, tuple[Any, Any]]


def difference(left: Manifest, right: Manifest, of_left: Lineage, of_right: Lineage) -> dict[str, Any]:
    """All in which the two differ, each as (left, right); judgements that trained are counted by who has them."""
    judged = set(of_left.feedback_ids), set(of_right.feedback_ids)
    asked = [{check.name: {"value": check.value, "verdict": check.verdict} for check in checks(m.metrics)}
             for m in (left, right)]  # fmt: skip
    told = [of.model_dump(exclude={"version", "feedback_ids", "descendants"}) for of in (of_left, of_right)]
    return {
        "versions": (left.version, right.version),
        "common_ancestor": common_ancestor(of_left, of_right),
        "lineage": differing(*told),
        "judgements": {"left": len(judged[0] - judged[1]), "both": len(judged[0] & judged[1]),
                       "right": len(judged[1] - judged[0])},
        "config": differing(left.config, right.config),
        "metrics": differing(left.metrics, right.metrics),
        "gate": beside(*asked),
    }  # fmt: skip


def common_ancestor(left: Lineage, right: Lineage) -> int | None:
    """The nearest version that both are or come from."""
    also = {right.version, *right.ancestors}
    return next((version for version in (left.version, *left.ancestors) if version in also), None)


def for_people(pairs: Pairs) -> Pairs:
    """Those that differ, without curves and other lists of figures, in which nobody sees anything."""
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and not any(map(_is_curve, pair))}


def _is_curve(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return len(value) > FEW or any(isinstance(each, float | list | tuple) for each in value)


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> Pairs:
    """The fields that differ by dotted name; None for what one side does not have."""
    return {name: pair for name, pair in beside(flat(left), flat(right)).items() if pair[0] != pair[1]}


def beside(left: Mapping[str, Any], right: Mapping[str, Any]) -> Pairs:
    return {name: (left.get(name), right.get(name)) for name in _in_order([*left, *right])}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The numbers, texts and short lists in a tree, by dotted name; lists of records are left out."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif not (isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)):
            found[f"{prefix}{name}"] = value
    return found


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
