import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from feedback.policies.reward_fit import Change
from feedback.statistics import Interval
from training.config import AdapterConfig, GateConfig, PPOConfig, RewardConfig, RoundConfig
from training.model.roles import Role
from training.model.samples import RankedSamples, Sample
from training.model.trunk import Trunk
from training.ppo.rollout import Rollout, observed, own_sampler, sample_completions
from training.round.contest import Answers, Contest, HeldOut, Imitation, Measured, divergence
from training.round.gate import Check, GateReport, checks_of, judge, not_worse

EOS = frozenset({2})
PROMPTS = [(i, i + 1, i + 2) for i in range(5, 21)]
CONFIG = GateConfig(
    prompts=16, bootstrap_samples=200, max_kl=1e6, max_repetition=1.0, max_repetition_rise=1.0, max_lm_loss_rise=1e6,
    min_held_out_accuracy=0.0,
)  # fmt: skip
HELD_OUT = [RankedSamples((Sample((9,), (i, 2)), Sample((9,), (i + 1, 2))), (0, 1)) for i in range(30, 40)]


TAX = "LM loss of held-out demonstrations over the stable policy's, lower bound"
DEMONSTRATIONS = [Sample((i, 6), (40 + i, 41, 42, 2)[i % 3 :]) for i in range(8)]


def verdict(
    trunk: Trunk, config: GateConfig = CONFIG, held_out: list[RankedSamples] = HELD_OUT, max_new_tokens: int = 6
) -> GateReport:
    whole = RoundConfig(gate=config, ppo=PPOConfig(max_new_tokens=max_new_tokens))
    return judge(whole, trunk, HeldOut(PROMPTS, held_out, DEMONSTRATIONS), eos_ids=EOS)


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def named(checks: Sequence[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


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


@pytest.mark.parametrize("prompts", [2, 3, 5, 32])
@pytest.mark.parametrize("shape", ["normal", "heavy tails", "mostly none"])
def test_no_gain_passes_for_one_in_a_fortieth_of_the_rounds_at_most(trunk: Trunk, prompts: int, shape: str) -> None:
    """Of 10,000 rounds 2.5% may, whatever the few prompts are; standard error 0.16%."""
    draw, contest = random.Random(prompts), Contest(RoundConfig(), trunk, EOS)

    def difference() -> float:
        scale = {"normal": 1.0, "heavy tails": 1 / abs(draw.gauss()), "mostly none": float(draw.random() < 0.3)}
        return scale[shape] * draw.gauss()

    def answered(scores: list[float]) -> Answers:
        return Answers([], scores, [], [])

    gains = ([difference() for _ in range(prompts)] for _ in range(10_000))
    passed = sum(contest.gain(answered(gain), answered([0.0] * prompts)).low > 0 for gain in gains)
    assert passed <= 300


@pytest.mark.parametrize(("gains", "low"), [((0.9, 1.1), -0.27062), ((0.95, 1.05), 0.36469), ((1.0,) * 3, 1.0)])
def test_two_prompts_pass_where_both_gain_much_alike(trunk: Trunk, gains: tuple[float, ...], low: float) -> None:
    """By the tables: t of one degree of freedom is 12.7062, times the standard error of the mean, .1 and .05."""
    found = Contest(RoundConfig(), trunk, EOS).gain(*(Answers([], s, [], []) for s in (gains, [0.0] * len(gains))))
    assert (found.mean, found.low) == pytest.approx((1.0, low), abs=1e-4)


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
        ({"max_repetition_rise": -1.0}, "repetition over the stable policy's"),
        ({"max_lm_loss_rise": -1e6}, TAX),
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
    report = verdict(trunk, config, max_new_tokens=10)
    check = named(report.checks, "repetition")
    assert check.value == pytest.approx(6 / 7)  # 10 equal tokens have 7 4-grams, of which 1 is new
    assert not check.passed
    rise = named(report.checks, "repetition over the stable policy's")
    assert rise.value == pytest.approx(6 / 7 - report.metrics["gate/stable_repetition"]) and rise.passed


def test_an_unproven_reward_model_refuses(perturbed: Trunk) -> None:
    report = verdict(perturbed, held_out=[])
    check = named(report.checks, "reward model accuracy")
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


def answers(length: int, tokens: Sequence[int], score: float, nats: float) -> Answers:
    return Answers([Sample((1,), tuple(tokens[:length]))] * 2, [score] * 2, [0.0] * 2, [nats] * 2)


def test_all_checks_by_hand_with_their_signs() -> None:
    """Four tokens against eight; of four equal ones no 4-gram comes again, of eight 4 of 5; the rest is as given."""
    measured = Measured(
        candidate=answers(4, [7] * 4, score=2.0, nats=1.0),
        stable=answers(8, [7] * 8, score=1.5, nats=24.0),
        gain=Interval(0.5, 0.25, 0.75),
        kl=3.0,
        accuracy=Interval(0.7, 0.6, 0.8),
        imitation=Imitation(demonstrations=9, prompts=6, candidate=2.5, stable=2.0, rise=Interval(0.5, 0.4, 0.6)),
        agreement=Interval(0.3, 0.2, 0.4),
        bad_weights=0,
    )
    found = checks_of(RoundConfig(ppo=PPOConfig(collapse_entropy=0.125)), measured)
    assert [(c.name, pytest.approx(c.value), c.sign, c.threshold, c.passed) for c in found] == [
        ("score gain, lower bound", 0.25, ">", 0.0, True),
        ("KL to the reference", 3.0, "<=", 20.0, True),
        ("length ratio, upper", 0.5, "<=", 2.0, True),
        ("length ratio, lower", 0.5, ">=", 0.1, True),
        ("entropy", 0.25, ">=", 0.375, False),
        ("repetition", 0.0, "<=", 0.5, True),
        ("repetition over the stable policy's", -0.8, "<=", 0.1, True),
        ("weights that are not finite", 0.0, "<=", 0.0, True),
        ("reward model accuracy", 0.7, ">=", 0.55, True),
        (TAX, 0.4, "<=", 0.2, False),
    ]  # fmt: skip
    few = dataclasses.replace(measured, imitation=dataclasses.replace(measured.imitation, prompts=5))
    none = dataclasses.replace(measured, imitation=None)
    for unknown in (few, none):
        assert [check for check in checks_of(RoundConfig(), unknown) if check.name == TAX] == []
    assert few.metrics["gate/lm_loss_rise"] == 0.5 and none.metrics["gate/demonstrations"] == 0


def nats(trunk: Trunk, sample: Sample, role: Role | None, temperature: float = 1.0) -> float:
    """By whole logits of one sample."""
    trunk._activate(role)
    with torch.no_grad():
        log_probs = trunk.model(input_ids=torch.tensor([sample.prompt_ids + sample.completion_ids])).logits[0]
    first = len(sample.prompt_ids)
    log_probs = (log_probs / temperature).log_softmax(-1)
    return -sum(log_probs[first + i - 1, t].item() for i, t in enumerate(sample.completion_ids))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropy_is_that_of_what_each_said_as_it_was_sampled(perturbed: Trunk, temperature: float) -> None:
    contest = Contest(RoundConfig(ppo=PPOConfig(max_new_tokens=6, temperature=temperature)), perturbed, EOS)
    roles: tuple[Role | None, ...] = ("policy", None)
    for role in roles:
        found = contest.answers(role, PROMPTS, lambda: None)
        tokens = sum(len(sample.completion_ids) for sample in found.samples)
        want = sum(nats(perturbed, sample, role, temperature) for sample in found.samples) / tokens
        assert found.entropy == pytest.approx(want, abs=1e-5)


def test_the_alignment_tax_is_the_rise_of_the_loss_per_token(perturbed: Trunk) -> None:
    report = verdict(perturbed)
    tokens = sum(len(sample.completion_ids) for sample in DEMONSTRATIONS)
    own, other = (sum(nats(perturbed, s, role) for s in DEMONSTRATIONS) / tokens for role in ("policy", None))
    assert report.metrics["gate/demonstrations"] == 8
    assert report.metrics["gate/lm_loss"] == pytest.approx(own, abs=1e-5)
    assert report.metrics["gate/stable_lm_loss"] == pytest.approx(other, abs=1e-5)
    rise, low, high = (report.metrics[f"gate/lm_loss_rise{end}"] for end in ("", "_low", "_high"))
    assert rise == pytest.approx(own - other, abs=1e-5) and low < rise < high
    assert named(report.checks, TAX).value == low


def test_what_a_candidate_prefers_is_told_and_refuses_nothing(perturbed: Trunk) -> None:
    """Rankings by its own log-ratio to the stable policy, all right or all wrong."""
    pairs = [tuple(Sample((9, i), (30 + i + k, 50, 2)) for k in (0, 7)) for i in range(8)]
    ratios = [[nats(perturbed, s, None) - nats(perturbed, s, "policy") for s in pair] for pair in pairs]
    contest = Contest(RoundConfig(), perturbed, EOS)
    found = contest.log_odds([sample for pair in pairs for sample in pair])
    assert found == pytest.approx([ratio for pair in ratios for ratio in pair], abs=1e-4)
    for right in (True, False):
        tiers = [(0, 1) if (a > b) == right else (1, 0) for a, b in ratios]
        rankings = [RankedSamples(pair, tier) for pair, tier in zip(pairs, tiers, strict=True)]
        report = verdict(perturbed, held_out=rankings)
        assert report.metrics["gate/implied_accuracy"] == right
        assert not any("implied" in check.name for check in report.checks)


def test_scores_are_lowered_where_the_reward_heads_disagree_as_in_ppo(tiny_model: Callable[..., Any]) -> None:
    trunk = Trunk(tiny_model(), AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=2), reward_heads=3)
    config = RoundConfig(ppo=PPOConfig(max_new_tokens=6, uncertainty_coef=2.0), reward=RewardConfig(reward_heads=3))
    found = Contest(config, trunk, EOS).answers("policy", PROMPTS, lambda: None)
    sampled = own_sampler(trunk, config.ppo, EOS)(PROMPTS, seed=0, alive=lambda: None)
    rollouts = observed(config.ppo, trunk, sampled, eos_ids=EOS)
    known = {
        sample: (score - 2 * std, std)
        for rollout in rollouts
        for sample, score, std in zip(told(rollout), rollout.scores.tolist(), rollout.uncertainty.tolist(), strict=True)
    }
    assert min(found.uncertainties) > 0
    for sample, score, std in zip(found.samples, found.scores, found.uncertainties, strict=True):
        assert (score, std) == pytest.approx(known[sample], abs=1e-5)


def told(rollout: Rollout) -> list[Sample]:
    batch = rollout.batch
    counts = batch.completion_mask.sum(-1).tolist()
    whole = [ids[:n] for ids, n in zip(batch.input_ids.tolist(), batch.lengths.tolist(), strict=True)]
    return [Sample(tuple(ids[:-c]), tuple(ids[-c:])) for ids, c in zip(whole, counts, strict=True)]
