"""Completions from the policy, and everything PPO must know about them.

Letters: B batch, C completion tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from training.config import PPOConfig
from training.data import Batch, Sample, collate, left_padded, length_bucketed
from training.models import Role, Trunk
from training.phases import PhaseClock

GENERATION_BATCH = 64


@dataclass(frozen=True)
class Rollout:
    """A microbatch of completions with what the models thought of them when they were sampled. No gradients."""

    batch: Batch
    hidden: Tensor  # (B, T, D) `Trunk.lower`, shared by all roles and epochs
    log_probs: Tensor  # (B, C) of the policy that sampled, computed again by the trainer
    ref_log_probs: Tensor  # (B, C)
    values: Tensor  # (B, C)
    scores: Tensor  # (B,) of the reward model, before any rule for unfinished completions
    uncertainty: Tensor  # (B,) population standard deviation over its heads; 0 with one
    finished: Tensor  # (B,) bool: ended by a stop token


def _draw(probs: Tensor, noise: Tensor) -> Tensor:
    """Tokens (B,) by inverting the distribution function of probs (B, V) at noise (B, 1), uniform in [0, 1).

    In fp64, since in fp32 the sum over a large vocabulary would swallow its rare tokens. One number per row is much
    cheaper than one per row and token, and a token of probability 0 is never drawn.
    """
    cumulative = probs.double().cumsum(-1)
    tokens = torch.searchsorted(cumulative, noise * cumulative[:, -1:], right=True)
    return tokens.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def _sample_batch(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    role: Role | None,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Pure sampling. Row i meets the same noise whoever samples, so two policies with one seed are paired."""
    ids, mask = (x.to(trunk.device) for x in left_padded(prompts, trunk.pad_id))
    cache = DynamicCache(config=trunk.model.config)
    rows = torch.arange(len(prompts))  # those still writing
    noise = torch.rand(len(prompts), max_new_tokens, 1, dtype=torch.float64, generator=generator)
    completions: list[list[int]] = [[] for _ in prompts]
    for step in range(max_new_tokens):
        probs = trunk.next_token_logits(ids, mask, cache, role).float().div(temperature).softmax(-1)  # (rows, V)
        tokens = _draw(probs, noise[rows, step].to(probs.device))
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            completions[row].append(token)
        going = torch.tensor([token not in eos_ids for token in tokens.tolist()])
        if not going.any():
            break
        ids, mask = tokens.unsqueeze(1), torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if not going.all():
            kept = going.nonzero().squeeze(1)
            rows, ids, mask = rows[kept], ids[kept.to(ids.device)], mask[kept.to(mask.device)]
            cache.batch_select_indices(kept.to(ids.device))
    return [tuple(completion) for completion in completions]


@torch.no_grad()
def sample_completions(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    role: Role | None,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    alive: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """One completion of each prompt, stop token included; no top-k, no top-p. `alive` is called after each batch."""
    generator = torch.Generator().manual_seed(seed)
    completions: dict[int, tuple[int, ...]] = {}
    for indices in length_bucketed([len(p) for p in prompts], GENERATION_BATCH):
        batch = _sample_batch(
            trunk,
            [prompts[i] for i in indices],
            role=role,
            eos_ids=eos_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            generator=generator,
        )
        completions |= dict(zip(indices, batch, strict=True))
        alive()
    return [completions[i] for i in range(len(prompts))]


@torch.no_grad()
def observe(
    trunk: Trunk, samples: Sequence[Sample], *, eos_ids: frozenset[int], temperature: float, ref: Role | None
) -> Rollout:
    """One microbatch of the policy's own samples as a rollout."""
    batch = collate(samples, trunk.pad_id, trunk.device)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    by_head = trunk.head_scores(hidden, batch)
    return Rollout(
        batch=batch,
        hidden=hidden,
        log_probs=trunk.log_probs(hidden, batch, "policy", temperature)[0],
        ref_log_probs=trunk.log_probs(hidden, batch, ref, temperature)[0],
        values=trunk.values(hidden, batch),
        scores=by_head.mean(-1),
        uncertainty=by_head.std(-1, correction=0),
        finished=torch.tensor([s.completion_ids[-1] in eos_ids for s in samples], device=trunk.device),
    )


def collect_rollouts(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    ref: Role | None = None,
    seed: int = 0,
    alive: Callable[[], None] = lambda: None,
    clock: PhaseClock | None = None,
) -> list[Rollout]:
    """One completion of each prompt under the policy adapter, in microbatches of like length.

    `ref` is the role that KL is measured from, None the base model. `alive` is called after each part of the work.
    `clock` learns the time of the phases generate and observe.
    """
    clock = clock or PhaseClock()
    with clock("generate"):
        completions = sample_completions(
            trunk,
            prompts,
            role="policy",
            eos_ids=eos_ids,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=seed,
            alive=alive,
        )
    samples = [Sample(tuple(p), c) for p, c in zip(prompts, completions, strict=True)]
    rollouts = []
    for indices in length_bucketed([len(s) for s in samples], config.microbatch):
        chosen = [samples[i] for i in indices]
        with clock("observe"):
            rollouts.append(observe(trunk, chosen, eos_ids=eos_ids, temperature=config.temperature, ref=ref))
        alive()
    return rollouts
