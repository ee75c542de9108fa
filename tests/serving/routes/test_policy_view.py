"""GET /v1/policies/{id} and its diff: what a version's directory tells, and what it does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.policies.fixed_answers import FixedAnswers, write_answers
from feedback.policies.manifest import MANIFEST, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.retention import Retention
from serving.views.policy_facts import answers
from tests.feedback.policies.test_bundles import HELD_OUT

CHECK = {"name": "KL to the reference", "value": 2.5, "sign": "<=", "threshold": 20.0, "passed": True}
CURVES = {
    "iterations": [1, 2], "score": [0.0, 0.5], "kl": [0.0, 1.5], "entropy": [2.0, 1.0], "length": [9.0, 8.0],
    "clip_fraction": [0.0, 0.25], "explained_variance": [0.0, 0.5], "approx_kl": [0.0, 0.01],
    "value_clip_fraction": [0.0, 0.125], "finished": [1.0, 0.75], "repetition": [0.0, 0.5],
    "importance_ratio": [1.0, 1.25], "effective_share": [1.0, 0.5],
}  # fmt: skip
TOLD: dict[str, Any] = {
    "config": {"seed": 3, "ppo": {"kl_coef": 0.05}},
    "metrics": {"reward": {"loss": 0.5, "held_out": HELD_OUT}, "ppo": {"iterations": 2, "curves": CURVES},
                "gate": {"gate/kl": 2.5, "checks": [CHECK]}},
    "lineage": {"round": 4, "feedback": {"rankings": 2, "ratings": 1, "held_out_rankings": 9, "prompts": 7},
                "feedback_ids": ["a", "b", "c"], "raters": ["ann", "bob"], "live": ["chatcmpl-1"]},
}  # fmt: skip


def tell(registry: PolicyRegistry, version: int, said: dict[str, str] | None = None, **told: Any) -> None:
    """Have a version's directory say so."""
    directory = registry.directory(version)
    if said is not None:
        pairs = [{"prompt": prompt, "text": text} for prompt, text in said.items()]
        write_answers(directory, FixedAnswers.model_validate({"max_tokens": 96, "answers": pairs}))
    changes = {**told, "files": describe_files(directory)}
    write_manifest(directory, registry.manifest(version).model_copy(update=changes))


async def test_a_version_in_full(live: Any) -> None:
    for version in (1, 2):
        live.shelf.publish(version, move=0.4, stable=False)
    tell(live.gateway.registry, 1, **TOLD)
    live.gateway.registry.pin(1, pinned=True, actor="ann", reason="so")
    shown = (await live.http.get("/v1/policies/policy-v1")).json()
    card = (await live.http.get("/v1/policies")).json()["data"][1]
    assert {name: shown[name] for name in card} == card and card["pinned"]
    assert {name: value for name, value in shown.items() if name not in card} == {
        "config": TOLD["config"], "ancestors": [0], "descendants": [2], "round": 4, "gate": [CHECK],
        "judgements": {"all": 3, "rankings": 2, "ratings": 1, "demonstrations": 0, "raters": 2, "live": 1},
        "reward_fit": HELD_OUT, "curves": CURVES,
    }  # fmt: skip
    assert (await live.http.get("/v1/policies/9")).json()["error"]["code"] == "policy_not_found"
    assert (await live.http.get("/v1/policies/newest")).json()["error"]["param"] == "id"


async def test_a_version_that_tells_little_or_nothing(live: Any) -> None:
    registry = live.gateway.registry
    base = (await live.http.get("/v1/policies/0")).json()
    assert (base["reward_fit"], base["curves"], base["gate"], base["round"]) == (None, None, [], None)
    assert base["judgements"] == dict.fromkeys(("all", "rankings", "ratings", "demonstrations", "raters", "live"), 0)
    live.shelf.publish(1, stable=False)
    tell(registry, 1, metrics={"reward": {"held_out": {"accuracy": 0.5}}, "ppo": {"curves": [1]}, "sft": {}})
    strange = (await live.http.get("/v1/policies/1")).json()
    assert (strange["reward_fit"], strange["curves"], strange["ancestors"]) == (None, None, [0])
    (registry.directory(1) / MANIFEST).write_text("{}")
    broken = (await live.http.get("/v1/policies/1")).json()
    assert MANIFEST in broken["broken"] and broken["ancestors"] == [] and broken["config"] == {}
    refused = await live.http.get("/v1/policies/1/diff", params={"with": "0"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "broken_policy")


async def test_a_version_that_cannot_be_read_hides_no_other(live: Any) -> None:
    for version in (1, 2):
        live.shelf.publish(version, stable=False)
    registry = live.gateway.registry
    tell(registry, 1, **TOLD)
    (registry.directory(2) / MANIFEST).unlink()
    (registry.directory(2) / MANIFEST).symlink_to(MANIFEST)  # a link to itself: the disk's fault
    shown = (await live.http.get("/v1/policies/1")).json()
    assert (shown["config"], shown["ancestors"], shown["descendants"]) == (TOLD["config"], [0], [])
    assert (await live.http.get("/v1/policies/1/diff", params={"with": "0"})).status_code == 200
    refused = await live.http.get("/v1/policies/1/diff", params={"with": "2"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "broken_policy")


async def test_two_versions_are_read_side_by_side(live: Any) -> None:
    registry = live.gateway.registry
    for version in (1, 2):
        live.shelf.publish(version, stable=False)
    tell(registry, 1, {"Why?": "Because.", "How?": "So."}, **TOLD)
    more = {**TOLD["lineage"], "round": 5, "feedback_ids": ["b", "c", "d", "e"]}
    tell(registry, 2, {"How?": "<b>Thus.</b>", "Who?": "I."}, **{**TOLD, "config": {"seed": 4}, "lineage": more})
    diff = (await live.http.get("/v1/policies/policy-v2/diff", params={"with": "policy-v1"})).json()
    assert (diff["object"], diff["versions"], diff["common_ancestor"]) == ("policy.diff", [2, 1], 1)
    assert diff["judgements"] == {"left": 2, "both": 2, "right": 1}
    assert diff["config"] == {"seed": [4, 3], "ppo.kl_coef": [None, 0.05]} and diff["metrics"] == {}
    assert diff["gate"] == {CHECK["name"]: [{"value": 2.5, "verdict": "passed"}] * 2}
    said = {"prompt": "How?", "left": "<b>Thus.</b>", "right": "So."}
    assert diff["answers"] == [{**said, "left_cut": None, "right_cut": None}]
    assert diff["answers_missing"] == []
    Retention(registry).retire(1, actor="ann", reason="disk")
    gone = (await live.http.get("/v1/policies/2/diff?with=1")).json()
    assert (gone["answers"], gone["answers_missing"], gone["judgements"]) == ([], [1], diff["judgements"])
    assert (await live.http.get("/v1/policies/1/diff?with=0")).json()["answers_missing"] == [1, 0]


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("0/diff", 400, {"param": "with"}), ("0/diff?with=new", 400, {"param": "with"}),
        ("x/diff?with=0", 400, {"param": "id"}), ("0/diff?with=9", 404, {"code": "policy_not_found"}),
        ("9/diff?with=0", 404, {"code": "policy_not_found"}),
    ],
)  # fmt: skip
async def test_what_cannot_be_held_against_each_other(live: Any, path: str, status: int, told: dict[str, str]) -> None:
    answer = await live.http.get(f"/v1/policies/{path}")
    error = answer.json()["error"]
    assert answer.status_code == status and told.items() <= error.items()


texts = st.dictionaries(st.sampled_from("abcde"), st.text(max_size=3), max_size=5)


@given(left=texts | st.none(), right=texts | st.none())
def test_only_prompts_of_both_are_shown(left: Any, right: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    registry = PolicyRegistry.__new__(PolicyRegistry)
    registry.policies_dir = tmp_path_factory.mktemp("policies")
    for version, said in ((1, left), (2, right)):
        registry.directory(version).mkdir()
        if said is not None:
            pairs = [{"prompt": prompt, "text": text} for prompt, text in said.items()]
            kept = FixedAnswers.model_validate({"max_tokens": 96, "answers": pairs})
            write_answers(registry.directory(version), kept)
    shown = answers(registry, 1, 2)
    both = set(left or ()) & set(right or ())
    assert {each["prompt"]: (each["left"], each["right"]) for each in shown["answers"]} == {
        prompt: (left[prompt], right[prompt]) for prompt in both
    }
    assert shown["answers_missing"] == [version for version, said in ((1, left), (2, right)) if said is None]
