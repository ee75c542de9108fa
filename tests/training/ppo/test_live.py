"""PPO on completions that people received: what an iteration takes, also when killed, and what it learns."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.ppo.test_ppo import CONFIG, EOS, LEARNING, PROMPTS, Interrupted, quiet
from training.config import PPOConfig
from training.lessons.received import Received, TooFewLive
from training.model.roles import Role
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.ppo.live import Turn, learnt_from, live_turn, turns, weights_of
from training.ppo.ppo import PPOReport, train_ppo
from training.ppo.rollout import Rollout, Sampled, observe, observed, own_sampler

Maker = Callable[..., Trunk]


@given(st.integers(1, 40), st.data())
@settings(max_examples=50, deadline=None)
def test_in_a_pass_over_live_completions_none_comes_twice(live: int, data: st.DataObject) -> None:
    size, seed = data.draw(st.integers(1, live)), data.draw(st.integers(0, 99))
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=live, max_size=live))
    in_a_pass = live // size
    for a_pass in range(3):
        taken = [live_turn(weights, size, seed, a_pass * in_a_pass + place) for place in range(in_a_pass)]
        flat = [index for turn in taken for index in turn]
        assert len(flat) == len(set(flat)) == in_a_pass * size
        assert set(flat) <= set(range(live))


def first(config: PPOConfig, live: int, count: int, seed: int = 7) -> list[Turn]:
    return list(islice(turns(config, [1.0] * 5, [1.0] * live, seed), count))


def test_what_an_iteration_takes_of_each() -> None:
    fresh, live, mix = (
        dataclasses.replace(CONFIG, rollouts=kind, live_share=0.25) for kind in ("fresh", "live", "mix")
    )
    assert [(len(turn.fresh), len(turn.live)) for turn in first(fresh, 20, 2)] == [(8, 0)] * 2
    assert [(len(turn.fresh), len(turn.live)) for turn in first(live, 20, 2)] == [(0, 8)] * 2
    assert [(len(turn.fresh), len(turn.live)) for turn in first(mix, 20, 2)] == [(6, 2)] * 2
    assert [(len(turn.fresh), len(turn.live)) for turn in first(mix, 1, 2)] == [(7, 1)] * 2
    with pytest.raises(TooFewLive):
        first(live, 7, 1)
    assert first(mix, 20, 9) == first(mix, 20, 9) != first(mix, 20, 9, seed=8)


def test_whoever_has_received_very_much_does_not_fill_an_iteration() -> None:
    """Ninety of one person, whose prompts together count like three of the ten others': a third of eight are theirs."""
    weights = weights_of([(1,)] * 90 + [(2,)] * 10, [(2,), (1,)], [3.0, 0.1])
    assert weights == [0.1] * 90 + [3.0] * 10
    of_many = [sum(index < 90 for index in live_turn(weights, 8, seed, 0)) for seed in range(200)]
    assert sum(of_many) / len(of_many) == pytest.approx(8 * 9 / 39, abs=0.4)
    assert weights_of([(2,), (2,)], [(2,), (1,)], ()) == [1.0, 1.0]
    with pytest.raises(KeyError):
        weights_of([(3,)], [(2,), (1,)], [3.0, 0.1])


def test_lineage_names_those_that_had_their_turn() -> None:
    """Two iterations of eight, of twenty."""
    config = dataclasses.replace(CONFIG, rollouts="live", iterations=2)
    known = [
        Received(
            completion_id=f"{n}:0", response_id=f"{n}", rater="ann", policy_version=0, prompt_ids=(n,),
            completion_ids=(2,), log_probs=(-1.0,),
        )
        for n in range(20)
    ]  # fmt: skip
    used = {index for turn in first(config, 20, 2) for index in turn.live}
    assert len(used) == 16
    assert {int(each.response_id) for each in learnt_from(config, known, [1.0] * 20, 7)} == used
    heavy = [100.0 if n < 16 else 0.01 for n in range(20)]
    assert {int(each.response_id) for each in learnt_from(config, known, heavy, 7)} == set(range(16))
    assert learnt_from(dataclasses.replace(config, rollouts="fresh"), known, [1.0] * 20, 7) == []


def received(trunk: Trunk, count: int, config: PPOConfig) -> list[Sampled]:
    """What a policy answered to the prompts in turn, with the log-probs that it had then."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    sampled = own_sampler(trunk, config, EOS)(prompts, seed=5, alive=quiet)
    rollout = observe(trunk, sampled, eos_ids=EOS, temperature=1.0, ref=None)
    rows = zip(sampled, rollout.log_probs, rollout.batch.completion_mask, strict=True)
    return [Sampled(each.sample, tuple(row[mask].tolist())) for each, row, mask in rows]


def test_live_iterations_write_nothing_and_mixed_ones_what_is_missing(tiny_trunk: Maker, tmp_path: Path) -> None:
    asked: list[int] = []
    tokens: list[int] = []

    def train(rollouts: str) -> PPOReport:
        trunk = tiny_trunk(perturbed=True)
        live = received(trunk, 8, CONFIG)
        own = own_sampler(trunk, CONFIG, EOS)

        def sampler(prompts: Sequence[Sequence[int]], *, seed: int, alive: Callable[[], None]) -> Sequence[Sampled]:
            asked.append(len(prompts))
            written = own(prompts, seed=seed, alive=alive)
            tokens.append(sum(len(each.sample.completion_ids) for each in written))
            return written

        config = PPOConfig.from_dict({**CONFIG.to_dict(), "rollouts": rollouts})
        where = {"checkpoint_dir": tmp_path / rollouts, "sampler": sampler, "live": live}
        return train_ppo(config, trunk, PROMPTS, eos_ids=EOS, **where)  # type: ignore[arg-type]

    told = train("live")
    assert told.iterations == 2 and asked == []
    assert not any("generate" in name for timings in told.timings for name in timings)
    told = train("mix")
    assert asked == [4, 4]
    for metrics, timings, written in zip(told.history, told.timings, tokens, strict=True):
        for phase, count in (("generate", written), ("update", 8 * metrics["completion/length"])):
            assert timings[f"seconds/{phase}"] * timings[f"tokens_per_s/{phase}"] == pytest.approx(count)


def test_prompts_are_asked_as_often_as_their_weights_say(trunk: Trunk, tmp_path: Path) -> None:
    """Of the eight prompts of an iteration five are the first."""
    own, asked = own_sampler(trunk, CONFIG, EOS), []

    def sampler(prompts: Sequence[Sequence[int]], *, seed: int, alive: Callable[[], None]) -> Sequence[Sampled]:
        asked.append(Counter(map(tuple, prompts)))
        return own(prompts, seed=seed, alive=alive)

    weights = (2.5, 0.5, 0.5, 0.5)
    train_ppo(CONFIG, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path, sampler=sampler, weights=weights)
    assert asked == [Counter(dict(zip(PROMPTS, (5, 1, 1, 1), strict=True)))] * 2


def test_live_completions_of_prompts_that_count_have_their_turn_first(trunk: Trunk, tmp_path: Path) -> None:
    """Of sixteen, four of each of four prompts, the eight of the two that count most make the first iteration."""
    config = dataclasses.replace(CONFIG, rollouts="live", iterations=1)
    live = received(trunk, 16, config)
    seen: list[tuple[int, ...]] = []

    def watched(*arguments: Any, **options: Any) -> list[Rollout]:
        seen.extend(each.sample.prompt_ids for each in arguments[2])
        return observed(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.ppo.ppo.observed", watched)
        train_ppo(
            config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path, live=live, weights=(1e4, 1e-4, 1e4, 1e-4)
        )
    assert set(seen[:8]) == {PROMPTS[0], PROMPTS[2]}


def test_too_few_is_an_error_before_anything_is_trained(trunk: Trunk, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, rollouts="live")
    with pytest.raises(TooFewLive, match="7 completions"):
        train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path, live=received(trunk, 7, CONFIG))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rollouts", ["live", "mix"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tiny_trunk: Maker, tmp_path: Path, rollouts: str) -> None:
    """Stopped in the middle of its third iteration, in the second pass over the live completions."""
    config = PPOConfig.from_dict({**CONFIG.to_dict(), "iterations": 4, "epochs": 1, "rollouts": rollouts})
    live = received(tiny_trunk(perturbed=True), 17 if rollouts == "live" else 9, CONFIG)

    def train(trunk: Trunk, name: str, stop: bool = False) -> PPOReport:
        def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
            if stop and step == 2 and not metrics:
                raise Interrupted

        where = {"checkpoint_dir": tmp_path / name, "live": live, "weights": (4.0, 1.0, 1.0, 2.0)}
        return train_ppo(config, trunk, PROMPTS, eos_ids=EOS, seed=3, progress=progress, **where)  # type: ignore[arg-type]

    straight, resumed = tiny_trunk(), tiny_trunk()
    want = train(straight, "a")
    with pytest.raises(Interrupted):
        train(tiny_trunk(), "b", stop=True)
    assert train(resumed, "b") == want
    for role in ("policy", "value"):
        assert all(torch.equal(t, straight.state(role)[n]) for n, t in resumed.state(role).items())


@pytest.fixture
def planted(tiny_trunk: Maker) -> Iterator[Maker]:
    """Trunks whose reward head reads one fixed direction: the best of 300 answers of one token is known."""

    def make() -> Trunk:
        trunk = tiny_trunk()
        direction = torch.randn(32, generator=torch.Generator().manual_seed(7))
        with torch.no_grad():
            trunk.heads["reward"].weight.copy_(direction / direction.norm() * 0.5)
        return trunk

    yield make


@torch.no_grad()
def expected_score(trunk: Trunk, role: Role | None) -> float:
    """Of an answer, over all 300 and all prompts; no sampling."""
    total = 0.0
    for prompt in PROMPTS:
        batch = collate([Sample(prompt, (token,)) for token in range(300)], 0)
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, role)
        total += float((log_probs[:, 0].exp() * trunk.score(batch)).sum())
    return total / len(PROMPTS)


def test_what_people_received_teaches_nearly_as_much_at_equal_updates(planted: Maker, tmp_path: Path) -> None:
    """Six iterations, as a round has them: each takes 128 that are written for it, or that the base had written."""
    config = dataclasses.replace(LEARNING, iterations=6, max_new_tokens=1)
    gains = {}
    for rollouts in ("fresh", "live"):
        chosen = PPOConfig.from_dict({**config.to_dict(), "rollouts": rollouts})
        scores = []
        for seed in (0, 1):
            trunk = planted()
            live, before = received(trunk, 6 * 128, config), expected_score(trunk, None)
            where = tmp_path / f"{rollouts}{seed}"
            report = train_ppo(chosen, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=where, live=live, seed=seed)
            assert report.last["objective/kl"] > 0  # whoever has drawn the tokens
            scores.append(expected_score(trunk, "policy") - before)
        gains[rollouts] = sum(scores) / len(scores)
    assert gains["fresh"] > 0.1
    assert gains["live"] > 0.4 * gains["fresh"]
