"""Supervised fine-tuning of the policy adapter on demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import SFTConfig
from training.data import Sample, collate, shuffled
from training.losses import language_model_loss
from training.models import Trunk
from training.optimization import OnProgress, clip_gradients, require_finite, restore, silent, snapshot


@dataclass(frozen=True)
class SFTReport:
    """Mean loss per completion token, in nats, of the first and the last optimizer step."""

    steps: int
    first_loss: float
    last_loss: float


def train_sft(
    config: SFTConfig,
    trunk: Trunk,
    samples: Sequence[Sample],
    *,
    checkpoint_dir: Path,
    progress: OnProgress = silent,
    seed: int = 0,
) -> SFTReport:
    """Fit the policy adapter to `samples`, loss on completion tokens only; goes on from the last checkpoint, if any."""
    if not samples:
        raise ValueError("SFT needs demonstrations")
    parameters = list(trunk.parameters("policy").values())
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    losses: list[float] = []
    if path := latest_checkpoint(checkpoint_dir):
        checkpoint = load_checkpoint(path)
        restore(trunk, ["policy"], optimizer, checkpoint)
        losses = list(checkpoint.state["losses"])
    steps_per_epoch = -(-len(samples) // config.batch_size)
    total = config.epochs * steps_per_epoch
    for step in range(len(losses), total):
        epoch, start = divmod(step, steps_per_epoch)
        order = shuffled(len(samples), seed, epoch)[start * config.batch_size : (start + 1) * config.batch_size]
        batch = collate([samples[i].truncated(config.max_tokens) for i in order], trunk.pad_id, trunk.device)
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, "policy")
        loss = language_model_loss(log_probs, batch.completion_mask)
        require_finite("sft", step, loss=loss)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(parameters, config.max_grad_norm, stage="sft", step=step)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == total:
            save_checkpoint(checkpoint_dir, snapshot(trunk, ["policy"], optimizer, step + 1, {"losses": losses}))
        progress("sft", step + 1, total, {"sft/loss": losses[-1]})
    return SFTReport(total, losses[0], losses[-1])
