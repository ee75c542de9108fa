import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from training.config import AdapterConfig, PPOConfig
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.optimizing.steps import NonFinite
from training.ppo.collapse import Collapsed
from training.ppo.experience import Experience, estimate_advantages
from training.ppo.ppo import learning_rates, outcome, train_ppo
from training.ppo.rollout import Rollout, Sampled, observe, observed, own_sampler, sample_completions
from training.ppo.telemetry import rollout_metrics
from training.ppo.update import StalePolicy, update

EOS = frozenset({2})
PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (14,)]
CONFIG = PPOConfig(
    iterations=2,
    rollouts_per_iteration=8,
    max_new_tokens=6,
    minibatch=4,
    microbatch=2,
    learning_rate=5e-3,
    value_learning_rate=5e-3,
    missing_eos=None,
)
LEARNING = dataclasses.replace(
    CONFIG,
    iterations=14,
    rollouts_per_iteration=128,
    minibatch=64,
    microbatch=64,
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    kl_coef=0.0,
    max_kl_step=0.5,
)
Maker = Callable[..., Trunk]


class Interrupted(Exception):
    pass


def quiet() -> None:
    pass


def test_sampling_follows_the_models_distribution(perturbed: Trunk) -> None:
    """The first token of 4000 samples against the softmax, and temperature flattens as it should."""
    prompt = PROMPTS[0]
    with torch.no_grad():
        perturbed._activate("policy")
        logits = perturbed.model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    for temperature in (1.0, 2.0):
        drawn = sample_completions(
            perturbed, [prompt] * 4000, role="policy", eos_ids=EOS, max_new_tokens=1, temperature=temperature
        )
        counts = torch.bincount(torch.tensor([c[0] for c in drawn]), minlength=300).double()
        want = (logits / temperature).softmax(-1)
        assert (counts / 4000 - want).abs().sum() < 0.3  # total variation of a fair sample of this size is about 0.2
        top = want.topk(5)
        for p, index in zip(top.values, top.indices, strict=True):
            assert abs(counts[index] - 4000 * p) < 4 * (4000 * p * (1 - p)).sqrt()


def test_completions_end_with_their_stop_token_or_at_the_limit(perturbed: Trunk) -> None:
    eos = frozenset(range(2, 60))  # so many that some rows end early and leave the batch
    completions = sample_completions(perturbed, PROMPTS * 20, role="policy", eos_ids=eos, max_new_tokens=12)
    lengths = {len(c) for c in completions}
    assert len(lengths) > 3
    for completion in completions:
        assert not set(completion[:-1]) & eos
        assert completion[-1] in eos or len(completion) == 12


def test_cached_sampling_agrees_with_the_trainers_forward(perturbed: Trunk) -> None:
    """With the sampler's noise known, each token must be where the trainer's own probabilities sum up to it."""
    completions = sample_completions(perturbed, PROMPTS, role="policy", eos_ids=EOS, max_new_tokens=8, seed=3)
    order = sorted(range(4), key=lambda i: (len(PROMPTS[i]), i))
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(4, 8, 1, dtype=torch.float64, generator=generator)
    perturbed._activate("policy")
    for row, index in enumerate(order):
        ids = list(PROMPTS[index])
        for step, token in enumerate(completions[index]):
            with torch.no_grad():
                probs = perturbed.model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
            below, draw = probs[:token].sum().item(), noise[row, step].item()
            assert below - 1e-6 <= draw <= below + probs[token].item() + 1e-6
            ids.append(token)


def test_the_same_noise_meets_every_policy(tiny_trunk: Maker) -> None:
    trunk = tiny_trunk()
    drawn = [
        sample_completions(trunk, PROMPTS, role=role, eos_ids=EOS, max_new_tokens=8, seed=5)
        for role in (None, "policy", "stable")
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0] != sample_completions(trunk, PROMPTS, role=None, eos_ids=EOS, max_new_tokens=8, seed=6)


def test_a_rollout_holds_what_each_role_says(perturbed: Trunk) -> None:
    samples = [Sample((5, 6, 7), (8, 9, 2)), Sample((10,), (11, 12, 13, 14))]
    rollout = observe(perturbed, [Sampled(sample) for sample in samples], eos_ids=EOS, temperature=0.5, ref="ref")
    assert rollout.finished.tolist() == [True, False]
    batch = collate(samples, 0)
    with torch.no_grad():
        hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
        assert torch.equal(rollout.ref_log_probs, perturbed.log_probs(hidden, batch, "ref", 0.5)[0])
        assert torch.equal(rollout.log_probs, perturbed.log_probs(hidden, batch, "policy", 0.5)[0])
        torch.testing.assert_close(rollout.scores, perturbed.score(batch))
    assert rollout.behaviour_log_probs is None


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_places_are_judged_by_all_that_might_have_been_drawn(perturbed: Trunk, temperature: float) -> None:
    """Entropy and KL of each place against the whole softmax of both, whoever has drawn the tokens."""
    sampled = [Sampled(Sample((5, 6), (7, 8, 2)), (-9.0, -8.0, -7.0)), Sampled(Sample((9,), (3,)), (-30.0,))]
    rollout = observe(perturbed, sampled, eos_ids=EOS, temperature=temperature, ref=None)
    hidden, batch = rollout.hidden, rollout.batch
    with torch.no_grad():
        log_p, log_q = (
            (perturbed.model.lm_head(perturbed.upper(hidden, batch.attention_mask, role)) / temperature).log_softmax(-1)
            for role in ("policy", None)
        )
    for row, (start, count) in enumerate([(1, 3), (0, 1)]):
        p, q = log_p[row, start : start + count], log_q[row, start : start + count]
        mask = batch.completion_mask[row]
        torch.testing.assert_close(rollout.entropies[row][mask], -(p.exp() * p).sum(-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(rollout.kl[row][mask], (p.exp() * (p - q)).sum(-1), atol=1e-5, rtol=0)
    assert rollout.kl[rollout.batch.completion_mask].min() > 1e-3
    assert not rollout.kl[~rollout.batch.completion_mask].any()


def test_completions_of_another_policy_are_weighed(perturbed: Trunk) -> None:
    """Notes, P10: ratios 1.0202, .74082 and 3.32012, capped at 2; what the trainer sampled beside them weighs 1."""
    samples = [Sample((5, 6), (7, 8, 2)), Sample((9,), (10,))]
    own = observe(perturbed, [Sampled(s) for s in samples], eos_ids=EOS, temperature=1.0, ref=None)
    ratios = torch.tensor([1.0202, 0.74082, 3.32012])
    said = tuple((own.log_probs[0] - ratios.log()).tolist())
    sampled = [Sampled(samples[0], said), Sampled(samples[1])]
    for kind, first in (("token", [1.0202, 0.74082, 2.0]), ("geometric", [1.35889] * 3)):
        config = dataclasses.replace(CONFIG, importance=kind, importance_cap=2.0, microbatch=2)
        [rollout] = observed(config, perturbed, sampled[::-1], eos_ids=EOS)
        [found] = estimate_advantages(config, [rollout], 0.1)
        assert found.weights is not None
        want = torch.tensor([[1.0, 0.0, 0.0], first])
        torch.testing.assert_close(found.weights, want, atol=1e-5, rtol=0)


def test_weights_scale_the_gradients_of_their_tokens(perturbed: Trunk) -> None:
    """Everything weighed half gives half of the policy's step, and the same values."""
    config = dataclasses.replace(CONFIG, epochs=1, minibatch=8)
    own = experience(perturbed, config)
    halved = [dataclasses.replace(e, weights=0.5 * e.rollout.batch.completion_mask) for e in own]
    steps = []
    for experiences in (own, halved):
        optimizer = torch.optim.SGD([*perturbed.parameters("policy").values()], lr=0.0)
        update(config, perturbed, optimizer, experiences, seed=0, iteration=0, alive=quiet)
        steps.append([w.grad.clone() for w in perturbed.parameters("policy").values() if w.grad is not None])
    assert any(bool(gradient.any()) for gradient in steps[0])
    for whole, half in zip(*steps, strict=True):
        torch.testing.assert_close(half, 0.5 * whole, atol=1e-7, rtol=1e-4)


def by_hand(scores: list[float], finished: list[bool], uncertainty: tuple[float, float] = (0.0, 0.0)) -> Rollout:
    """Two completions of 3 tokens and 1 token: the first is the worked example of the research notes."""
    batch = collate([Sample((5,), (6, 7, 8)), Sample((5,), (6,))], 0)
    zeros = torch.zeros(2, 5, 1)
    return Rollout(
        batch=batch,
        hidden=zeros,
        log_probs=torch.tensor([[-1.0, -0.5, -0.2], [-1.0, 0.0, 0.0]]),
        behaviour_log_probs=None,
        ref_log_probs=torch.tensor([[-1.2, -0.4, -0.3], [-1.0, 0.0, 0.0]]),
        entropies=torch.tensor([[1.5, 0.5, 0.2], [1.0, 0.0, 0.0]]),
        kl=torch.tensor([[0.3, 0.2, 0.1], [0.1, 0.0, 0.0]]),
        values=torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.0, 0.0]]),
        scores=torch.tensor(scores),
        uncertainty=torch.tensor(uncertainty),
        finished=torch.tensor(finished),
    )


def test_advantages_of_the_worked_example() -> None:
    """Notes, P2 variant A: beta .05, gamma 1, lambda .95, score 1 on the last token."""
    config = dataclasses.replace(CONFIG, kl_coef=0.05, lam=0.95, whiten_advantages=False)
    (found,) = estimate_advantages(config, [by_hand([1.0, 2.0], [True, True])], 0.05)
    want = torch.tensor([[0.816987, 0.76525, 0.695], [1.5, 0, 0]])
    torch.testing.assert_close(found.advantages, want, atol=1e-5, rtol=0)
    returns = torch.tensor([[0.916987, 0.96525, 0.995], [2.0, 0, 0]])
    torch.testing.assert_close(found.returns, returns, atol=1e-5, rtol=0)


def test_what_the_heads_disagree_on_earns_less() -> None:
    """The worked example again, of scores 1.5 and 2.25 that are lowered to 1 and 2."""
    config = dataclasses.replace(CONFIG, kl_coef=0.05, lam=0.95, whiten_advantages=False, uncertainty_coef=2.0)
    (found,) = estimate_advantages(config, [by_hand([1.5, 2.25], [True, True], (0.25, 0.125))], 0.05)
    want = torch.tensor([[0.816987, 0.76525, 0.695], [1.5, 0, 0]])
    torch.testing.assert_close(found.advantages, want, atol=1e-5, rtol=0)


def test_a_rollout_knows_how_far_the_heads_disagree(tiny_model: Callable[..., LlamaForCausalLM]) -> None:
    """Three heads that differ in their bias alone: 0, 3 and -1.5 lie sqrt(3.5) from their mean of 0.5."""
    trunk = Trunk(tiny_model(), AdapterConfig(lora_layers=2), reward_heads=3)
    with torch.no_grad():
        trunk.heads["reward"].weight.zero_()
        trunk.heads["reward"].bias.copy_(torch.tensor([0.0, 3.0, -1.5]))
    sampled = [Sampled(Sample((5,), (6, 2))), Sampled(Sample((10,), (11,)))]
    rollout = observe(trunk, sampled, eos_ids=EOS, temperature=1.0, ref=None)
    torch.testing.assert_close(rollout.scores, torch.full((2,), 0.5), atol=1e-6, rtol=0)
    torch.testing.assert_close(rollout.uncertainty, torch.full((2,), 3.5**0.5), atol=1e-6, rtol=0)
    assert rollout_metrics([rollout])["objective/uncertainty"] == pytest.approx(3.5**0.5, abs=1e-6)


def test_one_head_is_not_asked_how_certain_it_is(trunk: Trunk, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, uncertainty_coef=0.5)
    with pytest.raises(ValueError, match="at least 2 reward heads"):
        train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)


def test_ppo_shuns_what_one_of_two_heads_likes_and_the_other_hates(
    tiny_model: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    """The heads' mean is 0 everywhere: without the penalty there is nothing to learn, with it the way to agreement."""
    trunk = Trunk(tiny_model(), AdapterConfig(lora_rank=8, lora_layers=2), reward_heads=2)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        trunk.heads["reward"].weight.copy_(torch.stack([direction, -direction]) / direction.norm() * 0.5)
        trunk.heads["reward"].bias.zero_()
    config = dataclasses.replace(LEARNING, max_new_tokens=1, uncertainty_coef=1.0)
    history = train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path).history
    assert history[-1]["objective/uncertainty"] < 0.8 * history[0]["objective/uncertainty"]


def test_an_unfinished_completion_pays() -> None:
    config = dataclasses.replace(
        CONFIG, kl_coef=0.05, whiten_advantages=False, missing_eos="replace", missing_eos_penalty=1.0
    )
    (found,) = estimate_advantages(config, [by_hand([1.0, 2.0], [True, False])], 0.05)
    assert found.returns[1, 0].item() == pytest.approx(-1.0)


def test_whitening_is_over_all_microbatches_together() -> None:
    rollouts = [by_hand([1.0, 2.0], [True, True]), by_hand([-3.0, 0.5], [True, True])]
    found = estimate_advantages(CONFIG, rollouts, 0.05)
    flat = torch.cat([e.advantages[e.rollout.batch.completion_mask] for e in found])
    assert flat.mean().item() == pytest.approx(0, abs=1e-6)
    assert flat.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert all((e.advantages[~e.rollout.batch.completion_mask] == 0).all() for e in found)


def test_metrics_are_per_completion_and_masked() -> None:
    metrics = rollout_metrics([by_hand([1.0, 2.0], [True, False])])
    assert metrics["objective/kl"] == pytest.approx((0.3 + 0.2 + 0.1 + 0.1) / 2)
    assert metrics["objective/score"] == pytest.approx(1.5)
    assert metrics["objective/entropy"] == pytest.approx((1.5 + 0.5 + 0.2 + 1.0) / 4)
    assert metrics["completion/length"] == pytest.approx(2.0)
    assert metrics["completion/finished"] == pytest.approx(0.5)


def test_learning_rates_fall_in_a_straight_line() -> None:
    config = dataclasses.replace(CONFIG, iterations=4, learning_rate=0.8, value_learning_rate=0.4)
    assert learning_rates(config, 0) == (0.8, 0.4)
    assert learning_rates(config, 3) == pytest.approx((0.2, 0.1))


def test_a_planted_reward_rises(trunk: Trunk, tmp_path: Path) -> None:
    """The reward head reads one fixed direction of the frozen states: completions that please it must become common.

    Judged by fresh samples of the trained policy and of the base, not by what training says of itself.
    """
    direction = torch.randn(32, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        trunk.heads["reward"].weight.copy_(direction / direction.norm() * 0.5)
    config = dataclasses.replace(LEARNING, max_new_tokens=1)
    report = train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)
    assert report.history[0]["objective/kl"] == 0  # the policy starts as the reference, bit for bit

    def mean_score(role: str | None) -> float:
        prompts = PROMPTS * 40
        drawn = sample_completions(trunk, prompts, role=role, eos_ids=EOS, max_new_tokens=1, seed=99)
        samples = [Sample(p, c) for p, c in zip(prompts, drawn, strict=True)]
        return trunk.score(collate(samples, 0)).mean().item()

    assert mean_score("policy") > mean_score(None) + 0.7 * report.history[0]["objective/score_std"]


def test_a_penalty_at_the_end_reaches_the_tokens_before_it(trunk: Trunk, tmp_path: Path) -> None:
    """Nothing counts but to end within six tokens, by any of 38 stop tokens of 300."""
    with torch.no_grad():
        trunk.heads["reward"].weight.zero_()
    config = dataclasses.replace(LEARNING, rollouts_per_iteration=64, missing_eos="replace")
    report = train_ppo(config, trunk, PROMPTS, eos_ids=frozenset(range(2, 40)), checkpoint_dir=tmp_path)
    finished = [metrics["completion/finished"] for metrics in report.history]
    assert sum(finished[-3:]) / 3 > sum(finished[:3]) / 3 + 0.1


def test_a_strong_kl_penalty_keeps_the_policy_near(tiny_trunk: Maker, tmp_path: Path) -> None:
    moved = {}
    for kl_coef in (0.0, 5.0):
        config = dataclasses.replace(LEARNING, iterations=4, rollouts_per_iteration=64, kl_coef=kl_coef)
        report = train_ppo(config, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / str(kl_coef))
        moved[kl_coef] = report.last["objective/kl"]
    assert moved[5.0] < 0.5 * moved[0.0]


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tiny_trunk: Maker, tmp_path: Path, stop_at: int) -> None:
    """Stopped in the middle of an iteration after `stop_at` of them; adaptive KL, moments and prompt order included."""
    config = dataclasses.replace(CONFIG, iterations=4, epochs=1, kl_target=0.1, kl_horizon=50)
    straight = tiny_trunk()
    want = train_ppo(config, straight, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / "a", seed=3)

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == stop_at and not metrics:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_ppo(config, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / "b", seed=3, progress=interrupt)
    resumed = tiny_trunk()
    assert train_ppo(config, resumed, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / "b", seed=3) == want
    assert len({m["objective/kl_coef"] for m in want.history}) == 4
    for role in ("policy", "value"):
        assert all(torch.equal(t, straight.state(role)[n]) for n, t in resumed.state(role).items())


def test_a_finished_run_resumes_to_its_report(tiny_trunk: Maker, tmp_path: Path) -> None:
    want = train_ppo(CONFIG, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)
    assert train_ppo(CONFIG, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path) == want


def test_microbatches_do_not_change_the_update(tiny_trunk: Maker) -> None:
    states = []
    for microbatch in (2, 8):
        trunk = tiny_trunk(perturbed=True)
        config = dataclasses.replace(CONFIG, microbatch=microbatch, minibatch=8, epochs=1)
        experiences = experience(trunk, config)
        optimizer = torch.optim.SGD([*trunk.parameters("policy").values(), *trunk.parameters("value").values()], lr=0.1)
        update(config, trunk, optimizer, experiences, seed=0, iteration=0, alive=quiet)
        states.append({**trunk.state("policy"), **trunk.state("value")})
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-6)


def experience(trunk: Trunk, config: PPOConfig) -> list[Experience]:
    sampled = own_sampler(trunk, config, EOS)(PROMPTS * 2, seed=0, alive=quiet)
    rollouts = observed(config, trunk, sampled, eos_ids=EOS)
    return estimate_advantages(config, rollouts, config.kl_coef)


def test_before_the_first_step_the_ratio_is_one(perturbed: Trunk) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, minibatch=8, temperature=0.7)
    optimizer = torch.optim.SGD(perturbed.parameters("policy").values(), lr=0.0)
    metrics = update(config, perturbed, optimizer, experience(perturbed, config), seed=0, iteration=0, alive=quiet)
    assert metrics["ppo/ratio"] == pytest.approx(1, abs=1e-6)
    assert metrics["ppo/approxkl"] == pytest.approx(0, abs=1e-7)
    assert metrics["ppo/clipfrac"] == 0


def test_rollouts_of_other_weights_are_refused(perturbed: Trunk) -> None:
    experiences = experience(perturbed, CONFIG)
    with torch.no_grad():
        for weight in perturbed.parameters("policy").values():
            weight.mul_(1.2)
    optimizer = torch.optim.SGD(perturbed.parameters("policy").values(), lr=0.0)
    with pytest.raises(StalePolicy):
        update(CONFIG, perturbed, optimizer, experiences, seed=0, iteration=0, alive=quiet)


def test_nan_stops_the_stage_before_it_reaches_the_weights(perturbed: Trunk, tmp_path: Path) -> None:
    with torch.no_grad():
        perturbed.heads["reward"].weight.fill_(float("nan"))
    before = perturbed.state("policy")
    with pytest.raises(NonFinite, match="ppo"):
        train_ppo(CONFIG, perturbed, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)
    assert all(torch.equal(t, before[n]) for n, t in perturbed.state("policy").items())


def test_how_far_an_update_went_is_told_of_the_policys_own_draws(perturbed: Trunk) -> None:
    """After one step, where another drew the tokens; by hand, and of four microbatches as of one."""
    draw = torch.Generator().manual_seed(3)
    for microbatch in (8, 2):
        config = dataclasses.replace(CONFIG, minibatch=8, microbatch=microbatch, epochs=2, max_kl_step=1e-12)
        strange = []
        for e in experience(perturbed, config):
            far = 2 * torch.randn(e.rollout.log_probs.shape, generator=draw)
            rollout = dataclasses.replace(e.rollout, behaviour_log_probs=e.rollout.log_probs - far)
            strange.append(dataclasses.replace(e, rollout=rollout))
        optimizer = torch.optim.Adam(perturbed.parameters("policy").values(), lr=0.01)
        told = update(config, perturbed, optimizer, strange, seed=0, iteration=0, alive=quiet)["ppo/approxkl_last"]
        x, w = [], []
        for old in (e.rollout for e in strange):
            with torch.no_grad():
                now, _ = perturbed.log_probs(old.hidden, old.batch, "policy", config.temperature)
            mask = old.batch.completion_mask
            x.append((now - old.log_probs)[mask])
            w.append(old.log_ratios[mask].exp())
        ratios, weights = torch.cat(x), torch.cat(w)
        k3 = ratios.exp() - 1 - ratios
        assert weights.max() > 5
        assert told == pytest.approx(float((weights * k3).sum() / weights.sum()), rel=1e-3)
        assert told != pytest.approx(float(k3.mean()), rel=0.05)


def test_an_update_that_runs_away_ends_early(perturbed: Trunk) -> None:
    """The step that is not taken counts nowhere."""
    config = dataclasses.replace(CONFIG, epochs=50, max_kl_step=0.01)
    optimizer = torch.optim.Adam(perturbed.parameters("policy").values(), lr=0.02)
    taken: list[None] = []
    optimizer.register_step_post_hook(lambda *_: taken.append(None))
    metrics = update(config, perturbed, optimizer, experience(perturbed, config), seed=0, iteration=0, alive=quiet)
    assert 0 < metrics["ppo/steps"] == len(taken) < 100
    assert metrics["ppo/approxkl"] <= 0.01 < metrics["ppo/approxkl_last"]


def test_the_policy_that_is_left_is_held_to_the_bounds(trunk: Trunk, tmp_path: Path) -> None:
    """One iteration, whose KL is of before its only update: 0."""
    with torch.no_grad():
        trunk.heads["reward"].weight.copy_(torch.randn(32, generator=torch.Generator().manual_seed(7)))
    config = dataclasses.replace(CONFIG, iterations=1, learning_rate=0.3, kl_coef=0.0, max_kl_step=1e9)
    history = train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path).history
    told = outcome(config, trunk, PROMPTS, history, eos_ids=EOS, alive=quiet)
    sampled = own_sampler(trunk, config, EOS)(PROMPTS * 100, seed=5, alive=quiet)
    found = rollout_metrics(observed(config, trunk, sampled, eos_ids=EOS))
    assert history[-1]["objective/kl"] == 0
    for name in ("objective/kl", "objective/entropy"):
        assert told[name] == pytest.approx(found[name], rel=0.3)
    assert told["objective/kl"] > 1 and not any(name.startswith("ppo/") for name in told)
    with pytest.raises(Collapsed, match="nats per completion after the last update, at most 1") as caught:
        strict = dataclasses.replace(config, collapse_kl=1.0)
        outcome(strict, trunk, PROMPTS, history, eos_ids=EOS, alive=quiet)
    assert caught.value.history == (*history, told)
