"""Log-probs found in chunks against those of all logits at once, and that no more than a chunk is ever there."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from training.losses import language_model_loss
from training.model import vocabulary
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.model.vocabulary import side_by_side, token_log_probs

VOCABULARY, WIDTH = 50, 6


@contextmanager
def chunks_of(logits: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "CHUNK_LOGITS", logits)
        patch.setattr(vocabulary, "CACHED_LOGITS", logits // 2)
        yield


def problem(positions: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, nn.Linear]:
    """States that have a gradient, tokens, and a frozen output matrix that makes some of these likely."""
    generator = torch.Generator().manual_seed(seed)
    output = nn.Linear(WIDTH, VOCABULARY, bias=True, dtype=dtype).requires_grad_(False)
    for weight in output.parameters():
        weight.normal_(generator=generator)
    states = torch.randn(positions, WIDTH, generator=generator, dtype=dtype)
    tokens = torch.randint(VOCABULARY, (positions,), generator=generator)
    return states.requires_grad_(), tokens, output


def test_by_hand() -> None:
    """Logits are the states: p = 1/2, 3/10, 1/5 at temperature 1, and d log p / d logit = onehot - p."""
    states = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().requires_grad_()
    output = nn.Linear(3, 3, bias=False, dtype=torch.float64).requires_grad_(False)
    output.weight.copy_(torch.eye(3))
    log_probs, entropies = token_log_probs(states, torch.tensor([1]), output, with_entropy=True)
    assert log_probs.tolist() == pytest.approx([-1.2039728], abs=1e-6)
    assert entropies is not None and entropies.tolist() == pytest.approx([1.0296530], abs=1e-6)
    (2 * log_probs).sum().backward()
    assert states.grad is not None and states.grad[0].tolist() == pytest.approx([-1.0, 1.4, -0.4], abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    positions=st.integers(1, 9), chunk=st.integers(1, 6), temperature=st.sampled_from([1.0, 0.7, 3.0]),
    with_entropy=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_chunks_change_nothing(positions: int, chunk: int, temperature: float, with_entropy: bool, seed: int) -> None:
    """Against torch's own softmax of all logits, differentiated by torch."""
    states, tokens, output = problem(positions, seed=seed)
    weights = torch.randn(2, positions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    log_p = (output(states) / temperature).log_softmax(-1)
    want = [log_p[torch.arange(positions), tokens], -(log_p.exp() * log_p).sum(-1)][: 1 + with_entropy]
    (gradient,) = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, want, strict=False)), states)
    with chunks_of(chunk * VOCABULARY):
        found = [x for x in token_log_probs(states, tokens, output, temperature, with_entropy) if x is not None]
        (ours,) = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, found, strict=False)), states)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    positions=st.integers(1, 9), chunk=st.integers(1, 6), temperature=st.sampled_from([1.0, 0.7, 3.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_two_side_by_side_are_each_as_alone(positions: int, chunk: int, temperature: float, seed: int) -> None:
    states, tokens, output = problem(positions, seed=seed)
    others = states.detach().flip(0)
    log_p, log_q = ((output(each.detach()) / temperature).log_softmax(-1) for each in (states, others))
    with chunks_of(chunk * VOCABULARY):
        found = side_by_side(states, others, tokens, output, temperature)
        alone = [token_log_probs(each, tokens, output, temperature)[0] for each in (states, others)]
    assert torch.equal(found.log_probs, alone[0]) and torch.equal(found.other_log_probs, alone[1])
    torch.testing.assert_close(found.entropies, -(log_p.exp() * log_p).sum(-1), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.kl, (log_p.exp() * (log_p - log_q)).sum(-1), rtol=0, atol=1e-9)


def test_a_bf16_state_gets_a_bf16_gradient_of_fp32_log_probs() -> None:
    states, tokens, output = problem(8, torch.bfloat16)
    log_probs, _ = token_log_probs(states, tokens, output, 0.7)
    assert log_probs.dtype is torch.float32
    (gradient,) = torch.autograd.grad(log_probs.sum(), states)
    assert gradient.dtype is torch.bfloat16
    exact = states.detach().double().requires_grad_()
    logits = exact @ output.weight.double().T + output.bias.double()
    want = (logits / 0.7).log_softmax(-1)[torch.arange(8), tokens]
    (slope,) = torch.autograd.grad(want.sum(), exact)
    assert (log_probs - want).abs().mean() < 0.05
    assert (gradient - slope).norm() < 0.02 * slope.norm()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trunk_observes_what_it_updates(perturbed: Trunk, temperature: float) -> None:
    """Bit for bit, in chunks: PPO's first ratio is 1."""
    batch = collate([Sample((5, 6), tuple(range(7, 16))), Sample((9,), (3, 4, 2))], 0)
    hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
    with chunks_of(5 * 300):
        updating, _ = perturbed.log_probs(hidden, batch, "policy", temperature, with_entropy=True)
        with torch.no_grad():
            observing, _ = perturbed.log_probs(hidden, batch, "policy", temperature)
    assert updating.requires_grad and torch.equal(updating, observing)


class Live(TorchDispatchMode):
    """Counts the elements of new tensors (N, V): of all that are there at once, and of the largest."""

    def __init__(self, output: nn.Linear) -> None:
        super().__init__()
        self.vocabulary, self.now, self.most, self.largest = output.out_features, 0, 0, 0
        self._seen = {output.weight.untyped_storage()._cdata}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() > 1 and result.shape[-1] == self.vocabulary:
            self._count(result.untyped_storage(), result.numel())
        return result

    def _count(self, storage: Any, elements: int) -> None:
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self.now += elements
        self.most, self.largest = max(self.most, self.now), max(self.largest, elements)
        weakref.finalize(storage, self._gone, storage._cdata, elements)

    def _gone(self, key: int, elements: int) -> None:
        self._seen.discard(key)
        self.now -= elements


@pytest.mark.parametrize("with_entropy", [False, True])
def test_there_are_never_more_logits_than_a_few_chunks(perturbed: Trunk, with_entropy: bool) -> None:
    """Forwards and backwards: a hundred positions, five at a time."""
    batch = collate([Sample((5, 6), (7, 8, 9, 10, 11) * 4)] * 5, 0)
    hidden = perturbed.lower(batch.input_ids, batch.attention_mask)
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.extend(tensor.shape[-1:])
        return tensor

    with chunks_of(5 * 300), Live(perturbed.model.lm_head) as live, saved_tensors_hooks(note, lambda tensor: tensor):
        log_probs, entropies = perturbed.log_probs(hidden, batch, "policy", 0.7, with_entropy)
        loss = language_model_loss(log_probs, batch.completion_mask)
        (loss if entropies is None else loss - entropies.sum()).backward()
    assert live.largest == 5 * 300
    assert live.most <= 4 * 5 * 300
    with chunks_of(5 * 300), Live(perturbed.model.lm_head) as watched:
        perturbed.beside(hidden, batch, "policy", None, 0.7)
    assert watched.largest == 5 * 300
    assert watched.most <= 4 * 5 * 300
    assert saved and 300 not in saved, "nothing of the vocabulary's size waits for the backward pass"
