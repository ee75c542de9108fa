import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from training.config import RewardConfig
from training.model.samples import RankedSamples, RatedSample, Sample, collate
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.reward.fit import evaluate, score
from training.reward.reward import RewardReport, split_by_prompt, train_reward_model

GOOD = 40  # the planted preference: completions with more of this token are better
CONFIG = RewardConfig(learning_rate=1e-2, epochs=6, batch_rankings=8, held_out_fraction=0.3, token_budget=256)
Maker = Callable[..., Trunk]


def planted(count: int, seed: int = 0, completions: int = 4) -> list[RankedSamples]:
    """Rankings by how many of four tokens are GOOD; like counts are ties."""
    rng = random.Random(seed)
    rankings = []
    for _ in range(count):
        prompt = tuple(rng.randrange(60, 90) for _ in range(rng.randrange(2, 6)))
        goods = [rng.randrange(5) for _ in range(completions)]
        samples = []
        for good in goods:
            tokens = [GOOD] * good + [rng.choice((50, 51)) for _ in range(4 - good)]
            rng.shuffle(tokens)
            samples.append(Sample(prompt, (*tokens, 2)))
        rankings.append(RankedSamples(tuple(samples), tuple(4 - good for good in goods)))
    return rankings


def test_a_planted_preference_is_learnt(trunk: Trunk, tmp_path: Path) -> None:
    rankings = planted(60)
    report = train_reward_model(CONFIG, trunk, rankings, checkpoint_dir=tmp_path)
    assert report.held_out is not None
    assert report.held_out.prompts == 18
    assert report.held_out.accuracy.mean > 0.9
    assert report.held_out.accuracy.low > 0.8
    assert report.held_out.log_loss.mean < 0.5  # of 0.69 for who knows nothing
    assert report.held_out.log_loss_with_ties is not None
    assert report.held_out.log_loss_with_ties.mean < 0.8  # of 1.05 for who knows only how many tie
    assert report.held_out.kendall_tau is not None
    assert report.held_out.kendall_tau.mean > 0.7
    # independently: fresh rankings that no split has touched, scored one at a time
    fresh = planted(20, seed=1)
    scorer = Scorer(trunk, [], CONFIG)
    hits = []
    for ranking in fresh:
        scored = [(tier, scorer.all([s])[0]) for s, tier in zip(ranking.samples, ranking.tiers, strict=True)]
        hits += [(x > y) == (p < q) for (p, x), (q, y) in combinations(scored, 2) if p != q]
    assert sum(hits) / len(hits) > 0.9


@pytest.mark.parametrize(
    "options", [{"likelihood": "plackett_luce"}, {"ties": "rao_kupper", "margin": 0.5}, {"ties": "soft"}]
)
def test_every_likelihood_learns_it_from_partial_rankings_with_ties(
    trunk: Trunk, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Raters who place the best two groups and leave the others out."""
    partial = [
        replace(ranking, tiers=tuple(min(sorted(set(ranking.tiers)).index(t), 2) for t in ranking.tiers), unplaced=2)
        for ranking in planted(60)
    ]
    config = replace(CONFIG, held_out_fraction=0.0, **options)
    report = train_reward_model(config, trunk, partial, checkpoint_dir=tmp_path)
    assert (report.tie_width is None) == ("soft" in options.values())
    fit = evaluate(Scorer(trunk, [], CONFIG), planted(20, seed=1))
    assert fit is not None
    assert fit.accuracy.mean > 0.9


def test_judgement_without_weight_is_as_if_it_was_never_made(tiny_trunk: Maker, tmp_path: Path) -> None:
    rankings, lies = planted(10), [replace(r, tiers=r.tiers[::-1], weight=0.0) for r in planted(10, seed=1)]
    config = RewardConfig(epochs=1, batch_rankings=4, learning_rate=1e-3)
    reports = [
        train_reward_model(config, tiny_trunk(), given, checkpoint_dir=tmp_path / str(n))
        for n, given in enumerate([rankings, [*lies, *rankings]])
    ]
    assert reports[0] == reports[1]


def test_weight_of_two_is_said_twice(tiny_trunk: Maker, tmp_path: Path) -> None:
    """In one step, whose loss and gradient are the same."""
    first, *others = planted(4)
    config = RewardConfig(epochs=1, batch_rankings=5, held_out_fraction=0.0, learning_rate=1e-3, token_budget=64)
    states = []
    for n, given in enumerate([[first, first, *others], [replace(first, weight=2.0), *others]]):
        trunk = tiny_trunk()
        anchors = first.samples  # otherwise the mean that becomes zero is that of what was given
        report = train_reward_model(config, trunk, given, checkpoint_dir=tmp_path / str(n), demonstrations=anchors)
        assert report.steps == 1
        states.append((report.loss, trunk.state("reward")))
    assert states[0][0] == pytest.approx(states[1][0], abs=1e-6)
    for name, tensor in states[0][1].items():
        torch.testing.assert_close(tensor, states[1][1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_a_judgement_pulls_by_its_weight_whatever_shares_its_step(
    tiny_trunk: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """With small plain steps the steps of an epoch add up to one over all of it, which its number of steps divides."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    heavy, light = planted(3), [replace(ranking, weight=0.01) for ranking in planted(9, seed=1)]
    moved = []
    for name, size in (("whole", 12), ("cut", batch)):
        trunk = tiny_trunk()
        before = {key: value.clone() for key, value in trunk.state("reward").items()}
        config = RewardConfig(
            epochs=1, batch_rankings=size, held_out_fraction=0.0, learning_rate=1e-2 / -(-12 // size), warmup=0.0,
            decay=False, max_grad_norm=1e9, ties="soft", token_budget=256,
        )  # fmt: skip
        anchors = [s for ranking in heavy for s in ranking.samples]  # else the bias is of what was given, in its order
        train_reward_model(config, trunk, [*heavy, *light], checkpoint_dir=tmp_path / name, demonstrations=anchors)
        moved.append({key: value - before[key] for key, value in trunk.state("reward").items() if "bias" not in key})
    whole, cut = (torch.cat([value.flatten() for value in one.values()]) for one in moved)
    assert float((whole - cut).norm() / whole.norm()) < 0.02


def test_thumbs_alone_teach_too(trunk: Trunk, tmp_path: Path) -> None:
    ratings = [RatedSample(s, float(t <= 2)) for r in planted(50) for s, t in zip(r.samples, r.tiers, strict=True)]
    report = train_reward_model(CONFIG, trunk, [], ratings, checkpoint_dir=tmp_path)
    assert report.held_out is None
    fresh = [(s, t <= 2) for r in planted(20, seed=1) for s, t in zip(r.samples, r.tiers, strict=True)]
    scores = Scorer(trunk, [], CONFIG).all([s for s, _ in fresh])
    hits = [(score > report.threshold) == up for score, (_, up) in zip(scores, fresh, strict=True)]
    assert sum(hits) / len(hits) > 0.75  # of 0.6 for calling all of them good, standard error 0.055


@pytest.mark.parametrize("with_demonstrations", [False, True])
def test_demonstrations_or_else_training_completions_score_mean_zero(
    trunk: Trunk, tmp_path: Path, with_demonstrations: bool
) -> None:
    rankings = planted(10)
    demonstrations = [Sample((5, 6), (GOOD, GOOD, 2)), Sample((7,), (GOOD, 2))] if with_demonstrations else []
    config = RewardConfig(epochs=1, held_out_fraction=0.2)
    train_reward_model(config, trunk, rankings, checkpoint_dir=tmp_path, demonstrations=demonstrations)
    training, _ = split_by_prompt(rankings, 0.2, 0)
    anchors = demonstrations or [s for r in training for s in r.samples]
    scores = Scorer(trunk, [], config).all(anchors)
    assert math.isclose(sum(scores) / len(scores), 0.0, abs_tol=1e-5)


def test_a_step_of_warm_up_is_a_shorter_one(tiny_trunk: Maker, tmp_path: Path) -> None:
    """One step that is all warm-up has half the rate; whoever asks for neither rise nor fall has all of it."""
    rising = RewardConfig(epochs=1, batch_rankings=12, learning_rate=2e-3, warmup=0.9)
    states = []
    for n, config in enumerate([rising, replace(rising, learning_rate=1e-3, warmup=0.0, decay=False)]):
        trunk = tiny_trunk()
        assert train_reward_model(config, trunk, planted(12), checkpoint_dir=tmp_path / str(n)).steps == 1
        states.append(trunk.state("reward"))
    torch.testing.assert_close(*states, rtol=0, atol=0)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_resumed_fit_is_the_uninterrupted_fit_bit_for_bit(tiny_trunk: Maker, tmp_path: Path, stop_at: int) -> None:
    config = RewardConfig(epochs=2, batch_rankings=3, learning_rate=1e-3, checkpoint_every=2, token_budget=24)
    ratings = [RatedSample(Sample((9, 9), (5, 2)), 1.0)]
    rankings = planted(10)

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == stop_at:
            raise Interrupted

    straight = tiny_trunk()
    want = train_reward_model(config, straight, rankings, ratings, checkpoint_dir=tmp_path / "a")
    with pytest.raises(Interrupted):
        train_reward_model(config, tiny_trunk(), rankings, ratings, checkpoint_dir=tmp_path / "b", progress=interrupt)
    resumed = tiny_trunk()
    assert train_reward_model(config, resumed, rankings, ratings, checkpoint_dir=tmp_path / "b") == want
    assert all(torch.equal(t, straight.state("reward")[n]) for n, t in resumed.state("reward").items())


def within_prompts(trunk: Trunk, rankings: list[RankedSamples]) -> float:
    """The standard deviation of scores within prompts, each completion alone."""
    groups: dict[tuple[int, ...], dict[Sample, float]] = {}
    for sample in (sample for ranking in rankings for sample in ranking.samples):
        groups.setdefault(sample.prompt_ids, {})[sample] = trunk.score(collate([sample], 0)).item()
    squares = [(score - fmean(own.values())) ** 2 for own in groups.values() for score in own.values()]
    return math.sqrt(sum(squares) / (len(squares) - len(groups)))


@pytest.fixture
def predecessor(trunk: Trunk, tmp_path: Path) -> Path:
    """A saved reward model that has learnt a little of the planted preference."""
    config = replace(CONFIG, epochs=1, held_out_fraction=0.0)
    assert train_reward_model(config, trunk, planted(16), checkpoint_dir=tmp_path / "first").temperature == 1
    trunk.save_adapter("reward", tmp_path / "predecessor")
    return tmp_path / "predecessor"


CARRYING = replace(CONFIG, held_out_fraction=0.0, epochs=2)


def test_versions_of_other_scales_come_out_with_that_of_the_one_they_go_on_from(
    tiny_trunk: Maker, predecessor: Path, tmp_path: Path
) -> None:
    """Six epochs make scores several times as large as one does, unless the scale is carried on; no more changes."""
    rankings, fresh = planted(40, seed=2), planted(20, seed=1)

    def fit(epochs: int, carry: bool) -> tuple[Trunk, RewardReport]:
        trunk, config = tiny_trunk(), replace(CARRYING, epochs=epochs, carry_scale=carry)
        trunk.load_adapter("reward", predecessor)
        directory = tmp_path / f"{epochs}-{carry}"
        return trunk, train_reward_model(config, trunk, rankings, checkpoint_dir=directory, successor=True)

    before = tiny_trunk()
    before.load_adapter("reward", predecessor)
    want, raw = within_prompts(before, rankings), []
    for epochs in (1, 6):
        (plain, free), (carried, report) = fit(epochs, carry=False), fit(epochs, carry=True)
        raw.append(within_prompts(plain, rankings))
        assert free.temperature == 1
        assert report.temperature == pytest.approx(want / raw[-1], rel=1e-4)
        assert within_prompts(carried, rankings) == pytest.approx(want, rel=1e-4)
        scorers = Scorer(plain, [], CARRYING), Scorer(carried, [], CARRYING)
        gaps, kept_gaps = (_gaps(score(scorer, fresh)) for scorer in scorers)
        torch.testing.assert_close(kept_gaps, gaps, rtol=1e-4, atol=1e-4)
        figures, kept_figures = (evaluate(scorer, fresh) for scorer in scorers)
        assert figures is not None and kept_figures is not None
        assert kept_figures.log_loss.mean == pytest.approx(figures.log_loss.mean, abs=1e-5)
        assert (kept_figures.accuracy, kept_figures.kendall_tau) == (figures.accuracy, figures.kendall_tau)
    assert raw[1] > 3 * raw[0]


def _gaps(scores: list[list[float]]) -> torch.Tensor:
    """What is left of log-odds when their zero is not told."""
    return torch.tensor([own[0] - other for own in scores for other in own[1:]])


def test_a_predecessor_of_three_times_the_scale_has_a_successor_of_three_times_the_scale(
    tiny_trunk: Maker, predecessor: Path, tmp_path: Path
) -> None:
    """Its log-odds are the same, and so are the successor's: the fit is not told."""
    reports, scores = [], []
    ratings = [RatedSample(sample, 1.0) for ranking in planted(4) for sample in ranking.samples[:1]]
    for temperature in (1.0, 3.0):
        before, trunk, directory = tiny_trunk(), tiny_trunk(), tmp_path / str(temperature)
        before.load_adapter("reward", predecessor)
        before.set_temperature(temperature)
        before.save_adapter("reward", directory / "before")
        trunk.load_adapter("reward", directory / "before")
        given = planted(24, seed=2)
        reports.append(train_reward_model(CARRYING, trunk, given, ratings, checkpoint_dir=directory, successor=True))
        trunk.save_adapter("reward", directory / "after")
        after = tiny_trunk()
        after.load_adapter("reward", directory / "after")
        assert after.temperature == reports[-1].temperature
        samples = [sample for ranking in planted(10, seed=1) for sample in ranking.samples]
        scores.append(torch.tensor(Scorer(after, [], CARRYING).all(samples)))
        log_odds = Scorer(after, [], CARRYING).log_odds(samples)
        torch.testing.assert_close(torch.tensor(log_odds) * after.temperature, scores[-1])
    torch.testing.assert_close(scores[1], 3 * scores[0], rtol=1e-4, atol=1e-4)
    assert reports[1].temperature == pytest.approx(3 * reports[0].temperature, rel=1e-4)
    assert reports[1].threshold == pytest.approx(3 * reports[0].threshold, rel=1e-3)
    assert reports[1].tie_width == pytest.approx(reports[0].tie_width, abs=1e-4)
    assert reports[1].loss == pytest.approx(reports[0].loss, abs=1e-4)


def test_a_resumed_successor_has_the_same_scale(tiny_trunk: Maker, predecessor: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 4:
            raise Interrupted

    def fit(name: str, **options: Any) -> tuple[Trunk, RewardReport]:
        trunk = tiny_trunk()
        trunk.load_adapter("reward", predecessor)
        trunk.set_temperature(3.0)
        config = replace(CARRYING, checkpoint_every=2)
        directory = tmp_path / name
        return trunk, train_reward_model(
            config, trunk, planted(24), checkpoint_dir=directory, successor=True, **options
        )

    straight, want = fit("a")
    with pytest.raises(Interrupted):
        fit("b", progress=interrupt)
    resumed, found = fit("b")
    assert found == want
    torch.testing.assert_close(resumed.state("reward"), straight.state("reward"), rtol=0, atol=0)


def test_the_token_budget_does_not_change_the_result(tiny_trunk: Maker, tmp_path: Path) -> None:
    states = []
    for budget in (1, 60, 4096):
        trunk = tiny_trunk()
        config = RewardConfig(epochs=1, learning_rate=1e-3, token_budget=budget)
        train_reward_model(config, trunk, planted(12), checkpoint_dir=tmp_path / str(budget))
        states.append(trunk.state("reward"))
    for name, tensor in states[0].items():
        for other in states[1:]:
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


def test_the_split_is_by_prompt() -> None:
    rankings = planted(10)
    ratings = [RatedSample(r.samples[0], 1.0) for r in rankings]
    training, held_out = split_by_prompt([*rankings, *rankings, *ratings], 0.3, 0)
    assert len({j.prompt_ids for j in held_out}) == 3
    assert not {j.prompt_ids for j in training} & {j.prompt_ids for j in held_out}
    assert len(training) + len(held_out) == 30


def test_a_fit_may_hold_nothing_out(trunk: Trunk, tmp_path: Path) -> None:
    rankings = planted(6)
    assert split_by_prompt(rankings, 0.0, 0) == (rankings, [])
    config = RewardConfig(epochs=1, batch_rankings=6, held_out_fraction=0.0)
    assert train_reward_model(config, trunk, rankings, checkpoint_dir=tmp_path).held_out is None


def test_a_fit_without_judgements_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rankings or ratings"):
        train_reward_model(CONFIG, trunk, [], checkpoint_dir=tmp_path)
