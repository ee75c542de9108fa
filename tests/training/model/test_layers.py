"""Layers that are run again in the backward pass: the same gradients to the bit, of the right role, in less memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tests.training.conftest import TrunkMaker
from training.config import PPOConfig, RewardConfig, SFTConfig
from training.model.packing import collate_rows, pack
from training.model.roles import Role
from training.model.samples import RankedSamples, Sample, collate
from training.model.trunk import Trunk
from training.ppo.ppo import train_ppo
from training.reward.reward import train_reward_model
from training.sft.lm_loss import batches
from training.sft.sft import train_sft

SAMPLES = [Sample((5, 6, 7), (8, 9, 2)), Sample((10, 11), (2,)), Sample((12, 2, 13, 14), (15, 16, 17, 18, 19))]
EOS = frozenset(range(2, 30))
ROLES: tuple[Role, ...] = ("policy", "reward", "value")
Gradients = dict[str, Tensor]


def gradients(trunk: Trunk) -> Gradients:
    named = {f"{role}/{name}": p for role in ROLES for name, p in trunk.parameters(role).items()}
    found = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    for p in named.values():
        p.grad = None
    return found


def policy_and_value(trunk: Trunk) -> Tensor:
    """Both roles run before either is differentiated, and the base model last."""
    batch = collate(SAMPLES, 0)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    log_probs, entropies = trunk.log_probs(hidden, batch, "policy", 0.7, with_entropy=True)
    values = trunk.values(hidden, batch)
    assert entropies is not None
    trunk.log_probs(hidden, batch, None)
    return log_probs.square().sum() + entropies.sum() + values.square().sum()


def demonstrations_end_to_end(trunk: Trunk) -> Tensor:
    """The backward pass comes when attention is no longer by blocks."""
    ((_, batch),) = batches(trunk, SAMPLES, 100, packed=True)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    log_probs, _ = trunk.log_probs(hidden, batch, "policy")
    return log_probs.sum()


def shared_prompts(trunk: Trunk) -> Tensor:
    batch = collate_rows(pack([Sample((1, 2, 3), (4, 5)), Sample((1, 2, 3), (6,))], 32), 0)
    hidden = trunk.lower(batch.input_ids, batch.attention)
    scores = trunk.head_scores_at(hidden, batch.attention, batch.rows, batch.ends)
    trunk._activate("value")
    return scores.square().sum()


@contextmanager
def kept() -> Iterator[list[int]]:
    """Bytes of each tensor that the forward pass keeps for the backward pass, weights aside."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("lora_layers", [2, None])
@pytest.mark.parametrize("loss", [policy_and_value, demonstrations_end_to_end, shared_prompts])
def test_gradients_are_the_same_to_the_bit(
    tiny_trunk: TrunkMaker, loss: Callable[[Trunk], Tensor], lora_layers: int | None
) -> None:
    trunk = tiny_trunk(perturbed=True, lora_layers=lora_layers)
    found: list[tuple[float, Gradients, int]] = []
    for trunk.gradient_checkpointing in (False, True):
        with kept() as sizes:
            result = loss(trunk)
        result.backward()
        found.append((result.item(), gradients(trunk), sum(sizes)))
    (want, plain, all_bytes), (value, ours, fewer_bytes) = found
    assert value == want
    assert plain.keys() == ours.keys() and plain
    assert all(torch.equal(gradient, ours[name]) for name, gradient in plain.items())
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    assert fewer_bytes < all_bytes / 4


def test_without_gradients_nothing_is_wrapped_in_a_graph(perturbed: Trunk) -> None:
    """Observing gives the numbers of updating, and sampling keeps its cache."""
    batch = collate(SAMPLES, 0)
    perturbed.gradient_checkpointing = True
    hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
    updating, _ = perturbed.log_probs(hidden, batch, "policy")
    with torch.no_grad(), kept() as sizes:
        observing, _ = perturbed.log_probs(hidden, batch, "policy")
    assert torch.equal(updating, observing) and not observing.requires_grad and not sizes


def ppo(trunk: Trunk, directory: Path, checkpointing: bool) -> object:
    config = PPOConfig(
        iterations=2, rollouts_per_iteration=8, max_new_tokens=6, minibatch=4, microbatch=2, ptx_coef=0.5, ptx_batch=2,
        entropy_coef=0.01, max_kl_step=10.0, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    return train_ppo(config, trunk, [(5, 6, 7), (8, 9)], eos_ids=EOS, checkpoint_dir=directory, ptx=SAMPLES).history


def sft(trunk: Trunk, directory: Path, checkpointing: bool) -> object:
    config = SFTConfig(batch_size=2, gradient_checkpointing=checkpointing)
    return train_sft(config, trunk, SAMPLES, checkpoint_dir=directory)


def reward(trunk: Trunk, directory: Path, checkpointing: bool) -> object:
    config = RewardConfig(held_out_fraction=0.0, gradient_checkpointing=checkpointing)
    rankings = [RankedSamples((Sample((n,), (5, 2)), Sample((n,), (6, n, 2))), (0, 1)) for n in range(80, 84)]
    return train_reward_model(config, trunk, rankings, checkpoint_dir=directory)


@pytest.mark.parametrize("train", [ppo, sft, reward])
def test_training_comes_to_the_same_bits(
    tiny_trunk: TrunkMaker, tmp_path: Path, train: Callable[[Trunk, Path, bool], object]
) -> None:
    trunks = [tiny_trunk(perturbed=True), tiny_trunk(perturbed=True)]
    reports = [train(trunk, tmp_path / str(i), bool(i)) for i, trunk in enumerate(trunks)]
    assert [trunk.gradient_checkpointing for trunk in trunks] == [False, True]
    assert reports[0] == reports[1]
    for role in ROLES:
        assert all(torch.equal(t, trunks[1].state(role)[name]) for name, t in trunks[0].state(role).items())
