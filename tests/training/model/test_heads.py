"""Many heads on one trunk: what each is fitted to, and how they become more or fewer."""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from training.config import AdapterConfig, RewardConfig
from training.model.heads import bootstrap_weights, fitted, poisson, spread
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample, collate
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.reward.likelihoods import Labels, log_likelihood
from training.reward.reward import Weighed, _backward, train_reward_model

Maker = Callable[..., LlamaForCausalLM]
SAMPLES = [Sample((5, 6, 7), (8, 9, 2)), Sample((5, 6, 7), (10, 11)), Sample((3,), (20, 21, 22, 23))]


def trunk_of(tiny_model: Maker, heads: int, seed: int = 0) -> Trunk:
    return Trunk(tiny_model(), AdapterConfig(lora_rank=8, lora_layers=2), reward_heads=heads, seed=seed)


def ranking(n: int, rater: str = "r") -> RankedSamples:
    return RankedSamples((Sample((n, 3), (5, 2)), Sample((n, 3), (6, 7, 2))), (0, 1), rater=rater)


def test_poisson_has_its_probabilities() -> None:
    draw = random.Random(0)
    counts = Counter(poisson(draw) for _ in range(20_000))
    for k in range(5):
        p = math.exp(-1) / math.factorial(k)
        assert abs(counts[k] - 20_000 * p) < 4 * math.sqrt(20_000 * p * (1 - p))


def test_a_head_draws_by_seed_judgement_and_place() -> None:
    first = bootstrap_weights(ranking(1), 5, 7)
    assert bootstrap_weights(ranking(1), 5, 7) == first
    assert bootstrap_weights(ranking(1), 3, 7) == first[:3]  # more heads change nothing for those before
    assert bootstrap_weights(replace(ranking(1), weight=0.3), 5, 7) == first  # nor does what others do to its weight
    others = [ranking(2), ranking(1, "s"), replace(ranking(1), tiers=(1, 0)), RatedSample(ranking(1).samples[0], 1.0)]
    assert len({first, bootstrap_weights(ranking(1), 5, 8), *(bootstrap_weights(o, 5, 7) for o in others)}) == 6
    assert {bootstrap_weights(ranking(n), 1, 7) for n in range(50)} == {(1.0,)}


def test_weights_of_a_seed_stay_what_they_were() -> None:
    """A round that is resumed elsewhere must draw the same."""
    assert bootstrap_weights(ranking(1), 6, 0) == (1.0, 0.0, 1.0, 1.0, 1.0, 0.0)


def test_the_score_is_the_mean_of_the_heads(tiny_model: Maker) -> None:
    trunk = trunk_of(tiny_model, 3)
    batch = collate(SAMPLES, 0)
    with torch.no_grad():
        trunk.heads["reward"].bias.copy_(torch.tensor([0.0, 3.0, -1.0]))
        hidden = trunk.lower(batch.input_ids, batch.attention_mask)
        states = trunk.upper(hidden, batch.attention_mask, "reward")[torch.arange(3), batch.lengths - 1]
        by_head = torch.stack(
            [states @ w + b for w, b in zip(trunk.heads["reward"].weight, (0.0, 3.0, -1.0), strict=True)], dim=1
        )
        torch.testing.assert_close(trunk.head_scores(hidden, batch), by_head, rtol=0, atol=1e-5)
        torch.testing.assert_close(trunk.scores(hidden, batch), by_head.sum(1) / 3, rtol=0, atol=1e-5)
        scorer = Scorer(trunk, SAMPLES, RewardConfig(reward_heads=3))
        torch.testing.assert_close(scorer.by_head(SAMPLES), by_head, rtol=0, atol=1e-5)
        torch.testing.assert_close(scorer.all_by_head(SAMPLES), by_head, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(scorer.all(SAMPLES)), by_head.sum(1) / 3, rtol=0, atol=1e-5)
    assert scorer.all([]) == []


def test_heads_of_another_number_keep_the_mean() -> None:
    """By hand: three become their mean, or two that differ from it as they differed."""
    saved = {"weight": torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]]), "bias": torch.tensor([1.0, 2.0, 6.0])}
    one, two, three = nn.Linear(2, 1), nn.Linear(2, 2), nn.Linear(2, 3)
    with torch.no_grad():
        two.weight.copy_(torch.tensor([[0.5, 0.0], [0.1, 0.4]]))
        two.bias.zero_()
    assert fitted(saved, three) == saved
    torch.testing.assert_close(fitted(saved, one), {"weight": torch.tensor([[3.0, 3.0]]), "bias": torch.tensor([3.0])})
    want = {"weight": torch.tensor([[3.2, 2.8], [2.8, 3.2]]), "bias": torch.tensor([3.0, 3.0])}
    torch.testing.assert_close(fitted(saved, two), want)


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 1), (1, 4), (2, 3)])
def test_a_saved_reward_model_scores_the_same_with_more_or_fewer_heads(
    tiny_model: Maker, tmp_path: Path, before: int, after: int
) -> None:
    saved, loaded = trunk_of(tiny_model, before), trunk_of(tiny_model, after, seed=1)
    torch.nn.init.normal_(saved.heads["reward"].weight, generator=torch.Generator().manual_seed(3))
    saved.save_adapter("reward", tmp_path)
    loaded.load_adapter("reward", tmp_path)
    batch = collate(SAMPLES, 0)
    torch.testing.assert_close(loaded.score(batch), saved.score(batch), rtol=0, atol=1e-5)
    assert len({tuple(row) for row in loaded.heads["reward"].weight.tolist()}) == after
    assert torch.equal(loaded.heads["reward"].weight, saved.heads["reward"].weight) == (before == after)


def test_values_begin_as_the_mean_of_the_heads(tiny_model: Maker, tmp_path: Path) -> None:
    trunk = trunk_of(tiny_model, 3)
    with torch.no_grad():
        trunk.heads["reward"].bias.copy_(torch.tensor([0.0, 3.0, -1.5]))
    trunk.copy_role("reward", "value")
    head = trunk.heads["value"]
    torch.testing.assert_close(head.weight[0], trunk.heads["reward"].weight.sum(0) / 3)
    assert head.bias.item() == pytest.approx(0.5, abs=1e-6)
    trunk.save_adapter("reward", tmp_path)
    other = trunk_of(tiny_model, 3)
    other.load_adapter("value", tmp_path)
    torch.testing.assert_close(other.state("value"), trunk.state("value"))


@pytest.mark.parametrize("budget", [1, 4096])
def test_gradients_are_those_of_the_mean_over_heads_of_their_weighted_losses(tiny_model: Maker, budget: int) -> None:
    trunk, labels = trunk_of(tiny_model, 3), Labels("davidson")
    judgements: list[Judgement] = [replace(ranking(1), weight=0.5), ranking(2), RatedSample(SAMPLES[2], 1.0, 2.0)]
    drawn = [(1.0, 0.0, 2.0), (0.0, 0.0, 1.0), (1.0, 3.0, 1.0)]
    config = RewardConfig(token_budget=budget, reward_heads=3)
    scorer = Scorer(trunk, [], config)
    losses = []
    for judgement, counts in zip(judgements, drawn, strict=True):
        scores = scorer.by_head(judgement.samples)
        for head, count in enumerate(counts):
            losses.append(-judgement.weight * count * log_likelihood([judgement], scores[:, head], labels)[0])
    want_loss = torch.stack(losses).sum() / (3 * 3.5)
    parameters = {**trunk.parameters("reward"), **dict(labels.named_parameters())}
    want = torch.autograd.grad(want_loss, list(parameters.values()))
    step = [Weighed(j, tuple(j.weight * n for n in counts)) for j, counts in zip(judgements, drawn, strict=True)]
    assert _backward(config, scorer, labels, step, 3.5) == pytest.approx(want_loss.item(), abs=1e-5)
    for (name, parameter), gradient in zip(parameters.items(), want, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_fitted_heads_differ_and_each_is_centred(tiny_model: Maker, tmp_path: Path) -> None:
    trunk, judgements = trunk_of(tiny_model, 4), [ranking(n) for n in range(12)]
    config = RewardConfig(reward_heads=4, epochs=2, learning_rate=1e-2, held_out_fraction=0.0)
    train_reward_model(config, trunk, judgements, checkpoint_dir=tmp_path)
    by_head = Scorer(trunk, [], config).all_by_head([sample for each in judgements for sample in each.samples])
    torch.testing.assert_close(by_head.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    assert (by_head[0::2].mean(0) > by_head[1::2].mean(0)).all()  # all have learnt which is better
    assert by_head.std(1, correction=0).mean() > 1e-3


def test_a_trunk_with_another_number_of_heads_is_refused(tiny_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the trunk has 2 reward heads, not 3"):
        train_reward_model(RewardConfig(reward_heads=3), trunk_of(tiny_model, 2), [ranking(1)], checkpoint_dir=tmp_path)


def test_spread_is_pooled_within_groups() -> None:
    """By hand: 1, 3 and 10, 14, 18 lie 2 * 1 + 2 * 16 from their means, with 3 degrees of freedom; 99 has no other."""
    scores = torch.tensor([1.0, 10.0, 99.0, 14.0, 3.0, 18.0])
    groups = ["a", "b", "c", "b", "a", "b"]
    assert spread(scores, groups) == pytest.approx(math.sqrt(34 / 3), abs=1e-5)
    assert spread(scores[:2], ["a", "b"]) == pytest.approx(math.sqrt(2 * 4.5**2), abs=1e-5)  # no group has two
    assert spread(scores[:1], ["a"]) == 0
