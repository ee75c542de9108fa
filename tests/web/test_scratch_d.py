import json, os, math, time
from typing import Any
import pytest
from feedback.decisions import Count, decide
from feedback.release_votes import votes_of_release
from feedback.evidence import log_e_better, win_rate
from tests.web.test_console_releases import *  # noqa
from tests.web import test_console_releases as t
for name in list(globals()):
    if name.startswith("test_") and callable(globals()[name]): del globals()[name]

@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
async def test_shots(console: Any, served: Live, scheme: str, width: int) -> None:
    release = released(served)
    voted(served, release)
    count = Count(release.plan.rules)
    data = []
    for i, vote in enumerate(votes_of_release(served.ledger, release)):
        count.add(vote)
        w, l = count.total
        r = win_rate(w, l, 0.05)
        data.append({"vote": i + 1, "time": 1.7e9 + i * 60, "log_e": log_e_better(*count.standing()), "log_e_better": log_e_better(w, l), "log_e_worse": log_e_better(l, w), "wins": w, "losses": l, "ties": count.ties, "win_rate": {"value": r.mean, "low": r.low, "high": r.high}})
    ev = {"object": "release.evidence", "release": 1, "threshold": count.log_threshold, "data": data}
    its = list(range(1, 41))
    facts = {"object": "policy", "id": "policy-v2", "version": 2, "state": "canary", "served": False, "pinned": False, "kind": "trained", "base_model": "fake", "created": 1.79e9, "parent": 1,
      "config": {"ppo": {"kl_coef": 0.05, "learning_rate": 1e-5}}, "ancestors": [1, 0], "descendants": [], "gate": [{"name": "kl", "value": 0.8, "sign": "<=", "threshold": 2.0, "passed": True}, {"name": "score_gain", "value": 0.2, "sign": ">", "threshold": 0.3, "passed": False}],
      "round": 2, "reward_fit": {"prompts": 40, "pairs": 80, "accuracy": {"mean": .7, "low": .62, "high": .77}, "ece": {"mean": .04, "low": .02, "high": .09}},
      "curves": {"iterations": its, "score": [math.log(i) for i in its], "kl": [i/20 for i in its], "entropy": [2-i/50 for i in its], "length": [80+i%7 for i in its], "clip_fraction": [.1/i for i in its], "explained_variance": [1-1/i for i in its]},
      "judgements": {"comparisons": 120, "demonstrations": 3, "rankings": 14}}
    diff = {"object": "policy.diff", "versions": [1, 2], "common_ancestor": 1, "lineage": {"round": [1, 2], "trigger": ["schedule", "operator"]}, "judgements": {"left": 2, "both": 118, "right": 40}, "config": {"ppo.kl_coef": [.1, .05]}, "metrics": {"gate.gate/kl": [.4, .8]}, "gate": {"kl": [{"value": .4, "verdict": "passed"}, {"value": .8, "verdict": "passed"}]},
      "answers": [{"prompt": "Why is the sky blue?", "left": "Because of Rayleigh scattering: short wavelengths are scattered more strongly than long ones, by the fourth power. " * 2, "right": "Air scatters blue light more than red.\n\nSo blue reaches you from every side."}, {"prompt": "2 + 2?", "left": "4", "right": "4"}]}
    async def give(route, body): await route.fulfill(json=body)
    await console.route("**/v1/releases/1/evidence", lambda r: give(r, ev))
    await console.route("**/v1/policies/policy-v2", lambda r: give(r, facts))
    await console.route("**/v1/policies/policy-v1/diff*", lambda r: give(r, diff))
    await console.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await console.set_viewport_size({"width": width, "height": 844})
    for view, (path, text) in VIEWS.items():
        await console.goto(path)
        await console.locator(".c-view").get_by_text(text).first.wait_for(state="attached")
        for plot in await console.locator(".c-drawn").all():
            await plot.locator("svg").wait_for()
        print(view, scheme, width, await complaints(console))
        height = await console.evaluate("document.querySelector('.console').scrollHeight")
        await console.set_viewport_size({"width": width, "height": max(844, height)})
        await console.screenshot(path=f"/tmp/D-shots/{view}-{scheme}-{width}.png")
        if await console.evaluate("document.documentElement.scrollWidth") > width: print("WIDE", view)
    await console.goto("/console/releases")
    await console.get_by_role("button", name="Start a release").click()
    await console.screenshot(path=f"/tmp/D-shots/start-{scheme}-{width}.png")
