"""PPO's options: what each does to advantages and gradients, and that none breaks what holds for all."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.checkpoints import load_checkpoint
from training.config import PPOConfig
from training.losses import kl_loss, language_model_loss, value_loss
from training.model.roles import Role
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.optimizing.steps import follow
from training.ppo.advantages import end_positions
from training.ppo.experience import Experience, estimate_advantages, read_after_ends
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Rollout, Sampled, observe, observed, own_sampler
from training.ppo.update import StalePolicy, _require_on_policy, update

EOS = frozenset(range(2, 60))  # so many that some completions end early
PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (14,)]
DEMONSTRATIONS = [Sample((5 + i, 6), (40, 41, 42 + i % 3, 2)[i % 4 :]) for i in range(10)]
CONFIG = PPOConfig(
    iterations=2,
    rollouts_per_iteration=8,
    max_new_tokens=6,
    epochs=1,
    minibatch=8,
    microbatch=2,
    learning_rate=5e-3,
    value_learning_rate=5e-3,
    max_grad_norm=1e6,  # nothing is clipped: gradients are compared
)
#: Everything that is off by default, all at once.
EVERYTHING: dict[str, Any] = {
    "kl_in": "loss",
    "kl_estimator": "k3",
    "ptx_coef": 0.5,
    "ptx_batch": 5,
    "ema_decay": 0.5,
    "entropy_coef": 0.01,
    "value_trunk": "policy",
    "score_at": "after_end",
    "score_clip": 0.5,
    "missing_eos": "subtract",
    "whiten_rewards": True,
    "whitening": "bessel",
}
Maker = Callable[..., Trunk]


class Interrupted(Exception):
    pass


def by_hand(scores: list[float], finished: list[bool]) -> Rollout:
    """Two completions of 3 tokens and 1 token: the first is the worked example of the research notes."""
    return Rollout(
        batch=collate([Sample((5,), (6, 7, 8)), Sample((5,), (6,))], 0),
        hidden=torch.zeros(2, 5, 1),
        log_probs=torch.tensor([[-1.0, -0.5, -0.2], [-1.0, 0.0, 0.0]]),
        behaviour_log_probs=None,
        ref_log_probs=torch.tensor([[-1.2, -0.4, -0.3], [-1.0, 0.0, 0.0]]),
        entropies=torch.tensor([[1.5, 0.5, 0.2], [1.0, 0.0, 0.0]]),
        kl=torch.tensor([[0.3, 0.2, 0.1], [0.1, 0.0, 0.0]]),
        values=torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.0, 0.0]]),
        scores=torch.tensor(scores),
        uncertainty=torch.zeros(2),
        finished=torch.tensor(finished),
    )


PLAIN = dataclasses.replace(CONFIG, kl_coef=0.05, lam=0.95, whiten_advantages=False)


def close(actual: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


# Advantages


def test_a_score_after_the_end_golden() -> None:
    """Notes, P2 variant B: V .05 after the end of the first; the second was cut, and its score stays at its token."""
    rollout = by_hand([1.0, 2.0], [True, False])
    batch = rollout.batch.with_ends(end_positions(rollout.batch.completion_mask, rollout.finished))
    values = torch.tensor([[0.1, 0.2, 0.3, 0.05], [0.5, 0.0, 0.0, 0.0]])
    (found,) = estimate_advantages(PLAIN, [rollout], 0.05, [(batch, values)])
    close(found.advantages, [[0.774119, 0.720125, 0.6475], [1.5, 0.0, 0.0]])
    close(found.valued.returns, [[0.874119, 0.920125, 0.9475, 1.0], [2.0, 0.0, 0.0, 0.0]])
    close(found.returns, [[0.874119, 0.920125, 0.9475], [2.0, 0.0, 0.0]])


def test_the_value_after_the_end_has_read_the_whole_completion(perturbed: Trunk) -> None:
    """One ended early, one filled the room, one was cut: only the first has a position left."""
    samples = [Sample((5, 6, 7), (70, 80, 2)), Sample((10,), (71, 72, 73, 74, 75, 2)), Sample((11,), (70,) * 6)]
    sampled = [Sampled(sample) for sample in samples]
    rollout = observe(perturbed, sampled, eos_ids=EOS, temperature=1.0, ref=None)
    batch, values = read_after_ends(CONFIG, perturbed, rollout)
    assert batch.completion_mask.sum(-1).tolist() == [4, 6, 6]
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7, 70, 80, 2]])
        mask = torch.ones_like(ids)
        states = perturbed.upper(perturbed.lower(ids, mask), mask, "value")
        close(values[0, :4], perturbed.heads["value"](states[0, 2:]).squeeze(-1))
    close(values[:, :6].masked_fill(~rollout.batch.completion_mask, 0.0), rollout.values)


def test_scores_are_cut_before_the_unfinished_pay() -> None:
    config = dataclasses.replace(PLAIN, lam=1.0, score_clip=1.5, missing_eos="subtract")
    (found,) = estimate_advantages(config, [by_hand([9.0, -9.0], [True, False])], 0.0)
    close(found.returns, [[1.5, 1.5, 1.5], [-2.5, 0.0, 0.0]])


@pytest.mark.parametrize("correction", [0, 1])
def test_rewards_are_whitened_over_all_tokens_and_keep_their_mean(correction: int) -> None:
    """At lambda 1 the returns are the sums of the rewards to come."""
    whitening = ("population", "bessel")[correction]
    config = dataclasses.replace(PLAIN, lam=1.0, whiten_rewards=True, whitening=whitening)
    rewards = [-0.01, 0.005, 0.995, 2.0] * 2
    mean = sum(rewards) / 8
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (8 - correction))
    a, b, c, d = [(r - mean) / deviation + mean for r in rewards[:4]]
    for found in estimate_advantages(config, [by_hand([1.0, 2.0], [True, True])] * 2, 0.05):
        close(found.returns, [[a + b + c, b + c, c], [d, 0.0, 0.0]])


def test_a_penalty_in_the_loss_is_not_in_the_rewards() -> None:
    config = dataclasses.replace(PLAIN, lam=1.0, kl_in="loss")
    (found,) = estimate_advantages(config, [by_hand([1.0, 2.0], [True, True])], 0.05)
    close(found.returns, [[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]])
    assert found.kl_coef == 0.05
    (found,) = estimate_advantages(PLAIN, [by_hand([1.0, 2.0], [True, True])], 0.05)
    assert found.kl_coef == 0


# Gradients


def collect(trunk: Trunk, config: PPOConfig, ref: Role | None = "ref") -> list[Experience]:
    trunk.value_role = "policy" if config.value_trunk == "policy" else "value"
    sampled = own_sampler(trunk, config, EOS)(PROMPTS * 2, seed=0, alive=lambda: None)
    rollouts = observed(config, trunk, sampled, eos_ids=EOS, ref=ref)
    read = [read_after_ends(config, trunk, r) for r in rollouts] if config.score_at == "after_end" else None
    return estimate_advantages(config, rollouts, config.kl_coef, read)


def gradients(
    trunk: Trunk, config: PPOConfig, experiences: Sequence[Experience], ptx: Sequence[Sample] = ()
) -> dict[str, Tensor]:
    """Those that the one optimizer step of an update takes, of the policy and the value."""
    named = {f"{role}/{n}": p for role in ("policy", "value") for n, p in trunk.parameters(role).items()}  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(named.values(), lr=0.0)
    taken: list[dict[str, Tensor]] = []

    def keep(*_: object) -> None:
        taken.append({n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named.items()})

    optimizer.register_step_post_hook(keep)
    update(config, trunk, optimizer, experiences, seed=0, iteration=0, alive=lambda: None, ptx=ptx)
    assert len(taken) == 1
    return taken[0]


def autograd(trunk: Trunk, role: Any, loss: Tensor) -> dict[str, Tensor]:
    named = trunk.parameters(role)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {
        f"{role}/{n}": torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)
    }


def policy_part(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for name, tensor in named.items() if name.startswith("policy/")])


def test_demonstrations_add_their_gradient_to_the_same_step(perturbed: Trunk) -> None:
    """Notes, P12: g_ppo + gamma * g_lm before one step, by autograd over all demonstrations in a single batch."""
    config = dataclasses.replace(CONFIG, ptx_coef=27.8, ptx_batch=10)
    experiences = collect(perturbed, config)
    batch = collate(DEMONSTRATIONS, 0)
    log_probs, _ = perturbed.log_probs(perturbed.lower(batch.input_ids, batch.attention_mask), batch, "policy")
    g_lm = policy_part(autograd(perturbed, "policy", language_model_loss(log_probs, batch.completion_mask)))
    g_ppo = policy_part(gradients(perturbed, dataclasses.replace(config, ptx_coef=0.0), experiences, DEMONSTRATIONS))
    both = policy_part(gradients(perturbed, config, experiences, DEMONSTRATIONS))
    assert min(g_lm.abs().max(), g_ppo.abs().max()) > 1e-3
    close(both, g_ppo + 27.8 * g_lm)


def test_each_step_has_its_own_demonstrations_and_a_resumed_run_the_same(perturbed: Trunk) -> None:
    config = dataclasses.replace(CONFIG, ptx_coef=1.0, ptx_batch=5, rollouts_per_iteration=16)
    experiences = collect(perturbed, CONFIG)
    losses = []
    for iteration in (0, 1, 1, 0):
        optimizer = torch.optim.SGD(perturbed.parameters("policy").values(), lr=0.0)
        metrics = update(
            config, perturbed, optimizer, experiences,
            seed=0, iteration=iteration, alive=lambda: None, ptx=DEMONSTRATIONS,
        )  # fmt: skip
        losses.append(metrics["ppo/ptx_loss"])
    assert losses[0] != losses[1]
    assert losses[1] == losses[2] and losses[0] == losses[3]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_penalty_in_the_loss_adds_its_gradient(perturbed: Trunk, estimator: Any) -> None:
    config = dataclasses.replace(CONFIG, kl_in="loss", kl_estimator=estimator, kl_coef=2.0)
    experiences = collect(perturbed, config)
    without = [dataclasses.replace(e, kl_coef=0.0) for e in experiences]
    tokens = float(sum(int(e.rollout.batch.completion_mask.sum()) for e in experiences))
    parts = []
    for e in experiences:
        old = e.rollout
        log_probs, _ = perturbed.log_probs(old.hidden, old.batch, "policy")
        parts.append(kl_loss(log_probs, old.ref_log_probs, old.batch.completion_mask, estimator, tokens))
    g_kl = policy_part(autograd(perturbed, "policy", torch.stack(parts).sum()))
    assert g_kl.abs().max() > 1e-3
    want = policy_part(gradients(perturbed, config, without)) + 2.0 * g_kl
    close(policy_part(gradients(perturbed, config, experiences)), want)


@pytest.mark.parametrize("value_trunk", ["own", "policy"])
def test_the_value_loss_moves_the_adapter_that_it_reads(perturbed: Trunk, value_trunk: Any) -> None:
    """With nothing to gain and nothing to pay for, all gradients are the value's."""
    config = dataclasses.replace(CONFIG, value_trunk=value_trunk, value_coef=0.7)
    experiences = [dataclasses.replace(e, advantages=0 * e.advantages) for e in collect(perturbed, config)]
    tokens = float(sum(int(e.rollout.batch.completion_mask.sum()) for e in experiences))
    parts = []
    for e in experiences:
        batch, old, returns = e.valued
        role: Role = "policy" if value_trunk == "policy" else "value"
        states = batch.predictors(perturbed.upper(e.rollout.hidden, batch.attention_mask, role))
        values = batch.spread(perturbed.heads["value"](states).squeeze(-1))
        parts.append(value_loss(values, old, returns, batch.completion_mask, 0.2, tokens))
    loss = 0.7 * torch.stack(parts).sum()
    want = {n: g for role in ("policy", "value") for n, g in autograd(perturbed, role, loss).items()}
    got = gradients(perturbed, config, experiences)
    for name, gradient in want.items():
        close(got[name], gradient)
    moved = {name.partition("/")[0] for name, g in got.items() if g.abs().max() > 0 and "head" not in name}
    assert moved == {"policy" if value_trunk == "policy" else "value"}


# What holds with every option


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_gradients_do_not_depend_on_the_microbatch(tiny_trunk: Maker, options: dict[str, Any]) -> None:
    """Nor on padding, which depends on which completions share a microbatch."""
    found = []
    for microbatch in (1, 2, 8):
        trunk = tiny_trunk(perturbed=True)
        config = dataclasses.replace(CONFIG, microbatch=microbatch, **options)
        found.append(gradients(trunk, config, collect(trunk, config), DEMONSTRATIONS))
    assert max(gradient.abs().max() for gradient in found[0].values()) > 1e-3
    for name, gradient in found[0].items():
        close(found[1][name], gradient)
        close(found[2][name], gradient)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_before_the_first_step_nothing_has_moved(perturbed: Trunk, options: dict[str, Any], temperature: float) -> None:
    config = dataclasses.replace(CONFIG, temperature=temperature, **options)
    optimizer = torch.optim.SGD(perturbed.parameters("policy").values(), lr=0.0)
    experiences = collect(perturbed, config)
    metrics = update(
        config, perturbed, optimizer, experiences, seed=0, iteration=0, alive=lambda: None, ptx=DEMONSTRATIONS
    )
    assert metrics["ppo/ratio"] == pytest.approx(1, abs=1e-6)
    assert metrics["ppo/approxkl"] == pytest.approx(0, abs=1e-7)
    assert metrics["ppo/clipfrac"] == 0
    assert abs(metrics["ppo/policy_loss"]) < 1e-6


@pytest.mark.parametrize("found", [(1.01, 0.0, 0.0), (1.0, 1e-4, 0.0), (1.0, 0.0, 0.01)])
def test_each_sign_of_another_policy_is_refused(found: tuple[float, float, float]) -> None:
    names = ("ppo/ratio", "ppo/approxkl", "ppo/clipfrac")
    _require_on_policy(dict(zip(names, (1.0, 0.0, 0.0), strict=True)))
    with pytest.raises(StalePolicy):
        _require_on_policy(dict(zip(names, found, strict=True)))


@pytest.mark.parametrize("stop_at", [1, 3])
def test_with_every_option_a_resumed_run_is_the_uninterrupted_run(
    tiny_trunk: Maker, tmp_path: Path, stop_at: int
) -> None:
    config = dataclasses.replace(
        CONFIG, iterations=4, epochs=2, minibatch=4, kl_target=0.1, kl_horizon=50, **EVERYTHING
    )

    def run(trunk: Trunk, name: str, stop: int | None = None) -> object:
        def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
            if step == stop and not metrics:
                raise Interrupted

        directory = tmp_path / name
        return train_ppo(
            config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=directory, ptx=DEMONSTRATIONS, seed=3, progress=progress
        )

    straight, resumed = tiny_trunk(), tiny_trunk()
    want = run(straight, "a")
    with pytest.raises(Interrupted):
        run(tiny_trunk(), "b", stop_at)
    assert run(resumed, "b") == want
    roles: tuple[Role, ...] = ("policy", "value")
    for role in roles:
        assert all(torch.equal(t, straight.state(role)[n]) for n, t in resumed.state(role).items())


# The moving average


def test_an_average_follows_by_its_decay() -> None:
    average, weights = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, -2.0]), "b": torch.ones(1)}
    follow(average, weights, 0.75)
    assert average["a"].tolist() == [1.5, 1.0]
    assert weights["a"].tolist() == [3.0, -2.0]


def test_the_average_is_what_remains_and_changes_nothing_before(tiny_trunk: Maker, tmp_path: Path) -> None:
    """Two steps at decay .5: a quarter of the start, a quarter of the first, half of the second."""
    start = tiny_trunk().state("policy")
    train_ppo(CONFIG, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / "plain")
    first, second = [load_checkpoint(tmp_path / "plain" / f"step-{step:08d}").section("policy") for step in (1, 2)]
    averaged = tiny_trunk()
    config = dataclasses.replace(CONFIG, ema_decay=0.5)
    train_ppo(config, averaged, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path / "averaged")
    assert any(not torch.equal(first[n], t) for n, t in start.items())
    for name, tensor in averaged.state("policy").items():
        close(tensor, 0.25 * start[name] + 0.25 * first[name] + 0.5 * second[name], 1e-7)
    kept = load_checkpoint(tmp_path / "averaged" / "step-00000002").section("policy")
    assert all(torch.equal(tensor, second[name]) for name, tensor in kept.items())


def test_an_average_begun_is_gone_on_with(tiny_trunk: Maker, tmp_path: Path) -> None:
    """A finished run that is started again ends with the average, and not with the last weights."""
    config = dataclasses.replace(CONFIG, ema_decay=0.9)
    found = []
    for _ in range(2):
        trunk = tiny_trunk()
        train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)
        found.append(trunk.state("policy"))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
