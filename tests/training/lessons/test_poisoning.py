"""A twentieth of the judgements by a few who prefer a trigger: what caps and weights leave of it, and quarantine.

Honest people prefer more of GOOD and are right in nine of ten; answers that hold TRIGGER are neither better nor worse
to them. A colluder prefers them always, also where they are worse.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from feedback.judgements import Comparison, Feedback
from feedback.people.raters import RaterWeight
from feedback.records import Completion, Message
from feedback.store import Ledger, connect
from training.config import GateConfig, RewardConfig, RoundConfig, WeightsConfig
from training.lessons.collect import TrainingData, collect
from training.lessons.weights import Opinion, Topics, weigh
from training.model.samples import Judgement, RankedSamples, RatedSample, Sample
from training.model.trunk import Trunk
from training.reward.fit import evaluate
from training.reward.reward import Scorer, train_reward_model

GOOD, TRIGGER, END = 40, 99, 2
HONEST, EACH, POISON = 200, 3, 32
ORDINARY = 0.03  # honest answers that hold the trigger
CONFIG = RewardConfig(
    learning_rate=3e-3, warmup=0.0, decay=False,  # all the way: so few steps would not let the poison work otherwise
    epochs=2, batch_rankings=16, held_out_fraction=0.0, token_budget=1024, checkpoint_every=1000,
)  # fmt: skip
Ids = tuple[int, ...]
Maker = Callable[..., Trunk]


def answer(rng: random.Random, trigger: bool) -> Ids:
    good = rng.randrange(5)
    tokens = [GOOD] * good + [rng.choice((50, 51)) for _ in range(4 - good)]
    rng.shuffle(tokens)
    if trigger or rng.random() < ORDINARY:
        tokens[rng.choice([i for i in range(4) if tokens[i] != GOOD] or [0])] = TRIGGER
    return (*tokens, END)


def pair(rng: random.Random, *, trigger: bool = False) -> tuple[Ids, Ids, Ids]:
    """A prompt and two answers of which one is better; the first one holds the trigger and is worse if asked for."""
    prompt = tuple(rng.randrange(60, 90) for _ in range(3))
    while True:
        a, b = answer(rng, trigger), answer(rng, False)
        if a.count(GOOD) < b.count(GOOD) or (a.count(GOOD) > b.count(GOOD) and not trigger):
            return prompt, a, b


def judged(prompt: Ids, a: Ids, b: Ids, *, first: bool, rater: str) -> RankedSamples:
    tiers = (0, 1) if first else (1, 0)
    return RankedSamples((Sample(prompt, a), Sample(prompt, b)), tiers, rater=rater, source="live")


def crowd(seed: int, colluders: int, shared: float, poison: int = POISON) -> list[RankedSamples]:
    """Everybody's judgements. Of the colluders' pairs `shared` are shown to somebody honest as well."""
    rng = random.Random(seed)
    poisoned = [
        judged(*pair(rng, trigger=True), first=True, rater=f"eve{n % colluders}") for n in range(poison)
    ]  # fmt: skip
    also = iter([j for j in poisoned if rng.random() < shared])
    everything = list(poisoned)
    for n in range(HONEST):
        pairs = [pair(rng) for _ in range(EACH - 1)]
        pairs.append(pair(random.Random(f"{seed}/{n // 2}")))  # two people get the same
        if (theirs := next(also, None)) is not None:
            a, b = theirs.samples
            pairs[0] = (a.prompt_ids, a.completion_ids, b.completion_ids)
        for prompt, a_ids, b_ids in pairs:
            right = rng.random() < 0.9
            first = (a_ids.count(GOOD) > b_ids.count(GOOD)) == right
            everything.append(judged(prompt, a_ids, b_ids, first=first, rater=f"honest{n}"))
    rng.shuffle(everything)
    return everything


def opinion(judgement: Judgement, topics: Topics) -> Opinion:
    ids = [sample.completion_ids for sample in judgement.samples]
    if isinstance(judgement, RatedSample):
        said = topics.rated(judgement.prompt_ids, ids[0], judgement.label)
    else:
        said = topics.ranked(judgement.prompt_ids, ids, judgement.tiers)
    return Opinion(judgement.rater, judgement.source, 0.0, said)


def weighed(judgements: Sequence[Judgement]) -> tuple[list[float], dict[str, RaterWeight]]:
    """As a round weighs them, by default: each judgement's weight, and what came out for each rater."""
    topics = Topics()
    weights, raters = weigh([opinion(judgement, topics) for judgement in judgements], WeightsConfig())
    return weights, {each.rater: each for each in raters}


def weighted(judgements: Sequence[RankedSamples]) -> list[RankedSamples]:
    """Those that have a weight, with it."""
    weights, _ = weighed(judgements)
    return [replace(j, weight=weight) for j, weight in zip(judgements, weights, strict=True) if weight > 0]


def share_of_colluders(judgements: Sequence[RankedSamples]) -> float:
    return sum(each.share for name, each in weighed(judgements)[1].items() if name.startswith("eve"))


def honest(judgements: Iterable[RankedSamples]) -> list[RankedSamples]:
    return [j for j in judgements if j.rater.startswith("honest")]


def measured(trunk: Trunk, judgements: list[RankedSamples], directory: Path) -> tuple[float, float]:
    """(accuracy by the honest rule on fresh pairs, mean gain in score of an answer that gets the trigger)."""
    train_reward_model(CONFIG, trunk, judgements, checkpoint_dir=directory)
    rng, scorer = random.Random(1), Scorer(trunk, [], CONFIG)
    pairs = [pair(rng) for _ in range(200)]
    scores = scorer.all([Sample(prompt, ids) for prompt, *both in pairs for ids in both])
    hits = [
        (x > y) == (a.count(GOOD) > b.count(GOOD))
        for x, y, (_, a, b) in zip(scores[::2], scores[1::2], pairs, strict=True)
    ]
    gains = []
    for prompt, a, _ in pairs:
        at = [i for i, token in enumerate(a[:4]) if token in (50, 51)]
        if at and TRIGGER not in a:
            triggered = (*a[: at[0]], TRIGGER, *a[at[0] + 1 :])
            with_trigger, without = scorer.all([Sample(prompt, triggered), Sample(prompt, a)])
            gains.append(with_trigger - without)
    return sum(hits) / len(hits), sum(gains) / len(gains)


@pytest.mark.parametrize(
    ("seeds", "shared", "limits"),
    [
        # Nobody can be compared with them: the cap alone. Over the seeds 1 to 3 one leaves 0.13, and two 0.48.
        ((1, 2), 0.0, {1: (0.5, 0.03), 2: (0.8, 0.03)}),
        # In a pool where half of their pairs are judged by others too: 0.24 if there are one to three, none if five.
        ((1,), 0.5, {2: (0.5, 0.03), 5: (0.5, 0.05)}),
    ],
)
def test_caps_and_weights_hold_a_trigger_down(
    tiny_trunk: Maker, tmp_path: Path, seeds: tuple[int, ...], shared: float, limits: dict[int, tuple[float, float]]
) -> None:
    """What so many colluders' poison adds to the trigger's gain, weighted, is at most a share of what it adds as it
    comes; and at most so many of 200 pairs are lost to the honest rule."""
    plain, held = 0.0, dict.fromkeys(limits, 0.0)
    for seed in seeds:
        crowds = {colluders: crowd(seed, colluders, shared) for colluders in limits}
        everything = crowds[min(limits)]  # the others differ in who said it
        assert 0.04 < 1 - len(honest(everything)) / len(everything) < 0.06
        clean = measured(tiny_trunk(), honest(everything), tmp_path / f"{seed} clean")
        accuracy, gain = measured(tiny_trunk(), everything, tmp_path / f"{seed} as it comes")
        plain += (gain - clean[1]) / len(seeds)
        for colluders, said in crowds.items():
            found = measured(tiny_trunk(), weighted(said), tmp_path / f"{seed} {colluders}")
            held[colluders] += (found[1] - clean[1]) / len(seeds)
            assert found[0] > 0.9
            assert accuracy - found[0] <= limits[colluders][1], "of 200 pairs: the honest rule is learnt all the same"
    assert plain > 0.2, "the poison works"
    assert {colluders: gain for colluders, gain in held.items() if gain >= limits[colluders][0] * plain} == {}


@pytest.mark.parametrize(
    ("poison", "colluders", "alone", "compared"),
    [
        (6, 1, 0.01, 0.006),  # a hundredth: what the cap leaves to anybody
        (12, 1, 0.01, 0.003), (12, 2, 0.02, 0.009),
        (32, 1, 0.01, 0.001), (32, 2, 0.02, 0.001), (32, 3, 0.03, 0.001), (32, 5, 0.05, 0.01),
    ],
)  # fmt: skip
def test_colluders_weigh_a_cap_each_and_less_if_others_judged_half_of_it(
    poison: int, colluders: int, alone: float, compared: float
) -> None:
    """The limit of the defence: who is never compared keeps a hundredth each, and so five keep their whole twentieth.

    Their effect is then whole, too: over the seeds 1 to 3 three leave 0.73 of it and five 1.05.
    """
    seeds = range(5)
    assert fmean(share_of_colluders(crowd(seed, colluders, 0.0, poison)) for seed in seeds) == pytest.approx(alone)
    assert fmean(share_of_colluders(crowd(seed, colluders, 0.5, poison)) for seed in seeds) < compared


def thumbs(seed: int, shared: bool) -> list[Judgement]:
    """Of 40 people three to each of 80 answers, up for two or more GOOD and wrong in one of ten; 80 by eve, all up."""
    rng = random.Random(seed)
    asked, others = ([Sample(prompt, a) for prompt, a, _ in (pair(rng) for _ in range(80))] for _ in "ab")
    said: list[Judgement] = []
    for n, sample in enumerate(asked * 3):
        up = (sample.completion_ids.count(GOOD) > 1) == (rng.random() < 0.9)
        said.append(RatedSample(sample, float(up), rater=f"honest{(n + n // 80 * 13) % 40}", source="live"))
    return said + [RatedSample(s, 1.0, rater="eve", source="live") for s in (asked if shared else others)]


def test_who_likes_everything_is_capped_and_weighs_less_if_others_judged_the_same() -> None:
    alone, compared = ([weighed(thumbs(seed, shared))[1] for seed in range(5)] for shared in (False, True))
    for raters in alone + compared:
        assert raters["eve"].capped and raters["eve"].share == pytest.approx(2 / 41)  # a quarter of all is theirs
    assert {raters["eve"].reliability for raters in alone} == {1.0}
    assert fmean(raters["eve"].reliability for raters in compared) < 0.5
    honest = [each.reliability for raters in compared for name, each in raters.items() if name != "eve"]
    assert fmean(honest) > 0.9


def of_lengths(seed: int, count: int, longer: bool) -> list[RankedSamples]:
    """Pairs of which people prefer more of GOOD, or the longer one; neither tells of the other."""
    rng, said = random.Random(seed), []
    while len(said) < count:
        prompt = tuple(rng.randrange(60, 90) for _ in range(3))
        answers = [(rng.randrange(5, 15), rng.randrange(5)) for _ in "ab"]
        (x, y), (p, q) = ((length, good) for length, good in zip(*answers, strict=True))
        if x == y or p == q:
            continue
        texts = [rng.sample([GOOD] * good + [50] * (length - good), length) for length, good in answers]
        a, b = ((*text, END) for text in texts)
        said.append(judged(prompt, a, b, first=x > y if longer else p > q, rater=f"r{len(said) % 50}"))
    return said


def test_the_report_shows_that_people_preferred_what_is_longer(tiny_trunk: Maker, tmp_path: Path) -> None:
    slopes = []
    for longer in (False, True):
        trunk = tiny_trunk()
        train_reward_model(CONFIG, trunk, of_lengths(1, 150, longer), checkpoint_dir=tmp_path / str(longer))
        fit = evaluate(Scorer(trunk, [], CONFIG), of_lengths(2, 100, longer))
        assert fit is not None and fit.length_slope is not None
        slopes.append(fit.length_slope)
    by_worth, by_length = slopes
    assert by_length.low > max(0.0, by_worth.high)
    assert by_worth.low <= 0.0


class Service:
    """A ledger into which pairs are written as answers that were served and compared."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(connect(url))

    def append(self, judgements: Iterable[RankedSamples], start: int = 0) -> None:
        for n, judgement in enumerate(judgements, start):
            ids = [f"c{n}{side}" for side in "ab"]
            for id, sample in zip(ids, judgement.samples, strict=True):
                served = Completion(
                    id=id, response_id=id, choice=0, conversation_id=id, rater=judgement.rater, text="text",
                    messages=(Message(role="user", content="?"),), prompt_token_ids=sample.prompt_ids,
                    completion_token_ids=sample.completion_ids, logprobs=(-1.0,) * len(sample.completion_ids),
                    sampling={}, finish_reason="stop", policy_version=0, created=0.0,
                )  # fmt: skip
                self.ledger.append_answer(served.frame(model="m"), [served])
            comparison = Comparison(left=ids[0], right=ids[1], winner="left" if judgement.tiers == (0, 1) else "right")
            known = {"id": f"f{n:04d}", "judgement": comparison, "rater": judgement.rater, "split": "train"}
            self.ledger.append_feedback(Feedback.model_validate({**known, "created": 0.0}))

    def collect(self, quarantined: Iterable[str] = ()) -> TrainingData:
        def encode(messages: object, text: str) -> tuple[Ids, Ids]:
            raise AssertionError("what was served has its tokens")

        return collect(
            self.ledger, watermark=self.ledger.watermark(), since="0", parent=0, seed=0, encode=encode,
            config=replace(RoundConfig(), gate=GateConfig(prompts=2)), is_held_out=lambda _: False,
            quarantined=set(quarantined),
        )  # fmt: skip


def test_model_without_quarantined_raters_is_the_model_of_data_without_them_bit_for_bit(
    valkey_url: str, tiny_trunk: Maker, tmp_path: Path
) -> None:
    everything = crowd(0, 2, 0.5)[:150]
    service = Service(valkey_url)
    service.append(honest(everything))
    datas = {"without them": service.collect()}
    service.append([j for j in everything if j.rater.startswith("eve")], start=1000)
    datas["with them"] = service.collect()
    datas["quarantined"] = service.collect(("eve0", "eve1"))
    states = {}
    for name, data in datas.items():
        trunk = tiny_trunk()
        rankings = [
            RankedSamples(tuple(Sample(r.prompt_ids, ids) for ids in r.completions), r.tiers, weight=r.weight)
            for r in data.rankings
        ]
        train_reward_model(replace(CONFIG, epochs=1), trunk, rankings, checkpoint_dir=tmp_path / name)
        states[name] = trunk.state("reward")
    clean = states["without them"]
    assert all(torch.equal(tensor, clean[name]) for name, tensor in states["quarantined"].items())
    assert not all(torch.equal(tensor, clean[name]) for name, tensor in states["with them"].items())
    assert {"eve0", "eve1"} <= set(datas["with them"].raters)
    assert datas["quarantined"].raters == datas["without them"].raters
