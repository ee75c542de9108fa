"""Minibatches: a fair draw of all rollouts in every epoch, however they are cut, kept and dealt to processes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.config import PPOConfig
from training.model.samples import Sample
from training.model.trunk import Trunk
from training.optimizing import parallel
from training.optimizing.parallel import share
from training.ppo.minibatches import drawn, mixed, redrawn
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Sampled

EOS = frozenset(range(2, 60))
PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (14,)]
LIVE = [Sampled(Sample((20, 21), tuple(range(70, 70 + n))), (-5.0,) * n) for n in (1, 1, 2, 11, 12, 12)]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_each_is_drawn_once_and_each_minibatch_has_one_of_every_run_of_neighbours(
    lengths: list[int], size: int, seed: int, epoch: int
) -> None:
    found = drawn(lengths, size, seed, epoch)
    assert found == drawn(lengths, size, seed, epoch)
    assert sorted(i for minibatch in found for i in minibatch) == list(range(len(lengths)))
    assert max(map(len, found)) <= size
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for place, run in enumerate(zip(*found, strict=False)):
        assert set(run) == set(order[place * len(found) : (place + 1) * len(found)])


def test_every_minibatch_is_as_likely_to_get_each() -> None:
    """1200 epochs: each of 12 is in the first of 3 minibatches about every third time, and the epochs differ."""
    lengths = [n * n for n in range(12)]
    epochs = [drawn(lengths, 4, 7, epoch) for epoch in range(1200)]
    for place in range(3):
        counts = Counter(i for minibatches in epochs for i in minibatches[place])
        assert len(counts) == 12 and all(abs(count - 400) < 4 * 17 for count in counts.values())
    assert drawn(lengths, 4, 7, 0) != drawn(lengths, 4, 8, 0)
    means = [fmean(lengths[i] for i in minibatch) for minibatches in epochs for minibatch in minibatches]
    assert max(means) < 2 * min(means), "none has the long ones only"


class Pair(NamedTuple):
    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Record:
    names: Tensor  # (B,)
    pair: Pair
    states: Tensor  # (B, T, 2)
    coefficient: float = 0.5
    nothing: None = None


def record(*rows: int) -> Record:
    """Row n is n times n, and as long as n; padded to the longest."""
    ids = torch.zeros(len(rows), max(rows), dtype=torch.long)
    for i, n in enumerate(rows):
        ids[i, :n] = n
    return Record(torch.tensor(rows), Pair(ids, ids > 0), ids.float().unsqueeze(-1).expand(-1, -1, 2))


def test_rows_are_put_together_with_all_that_is_theirs() -> None:
    found = mixed([record(1, 3), record(2, 5), record(2, 4)], [1, 2])
    assert (found.coefficient, found.nothing) == (0.5, None)
    assert found.names.tolist() == [2, 4]
    assert found.pair.ids.tolist() == [[2, 2, 0, 0, 0], [4, 4, 4, 4, 0]]
    assert found.pair.mask.dtype == torch.bool and torch.equal(found.pair.mask, found.pair.ids > 0)
    assert torch.equal(found.states, found.pair.ids.float().unsqueeze(-1).expand(-1, -1, 2))


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("microbatch", [3, 6])
def test_a_further_epoch_is_the_one_that_would_have_been_drawn(
    monkeypatch: pytest.MonkeyPatch, processes: int, microbatch: int
) -> None:
    """18 rollouts of 18 lengths in steps of 6; what all processes hold together, and each as many."""
    lengths = list(range(18, 0, -1))
    hands: list[list[list[list[int]]]] = []
    for rank in range(processes):
        monkeypatch.setattr(parallel, "_group", parallel.Group(rank, processes))
        parts = [
            record(*(lengths[i] for i in share(minibatch[start : start + microbatch], start)))
            for minibatch in drawn(lengths, 6, 3, 0)
            for start in range(0, 6, microbatch)
        ]
        hands.append([[part.names.tolist() for part in step] for step in redrawn(parts, 6, microbatch, 3, 1)])
    want: list[list[int]] = [[] for _ in range(3)]
    for hand in hands:
        for step, held in zip(want, hand, strict=True):
            step += [name for part in held for name in part]
            assert all(len(part) in (microbatch // processes, -(-microbatch // processes)) for part in held)
    neighbours = [[(name - 1) // 3 for name in sorted(step)] for step in want]
    assert neighbours == [list(range(6))] * 3 and sorted(sum(want, [])) == list(range(1, 19))
    assert sorted(map(sorted, want)) != sorted(sorted(lengths[i] for i in each) for each in drawn(lengths, 6, 3, 0))


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """Without a share of tokens where rounding decides of errors that are as large either way."""
    return {name: value for name, value in metrics.items() if name != "ppo/value_clipfrac"}


@pytest.mark.parametrize("options", [{}, {"rollouts": "mix", "live_share": 0.375}], ids=["fresh", "mix"])
def test_the_microbatch_changes_no_step(
    tiny_trunk: Callable[..., Trunk], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Two steps in each of two epochs; of a mix some microbatches hold live completions only, and some none."""
    config = PPOConfig(
        iterations=2, rollouts_per_iteration=16, max_new_tokens=12, minibatch=8, microbatch=8,
        learning_rate=1e-3, value_learning_rate=1e-3, max_kl_step=100.0, score_at="after_end", **options,
    )  # fmt: skip
    found = []
    for microbatch in (1, 2, 8):
        trunk = tiny_trunk(perturbed=True)
        where = {"checkpoint_dir": tmp_path / str(microbatch), "live": LIVE, "seed": 3}
        report = train_ppo(replace(config, microbatch=microbatch), trunk, PROMPTS, eos_ids=EOS, **where)  # type: ignore[arg-type]
        found.append(([figures(metrics) for metrics in report.history], trunk.state("policy")))
    assert found[0][0][0]["ppo/steps"] == 4
    start = tiny_trunk(perturbed=True).state("policy")
    assert max((weights - start[name]).abs().max() for name, weights in found[0][1].items()) > 1e-3
    for history, state in found[1:]:
        assert history == [pytest.approx(metrics, abs=1e-4, rel=1e-4) for metrics in found[0][0]]
        for name, weights in state.items():
            torch.testing.assert_close(weights, found[0][1][name], atol=2e-5, rtol=0)
