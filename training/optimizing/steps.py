"""What the three stages share: the optimizer step and its rate, its guards, and how a stage tells how far it is."""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from training.checkpoints import Checkpoint, load_optimizer, optimizer_tensors
from training.model.roles import Role
from training.model.trunk import Trunk
from training.optimizing.parallel import sum_gradients, summed


class OnProgress(Protocol):
    """Told how far a stage is; may raise to stop it (a lost lease). Long steps report in between, without metrics."""

    def __call__(self, stage: str, step: int, total: int, metrics: dict[str, float]) -> None: ...


class NonFinite(ArithmeticError):
    """A loss or gradient was NaN or infinite: the stage stops before it can touch the weights."""


def silent(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
    """The progress that tells nobody."""


def require_finite(stage: str, step: int, **numbers: float | Tensor) -> None:
    """NonFinite, naming the stage, the step and the first of `numbers` that is NaN or infinite."""
    for name, number in numbers.items():
        value = number.item() if isinstance(number, Tensor) else number
        if not math.isfinite(value):
            raise NonFinite(f"{stage}: {name} is {value} at step {step}")


def share_of_rate(step: int, total: int, *, warmup: float = 0.0, decay: bool = True) -> float:
    """What a learning rate is multiplied by at `step` of `total`, from 0 on: up in a straight line, then down.

    With w = round(warmup * total) steps of warm-up, (step + 1) / (w + 1) before step w; from there on
    1 - (step - w) / (total - w), which is 1 at step w and would be 0 at step `total`; without `decay` 1. No step has 0.
    A function of the step alone: a run that was broken off goes on with the rates it would have had.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 1 - (step - rising) / (total - rising) if decay else 1.0


def set_rates(optimizer: torch.optim.Optimizer, *rates: float) -> None:
    """The learning rate of each group of parameters, in their order."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, *, stage: str, step: int) -> float:
    """Scale the gradients down to `max_norm` and return the norm they had; NonFinite when it is not finite."""
    norm = float(torch.nn.utils.clip_grad_norm_(list(parameters), max_norm))
    require_finite(stage, step, gradient_norm=norm)
    return norm


def descend(optimizer: torch.optim.Optimizer, loss: float, max_norm: float, *, stage: str, step: int) -> float:
    """One step by the gradients of all processes, clipped to `max_norm`, from each one's part of the loss to all of it.

    NonFinite, with the weights as they were, when the loss or the gradient is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    whole = summed({"loss": loss})["loss"]
    require_finite(stage, step, loss=whole)
    sum_gradients(parameters)
    clip_gradients(parameters, max_norm, stage=stage, step=step)
    optimizer.step()
    return whole


@torch.no_grad()
def follow(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor], decay: float) -> None:
    """One step of an exponential moving average, in place: decay * average + (1 - decay) * parameter, name by name."""
    for name, tensor in average.items():
        tensor.lerp_(parameters[name], 1 - decay)


def snapshot(
    trunk: Trunk,
    roles: Iterable[Role],
    optimizer: torch.optim.Optimizer,
    step: int,
    state: Mapping[str, object],
    **sections: Mapping[str, Tensor],
) -> Checkpoint:
    """Adapters, heads, optimizer and other named `sections` after `step` steps.

    Draws depend on seed and step alone: no RNG to keep.
    """
    parts = {role: trunk.state(role) for role in roles} | {"optimizer": optimizer_tensors(optimizer)} | sections
    return Checkpoint(
        step, {f"{part}/{name}": t for part, tensors in parts.items() for name, t in tensors.items()}, state
    )


def restore(trunk: Trunk, roles: Iterable[Role], optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """The reverse of `snapshot`, bit for bit."""
    for role in roles:
        trunk.load_state(role, checkpoint.section(role))
    load_optimizer(optimizer, checkpoint.section("optimizer"))
