"""What every sampler of PPO does: the trainer's own on the tiny model, vLLM's on a real one."""

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.conftest import TrunkMaker
from training.config import AdapterConfig, PPOConfig
from training.model.samples import collate
from training.model.trunk import Trunk
from training.ppo import samplers, vllm_needed
from training.ppo.ppo import train_ppo
from training.ppo.pushed import PushFailed
from training.ppo.rollout import Sampled, Sampler, own_sampler
from training.ppo.samplers import chosen_sampler, wants_engine
from training.ppo.vllm_needed import vllm_missing
from training.ppo.vllm_sampler import VLLMSampler, started

CONFIG = PPOConfig(rollouts_per_iteration=8, minibatch=8, microbatch=8, max_new_tokens=12, lora_layers=4)
FIRST = dataclasses.replace(CONFIG, temperature=0.5, max_new_tokens=1)
LONG = tuple(range(3, 163))  # more than a block of vLLM's cache, which keeps whole blocks only
REAL = [pytest.mark.e2e, pytest.mark.timeout(900)]


@dataclasses.dataclass(frozen=True)
class Writer:
    """A trunk whose policy has moved away from the base, and who writes for it."""

    trunk: Trunk
    prompts: list[tuple[int, ...]]
    eos_ids: frozenset[int]
    engine: Any = None

    def sampler(self, config: PPOConfig = CONFIG) -> Sampler:
        if self.engine is None:
            return own_sampler(self.trunk, config, self.eos_ids)
        self.engine.collective_rpc("reload_weights")  # of the directory it was started with
        self.engine.reset_prefix_cache()
        return VLLMSampler(self.trunk, config, self.eos_ids, self.engine)

    def log_probs(self, sampled: list[Sampled], temperature: float) -> Tensor:
        """The trainer's (N,), one completion after another."""
        batch = collate([item.sample for item in sampled], 0)
        with torch.no_grad():
            hidden = self.trunk.lower(batch.input_ids, batch.attention_mask)
            return self.trunk.log_probs(hidden, batch, "policy", temperature)[0][batch.completion_mask]


def move(trunk: Trunk, seed: int, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in trunk.parameters("policy").items():
        if "lora_B" in name:
            weight.data.normal_(std=size, generator=generator)


@pytest.fixture(scope="module")
def engine(real_model: Path) -> Iterator[Any]:
    dtype = Trunk.load(real_model, AdapterConfig(lora_layers=1)).model.dtype
    with started(real_model, dtype, max_tokens=256) as engine:
        yield engine


@pytest.fixture
def vllm(engine: Any, real_model: Path) -> Writer:
    trunk = Trunk.load(real_model, CONFIG)
    move(trunk, seed=1)
    chat = [1, 4093, 198, 57, 2, 198, 1, 520, 9531, 198]
    prompts = [tuple([*chat[:3], 700 + 31 * n, *([800 + n] * (n % 3)), *chat[4:]]) for n in range(16)]
    return Writer(trunk, prompts, frozenset([2, 28, 30]), engine)  # commas and full stops, so that some end early


@pytest.fixture
def own(tiny_trunk: TrunkMaker) -> Writer:
    prompts = [tuple(range(5 + n, 8 + n + n % 3)) for n in range(16)]
    return Writer(tiny_trunk(perturbed=True), prompts, frozenset(range(2, 60)))


@pytest.fixture(params=["own", pytest.param("vllm", marks=REAL)])
def writer(request: pytest.FixtureRequest) -> Writer:
    found: Writer = request.getfixturevalue(request.param)
    return found


def sample(sampler: Sampler, prompts: list[tuple[int, ...]], seed: int = 0) -> list[Sampled]:
    return list(sampler(prompts, seed=seed, alive=lambda: None))


def test_one_completion_of_each_prompt_up_to_its_stop_token(writer: Writer) -> None:
    alive: list[None] = []
    sampled = writer.sampler()(writer.prompts, seed=0, alive=lambda: alive.append(None))
    assert [item.sample.prompt_ids for item in sampled] == writer.prompts
    completions = [item.sample.completion_ids for item in sampled]
    assert not any(set(completion[:-1]) & writer.eos_ids for completion in completions)
    finished = [completion[-1] in writer.eos_ids for completion in completions]
    assert 0 < sum(finished) < len(finished)
    assert {len(c) for c, done in zip(completions, finished, strict=True) if not done} == {CONFIG.max_new_tokens}
    assert alive


def test_the_seed_and_the_weights_decide(writer: Writer) -> None:
    """And nothing that came before: a sampler made anew, as for a resumed run, goes on with the same completions."""
    prompts = [(*LONG, *prompt) for prompt in writer.prompts[:8]]
    sampler, weights = writer.sampler(), writer.trunk.state("policy")
    first = sample(sampler, prompts, seed=1)
    assert sample(sampler, prompts, seed=2) != first
    move(writer.trunk, seed=2)
    other = sample(sampler, prompts, seed=1)
    assert other != first
    assert sample(writer.sampler(), prompts, seed=1) == other
    writer.trunk.load_state("policy", weights)
    assert sample(sampler, prompts, seed=1) == first
    assert len({item.sample.completion_ids for item in sample(sampler, prompts[:1] * 8)}) > 1


def test_the_policy_is_sampled_at_its_temperature(writer: Writer) -> None:
    """The first tokens of 500 completions against the trainer's softmax."""
    prompt, count = writer.prompts[0], 500
    with torch.no_grad():
        writer.trunk._activate("policy")
        logits = writer.trunk.model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    drawn = sample(writer.sampler(FIRST), [prompt] * count)
    counts = torch.bincount(torch.tensor([s.sample.completion_ids[0] for s in drawn]), minlength=len(logits))
    want = (logits / FIRST.temperature).softmax(-1)
    top = want.topk(6)
    for p, index in zip(top.values, top.indices, strict=True):
        assert abs(counts[index] - count * p) < 4 * (count * p * (1 - p)).sqrt() + 0.1 * count * p  # bf16
    half_as_hot = (logits / FIRST.temperature * 2).softmax(-1)[top.indices[0]]
    assert counts[top.indices[0]] < 0.8 * count * half_as_hot  # and that is told apart


def test_behaviour_log_probs_are_those_of_the_policy_at_its_temperature(writer: Writer) -> None:
    sampler = writer.sampler(dataclasses.replace(CONFIG, temperature=0.7))
    sample(sampler, writer.prompts)
    move(writer.trunk, seed=2, size=0.06)
    sampled = sample(sampler, writer.prompts)
    if all(item.log_probs is None for item in sampled):
        return  # the trainer's own are those that it computes
    theirs = torch.tensor([x for item in sampled for x in item.log_probs or ()])
    tolerance = 0.1 if writer.trunk.model.dtype == torch.bfloat16 else 1e-3
    assert (theirs - writer.log_probs(sampled, 0.7)).abs().mean() < tolerance
    assert (theirs - writer.log_probs(sampled, 1.0)).abs().mean() > tolerance


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_push_that_does_not_arrive_is_noticed(vllm: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = vllm.sampler()
    sample(sampler, vllm.prompts)
    move(vllm.trunk, seed=1, size=0.0201)  # a half per cent further than it was
    with monkeypatch.context() as broken:
        broken.setattr(VLLMSampler, "_load", lambda self, weights: list(weights))
        for _ in range(2):  # also whoever tries again
            with pytest.raises(PushFailed, match="weights it had before"):
                sample(sampler, vllm.prompts)
    assert sample(sampler, vllm.prompts)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_first_push_and_a_third_policy_are_looked_at_as_well(vllm: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    move(vllm.trunk, seed=1, size=0.12)
    with monkeypatch.context() as broken:
        broken.setattr(VLLMSampler, "_load", lambda self, weights: list(weights))
        with pytest.raises(PushFailed):
            sample(vllm.sampler(), vllm.prompts)
    load = VLLMSampler._load

    def another(self: VLLMSampler, weights: Iterator[tuple[str, Tensor]]) -> None:
        list(weights)
        right = self._trunk.state("policy")
        move(self._trunk, seed=7, size=0.12)
        load(self, self._trunk.merged("policy", self._trunk.model.dtype))
        self._trunk.load_state("policy", right)

    monkeypatch.setattr(VLLMSampler, "_load", another)
    with pytest.raises(PushFailed):
        sample(vllm.sampler(), vllm.prompts)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_ppo_learns_from_it_and_resumes_exactly(vllm: Writer, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if metrics:
            raise Interrupted

    config = dataclasses.replace(CONFIG, iterations=2, epochs=1)
    begin = {role: vllm.trunk.state(role) for role in ("policy", "value")}

    def train(name: str, progress: Any = lambda *_: None) -> dict[str, Tensor]:
        for role, state in begin.items():
            vllm.trunk.load_state(role, state)
        sampler, directory = vllm.sampler(config), tmp_path / name
        train_ppo(config, vllm.trunk, vllm.prompts, eos_ids=vllm.eos_ids, checkpoint_dir=directory,
                  progress=progress, sampler=sampler)  # fmt: skip
        return vllm.trunk.state("policy")

    undisturbed = train("whole")
    assert any(not tensor.equal(begin["policy"][name]) for name, tensor in undisturbed.items())
    with pytest.raises(Interrupted):
        train("halves", interrupt)
    resumed = train("halves")
    assert all(tensor.equal(undisturbed[name]) for name, tensor in resumed.items())


def test_an_engine_is_started_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 12 * 32 * 40 tokens of 134.5e6 weights are 2.07e12; half as many, as in a round by default, 1.03e12."""
    monkeypatch.setattr(samplers, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)  # it is while another test's engine runs
    config = PPOConfig(iterations=12)
    assert wants_engine(config, 134_515_008)
    assert not wants_engine(config, 1_000_000)
    assert not wants_engine(PPOConfig(), 134_515_008)
    assert not wants_engine(dataclasses.replace(config, rollouts="live", sampler="vllm"), 134_515_008)
    assert not wants_engine(dataclasses.replace(config, sampler="trainer"), 134_515_008)
    assert not wants_engine(dataclasses.replace(config, rollouts="mix", live_share=0.5), 134_515_008)
    assert not wants_engine(dataclasses.replace(config, rollouts="live"), 10**12)
    assert wants_engine(dataclasses.replace(config, sampler="vllm"), 1)
    with monkeypatch.context() as parallel:
        parallel.setattr(torch.distributed, "is_initialized", lambda: True)
        assert not wants_engine(config, 134_515_008)
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    assert not wants_engine(config, 134_515_008)


def test_the_trainer_samples_where_vllm_does_not_start(
    own: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction set")

    monkeypatch.setattr(samplers, "started", broken)
    monkeypatch.setattr(samplers, "wants_engine", lambda *_: True)

    def sampled(config: PPOConfig) -> list[Sampled]:
        facts = {"eos_ids": own.eos_ids, "base_directory": tmp_path}
        with chosen_sampler(config, own.trunk, own.prompts, **facts) as sampler:
            return sample(sampler, own.prompts)

    assert sampled(CONFIG) == sample(own.sampler(), own.prompts)
    assert "no such instruction set" in caplog.text
    with pytest.raises(RuntimeError, match="instruction set"):
        sampled(dataclasses.replace(CONFIG, sampler="vllm"))


def test_several_processes_sample_by_themselves_and_say_so(
    own: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    facts = {"eos_ids": own.eos_ids, "base_directory": tmp_path, "processes": 2}
    with chosen_sampler(CONFIG, own.trunk, own.prompts, **facts) as sampler:
        assert sampler is None
    assert not caplog.text
    monkeypatch.setattr(samplers, "wants_engine", lambda *_: True)
    with chosen_sampler(CONFIG, own.trunk, own.prompts, **facts) as sampler:
        assert sampler is None
    assert "each samples its share by itself" in caplog.text
    insists = dataclasses.replace(CONFIG, sampler="vllm")
    with pytest.raises(ValueError, match="of 2 processes"), chosen_sampler(insists, own.trunk, own.prompts, **facts):
        pass


def test_vllm_that_is_insisted_on_is_missed_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    insists = dataclasses.replace(CONFIG, sampler="vllm")
    live = dataclasses.replace(insists, rollouts="live")
    monkeypatch.setattr(vllm_needed, "find_spec", lambda name: SimpleNamespace(name=name))
    assert vllm_missing(insists) is None
    assert "of 3 processes that train" in str(vllm_missing(insists, 3))
    assert vllm_missing(CONFIG, 3) is None and vllm_missing(live, 3) is None
    monkeypatch.setattr(vllm_needed, "find_spec", lambda name: None)
    assert "not installed" in str(vllm_missing(insists))
    assert vllm_missing(CONFIG) is None and vllm_missing(live) is None


def test_vllm_is_not_imported_before_an_engine_starts() -> None:
    assert importlib.util.find_spec("vllm") is not None
    code = "import sys, training.round.torch_stages; print('vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
