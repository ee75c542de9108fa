"""A reward model that trains all weights of its layers: what it learns, and that it is one like any other then."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification, PreTrainedTokenizerFast

from tests.training.conftest import ModelMaker, _tiny_model
from tests.training.people import CONFIG, file_of, planted
from training.config import AdapterConfig, PPOConfig, RewardConfig, RoundConfig
from training.model.classifier import export_classifier
from training.model.own_layers import LAYERS_FILE
from training.model.roles import Role
from training.model.samples import RankedSamples, RatedSample, Sample, collate
from training.model.trunk import Trunk
from training.offline import policy as offline_policy
from training.offline import reward as offline_reward
from training.offline import scores as offline_scores
from training.offline.reward_models import in_directory
from training.optimizing.parallel import gathered
from training.ppo.ppo import train_ppo
from training.reward.reward import train_reward_model
from training.round.processes import in_processes

ADAPTER = AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=2)
PAIRS = [
    RankedSamples((Sample((5, 6, n), (7 + n, 2)), Sample((5, 6, n), (40, 41 + n, 42, 2))), (n % 2, 1 - n % 2))
    for n in range(6)
]
SAMPLES = [sample for pair in PAIRS for sample in pair.samples]
FULL = RewardConfig(
    trains="full", learning_rate=1e-3, epochs=2, batch_rankings=6, held_out_fraction=0.0, token_budget=32, lora_layers=2
)
#: Of four layers the upper two, and the last norm.
TRAINED = ("model.layers.2.", "model.layers.3.", "model.norm.")


@pytest.fixture
def make(tiny_model: ModelMaker) -> Callable[..., Trunk]:
    def make(dtype: torch.dtype = torch.float32, full: bool = True, layers: int | None = 2) -> Trunk:
        return Trunk(tiny_model(dtype), replace(ADAPTER, lora_layers=layers), full_reward=full)

    return make


def trained(trunk: Trunk, directory: Path, config: RewardConfig = FULL) -> Trunk:
    train_reward_model(config, trunk, PAIRS, checkpoint_dir=directory)
    return trunk


def scores(trunk: Trunk) -> Tensor:
    return trunk.score(collate(SAMPLES, trunk.pad_id))


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(t, wanted[n]) for n, t in found.items())


@pytest.mark.parametrize("layers", [2, None])
def test_it_learns_as_a_plain_classifier_does_under_adamw(
    make: Callable[..., Trunk], tiny_model: ModelMaker, tmp_path: Path, layers: int | None
) -> None:
    """Four steps on all pairs at once: the mean of -log sigmoid(better - worse), gradients scaled to a norm of 1.

    Adam makes steps of the learning rate, 1e-4 at most, out of gradients however small, even of what rounding leaves.
    Two of the steps are warm-up.
    """
    trunk = make(layers=layers)
    model = tiny_model()
    model.config.num_labels = 1
    model.config.pad_token_id = None  # it is a token that ends our answers, which would be passed over
    plain = LlamaForSequenceClassification(model.config).eval()
    plain.model.load_state_dict(model.model.state_dict())
    plain.score.weight.data.copy_(trunk.heads["reward"].weight)
    config = replace(FULL, lora_layers=layers, learning_rate=1e-4, epochs=4, warmup=0.5)
    trunk = trained(trunk, tmp_path, config)
    rates = (1e-4 / 3, 2e-4 / 3, 1e-4, 1e-4 / 2)
    fit_plainly(plain, TRAINED if layers else ("model.layers.", "model.norm."), rates)
    learnt = {name: weight.detach() for name, weight in plain.named_parameters()}
    ours, start = trunk.state("reward"), dict(model.named_parameters())
    moved = {name for name, weight in start.items() if not torch.equal(weight, learnt[name])}
    assert moved == {name for name in ours if not name.startswith("head.")}
    assert len(moved) == 9 * (layers or 4) + 1  # nine matrices and norms to a layer, and the last norm
    for name in moved:
        torch.testing.assert_close(ours[name], learnt[name], rtol=0, atol=1e-5)
        assert (ours[name] - learnt[name]).norm() < 1e-2 * (learnt[name] - start[name]).norm()
    torch.testing.assert_close(ours["head.weight"], learnt["score.weight"], rtol=0, atol=1e-5)


def fit_plainly(model: nn.Module, trains: tuple[str, ...], rates: tuple[float, ...]) -> None:
    weights = [p for name, p in model.named_parameters() if name.startswith((*trains, "score."))]
    optimizer = torch.optim.AdamW(weights, weight_decay=0)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        ranked = [sorted(zip(pair.tiers, pair.samples, strict=True), key=lambda each: each[0]) for pair in PAIRS]
        scored = torch.stack([torch.stack([plain_score(model, sample) for _, sample in each]) for each in ranked])
        optimizer.zero_grad()
        (-nn.functional.logsigmoid(scored[:, 0] - scored[:, 1]).mean()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()


def plain_score(model: nn.Module, sample: Sample) -> Tensor:
    logit: Tensor = model(input_ids=torch.tensor([sample.prompt_ids + sample.completion_ids])).logits[0, 0]
    return logit


def test_it_begins_as_the_base_and_nothing_but_its_layers_learns(make: Callable[..., Trunk], tmp_path: Path) -> None:
    trunk = make()
    batch = collate(SAMPLES, 0)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    with torch.no_grad():
        states = [trunk.upper(hidden, batch.attention_mask, role) for role in (None, "reward", "value")]
    assert torch.equal(states[1], states[0]) and torch.equal(states[2], states[0])
    base = {name: weight.detach().clone() for name, weight in trunk.model.named_parameters()}
    value, before = trunk.state("value"), trunk.state("reward")
    trunk.scores(hidden, batch).sum().backward()
    got = {name for name, weight in trunk.parameters("reward").items() if weight.grad is not None}
    assert got == before.keys() and all(weight.grad is None for weight in trunk.model.parameters())
    assert all(weight.grad is None for weight in trunk.parameters("value").values())
    trained(trunk, tmp_path)
    assert all(torch.equal(weight, base[name]) for name, weight in trunk.model.named_parameters())
    assert same(trunk.state("value"), value)
    assert all(not torch.equal(weight, before[name]) for name, weight in trunk.state("reward").items())
    assert {name for name in before if not name.startswith((*TRAINED, "head."))} == set()


def test_saved_layers_come_back_and_are_no_adapter(make: Callable[..., Trunk], tmp_path: Path) -> None:
    trunk = trained(make(), tmp_path / "checkpoints")
    trunk.set_temperature(2.0)
    trunk.save_adapter("reward", tmp_path / "reward")
    assert {path.name for path in (tmp_path / "reward").iterdir()} == {LAYERS_FILE, "head.safetensors"}
    again = make()
    again.load_adapter("reward", tmp_path / "reward")
    assert same(again.state("reward"), trunk.state("reward")) and again.temperature == 2.0
    assert torch.equal(scores(again), scores(trunk))
    with pytest.raises(ValueError, match='whole layers are no adapter: they need reward.trains "full"'):
        make(full=False).load_adapter("reward", tmp_path / "reward")
    with pytest.raises(ValueError, match="do not fit the reward adapter"):
        make(layers=1).load_adapter("reward", tmp_path / "reward")
    with pytest.raises(ValueError, match="not one that trains: adapter"):
        trained(again, tmp_path / "other", replace(FULL, trains="adapter"))


def test_layers_go_on_from_an_adapter(perturbed: Trunk, make: Callable[..., Trunk], tmp_path: Path) -> None:
    nn.init.normal_(perturbed.heads["reward"].weight)
    perturbed.save_adapter("reward", tmp_path)
    trunk = make()
    trunk.load_adapter("reward", tmp_path)
    assert scores(perturbed).std() > 0.1
    torch.testing.assert_close(scores(trunk), scores(perturbed), rtol=0, atol=1e-5)


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_comes_to_the_same_weights(make: Callable[..., Trunk], tmp_path: Path) -> None:
    def stop(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 4:
            raise Stopped

    config = replace(FULL, batch_rankings=2, checkpoint_every=3)
    whole = trained(make(), tmp_path / "whole", config)
    with pytest.raises(Stopped):
        train_reward_model(config, make(), PAIRS, checkpoint_dir=tmp_path / "broken", progress=stop)
    assert same(trained(make(), tmp_path / "broken", config).state("reward"), whole.state("reward"))


def test_others_load_it_and_score_the_same(
    make: Callable[..., Trunk], base_directory: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trunk = trained(make(), tmp_path / "checkpoints", replace(FULL, learning_rate=1e-2))
    export_classifier(trunk, tmp_path / "out", base_directory=base_directory)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        theirs = torch.stack([plain_score(classifier, sample) for sample in SAMPLES])
    assert scores(trunk).std() > 0.1
    torch.testing.assert_close(theirs + classifier.config.score_bias, scores(trunk), rtol=0, atol=1e-5)


def test_it_learns_in_fp32_where_the_base_computes_in_bf16(make: Callable[..., Trunk], tmp_path: Path) -> None:
    """Steps of 1e-4 are lost on most bf16 weights, whose neighbours are 2^-8 of themselves apart."""
    trunks = [trained(make(dtype), tmp_path / str(dtype), replace(FULL, learning_rate=1e-4)) for dtype in DTYPES]
    start = make(torch.bfloat16).state("reward")
    ours = trunks[1].state("reward")
    assert {weight.dtype for weight in ours.values()} == {torch.float32}
    assert all((weight != start[name]).float().mean() > 0.9 for name, weight in ours.items())
    assert torch.equal(trunks[1].model.lm_head.weight, make(torch.bfloat16).model.lm_head.weight)
    assert scores(trunks[1]).dtype is torch.float32
    assert multiplied_in(trunks[1]) == {torch.bfloat16} and multiplied_in(trunks[0]) == {torch.float32}
    assert (scores(trunks[1]) - scores(trunks[0])).norm() < 0.1 * scores(trunks[0]).norm()


def multiplied_in(trunk: Trunk) -> set[torch.dtype]:
    """What the reward model's linear layers give, its head not counted."""
    assert trunk._own is not None
    seen: set[torch.dtype] = set()
    for module in trunk._own.decoder.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    scores(trunk)
    return seen


DTYPES = (torch.float32, torch.bfloat16)


def test_ppos_values_begin_as_its_scores_and_leave_it_alone(make: Callable[..., Trunk], tmp_path: Path) -> None:
    trunk = trained(make(), tmp_path / "checkpoints")
    before = scores(trunk)
    with torch.no_grad():
        for name, weight in trunk.parameters("value").items():
            weight.fill_(0.1 if "lora_B" in name else 1.0)  # as if it had been trained before
    assert torch.equal(scores(trunk), before)
    batch = collate(SAMPLES, 0)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    trunk.copy_role("reward", "value")
    with torch.no_grad():
        assert torch.equal(*(trunk.upper(hidden, batch.attention_mask, role) for role in ("value", "reward")))
    assert torch.equal(trunk.heads["value"].weight, trunk.heads["reward"].weight)
    for weight in trunk.parameters("reward").values():
        weight.grad = None
    trunk.values(hidden, batch).sum().backward()
    assert all(weight.grad is None for weight in trunk.parameters("reward").values())
    assert all(weight.grad is not None for weight in trunk.parameters("value").values())
    reward, value = trunk.state("reward"), trunk.state("value")
    config = PPOConfig(
        iterations=2, rollouts_per_iteration=4, minibatch=4, microbatch=2, max_new_tokens=4, lora_layers=2
    )
    report = train_ppo(config, trunk, [(5, 6, 7), (8, 9)], eos_ids=frozenset({2}), checkpoint_dir=tmp_path / "ppo")
    assert report.iterations == 2
    assert same(trunk.state("reward"), reward)
    assert all(not torch.equal(weight, value[name]) for name, weight in trunk.state("value").items())
    resumed = make()
    resumed.load_state("reward", reward)
    again = train_ppo(config, resumed, [(5, 6, 7), (8, 9)], eos_ids=frozenset({2}), checkpoint_dir=tmp_path / "ppo")
    assert again == report and same(resumed.state("value"), trunk.state("value"))


def bare() -> Trunk:
    """Importable, as other processes need it."""
    return Trunk(_tiny_model(), ADAPTER, full_reward=True)


def fitted(config: RewardConfig, trunk: Trunk, directory: Path, **_: object) -> list[dict[str, Tensor]]:
    train_reward_model(config, trunk, PAIRS, [RatedSample(SAMPLES[0], 1.0)], checkpoint_dir=directory)
    return gathered([trunk.state("reward")])


def test_two_processes_come_to_the_same(tmp_path: Path) -> None:
    [alone] = fitted(FULL, bare(), tmp_path / "one")
    ours, theirs = in_processes(2, bare, fitted, FULL, bare(), tmp_path / "two")
    assert same(ours, theirs)
    torch.testing.assert_close(ours, alone, rtol=1e-3, atol=1e-5)


def test_from_a_file_to_a_policy_against_it(base_directory: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, reward=replace(CONFIG.reward, trains="full", learning_rate=2e-3))
    file = file_of(tmp_path / "rankings.jsonl", planted(40))
    data = offline_reward.of_file(file, "auto", base=base_directory, config=config)
    report = offline_reward.train_on(data, source="f", base=base_directory, out=tmp_path / "rm", classifier=True)
    assert report.held_out is not None and report.held_out.accuracy.mean > 0.8
    model = in_directory(tmp_path / "rm")
    assert model.config.trains == "full"
    line = json.dumps({"prompt": "abc", "completion": "zzxy"}).encode()
    [scored] = offline_scores.score_lines(model, [(1, line)])
    assert isinstance(scored, dict) and isinstance(scored["score"], float)
    assert offline_reward.evaluate_on(model, offline_reward.Evidence(data.held_out_rankings)) == (
        report.held_out,
        None,
        0,
    )
    short = PPOConfig(
        iterations=1, rollouts_per_iteration=4, minibatch=4, microbatch=4, max_new_tokens=4,
        lora_rank=8, lora_alpha=16, lora_layers=2,
    )  # fmt: skip
    practice = offline_policy.prompts_of_file(file, "auto", base=base_directory, config=replace(config, ppo=short))
    told = offline_policy.ppo_on(
        practice, model=model, policy=None, config=RoundConfig(sft=config.sft, reward=model.config, ppo=short),
        source="f", out=tmp_path / "ppo",
    )  # fmt: skip
    assert len(told.history) == 1


ROLES_LEFT: tuple[Role, ...] = ("policy", "ref", "stable")


def test_other_roles_are_adapters_as_ever(make: Callable[..., Trunk]) -> None:
    full, plain = make(), make(full=False)
    assert all(same(full.state(role), plain.state(role)) for role in ROLES_LEFT)


def test_a_values_graph_outlives_the_reward_being_asked(make: Callable[..., Trunk]) -> None:
    """As in PPO, were it to score before it runs backward."""
    trunk = make()
    batch = collate(SAMPLES, pad_id=2)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    loss = trunk.values(hidden, batch).square().sum()
    trunk.score(batch)
    loss.backward()
    assert all(p.grad is not None for p in trunk.parameters("value").values())
