"""What becomes of a version that passes its gate, and how a release goes of which nothing else is asked."""

from typing import Any

from feedback.releases.orders import default_mode
from feedback.releases.plan import BadPlan, load_plan
from feedback.settings import ReleaseMode, Settings
from serving.views.release_steps import in_words

BECOMES: dict[ReleaseMode, str] = {
    "direct": "serves at once, without a release",
    "automatic": "is released by itself, and serves once its steps are taken",
    "assisted": "is released by itself, and once its steps are taken an operator promotes it",
    "manual": "waits for an operator, who starts its release or promotes it",
}
ONE = "A version that passes its gate"


def usual(settings: Settings, *, frozen: bool) -> dict[str, Any]:
    """As a release would begin now without wishes; where no plan can be read, why."""
    try:
        plan, broken = load_plan(settings.home), None
    except BadPlan as error:
        plan, broken = None, str(error)
    return {
        "setting": settings.release_mode,
        "says": _says(settings.release_mode, frozen=frozen, broken=broken is not None),
        "mode": default_mode(settings),
        "plan": plan and plan.model_dump(mode="json"),
        "steps": [{"says": in_words(step), "state": "to come"} for step in plan.steps] if plan else [],
        "broken": broken,
    }


def in_lines(known: dict[str, Any]) -> str:
    """For the command line."""
    if known["broken"] is not None:
        return f"{known['says']}\nNo release can begin by the installation's plan: {known['broken']}"
    then = ", ".join(step["says"] for step in known["steps"])
    return f"{known['says']}\nA release that begins now, if nothing else is asked: {known['mode']}; {then}"


def _says(mode: ReleaseMode, *, frozen: bool, broken: bool) -> str:
    begins = mode in ("automatic", "assisted")
    if begins and broken:
        return f"{ONE} waits for an operator: by itself no release begins while the plan is broken."
    if frozen and mode != "manual":
        return f"{ONE} waits while releases are frozen; once they go on, the newest of these {BECOMES[mode]}."
    return f"{ONE} {BECOMES[mode]}." + (" An open release makes way for it." if begins else "")
