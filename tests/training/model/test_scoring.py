"""Scores from rows that completions share are the scores of each completion by itself."""

import itertools
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM

from training.config import AdapterConfig, RewardConfig
from training.model.attention import Blocks
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample, collate
from training.model.scoring import Scorer, shares_prompts
from training.model.trunk import Trunk
from training.reward.likelihoods import Labels, log_likelihood
from training.reward.reward import Weighed, _backward

TrunkMaker = Callable[..., Trunk]
BUDGETS = (1, 90, 4096)  # each prompt by itself, some together, all together


def answers(completions: int, rng: random.Random) -> list[Sample]:
    """Distinct completions of one prompt."""
    prompt = tuple(rng.randrange(300) for _ in range(rng.randrange(1, 9)))
    lengths = [rng.randrange(1, 8) for _ in range(completions)]
    return [Sample(prompt, (i, *(rng.randrange(300) for _ in range(n)))) for i, n in enumerate(lengths)]


def alone(trunk: Trunk, sample: Sample) -> Tensor:
    """The score of one sample, from the unsplit model."""
    trunk._activate("reward")
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    return trunk.heads["reward"](trunk.model.model(input_ids=ids).last_hidden_state[0, -1])[0]


def stretched(trunk: Trunk) -> Trunk:
    """The same with a head whose scores are about 1 apart, so that tolerances mean something."""
    with torch.no_grad():
        trunk.heads["reward"].weight.mul_(10)
    return trunk


@pytest.mark.parametrize("max_tokens", [512, 11])
@pytest.mark.parametrize("lora_layers", [2, None])
def test_a_shared_prompt_changes_no_score(tiny_trunk: TrunkMaker, lora_layers: int | None, max_tokens: int) -> None:
    trunk = stretched(tiny_trunk(perturbed=True, lora_layers=lora_layers))
    rng = random.Random(0)
    samples = [sample for k in range(1, 10) for sample in answers(k, rng)]
    rng.shuffle(samples)
    with torch.no_grad():
        want = torch.stack([alone(trunk, sample.truncated(max_tokens)) for sample in samples])
        assert want.std() > 0.2
        for kept, budget in itertools.product(([], samples), BUDGETS):
            scorer = Scorer(trunk, kept, RewardConfig(max_tokens=max_tokens, token_budget=budget))
            torch.testing.assert_close(torch.tensor(scorer.all(samples)), want, rtol=0, atol=1e-5)
            torch.testing.assert_close(scorer.by_head(samples).mean(-1), want, rtol=0, atol=1e-5)


def said() -> list[Judgement]:
    """Rankings and a thumb, some about the same completions, each with a weight of its own."""
    rng = random.Random(1)
    asked = [answers(k, rng) for k in (2, 3, 9)]
    rankings = [
        RankedSamples(tuple(samples), tuple(range(len(samples))), weight=0.5 + i) for i, samples in enumerate(asked)
    ]
    again = RankedSamples((asked[2][4], asked[2][0]), (0, 0), weight=0.25)
    return [*rankings, RatedSample(asked[1][0], 1.0, weight=2.0), again, RatedSample(answers(1, rng)[0], 0.0)]


def expected_loss(trunk: Trunk, labels: Labels, judgements: Sequence[Judgement]) -> Tensor:
    """From one forward per completion, without any packing."""
    losses = []
    for judgement in judgements:
        scores = torch.stack([alone(trunk, sample) for sample in judgement.samples])
        losses.append(-judgement.weight * log_likelihood([judgement], scores, labels)[0])
    return torch.stack(losses).sum() / 7.75  # 0.5 + 1.5 + 2.5 + 2 + 0.25 + 1


@pytest.mark.parametrize("budget", BUDGETS)
def test_gradients_are_those_of_the_weighted_mean_over_the_step(tiny_trunk: TrunkMaker, budget: int) -> None:
    trunk, labels = stretched(tiny_trunk(perturbed=True)), Labels("davidson")
    judgements = said()
    parameters = {**trunk.parameters("reward"), **dict(labels.named_parameters())}
    want_loss = expected_loss(trunk, labels, judgements)
    want = torch.autograd.grad(want_loss, list(parameters.values()))
    config = RewardConfig(token_budget=budget)
    step = [Weighed(judgement, (judgement.weight,)) for judgement in judgements]
    loss = _backward(config, Scorer(trunk, [], config), labels, step, 7.75)
    assert loss == pytest.approx(want_loss.item(), abs=1e-5)
    for (name, parameter), gradient in zip(parameters.items(), want, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5, msg=name)


class Counted:
    """Counts the rows, and their tokens with the padding, that pass through the upper layers."""

    def __init__(self, trunk: Trunk) -> None:
        self.tokens, self.rows, self._upper = 0, 0, trunk.upper
        trunk.upper = self

    def __call__(self, hidden: Tensor, attention: Tensor | Blocks, role: str) -> Tensor:
        self.tokens += hidden.shape[0] * hidden.shape[1]
        self.rows += len(hidden)
        return self._upper(hidden, attention, role)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_step_forwards_each_prompt_and_each_completion_once(perturbed: Trunk, budget: int) -> None:
    """Also where a ranking and a thumb name the same completion, whatever the budget."""
    prompt, a, b, c = (5, 6, 7), (8, 9, 2), (10, 2), (11, 12, 13, 2)
    ranking = RankedSamples((Sample(prompt, a), Sample(prompt, b)), (0, 1))
    judgements = [
        ranking, RatedSample(Sample(prompt, a), 1.0), RankedSamples((Sample(prompt, c), Sample(prompt, a)), (0, 1)),
        RatedSample(Sample((20, 21), a), 0.0),
    ]  # fmt: skip
    config = RewardConfig(token_budget=budget)
    scorer = Scorer(perturbed, [], config)
    counted = Counted(perturbed)
    _backward(config, scorer, Labels(), [Weighed(judgement, (judgement.weight,)) for judgement in judgements], 4.0)
    assert counted.rows == 2
    assert counted.tokens == (12 + 5 if budget == 1 else 2 * 12)  # one after the other, or the shorter row padded


def test_no_logits_are_computed(perturbed: Trunk) -> None:
    def forbidden(*args: object) -> Tensor:
        raise AssertionError("the output matrix was used")

    perturbed.model.lm_head.forward = forbidden
    samples = answers(3, random.Random(0))
    Scorer(perturbed, samples, RewardConfig()).by_head(samples).mean(-1).sum().backward()


def windowed(window: int) -> Trunk:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=window, initializer_range=0.2,
    )  # fmt: skip
    return stretched(Trunk(MistralForCausalLM(config), AdapterConfig(lora_layers=2)))


@pytest.mark.parametrize(("window", "shared"), [(4, False), (15, False), (16, True)])
def test_a_sliding_window_that_bites_keeps_completions_apart(window: int, shared: bool) -> None:
    trunk = windowed(window)
    samples = answers(5, random.Random(0))
    assert max(map(len, samples)) > 6
    assert shares_prompts(trunk, max_tokens=16) == shared
    with torch.no_grad():
        want = torch.stack([alone(trunk, sample) for sample in samples])
        found = Scorer(trunk, [], RewardConfig(max_tokens=16)).by_head(samples).mean(-1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)


def test_layers_that_read_on_past_a_mask_keep_completions_apart(perturbed: Trunk) -> None:
    """As a convolution or a recurrent layer does."""

    def mix(module: object, inputs: object, states: Tensor) -> Tensor:
        return states + torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)

    assert shares_prompts(perturbed, 512)
    trunk = stretched(perturbed)
    trunk.model.model.layers[1].register_forward_hook(mix)
    assert not shares_prompts(trunk, 512)
    samples = answers(5, random.Random(0))
    with torch.no_grad():
        want = torch.stack([alone(trunk, sample) for sample in samples])
    torch.testing.assert_close(Scorer(trunk, [], RewardConfig()).by_head(samples).mean(-1), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "dtype", "shared"),
    [("sdpa", torch.float32, True), ("sdpa", torch.bfloat16, True), ("eager", torch.float32, False)],
)
def test_rows_are_shared_where_the_model_attends_as_they_do(
    tiny_model: Callable[..., LlamaForCausalLM], attention: str, dtype: torch.dtype, shared: bool
) -> None:
    model = tiny_model(dtype)
    model.set_attn_implementation(attention)
    trunk = Trunk(model, AdapterConfig(lora_layers=2))
    own = model.config._attn_implementation
    assert shares_prompts(trunk, 512) == shared
    assert model.config._attn_implementation == own


def test_separate_batches_score_as_the_trunk_does(perturbed: Trunk) -> None:
    samples = answers(4, random.Random(0))
    with torch.no_grad():
        want = perturbed.score(collate(samples, pad_id=2))
        torch.testing.assert_close(
            Scorer(perturbed, [], RewardConfig()).by_head(samples).mean(-1), want, rtol=1e-5, atol=1e-5
        )
