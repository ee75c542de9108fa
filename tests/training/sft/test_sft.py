from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.config import SFTConfig
from training.model.attention import Blocks
from training.model.samples import Sample, collate
from training.model.scoring import shares_prompts
from training.model.trunk import Trunk
from training.optimizing.steps import OnProgress, silent
from training.sft.sft import SFTReport, backward, train_sft, with_replay

DEMONSTRATIONS = [Sample((5 + i, 6), (40, 41, 42 + i % 3, 2)) for i in range(10)]
CONFIG = SFTConfig(learning_rate=1e-2, epochs=10, batch_size=4, checkpoint_every=2)


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def shared_trunk(tiny_trunk: Callable[..., Trunk]) -> Trunk:
    """For examples that only look at gradients."""
    return tiny_trunk(perturbed=True)


def one_by_one(trunk: Trunk, samples: list[Sample]) -> Tensor:
    """The loss as the formula has it: whole logits of each sample by itself, no padding, no packing, no lower part."""
    trunk._activate("policy")
    nats = []
    for sample in samples:
        ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
        log_probs = trunk.model(input_ids=ids).logits[0].log_softmax(-1)
        first = len(sample.prompt_ids)
        nats += [-log_probs[first + i - 1, token] for i, token in enumerate(sample.completion_ids)]
    return torch.stack(nats).mean()


def gradients(trunk: Trunk) -> list[Tensor]:
    """Those of the policy, which then have none."""
    found = []
    for parameter in trunk.parameters("policy").values():
        assert parameter.grad is not None
        found.append(parameter.grad)
        parameter.grad = None
    return found


sequences = st.lists(st.integers(0, 299), min_size=1, max_size=12).map(tuple)


@settings(deadline=None, max_examples=40)
@given(
    samples=st.lists(st.builds(Sample, sequences, sequences), min_size=1, max_size=6),
    budget=st.integers(1, 90),
    packed=st.booleans(),
)
def test_loss_and_gradients_are_those_of_each_demonstration_by_itself(
    shared_trunk: Trunk, samples: list[Sample], budget: int, packed: bool
) -> None:
    """However they are cut, packed or padded; the mean is over the tokens of all."""
    trunk = shared_trunk
    want = one_by_one(trunk, samples)
    want.backward()
    wanted = gradients(trunk)
    assert backward(trunk, samples, budget, packed=packed) == pytest.approx(want.item(), abs=1e-5)
    for found, expected in zip(gradients(trunk), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_a_step_takes_is_forwarded_in_rows_without_padding(
    trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 demonstrations of 6 tokens with a budget of 13: two rows of two. Of 10, the last step has only 2."""
    assert shares_prompts(trunk, CONFIG.max_tokens)
    seen: list[tuple[int, ...]] = []
    lower = trunk.lower

    def noting(input_ids: Tensor, attention: Tensor | Blocks) -> Tensor:
        if isinstance(attention, Blocks):
            seen.append(tuple(input_ids.shape))
        return lower(input_ids, attention)

    monkeypatch.setattr(trunk, "lower", noting)
    config = SFTConfig(epochs=1, batch_size=4, token_budget=13)
    # The trial of whether the model can read rows at all is one of them.
    monkeypatch.setattr("training.sft.sft.shares_prompts", lambda *_: True)
    train_sft(config, trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    assert seen == [(1, 12)] * 5


def test_a_demonstration_it_never_saw_becomes_far_likelier(trunk: Trunk, tmp_path: Path) -> None:
    """The other roles stay the base. A random model this narrow can give no token more than about 0.66."""
    unseen = collate([Sample((20, 6), (40, 41, 42, 2))], 0)
    hidden = trunk.lower(unseen.input_ids, unseen.attention_mask)
    train_sft(CONFIG, trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    with torch.no_grad():
        policy, reward, base = (trunk.log_probs(hidden, unseen, role)[0].mean() for role in ("policy", "reward", None))
    assert policy > base + 2  # nats per token
    assert reward == base


def test_prompts_are_not_trained_on(trunk: Trunk, tmp_path: Path) -> None:
    """The reported loss is that of the completion tokens alone."""
    batch = collate(DEMONSTRATIONS, 0)
    with torch.no_grad():
        logits = trunk.model(input_ids=batch.input_ids).logits.log_softmax(-1)
    want = -sum(logits[i, 1 + j, t] for i, s in enumerate(DEMONSTRATIONS) for j, t in enumerate(s.completion_ids)) / 40
    report = train_sft(SFTConfig(epochs=1, batch_size=10), trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    assert report.first_loss == pytest.approx(float(want), abs=1e-4)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    tiny_trunk: Callable[..., Trunk], tmp_path: Path, stop_at: int
) -> None:
    config = SFTConfig(learning_rate=1e-3, epochs=2, batch_size=4, checkpoint_every=2)

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == stop_at:
            raise Interrupted

    straight, resumed = tiny_trunk(), tiny_trunk()
    held_out = [Sample((20, 6), (40, 41, 42, 2))]

    def run(trunk: Trunk, directory: Path, progress: OnProgress = silent) -> SFTReport:
        return train_sft(
            config, trunk, DEMONSTRATIONS, checkpoint_dir=directory, held_out=held_out, progress=progress, seed=3
        )

    want = run(straight, tmp_path / "a")
    with pytest.raises(Interrupted):
        run(tiny_trunk(), tmp_path / "b", interrupt)
    assert run(resumed, tmp_path / "b") == want
    assert all(torch.equal(t, straight.state("policy")[n]) for n, t in resumed.state("policy").items())


def test_the_held_out_loss_is_that_of_the_formula_before_and_after(
    tiny_trunk: Callable[..., Trunk], tmp_path: Path
) -> None:
    """Of what is cut to `max_tokens`, like what trains; token by token and not demonstration by demonstration."""
    held_out = [Sample((1, 2, 3, 20, 6), (40, 41)), Sample((30, 31), (40, 41, 42))]
    cut = [Sample((3, 20, 6), (40, 41)), held_out[1]]
    trunk, config = tiny_trunk(), SFTConfig(learning_rate=1e-2, epochs=2, batch_size=4, max_tokens=5)
    before = one_by_one(trunk, cut).item()
    report = train_sft(config, trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path, held_out=held_out)
    after = one_by_one(trunk, cut).item()
    assert after < before - 0.1
    assert report.held_out == 2
    assert report.held_out_before == pytest.approx(before, abs=1e-5)
    assert report.held_out_after == pytest.approx(after, abs=1e-5)


def test_without_any_held_out_nothing_is_said_of_them(trunk: Trunk, tmp_path: Path) -> None:
    report = train_sft(SFTConfig(epochs=1), trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    assert (report.held_out, report.held_out_before, report.held_out_after) == (0, None, None)


def test_nothing_to_learn_from_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="demonstrations"):
        train_sft(CONFIG, trunk, [], checkpoint_dir=tmp_path)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 5), st.integers(0, 9))
def test_all_new_demonstrations_train_and_a_share_of_the_old(new: int, old: int, replay: float, seed: int) -> None:
    news, olds = [f"new {i}" for i in range(new)], [f"old {i}" for i in range(old)]
    chosen = with_replay(news, olds, replay, seed)
    assert chosen[:new] == news
    assert len(set(chosen)) == len(chosen) and set(chosen[new:]) <= set(olds)
    assert len(chosen) - new == min(old, round(replay * new))
    assert with_replay(news, olds, replay, seed) == chosen


def test_each_round_replays_others() -> None:
    draws = {tuple(with_replay(range(4), range(100, 200), 1.0, seed)) for seed in range(20)}
    assert len(draws) == 20
