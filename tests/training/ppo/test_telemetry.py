"""What PPO tells of itself, by hand; that padding and length leave it alone; and what is a collapse."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tensorboardX.proto.event_pb2 import Event

from feedback.policies.ppo_curves import LINES, curves, thinned
from training.config import PPOConfig
from training.losses import importance_weights, value_clip_fraction
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.model.vocabulary import side_by_side
from training.optimizing.steps import NonFinite
from training.ppo.collapse import Collapsed, collapse
from training.ppo.metrics_log import EVENTS, MetricsLog
from training.ppo.phases import PhaseClock
from training.ppo.ppo import Course, train_ppo
from training.ppo.rollout import Rollout
from training.ppo.telemetry import explained_variance, importance_metrics, repetition, rollout_metrics

EOS = frozenset({2})
PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (14,)]
CONFIG = PPOConfig(
    iterations=3, rollouts_per_iteration=4, max_new_tokens=6, minibatch=4, microbatch=2, lora_rank=8, lora_layers=2
)


def rollout(completions: list[tuple[int, ...]], log_probs: list[list[float]], ref: list[list[float]]) -> Rollout:
    """By hand; what a list leaves out is padding. A place's KL is twice what its token says, its entropy thrice."""
    batch = collate([Sample((5,), completion) for completion in completions], 0)
    width = batch.completion_mask.shape[1]

    def padded(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])

    count = len(completions)
    drawn, reference = padded(log_probs), padded(ref)
    return Rollout(
        batch=batch, hidden=torch.zeros(count, 1, 1), log_probs=drawn, ref_log_probs=reference,
        behaviour_log_probs=None, entropies=-3 * drawn, kl=2 * (drawn - reference),
        values=torch.zeros(count, width), scores=torch.arange(1.0, count + 1), uncertainty=torch.zeros(count),
        finished=torch.tensor([True, *[False] * (count - 1)]),
    )  # fmt: skip


LONG = ((6, 7, 8), [-1.0, -0.5, -0.2], [-1.2, -0.4, -0.3])  # the worked example of the research notes
SHORT = ((6,), [-1.0], [-1.4])
ECHO = ((6, 6, 6, 6, 6), [-0.1] * 5, [-0.1] * 5)


def both(*completions: tuple[tuple[int, ...], list[float], list[float]]) -> Rollout:
    ids, log_probs, ref = zip(*completions, strict=True)
    return rollout(list(ids), list(log_probs), list(ref))


def test_rollout_metrics_by_hand() -> None:
    assert rollout_metrics([both(LONG, SHORT), both(ECHO)]) == pytest.approx(
        {
            "objective/kl": 2 * (0.2 + 0.4 + 0) / 3,
            "objective/kl_per_token": 2 * 0.6 / 9,
            "objective/score": 4 / 3,
            "objective/score_std": (2 / 9) ** 0.5,
            "objective/uncertainty": 0.0,
            "objective/entropy": 3 * (1.7 + 1.0 + 0.5) / 9,
            "completion/length": 3.0,
            "completion/finished": 2 / 3,
            "completion/repetition": 0.5 / 3,
        },
        abs=1e-6,
    )


SPREAD = [0.05] * 20
HALF, OTHER_HALF = [0.099] * 10 + [0.001] * 10, [0.001] * 10 + [0.099] * 10


@pytest.mark.parametrize(
    ("policy", "sampler", "cap_bites"),
    [
        ([0.4, 0.4, *[0.2 / 18] * 18], SPREAD, True),
        ([0.99, *[0.01 / 19] * 19], SPREAD, True),
        (OTHER_HALF, HALF, True),  # as spread as the sampler, yet elsewhere
        (SPREAD, SPREAD, False),
    ],
)
def test_kl_and_entropy_are_the_policys_whoever_sampled(
    policy: list[float], sampler: list[float], cap_bites: bool
) -> None:
    """Of 20 tokens, as often as the sampler draws them, who is the reference: hardly ever what the policy would.

    With weights that are capped at 2, KL would come out as .10, .26 and .06, and the last entropy as .12: a collapse.
    """
    drawn = torch.tensor([token for token in range(20) for _ in range(round(1000 * sampler[token]))])
    p, q = (torch.tensor(each).expand(len(drawn), -1).log() for each in (policy, sampler))
    identity = torch.nn.Linear(20, 20, bias=False).requires_grad_(False)
    identity.weight.copy_(torch.eye(20))
    beside = side_by_side(p, q, drawn, identity)
    empty = [[0.0] for _ in drawn]
    sampled = replace(
        rollout([(5 + int(token),) for token in drawn], empty, empty),
        log_probs=beside.log_probs[:, None], behaviour_log_probs=beside.other_log_probs[:, None],
        entropies=beside.entropies[:, None], kl=beside.kl[:, None],
    )  # fmt: skip
    found = rollout_metrics([sampled])
    kl = sum(a * math.log(a / b) for a, b in zip(policy, sampler, strict=True))
    assert [found[f"objective/{name}"] for name in ("kl", "kl_per_token")] == pytest.approx([kl] * 2, abs=1e-5)
    assert found["objective/entropy"] == pytest.approx(-sum(a * math.log(a) for a in policy), abs=1e-5)
    assert bool((sampled.log_ratios.exp() > 2).any()) == cap_bites
    start = point(entropy=-sum(b * math.log(b) for b in sampler))
    assert collapse(CONFIG, [start, start | found | {"completion/length": 20.0}]) == (
        "entropy fell from 3 to 0.0854 at iteration 2, at least 0.1 of it must stay" if policy[0] == 0.99 else None
    )


def test_padding_changes_no_rollout_metric() -> None:
    """The same completions in microbatches of one, where nothing is padded, and all in one, with NaN in the padding."""
    apart = [both(LONG), both(SHORT), both(ECHO)]  # score 1 each, and finished
    together = both(LONG, SHORT, ECHO)
    padding = ~together.batch.completion_mask
    together = replace(
        together,
        kl=together.kl.masked_fill(padding, torch.nan),
        entropies=together.entropies.masked_fill(padding, torch.nan),
        scores=torch.ones(3),
        finished=torch.tensor([True, True, True]),
    )
    assert rollout_metrics([together]) == pytest.approx(rollout_metrics(apart), abs=1e-6)


@pytest.mark.parametrize(
    ("completion", "share"),
    [((1, 2, 3, 4, 5), 0.0), ((1, 2, 3), 0.0), ((1, 1, 1, 1, 1), 0.5), ((1, 2, 1, 2, 1, 2, 1, 2), 0.6)],
)
def test_repetition_by_hand(completion: tuple[int, ...], share: float) -> None:
    assert repetition(completion) == pytest.approx(share)


def test_explained_variance_by_hand() -> None:
    """Returns 1, 2, 3 (variance 2/3); what the values miss is 0, 0 and 1 (variance 2/9). The padding holds nonsense."""
    masks = [torch.tensor([[True, True]]), torch.tensor([[True, False]])]
    returns = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, torch.nan]])]
    values = [torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, torch.inf]])]
    assert explained_variance(values, returns, masks) == pytest.approx(2 / 3, abs=1e-6)
    assert explained_variance(returns, returns, masks) == pytest.approx(1)
    assert explained_variance([torch.zeros(1, 2)] * 2, returns, masks) == pytest.approx(0, abs=1e-6)


def test_importance_by_hand() -> None:
    """Ratios 4, 1 and 1/4 of which the first is cut to 1.7: the weights have a mean of .9833 and a mean square of
    1.3175."""
    log_ratios = torch.tensor([4.0, 1.0, 0.25]).log()
    weights = importance_weights(log_ratios, torch.zeros(3), torch.ones(3, dtype=torch.bool), 1.7)
    assert importance_metrics(log_ratios, weights, 1.7) == pytest.approx(
        {
            "importance/ratio": 5.25 / 3,
            "importance/kl": 5.25 / 3 - 1,  # ratio - 1 - log ratio, and the logarithms add up to 0
            "importance/capped": 1 / 3,
            "importance/ess": (2.95 / 3) ** 2 / (3.9525 / 3),
        },
        abs=1e-6,
    )
    same = importance_metrics(torch.zeros(3), torch.ones(3), 1.7)
    assert same == {"importance/ratio": 1, "importance/kl": 0, "importance/capped": 0, "importance/ess": 1}
    assert importance_metrics(torch.full((3,), -900.0), torch.zeros(3), 2.0)["importance/ess"] == 0


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    st.floats(0.01, 100),
)
def test_effective_share_lies_between_one_token_and_all_and_knows_no_scale(weights: list[float], scale: float) -> None:
    w = torch.tensor(weights, dtype=torch.float64)

    def share(weights: torch.Tensor) -> float:
        return importance_metrics(torch.zeros_like(weights), weights, 2.0)["importance/ess"]

    assert 1 / len(weights) - 1e-9 <= share(w) <= 1 + 1e-9
    assert share(w * scale) == pytest.approx(share(w), rel=1e-9)
    assert share(torch.ones_like(w) * scale) == pytest.approx(1)


def test_value_clip_fraction_by_hand() -> None:
    """Old value 0.5, clip 0.2. Twice towards its return, too far: clipped. Away from it: not. Within reach: not."""
    values, returns = torch.tensor([[1.0, 0.0, 1.0, 0.6, torch.nan]]), torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]])
    old, mask = torch.full((1, 5), 0.5), torch.tensor([[True, True, True, True, False]])
    assert value_clip_fraction(values, old, returns, mask, 0.2).item() == pytest.approx(1 / 2)
    assert value_clip_fraction(values, old, returns, mask, 0.2, normaliser=10).item() == pytest.approx(0.2)


def test_no_value_within_reach_is_told_as_clipped() -> None:
    """Where nothing is clipped the two errors differ by their rounding."""
    values, returns = torch.rand(40, 40), torch.rand(40, 40)
    old = values + 0.4 * torch.rand(40, 40) - 0.2
    assert value_clip_fraction(values, old, returns, torch.ones(40, 40, dtype=torch.bool), 0.21) == 0


def test_phases_add_up() -> None:
    times = iter([0.0, 2.0, 2.0, 3.0, 3.0, 5.0])
    clock = PhaseClock(lambda: next(times))
    for phase in ("generate", "observe", "generate"):
        with clock(phase):
            pass
    assert clock.metrics(80, generate=60)["tokens_per_s/generate"] == 15
    assert clock.metrics(80) == {
        "seconds/generate": 4, "seconds/observe": 1, "tokens_per_s/generate": 20, "tokens_per_s/observe": 80,
    }  # fmt: skip


@given(st.integers(1, 1000))
def test_thinning_keeps_both_ends_in_order(count: int) -> None:
    kept = thinned(count)
    assert len(kept) == min(count, 100)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert kept == sorted(set(kept))
    assert max((b - a for a, b in zip(kept, kept[1:], strict=False)), default=1) <= -(-count // 99)


def point(kl: float = 1.0, entropy: float = 2.0, length: float = 20.0) -> dict[str, float]:
    return {
        "objective/kl": kl, "objective/entropy": entropy, "completion/length": length, "objective/score": 0.5,
        "ppo/clipfrac": 0.1, "ppo/explained_variance": 0.3, "ppo/approxkl": 0.01, "ppo/value_clipfrac": 0.2,
        "completion/finished": 0.5, "completion/repetition": 0.1, "importance/ratio": 1.0, "importance/ess": 0.9,
    }  # fmt: skip


def test_curves_of_a_long_run_are_thinned() -> None:
    found = curves([point(kl=float(i)) for i in range(400)])
    assert len(found.iterations) == len(found.kl) == 100
    assert (found.iterations[0], found.iterations[-1]) == (1, 400)
    assert found.kl == tuple(i - 1 for i in found.iterations)
    assert (found.approx_kl, found.effective_share) == ((0.01,) * 100, (0.9,) * 100)


def test_curves_lack_what_an_older_release_did_not_measure() -> None:
    old = {name: value for name, value in point().items() if not name.startswith("importance/")}
    assert (curves([old]).importance_ratio, curves([old]).repetition) == (None, (0.1,))
    with pytest.raises(ValidationError, match="score"):
        curves([{name: value for name, value in old.items() if name != "objective/score"}])


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (point(), None),
        (point(kl=100.0, entropy=0.2, length=2.0), None),  # at each of the bounds
        (point(kl=100.1), "KL to the reference is 100 nats per completion at iteration 3, at most 100"),
        (point(entropy=0.19), "entropy fell from 2 to 0.19 at iteration 3, at least 0.1 of it must stay"),
        (point(length=1.9), "completion length fell from 20 to 1.9 at iteration 3, at least 0.1 of it must stay"),
    ],
)
def test_what_is_a_collapse(now: dict[str, float], reason: str | None) -> None:
    assert collapse(CONFIG, [point(), point(kl=99.0), now]) == reason


def test_bounds_of_collapse_can_be_lifted_and_are_checked() -> None:
    lifted = replace(CONFIG, collapse_kl=1e9, collapse_entropy=0.0, collapse_length=0.0)
    assert collapse(lifted, [point(), point(kl=1e8, entropy=-0.0, length=1.0)]) is None
    for wrong in ({"collapse_kl": 0.0}, {"collapse_entropy": 1.0}, {"collapse_length": -0.1}):
        with pytest.raises(ValueError, match="collapse_"):
            replace(CONFIG, **wrong)


def events(directory: Path) -> list[Event]:
    """Records of TFRecord: length, its checksum, the event, its checksum."""
    (file,) = (directory / EVENTS).iterdir()
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / LINES).read_text().splitlines()]


def test_log_is_lines_and_events(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, [{"a": 1.5}]) as log:
        log.append({"a": 2.5, "b": 0.25})
        assert lines(tmp_path) == [{"iteration": 1, "a": 1.5}, {"iteration": 2, "a": 2.5, "b": 0.25}]
        version, *rest = events(tmp_path)  # on the disk before the end of the run
    assert version.file_version == "brain.Event:2"
    assert [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in rest] == [
        (1, {"a": 1.5}),
        (2, {"a": 2.5, "b": 0.25}),
    ]


def test_what_is_beyond_the_checkpoint_is_cut(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for value in (1.0, 2.0, 3.0):
            log.append({"a": value})
    with (tmp_path / LINES).open("a") as file:
        file.write('{"iteration": 4, "a"')  # killed while it wrote
    with MetricsLog(tmp_path, [{"a": 1.0}]) as log:
        log.append({"a": 7.0})
    assert lines(tmp_path) == [{"iteration": 1, "a": 1.0}, {"iteration": 2, "a": 7.0}]
    assert [event.step for event in events(tmp_path)] == [0, 1, 2]
    with pytest.raises(ValueError, match="JSON"), MetricsLog(tmp_path) as log:
        log.append({"a": float("nan")})


Maker = Callable[..., Trunk]


class Interrupted(Exception):
    pass


def measured(directory: Path) -> list[dict[str, float]]:
    """All lines without the timings."""
    return [
        {name: value for name, value in line.items() if not name.startswith(("seconds/", "tokens_per_s/"))}
        for line in lines(directory)
    ]


def test_resumed_run_leaves_the_lines_of_an_undisturbed_one(tiny_trunk: Maker, tmp_path: Path) -> None:
    """A checkpoint every second iteration, stopped after the third: its line is written, then cut, then there again."""
    config = replace(CONFIG, iterations=4, checkpoint_every=2)
    a, b = tmp_path / "a", tmp_path / "b"
    train_ppo(config, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=a / "checkpoints", metrics_dir=a)

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 3 and not metrics:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_ppo(config, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=b, progress=interrupt)
    assert [line["iteration"] for line in lines(b)] == [1, 2, 3]
    train_ppo(config, tiny_trunk(), PROMPTS, eos_ids=EOS, checkpoint_dir=b, metrics_dir=tmp_path / "c")
    assert measured(tmp_path / "c") == measured(a)
    assert len(lines(a)) == 4
    for line in lines(tmp_path / "c"):
        for phase in ("generate", "observe", "update"):
            assert line[f"seconds/{phase}"] > 0
            tokens = line[f"seconds/{phase}"] * line[f"tokens_per_s/{phase}"]
            assert tokens == pytest.approx(4 * line["completion/length"])


def test_a_policy_that_collapses_stops_with_its_last_iteration_told(trunk: Trunk, tmp_path: Path) -> None:
    """Steps far too long towards what a random direction of the states likes."""
    config = replace(CONFIG, iterations=30, learning_rate=0.3, kl_coef=0.0, max_kl_step=1e9, collapse_kl=5.0)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        trunk.heads["reward"].weight.copy_(direction)
    with pytest.raises(Collapsed, match="at iteration") as caught:
        train_ppo(config, trunk, PROMPTS, eos_ids=EOS, checkpoint_dir=tmp_path)
    assert len(caught.value.history) == len(lines(tmp_path)) < 30


def test_an_iteration_that_is_not_finite_is_told_nowhere(tmp_path: Path) -> None:
    course = Course(0.1, {})
    with MetricsLog(tmp_path) as log, pytest.raises(NonFinite, match="ppo: objective_kl is nan at step 0"):
        course.add(CONFIG, {"objective/kl": math.nan}, {}, log)
    assert course.known == [] and lines(tmp_path) == []
