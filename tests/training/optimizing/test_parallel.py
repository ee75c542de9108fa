"""Training in two real processes against one: the same weights and figures, however unevenly the work is dealt."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tests.training.conftest import TrunkMaker, _tiny_model, _tiny_trunk
from training.config import AdapterConfig, PPOConfig, RewardConfig, SFTConfig
from training.model.roles import Role
from training.model.samples import RankedSamples, RatedSample, Sample, collate
from training.model.trunk import Trunk
from training.optimizing import parallel
from training.optimizing.parallel import gathered, leads, share, summed
from training.optimizing.sharding import shards
from training.optimizing.steps import OnProgress, silent
from training.ppo.ppo import PPOReport, train_ppo
from training.ppo.rollout import Sampled
from training.reward.reward import train_reward_model
from training.round.processes import in_processes, process_count
from training.sft.sft import train_sft

EOS = frozenset(range(2, 30))
PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (14,), (15, 16, 17, 18, 19)]
LIVE = [Sampled(Sample((20, 21), tuple(range(40, 40 + n))), (-5.0,) * n) for n in range(1, 7)]
PTX = [Sample((30 + n,), tuple(range(50, 51 + n)) + (2,)) for n in range(5)]
#: Three completions a microbatch for two processes, two microbatches a step, one demonstration for both at a time.
CONFIG = PPOConfig(
    iterations=2, rollouts_per_iteration=12, rollouts="mix", live_share=0.25, max_new_tokens=6, minibatch=6,
    microbatch=3, learning_rate=1e-3, value_learning_rate=1e-3, kl_target=0.1, kl_horizon=50, ptx_coef=0.5, ptx_batch=4,
    score_at="after_end", whiten_rewards=True, max_kl_step=10.0, ema_decay=0.9, entropy_coef=0.01,
)  # fmt: skip


def trained(config: PPOConfig, trunk: Trunk, **options: Any) -> tuple[PPOReport, list[dict[str, Tensor]]]:
    """PPO, and what policy and value have become in each of the processes."""
    report = train_ppo(config, trunk, PROMPTS, eos_ids=EOS, live=LIVE, ptx=PTX, seed=3, **options)
    return report, gathered([weights_of(trunk, "policy", "value")])


def weights_of(trunk: Trunk, *roles: Role) -> dict[str, Tensor]:
    return {f"{role}/{name}": tensor for role in roles for name, tensor in trunk.state(role).items()}


def bare() -> Trunk:
    """As it is made in the other process, without the weights of the test's."""
    return _tiny_trunk()


def same(found: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def figures(report: PPOReport) -> list[Any]:
    return [pytest.approx(metrics, abs=1e-5, rel=1e-5) for metrics in report.history]


def test_two_processes_make_the_updates_of_one_and_one_goes_on_from_two(tiny_trunk: TrunkMaker, tmp_path: Path) -> None:
    """One and two iterations by one process; then the first by two and the second by one, and both by two."""
    want, [weights] = trained(CONFIG, tiny_trunk(perturbed=True), checkpoint_dir=tmp_path / "one")
    told: list[int] = []

    def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        told.append(step)
        if step == 1 and metrics:
            shutil.copytree(tmp_path / "two", tmp_path / "half")

    report, states = in_processes(
        2, bare, trained, CONFIG, tiny_trunk(perturbed=True), progress=progress, checkpoint_dir=tmp_path / "two"
    )
    assert list(report.history) == figures(want)
    assert len(states) == 2 and all(torch.equal(t, states[1][name]) for name, t in states[0].items())
    same(states[0], weights)
    start = tiny_trunk(perturbed=True).state("policy")
    assert any((weights[f"policy/{name}"] - t).abs().max() > 1e-3 for name, t in start.items()), "it must have moved"
    assert set(told) == {0, 1, 2}
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]

    resumed, [ours] = trained(CONFIG, tiny_trunk(perturbed=True), checkpoint_dir=tmp_path / "half")
    assert resumed.history[0] == report.history[0]
    assert list(resumed.history) == figures(want)
    same(ours, weights)


TAUGHT = [Sample((60 + n % 3,), tuple(range(70, 71 + n)) + (2,)) for n in range(7)]
RANKED = [
    RankedSamples(tuple(Sample((80 + n % 3,), ids) for ids in ((90 + n, 2), (100, 101 + n), (7,) * (n + 3))), tiers)
    for n, tiers in enumerate([(0, 1, 0), (0, 1, 1), (2, 1, 0), (0, 1, 2), (1, 0, 1)])
]
RATED = [RatedSample(Sample((110,), (111, 2)), 1.0), RatedSample(Sample((112,), (113, 114, 2)), 0.0)]


def taught(shard: bool, trunk: Trunk, directory: Path, progress: OnProgress = silent) -> tuple[Any, ...]:
    """SFT, then a reward model, both in steps of three and of one; reports, and what the processes' weights are."""
    sft = SFTConfig(batch_size=3, token_budget=12, learning_rate=1e-3, shard_base=shard)
    told = train_sft(sft, trunk, TAUGHT, checkpoint_dir=directory / "sft", held_out=PTX, seed=1, progress=progress)
    reward = RewardConfig(
        batch_rankings=3, reward_heads=2, learning_rate=1e-3, held_out_fraction=0.0, token_budget=24, shard_base=shard
    )
    fitted = train_reward_model(reward, trunk, RANKED, RATED, checkpoint_dir=directory / "reward", progress=progress)
    return told, fitted, gathered([weights_of(trunk, "policy", "reward")])


def two_heads() -> Trunk:
    return Trunk(_tiny_model(), AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=2), reward_heads=2)


@pytest.mark.parametrize("shard", [False, True])
def test_sft_and_reward_model_come_to_the_same_in_two_processes(tmp_path: Path, shard: bool) -> None:
    *want, [weights] = taught(False, two_heads(), tmp_path / "one")
    *found, states = in_processes(2, two_heads, taught, shard, two_heads(), tmp_path / "two")
    for ours, theirs in zip(found, want, strict=True):
        assert vars(ours) == pytest.approx(vars(theirs), abs=1e-5)
    assert len(states) == 2 and all(torch.equal(t, states[1][name]) for name, t in states[0].items())
    same(states[0], weights)
    start = weights_of(two_heads(), "policy", "reward")
    for role in ("policy", "reward"):
        assert any((weights[n] - t).abs().max() > 1e-3 for n, t in start.items() if n.startswith(role))
    for stage in ("sft", "reward"):
        names = [{path.name for path in (tmp_path / count / stage).iterdir()} for count in ("one", "two")]
        assert names[0] == names[1]


def test_two_processes_that_hold_half_the_base_each_make_the_updates_of_one(
    tiny_trunk: TrunkMaker, tmp_path: Path
) -> None:
    """The second is without a demonstration in every step, yet must run the layers as often as the first."""
    want, [weights] = trained(CONFIG, tiny_trunk(perturbed=True), checkpoint_dir=tmp_path / "one")
    halves, trunk = replace(CONFIG, shard_base=True, gradient_checkpointing=True), tiny_trunk(perturbed=True)
    report, states = in_processes(2, bare, trained, halves, trunk, checkpoint_dir=tmp_path / "two")
    assert list(report.history) == figures(want)
    assert len(states) == 2 and all(torch.equal(t, states[1][name]) for name, t in states[0].items())
    same(states[0], weights)
    other = tiny_trunk(perturbed=True)
    other.load_state("policy", trunk.state("policy"))
    theirs = dict(other.merged())
    assert all(torch.equal(t, theirs[name]) for name, t in trunk.merged()), "whole again"


def everywhere() -> Trunk:
    """Adapters in every layer, so that all are run backwards."""
    return _tiny_trunk(perturbed=True, lora_layers=None)


def elements(layers: Sequence[nn.Module]) -> int:
    """Of the base's weights, as they are in this process's memory."""
    weights = [p for name, p in nn.ModuleList(layers).named_parameters() if "lora_" not in name]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in weights]
    return sum(each.untyped_storage().nbytes() // each.element_size() for each in local)


def held(config: None, trunk: Trunk, progress: OnProgress = silent) -> list[tuple[dict[str, int], Tensor]]:
    """Of each process: how much of the base it has at different times, and the gradient of its policy."""
    layers = list(trunk.model.model.layers)
    counts = {"before": elements(layers), "layers at once": 0}

    def note(*_: object) -> None:
        whole = sum(not isinstance(layer.input_layernorm.weight, DTensor) for layer in trunk.model.model.layers)
        counts["layers at once"] = max(counts["layers at once"], whole)

    with shards(trunk):
        twins = list(trunk.model.model.layers)
        counts["in shares"] = elements([*layers, *twins])
        for twin in twins:
            twin.mlp.register_forward_hook(note)
            twin.mlp.register_full_backward_hook(note)
        batch = collate(PTX, 0)
        hidden = trunk.lower(batch.input_ids, batch.attention_mask)
        trunk.log_probs(hidden, batch, "policy")[0].sum().backward()
        with trunk.whole():
            counts["for sampling"] = elements(trunk.model.model.layers)
        counts["in shares again"] = elements([*layers, *twins])
    counts["in the end"] = elements(trunk.model.model.layers)
    gradient = torch.cat([p.grad.flatten() for p in trunk.parameters("policy").values() if p.grad is not None])
    return gathered([(counts, gradient)])


def test_each_process_holds_half_of_the_layers_and_one_that_computes() -> None:
    """Of 9280 weights of a layer, adapters aside: 3072 of attention, 6144 of what follows it, 64 norms."""
    trunk = everywhere()
    batch = collate(PTX, 0)
    trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, "policy")[0].sum().backward()
    want = torch.cat([p.grad.flatten() for p in trunk.parameters("policy").values() if p.grad is not None])
    for counts, gradient in in_processes(2, everywhere, held, None, everywhere()):
        assert counts == {
            "before": 4 * 9280, "in shares": 2 * 9280, "layers at once": 1, "for sampling": 4 * 9280,
            "in shares again": 2 * 9280, "in the end": 4 * 9280,
        }  # fmt: skip
        torch.testing.assert_close(gradient, want, rtol=0, atol=1e-6)


@given(sizes=st.lists(st.integers(4, 9), min_size=1, max_size=6), processes=st.integers(1, 4))
def test_everything_is_dealt_once_and_evenly(sizes: list[int], processes: int) -> None:
    """Batches of at least as many as there are processes, dealt one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        hands = []
        for rank in range(processes):
            patch.setattr(parallel, "_group", parallel.Group(rank, processes))
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            hands.append([share(range(start, start + n), start) for start, n in zip(starts, sizes, strict=True)])
    assert sorted(i for hand in hands for part in hand for i in part) == list(range(sum(sizes)))
    assert all(part for hand in hands for part in hand)
    dealt = [sum(map(len, hand)) for hand in hands]
    assert max(dealt) - min(dealt) <= 1


@pytest.mark.parametrize(
    ("gpus", "wanted", "most", "count"),
    [(0, None, 16, 1), (0, 2, 16, 2), (0, 4, 3, 3), (8, None, 16, 8), (8, None, 4, 4), (2, 4, 16, 2), (4, 1, 16, 1)],
)
def test_there_are_as_many_processes_as_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: int | None, most: int, count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert process_count(wanted, most) == count


def lost(config: str, trunk: Trunk, note: Path, progress: OnProgress | None = None) -> None:
    """The second process notes who it is; it leaves, or is there until the first one is gone."""
    if leads():
        summed({"never": 1.0})
    note.write_text(str(os.getpid()))
    if config == "leaves":
        os._exit(3)
    signal.pause()


def test_no_process_is_waited_for_in_vain(trunk: Trunk, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="closed by peer|reset by peer"):
        in_processes(2, bare, lost, "leaves", trunk, tmp_path / "note")


def test_no_process_outlives_the_one_that_leads(trunk: Trunk, tmp_path: Path) -> None:
    """Killed (SIGKILL): it cannot take anybody along itself."""
    note = tmp_path / "note"
    leading = multiprocessing.get_context("fork").Process(target=in_processes, args=(2, bare, lost, "", trunk, note))
    leading.start()
    try:
        until(lambda: note.exists() and note.read_text() != "")
    finally:
        leading.kill()
        leading.join()
    until(lambda: gone(int(note.read_text())))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """True for a process that has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
