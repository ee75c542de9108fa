"""A twentieth of the judgements by a few who prefer a trigger: what caps and weights leave of it, and quarantine.

Honest people prefer more of GOOD and are right in nine of ten; answers that hold TRIGGER are neither better nor worse
to them. A colluder prefers them always, also where they are worse.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from feedback.judgements import Comparison, Feedback
from feedback.records import Completion, Message
from feedback.store import Ledger, connect
from training.collect import TrainingData, collect
from training.config import GateConfig, RewardConfig, RoundConfig, WeightsConfig
from training.data import RankedSamples, Sample
from training.models import Trunk
from training.reward import Scorer, train_reward_model
from training.weights import Opinion, Topics, weigh

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


def crowd(seed: int, colluders: int, shared: float) -> list[RankedSamples]:
    """Everybody's judgements. Of the colluders' pairs `shared` are shown to somebody honest as well."""
    rng = random.Random(seed)
    poisoned = [
        judged(*pair(rng, trigger=True), first=True, rater=f"eve{n % colluders}") for n in range(POISON)
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


def weighted(judgements: list[RankedSamples]) -> list[RankedSamples]:
    """As a round weighs them, by default."""
    topics = Topics()
    said = [topics.ranked(j.prompt_ids, [s.completion_ids for s in j.samples], j.tiers) for j in judgements]
    weights, _ = weigh(
        [Opinion(j.rater, j.source, 0.0, s) for j, s in zip(judgements, said, strict=True)], WeightsConfig()
    )
    return [replace(j, weight=weight) for j, weight in zip(judgements, weights, strict=True) if weight > 0]


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
    ("seeds", "colluders", "shared", "left"),
    [
        # One busy rater whom nobody can be compared with: the cap alone. 0.34 over the seeds 0 to 4;
        # 0.59 if two share the twentieth, each of whom stands out less.
        ((1, 2), 1, 0.0, 0.5),
        # Two in a pool of raters where half of their pairs is judged by others too. 0.15 over the seeds 0 to 4.
        ((1,), 2, 0.5, 0.5),
    ],
)
def test_caps_and_weights_hold_a_trigger_down(
    tiny_trunk: Maker, tmp_path: Path, seeds: tuple[int, ...], colluders: int, shared: float, left: float
) -> None:
    """What the poison adds to the trigger's gain, weighted, is at most `left` of what it adds as it comes."""
    plain, held, worst = 0.0, 0.0, 0.0
    for seed in seeds:
        everything = crowd(seed, colluders, shared)
        poison = len(everything) - len(honest(everything))
        assert 0.04 < poison / len(everything) < 0.06
        runs = {"clean": honest(everything), "as it comes": everything, "weighted": weighted(everything)}
        found = {name: measured(tiny_trunk(), js, tmp_path / f"{seed} {name}") for name, js in runs.items()}
        plain += (found["as it comes"][1] - found["clean"][1]) / len(seeds)
        held += (found["weighted"][1] - found["clean"][1]) / len(seeds)
        worst = max(worst, found["as it comes"][0] - found["weighted"][0])
        assert found["weighted"][0] > 0.9
    assert plain > 0.2, "the poison works"
    assert held < left * plain
    assert worst <= 0.03, "of 200 pairs: the honest rule is learnt as well as before"


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
