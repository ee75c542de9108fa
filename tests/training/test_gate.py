import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from feedback.fit import Change
from feedback.statistics import Interval
from training.config import GateConfig
from training.data import RankedSamples, Sample
from training.gate import GateReport, divergence, judge, not_worse
from training.models import Trunk
from training.rollout import sample_completions

EOS = frozenset({2})
PROMPTS = [(i, i + 1, i + 2) for i in range(5, 21)]
CONFIG = GateConfig(prompts=16, bootstrap_samples=200, max_kl=1e6, max_repetition=1.0, min_held_out_accuracy=0.0)
HELD_OUT = [RankedSamples((Sample((9,), (i, 2)), Sample((9,), (i + 1, 2))), (0, 1)) for i in range(30, 40)]


def verdict(trunk: Trunk, config: GateConfig = CONFIG, held_out: list[RankedSamples] = HELD_OUT) -> GateReport:
    return judge(config, trunk, PROMPTS, held_out, eos_ids=EOS, max_new_tokens=6)


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def test_an_unchanged_policy_has_nothing_to_publish_for(trunk: Trunk) -> None:
    """Same weights and same noise: the paired gain is 0 exactly, and 0 is not better."""
    report = verdict(trunk)
    assert report.metrics["gate/score_gain"] == 0
    assert report.metrics["gate/kl"] == 0
    assert failed(report) == {"score gain, lower bound"}
    assert not report.passed
    assert "score gain" in report.failures


@pytest.mark.parametrize("better", [True, False])
def test_the_sign_of_the_gain_decides(tiny_trunk: Callable[..., Trunk], better: bool) -> None:
    """The reward head is fitted here, by least squares, to tell the candidate's answers from the stable ones."""
    trunk = tiny_trunk(perturbed=True)
    for name, weight in trunk.parameters("policy").items():
        if "lora_B" in name:
            weight.data.mul_(8)  # far from the base
    head = separate(trunk)
    with torch.no_grad():
        trunk.heads["reward"].weight.copy_(head if better else -head)
    report = verdict(trunk)
    gain, low, high = (report.metrics[f"gate/score_gain{end}"] for end in ("", "_low", "_high"))
    assert low < gain < high
    assert (low > 0) == better
    assert report.passed == better


def separate(trunk: Trunk) -> torch.Tensor:
    """Direction (1, D) from the mean final state of the base's answers to that of the policy's, on the gate's draws."""
    means = []
    for role in ("policy", None):
        drawn = sample_completions(trunk, PROMPTS, role=role, eos_ids=EOS, max_new_tokens=6, seed=0)
        trunk._activate("reward")
        with torch.no_grad():
            ids = [torch.tensor([p + c]) for p, c in zip(PROMPTS, drawn, strict=True)]
            states = [trunk.model.model(input_ids=x).last_hidden_state[0, -1] for x in ids]
        means.append(torch.stack(states).mean(0))
    return (means[0] - means[1]).unsqueeze(0) * 10


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"max_kl": 1e-6}, "KL to the reference"),
        ({"max_length_ratio": 0.5}, "length ratio, upper"),
        ({"min_length_ratio": 1.5, "max_length_ratio": 9.0}, "length ratio, lower"),
        ({"min_held_out_accuracy": 1.0}, "reward model accuracy"),
    ],
)
def test_each_bound_refuses_by_itself(perturbed: Trunk, change: dict[str, float], check: str) -> None:
    assert check not in failed(verdict(perturbed))
    assert check in failed(verdict(perturbed, dataclasses.replace(CONFIG, **change)))


def test_repetition_refuses(perturbed: Trunk) -> None:
    """A policy that says one token for ever; its weights are the base's with a bias towards it."""
    trunk = perturbed
    original = trunk.next_token_logits

    def stuck(*args: object) -> torch.Tensor:
        logits = original(*args)
        return logits.index_fill(-1, torch.tensor([77]), 1e4) if args[3] == "policy" else logits

    trunk.next_token_logits = stuck
    config = dataclasses.replace(CONFIG, max_repetition=0.3)
    report = judge(config, trunk, PROMPTS, HELD_OUT, eos_ids=EOS, max_new_tokens=10)
    check = next(c for c in report.checks if c.name == "repetition")
    assert check.value == pytest.approx(6 / 7)  # 10 equal tokens have 7 4-grams, of which 1 is new
    assert not check.passed


def test_an_unproven_reward_model_refuses(perturbed: Trunk) -> None:
    report = verdict(perturbed, held_out=[])
    check = next(c for c in report.checks if c.name == "reward model accuracy")
    assert math.isnan(check.value) and not check.passed


@pytest.mark.parametrize(("low", "allowed", "passed"), [(-0.1, 0.0, True), (0.01, 0.0, False), (0.01, 0.05, True)])
def test_a_reward_model_may_be_worse_by_chance_but_not_beyond(low: float, allowed: float, passed: bool) -> None:
    none = Interval(0.0, 0.0, 0.0)
    change = Change(version=4, prompts=9, pairs=9, confidence=0.95, log_loss=Interval(0.2, low, 0.4), accuracy=none)
    check = not_worse(dataclasses.replace(CONFIG, max_log_loss_rise=allowed), change)
    assert check.passed == passed
    assert check.in_words.startswith(f"log-loss over that of policy-v4's reward model, lower bound is {low:.3g}")


def test_one_weight_that_is_not_finite_refuses(trunk: Trunk) -> None:
    check = "weights that are not finite"
    assert check not in failed(verdict(trunk))
    head = trunk.heads["reward"]  # a damaged value adapter is nobody's business here, a damaged policy is
    trunk.parameters("value")["head.bias"].data.fill_(math.nan)
    assert check not in failed(verdict(trunk))
    next(iter(trunk.parameters("policy").values())).data[0, 0] = math.inf
    assert check in failed(verdict(trunk))
    assert head.weight.isfinite().all()


def test_divergence_is_the_kl_of_the_distributions(perturbed: Trunk) -> None:
    """Summed exactly over the vocabulary for one-token completions, against the estimate from 3000 samples."""
    prompt = (5, 6, 7)
    logs = {}
    for role in ("policy", "ref"):
        perturbed._activate(role)
        with torch.no_grad():
            logs[role] = perturbed.model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    exact = (logs["policy"].exp() * (logs["policy"] - logs["ref"])).sum().item()
    drawn = sample_completions(perturbed, [prompt] * 3000, role="policy", eos_ids=EOS, max_new_tokens=1)
    samples = [Sample(prompt, c) for c in drawn]
    assert divergence(perturbed, samples, "ref", 1.0, microbatch=1000) == pytest.approx(exact, rel=0.25)
