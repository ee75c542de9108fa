"""An installation in the middle of a release: versions with their gates, a candidate beside stable, people's votes."""

import time
from collections.abc import Mapping
from typing import Any

from feedback.policies.fixed_answers import Answer, FixedAnswers, write_answers
from feedback.policies.manifest import describe_files, read_manifest, write_manifest
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.guardrails import Guardrail
from feedback.releases.judge import Judge, decision_key
from feedback.releases.plan import plan_of
from feedback.releases.start import begin_release
from feedback.statistics import Interval
from tests.feedback.booth import Booth
from tests.serving.live import Live, Shelf
from training.config import RoundConfig

STEPS = [{"set_weight": 10}, {"pause": "30m"}, {"set_weight": 25}, {"analysis": {}}]
GUARDRAILS = (
    Guardrail(name="errors", verdict="ok", value=0.9, interval=None, limit=1.5, log_e=-2.0, log_e_ok=5.0,
              candidate=210, stable=1890),
    Guardrail(name="length", verdict="unknown", value=0.2, limit=0.7, log_e=0.0, log_e_ok=0.0,
              interval=Interval(0.2, -0.3, 0.6), candidate=200, stable=1800),
)  # fmt: skip
SKY, SUM = "Why is the sky blue?", "What is 2 + 2?"
WORDS = {
    1: "Sunlight is a mixture of all colours.\n\nThe air scatters short waves more than long ones, so that blue comes "
    "to us from every side of the sky, and red straight from the sun.",
    2: "Air scatters blue light more than red.",
    3: "Blue light is scattered most.",
}


def stock(shelf: Shelf, words: Mapping[int, str] = WORDS) -> None:
    """The base, policy-v1 that serves, and two trained from it, which say `words`."""
    for version in (1, 2, 3):
        shelf.publish(version, move=0.4 * version, stable=version == 1)
        directory = shelf.registry.directory(version)
        told = {
            "gate": {
                "gate/kl": 0.4 * version, "gate/score_gain": 0.1 * version,
                "checks": [
                    {"name": "kl", "value": 0.4 * version, "sign": "<=", "threshold": 2.0, "passed": True},
                    {"name": "score_gain", "value": 0.1 * version, "sign": ">", "threshold": 0.0, "passed": True},
                ],
            }
        }  # fmt: skip
        manifest = read_manifest(directory)
        config = RoundConfig().to_dict()
        config["ppo"] |= {"kl_coef": 0.1 / version}
        parent, lineage = min(version - 1, 1), {"round": version, "feedback": {"comparisons": 40 * version}}
        said = (Answer(prompt=SKY, text=words[version], cut=version == 1), Answer(prompt=SUM, text="4"))
        write_answers(directory, FixedAnswers(max_tokens=96, answers=said))
        changed = {"metrics": told, "config": config, "parent": parent, "lineage": lineage}
        changed["files"] = describe_files(directory)
        write_manifest(directory, manifest.model_copy(update=changed))


def released(live: Live, why: str = "It answers in fewer words.", **changes: Any) -> Release:
    """policy-v2 beside policy-v1, at its second weight and waiting for the votes."""
    registry, plan = live.gateway.registry, plan_of({"steps": STEPS})
    begun = begin_release(live.ledger, registry, 2, plan, mode="assisted", actor="root", reason=why, seen=None)
    book = ReleaseBook(registry)
    held = begun.model_copy(update={"state": "canary", "weight": 0.1, "step": 1})
    seen = book.move(begun, held, actor="ratchet", reason="an engine holds policy-v2")
    going = seen.model_copy(update={"weight": 0.25, "step": 3, **changes})
    return book.move(seen, going, actor="ratchet", reason="30 minutes are over")


def voted(live: Live, release: Release, votes: int = 40) -> None:
    """By seven raters, two of three for the candidate, on both sides; counted as the controller counts them."""
    booth = Booth(live.gateway.settings.resolved_redis_url())
    for i in range(votes):
        left, right = (2, 1) if i % 2 else (1, 2)
        for_candidate = "left" if left == 2 else "right"
        other = "right" if left == 2 else "left"
        winner = "tie" if i % 10 == 9 else for_candidate if i % 3 else other
        facts = {"lane": "release", "release": release.id, "created": time.time() - 60 * (votes - i)}
        booth.compare(left, right, winner=winner, rater=f"rater-{i % 7}", **facts)
    decision = Judge(live.ledger, release).look()
    known = decision.model_copy(update={"guardrails": GUARDRAILS})
    live.ledger.redis.set(decision_key(release.id), known.model_dump_json())
