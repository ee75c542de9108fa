"""PPO reaches the best policy of a task where that one is known, from every seed.

Of all policies E_pi[r] - beta KL(pi || ref) is greatest at pi*(y) = ref(y) exp(r(y) / beta) / Z, where it is
beta log Z (Korbak et al. 2022). With a vocabulary of 24 and completions of one or two tokens all of them can be listed,
so that both sides of that are sums and not samples: whatever PPO lacks to the optimum is its own.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from training.config import AdapterConfig, PPOConfig
from training.model.roles import Role
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Sampled, sample_completions

VOCABULARY, END = 24, 2
EOS = frozenset({END})
PROMPTS = [(5, 6, 7), (8, 9)]
WANTED, WELCOME, SHUNNED = 11, 17, 4  # the first tokens with a reward of their own
BETA = 0.25
SEEDS = range(1, 6)
CONFIG = PPOConfig(
    iterations=24,
    rollouts_per_iteration=128,
    minibatch=128,
    microbatch=128,
    epochs=2,
    max_new_tokens=1,
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    kl_coef=BETA,
    lam=1.0,
    max_kl_step=0.5,
    checkpoint_every=1000,
)


def small_trunk() -> Trunk:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, initializer_range=0.1, bos_token_id=1, eos_token_id=END,
        pad_token_id=END,
    )  # fmt: skip
    return Trunk(LlamaForCausalLM(config), AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=None))


class Task(NamedTuple):
    """Every completion of every prompt, (P, Y) by prompt, with what it earns and how likely the reference is to say it.

    All in fp64.
    """

    samples: list[list[Sample]]
    rewards: Tensor  # (P, Y)
    ref: Tensor  # (P, Y) log-probs

    @classmethod
    def of(cls, trunk: Trunk, tokens: int) -> "Task":
        completions = [(END,), *((y,) for y in range(VOCABULARY) if y != END)]
        if tokens == 2:
            completions = [(END,), *((a, b) for a in range(VOCABULARY) if a != END for b in range(VOCABULARY))]
        samples = [[Sample(prompt, y) for y in completions] for prompt in PROMPTS]
        rewards = torch.stack([trunk.score(collate(own, trunk.pad_id)) for own in samples]).double()
        task = cls(samples, rewards, _log_probs(trunk, samples, None))
        torch.testing.assert_close(task.ref.exp().sum(-1), torch.ones(len(PROMPTS)).double(), atol=1e-5, rtol=0)
        return task

    def optimum(self) -> Tensor:
        """log pi* (P, Y)."""
        return (self.ref + self.rewards / BETA).log_softmax(-1)

    def objective(self, log_probs: Tensor) -> float:
        """E_pi[r] - beta KL(pi || ref), mean over the prompts."""
        return float((log_probs.exp() * (self.rewards - BETA * (log_probs - self.ref))).sum(-1).mean())

    def reached(self, trunk: Trunk) -> tuple[float, float]:
        """Of the way from the reference to the optimum, the share that the policy has gone; and how far off its
        probabilities are, in total variation, mean over the prompts."""
        policy = _log_probs(trunk, self.samples, "policy")
        start, best = self.objective(self.ref), self.objective(self.optimum())
        off = 0.5 * (policy.exp() - self.optimum().exp()).abs().sum(-1).mean()
        return (self.objective(policy) - start) / (best - start), float(off)


@torch.no_grad()
def _log_probs(trunk: Trunk, samples: Sequence[Sequence[Sample]], role: Role | None) -> Tensor:
    """(P, Y)"""
    rows = []
    for own in samples:
        batch = collate(own, trunk.pad_id)
        hidden = trunk.lower(batch.input_ids, batch.attention_mask)
        rows.append(trunk.log_probs(hidden, batch, role)[0].double().sum(-1))
    return torch.stack(rows)


def by_first_token(completion: Sequence[int]) -> float:
    return {WANTED: 1.0, WELCOME: 0.5, SHUNNED: -1.0}.get(completion[0], 0.0)


@torch.no_grad()
def plant(trunk: Trunk) -> None:
    """Set the reward head so that completions of one token earn exactly what `by_first_token` says: fewer equations
    than weights."""
    samples = [Sample(prompt, (y,)) for prompt in PROMPTS for y in range(VOCABULARY)]
    batch = collate(samples, trunk.pad_id)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    states = trunk.upper(hidden, batch.attention_mask, "reward")[torch.arange(len(samples)), batch.lengths - 1].double()
    wanted = torch.tensor([by_first_token(sample.completion_ids) for sample in samples]).double()
    trunk.heads["reward"].weight.copy_((torch.linalg.pinv(states) @ wanted).unsqueeze(0))
    trunk.heads["reward"].bias.zero_()


def planted(tokens: int = 1) -> tuple[Trunk, Task]:
    trunk = small_trunk()
    plant(trunk)
    return trunk, Task.of(trunk, tokens)


def test_the_optimum_by_hand() -> None:
    """The rewards are those that were planted, and E[r] - beta KL at pi* is beta log Z."""
    _, task = planted()
    for own, rewards in zip(task.samples, task.rewards, strict=True):
        want = torch.tensor([by_first_token(sample.completion_ids) for sample in own]).double()
        torch.testing.assert_close(rewards, want, atol=1e-4, rtol=0)
    best = BETA * (task.ref + task.rewards / BETA).logsumexp(-1).mean()
    assert task.objective(task.optimum()) == pytest.approx(float(best), abs=1e-9)
    off = task.optimum() + 0.1 * torch.randn(task.ref.shape, generator=torch.Generator().manual_seed(0)).double()
    assert task.objective(off.log_softmax(-1)) < best - 1e-4


def learn(trunk: Trunk, config: PPOConfig, directory: Path, seed: int, live: Sequence[Sampled] = ()) -> None:
    train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=directory, live=live, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_token(tmp_path: Path, seed: int) -> None:
    trunk, task = planted()
    assert task.reached(trunk)[0] == pytest.approx(0, abs=1e-6)
    learn(trunk, CONFIG, tmp_path, seed)
    share, off = task.reached(trunk)
    assert share > 0.96
    assert off < 0.09  # the reference is 0.67 off


@pytest.mark.parametrize("seed", SEEDS)
def test_the_penalty_as_a_loss(tmp_path: Path, seed: int) -> None:
    """It is not whitened with the rewards, so the advantages must not be either: beta would be another one."""
    trunk, task = planted()
    learn(trunk, dataclasses.replace(CONFIG, kl_in="loss", whiten_advantages=False), tmp_path, seed)
    share, off = task.reached(trunk)
    assert share > 0.95
    assert off < 0.11


@pytest.mark.parametrize("seed", SEEDS)
def test_from_what_the_reference_said_alone(tmp_path: Path, seed: int) -> None:
    """Live completions, all of them by the policy that PPO started from, however far it has come since."""
    trunk, task = planted()
    prompts = [prompt for prompt in PROMPTS for _ in range(1024)]
    said = sample_completions(trunk, prompts, role=None, eos_ids=EOS, max_new_tokens=1, seed=seed)
    known = {sample: nats for own, row in zip(task.samples, task.ref.tolist(), strict=True)
             for sample, nats in zip(own, row, strict=True)}  # fmt: skip
    live = [Sampled(own, (known[own],)) for own in map(Sample, prompts, said)]
    learn(trunk, dataclasses.replace(CONFIG, rollouts="live", importance_cap=30.0), tmp_path, seed, live)
    share, off = task.reached(trunk)
    assert share > 0.95
    assert off < 0.11


@pytest.mark.parametrize("seed", SEEDS)
def test_two_tokens_or_an_early_end(tmp_path: Path, seed: int) -> None:
    """What the second token earns must reach the first, and an end after the first is one of 553 completions."""
    trunk, task = planted(tokens=2)
    config = dataclasses.replace(CONFIG, max_new_tokens=2, rollouts_per_iteration=256, minibatch=256, microbatch=256)
    learn(trunk, config, tmp_path, seed)
    share, off = task.reached(trunk)
    assert share > 0.9
    assert off < 0.25  # the reference is 0.72 off
