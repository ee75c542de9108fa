"""PPO (Schulman et al. 2017) of the policy adapter against the reward model, with a KL penalty to the reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import PPOConfig
from training.model.roles import Role
from training.model.samples import Sample
from training.model.trunk import Trunk
from training.optimizing.parallel import gathered, leads, own
from training.optimizing.sharding import in_shares
from training.optimizing.steps import (
    OnProgress,
    require_finite,
    restore,
    set_rates,
    share_of_rate,
    silent,
    snapshot,
)
from training.ppo.advantages import adapt_kl_coef
from training.ppo.collapse import Collapsed, collapse
from training.ppo.experience import Experience, estimate_advantages, read_after_ends
from training.ppo.live import Turn, turns, weights_of
from training.ppo.metrics_log import MetricsLog
from training.ppo.phases import PhaseClock
from training.ppo.rollout import Rollout, Sampled, Sampler, observed, of_all, own_sampler
from training.ppo.telemetry import explained_variance, importance_metrics, rollout_metrics
from training.ppo.update import TRAINED, update


@dataclass(frozen=True)
class PPOReport:
    """One dictionary of metrics per iteration; the keys are those of OpenAI's lm-human-preferences."""

    iterations: int
    history: tuple[dict[str, float], ...]
    timings: tuple[dict[str, float], ...] = field(default=(), compare=False)  # of the same iterations

    @property
    def last(self) -> dict[str, float]:
        return self.history[-1]


@dataclass
class Course:
    """What a run has come to, beside the weights and the optimizer: all that resuming needs."""

    kl_coef: float
    average: dict[str, Tensor]  # of the policy's weights; empty when `ema_decay` is off
    history: list[dict[str, float]] = field(default_factory=list)
    timings: list[dict[str, float]] = field(default_factory=list)

    @property
    def known(self) -> list[dict[str, float]]:
        """The iterations as they are told."""
        return [a | b for a, b in zip(self.history, self.timings, strict=True)]

    def add(
        self, config: PPOConfig, metrics: dict[str, float], timing: dict[str, float], log: MetricsLog | None
    ) -> None:
        """One more iteration, which `log` is told of. Raises NonFinite, and Collapsed when it is one too many."""
        require_finite("ppo", len(self.history), **{name.replace("/", "_"): x for name, x in metrics.items()})
        self.history.append(metrics)
        self.timings.append(timing)
        if log is not None:
            log.append(metrics | timing)
        if (reason := collapse(config, self.history)) is not None:
            raise Collapsed(reason, self.history)

    def save(self, directory: Path, trunk: Trunk, optimizer: torch.optim.Optimizer) -> None:
        """A checkpoint after the last iteration."""
        if not leads():
            return
        state = {"kl_coef": self.kl_coef, "history": self.history, "timings": self.timings}
        checkpoint = snapshot(trunk, TRAINED, optimizer, len(self.history), state, average=self.average)
        save_checkpoint(directory, checkpoint)

    @classmethod
    def begun(cls, config: PPOConfig, trunk: Trunk, optimizer: torch.optim.Optimizer, directory: Path) -> "Course":
        """From the last checkpoint, if any; `trunk` and `optimizer` become what they were then."""
        if path := latest_checkpoint(directory):
            checkpoint = load_checkpoint(path)
            restore(trunk, TRAINED, optimizer, checkpoint)
            average = {name: tensor.to(trunk.device) for name, tensor in checkpoint.section("average").items()}
            state = checkpoint.state
            return cls(state["kl_coef"], average, list(state["history"]), list(state["timings"]))
        trunk.copy_role("reward", "value")
        policy = trunk.parameters("policy") if config.ema_decay is not None else {}
        return cls(config.kl_coef, {name: weight.detach().clone() for name, weight in policy.items()})


@in_shares
def train_ppo(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    checkpoint_dir: Path,
    metrics_dir: Path | None = None,
    progress: OnProgress = silent,
    ref: Role | None = None,
    sampler: Sampler | None = None,
    weights: Sequence[float] | None = None,
    live: Sequence[Sampled] = (),
    ptx: Sequence[Sample] = (),
    seed: int = 0,
) -> PPOReport:
    """Improve the policy adapter on `prompts`; goes on from the last checkpoint, if any.

    `ref` is the role that KL is measured from, None the base model; `sampler` writes the completions, None = the
    trainer. `weights` say how often each prompt is used; `live` are completions of some of them, for rollouts that are
    not all fresh; `ptx` are the demonstrations of `ptx_coef`, and without any there is no such loss. The value adapter
    and head start as the reward model's. With `ema_decay` the policy adapter becomes the average in the end.
    `metrics_dir` (default: `checkpoint_dir`) gets every iteration's metrics as files, see MetricsLog. Of several
    processes, which all call this, each works on its share, and one writes. Raises NonFinite on NaN, Collapsed when the
    policy is past saving, StalePolicy when the old log-probs are not those of the policy, TooFewLive, and ValueError
    when one head is to say how certain it is.
    """
    if config.uncertainty_coef > 0 and trunk.heads["reward"].out_features == 1:
        raise ValueError("uncertainty_coef: one head never disagrees; the trunk needs at least 2 reward heads")
    sampler = sampler or own_sampler(trunk, config, eos_ids)
    trunk.value_role = "policy" if config.value_trunk == "policy" else "value"
    trunk.gradient_checkpointing = config.gradient_checkpointing
    optimizer = torch.optim.Adam([{"params": list(trunk.parameters(role).values())} for role in TRAINED])
    course = Course.begun(config, trunk, optimizer, checkpoint_dir)
    done = len(course.history)
    counts = weights_of((each.sample.prompt_ids for each in live), prompts, weights or ())
    order = islice(turns(config, weights or [1.0] * len(prompts), counts, seed), done, config.iterations)

    with MetricsLog(metrics_dir or checkpoint_dir, course.known) if leads() else nullcontext() as log:
        for iteration, turn in enumerate(order, done):
            alive = partial(progress, "ppo", iteration, config.iterations, {})
            clock = PhaseClock()
            set_rates(optimizer, *learning_rates(config, iteration))
            with _writing(turn, trunk, clock):
                sampled = turn.sampled(prompts, live, sampler, seed=_noise(seed, iteration), alive=alive)
            with clock("observe"):
                rollouts = observed(
                    config, trunk, sampled, eos_ids=eos_ids, ref=ref, seed=seed, iteration=iteration, alive=alive
                )
                experiences = _experiences(config, trunk, rollouts, course.kl_coef)
            metrics = _about(config, experiences) | {"objective/kl_coef": course.kl_coef}
            with clock("update"):
                metrics |= update(
                    config, trunk, optimizer, own(experiences),
                    seed=seed, iteration=iteration, alive=alive, ptx=ptx, average=course.average,
                )  # fmt: skip
            timing = clock.metrics(_tokens(sampled), generate=_tokens(sampled[len(turn.live) :]))
            course.add(config, metrics, timing, log)
            course.kl_coef = _adapted(config, course.kl_coef, metrics["objective/kl"])
            if (iteration + 1) % config.checkpoint_every == 0 or iteration + 1 == config.iterations:
                course.save(checkpoint_dir, trunk, optimizer)
            progress("ppo", iteration + 1, config.iterations, metrics | timing)
    if course.average:
        trunk.load_state("policy", course.average)
    return PPOReport(len(course.history), tuple(course.history), tuple(course.timings))


def outcome(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    history: Sequence[dict[str, float]],
    *,
    eos_ids: frozenset[int],
    alive: Callable[[], None],
    ref: Role | None = None,
    sampler: Sampler | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """What the policy does that `train_ppo` has left on fresh rollouts: those in its `history` are all from before an
    update. It answers the prompts whose turn it would be; one process is enough. Raises Collapsed.
    """
    turn = next(islice(turns(config, weights or [1.0] * len(prompts), (), seed), config.iterations, None))
    sampler = sampler or own_sampler(trunk, config, eos_ids)
    sampled = turn.sampled(prompts, (), sampler, seed=_noise(seed, config.iterations), alive=alive)
    rollouts = observed(config, trunk, sampled, eos_ids=eos_ids, ref=ref, alive=alive)
    told = _about(config, _experiences(config, trunk, rollouts, kl_coef=0.0))
    found = {name: value for name, value in told.items() if not name.startswith("ppo/")}
    if (reason := collapse(config, [*history, found], "after the last update")) is not None:
        raise Collapsed(reason, [*history, found])
    return found


def _noise(seed: int, iteration: int) -> int:
    return seed * 1_000_003 + iteration


def _tokens(sampled: Sequence[Sampled]) -> int:
    return sum(len(item.sample.completion_ids) for item in sampled)


@contextmanager
def _writing(turn: Turn, trunk: Trunk, clock: PhaseClock) -> Iterator[None]:
    """Around what writes a turn's fresh completions, which takes all of the base; no phase where there are none."""
    if not turn.fresh:
        yield
        return
    with clock("generate"), trunk.whole():
        yield


def _experiences(config: PPOConfig, trunk: Trunk, rollouts: Sequence[Rollout], kl_coef: float) -> list[Experience]:
    """What to learn from the rollouts of all processes; `rollouts` are this one's."""
    read = None
    if config.score_at == "after_end":
        read = gathered([read_after_ends(config, trunk, rollout) for rollout in rollouts])
    return estimate_advantages(config, of_all(rollouts), kl_coef, read)


def _about(config: PPOConfig, experiences: Sequence[Experience]) -> dict[str, float]:
    """What the policy did, how well the values foresee the returns, and how far who sampled is from the policy."""
    rollouts = [e.rollout for e in experiences]
    masks = [rollout.batch.completion_mask for rollout in rollouts]
    foreseen = explained_variance([r.values for r in rollouts], [e.returns for e in experiences], masks)
    weights = torch.cat([_weights(e)[mask] for e, mask in zip(experiences, masks, strict=True)])
    log_ratios = torch.cat([r.log_ratios[mask] for r, mask in zip(rollouts, masks, strict=True)])
    known = importance_metrics(log_ratios, weights, config.importance_cap)
    return rollout_metrics(rollouts) | {"ppo/explained_variance": foreseen} | known


def _weights(experience: Experience) -> Tensor:
    rollout: Rollout = experience.rollout
    return torch.ones_like(rollout.log_probs) if experience.weights is None else experience.weights


def _adapted(config: PPOConfig, kl_coef: float, kl: float) -> float:
    """The KL coefficient of the next iteration."""
    if config.kl_target is None:
        return kl_coef
    return adapt_kl_coef(kl_coef, kl, config.kl_target, config.rollouts_per_iteration, config.kl_horizon)


def learning_rates(config: PPOConfig, iteration: int) -> tuple[float, float]:
    """The policy's and the value's: falling in a straight line towards 0, so that the last updates cannot overshoot."""
    left = share_of_rate(iteration, config.iterations)
    return config.learning_rate * left, config.value_learning_rate * left
