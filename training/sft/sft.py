"""Supervised fine-tuning of the policy adapter on demonstrations."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import SFTConfig
from training.losses import language_model_loss
from training.model.samples import Sample, collate, shuffled
from training.model.scoring import shares_prompts
from training.model.trunk import Trunk
from training.optimizing.parallel import evenly, leads, share
from training.optimizing.sharding import in_shares
from training.optimizing.steps import OnProgress, descend, restore, silent, snapshot
from training.sft.lm_loss import batches, negative_log_likelihoods, per_token

Lesson = TypeVar("Lesson")


@dataclass(frozen=True)
class SFTReport:
    """Mean losses per completion token, in nats: of the first and the last optimizer step, and of what was held out."""

    steps: int
    first_loss: float
    last_loss: float
    held_out: int = 0  # demonstrations that only measured
    held_out_before: float | None = None  # None without any
    held_out_after: float | None = None


def with_replay(new: Sequence[Lesson], old: Sequence[Lesson], replay: float, seed: int) -> list[Lesson]:
    """All `new` demonstrations and `replay` times as many of the `old`, if there are, so that those stay known.

    The draw is a function of its arguments; each round has another seed, and so in time all of them come up again.
    """
    count = min(len(old), round(replay * len(new)))
    return [*new, *random.Random(f"{seed}/replay").sample(old, count)]


def backward(trunk: Trunk, samples: Sequence[Sample], token_budget: int, *, packed: bool) -> float:
    """Add the gradients of the loss per completion token of all `samples`, whatever forwards they are cut into.

    Of several processes each has its share of both, which are still to be summed.
    """
    tokens = float(sum(len(sample.completion_ids) for sample in samples))
    total = 0.0
    own = [batch for _, batch in batches(trunk, share(samples), token_budget, packed=packed)]
    for batch, counts in evenly(own, collate(samples[:1], trunk.pad_id, trunk.device)):
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, "policy")
        loss = counts * language_model_loss(log_probs, batch.completion_mask, normaliser=tokens)
        loss.backward()
        total += loss.item()
    return total


@in_shares
def train_sft(
    config: SFTConfig,
    trunk: Trunk,
    samples: Sequence[Sample],
    *,
    checkpoint_dir: Path,
    held_out: Sequence[Sample] = (),
    progress: OnProgress = silent,
    seed: int = 0,
) -> SFTReport:
    """Fit the policy adapter to `samples`, loss on completion tokens only; goes on from the last checkpoint, if any.

    The loss of those `held_out` is measured before and after. Of several processes, which all call this, each works on
    its share of every step, and one writes.
    """
    if not samples:
        raise ValueError("SFT needs demonstrations")
    samples, held_out = ([each.truncated(config.max_tokens) for each in kind] for kind in (samples, held_out))
    steps_per_epoch = -(-len(samples) // config.batch_size)
    total = config.epochs * steps_per_epoch
    trunk.gradient_checkpointing = config.gradient_checkpointing
    optimizer = torch.optim.Adam(trunk.parameters("policy").values(), lr=config.learning_rate)
    packed = shares_prompts(trunk, config.max_tokens)
    measured = partial(_held_out_loss, trunk, held_out, config.token_budget)
    losses, before = _resume(trunk, optimizer, checkpoint_dir) or ([], measured(partial(progress, "sft", 0, total, {})))
    for step in range(len(losses), total):
        epoch, start = divmod(step, steps_per_epoch)
        order = shuffled(len(samples), seed, epoch)[start * config.batch_size : (start + 1) * config.batch_size]
        optimizer.zero_grad()
        loss = backward(trunk, [samples[i] for i in order], config.token_budget, packed=packed)
        losses.append(descend(optimizer, loss, config.max_grad_norm, stage="sft", step=step))
        if leads() and ((step + 1) % config.checkpoint_every == 0 or step + 1 == total):
            state = {"losses": losses, "held_out_before": before}
            save_checkpoint(checkpoint_dir, snapshot(trunk, ["policy"], optimizer, step + 1, state))
        progress("sft", step + 1, total, {"sft/loss": losses[-1]})
    after = measured(partial(progress, "sft", total, total, {}))
    return SFTReport(total, losses[0], losses[-1], len(held_out), before, after)


def _held_out_loss(
    trunk: Trunk, held_out: Sequence[Sample], token_budget: int, alive: Callable[[], None]
) -> float | None:
    """Per token, by the policy as it is; None without any."""
    nats = negative_log_likelihoods(trunk, held_out, "policy", token_budget, alive=alive)
    return per_token(held_out, nats) if held_out else None


def _resume(
    trunk: Trunk, optimizer: torch.optim.Optimizer, checkpoint_dir: Path
) -> tuple[list[float], float | None] | None:
    """The losses of the steps so far and the held-out one before them; None where there is nothing to go on from."""
    if (path := latest_checkpoint(checkpoint_dir)) is None:
        return None
    checkpoint = load_checkpoint(path)
    restore(trunk, ["policy"], optimizer, checkpoint)
    return list(checkpoint.state["losses"]), checkpoint.state["held_out_before"]
