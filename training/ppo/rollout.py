"""Completions from the policy, and everything PPO must know about them.

Letters: B batch, C completion tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from training.config import PPOConfig
from training.model.decoding import at_once, decoder
from training.model.roles import Role
from training.model.samples import Batch, Sample, collate, length_bucketed
from training.model.trunk import Trunk
from training.optimizing.parallel import gathered, share
from training.ppo.minibatches import drawn


@dataclass(frozen=True)
class Sampled:
    """A completion and what its writer thought of it.

    `log_probs` are the behaviour policy's, of each completion token at the temperature it sampled at; None where the
    trainer itself has sampled: its own cannot differ from those that it computes again.
    """

    sample: Sample
    log_probs: tuple[float, ...] | None = None


class Sampler(Protocol):
    """Writes one completion of each prompt, in order, under the policy adapter as it is now."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], *, seed: int, alive: Callable[[], None]
    ) -> Sequence[Sampled]: ...


@dataclass(frozen=True)
class Rollout:
    """A microbatch of completions with what the models think of them before an update. No gradients."""

    batch: Batch
    hidden: Tensor  # (B, T, D) `Trunk.lower`, shared by all roles and epochs
    log_probs: Tensor  # (B, C) of the policy, by the trainer: the old ones of PPO's ratio
    behaviour_log_probs: Tensor | None  # (B, C) of whoever sampled; None = the same
    ref_log_probs: Tensor  # (B, C)
    entropies: Tensor  # (B, C) of the policy, over the whole vocabulary
    kl: Tensor  # (B, C) of the policy from the reference, over the whole vocabulary
    values: Tensor  # (B, C)
    scores: Tensor  # (B,) of the reward model, before any rule for unfinished completions
    uncertainty: Tensor  # (B,) population standard deviation over its heads; 0 with one
    finished: Tensor  # (B,) bool: ended by a stop token

    @property
    def log_ratios(self) -> Tensor:
        """log(policy / whoever sampled) (B, C) of each token; 0 in the padding and where the policy itself has."""
        if self.behaviour_log_probs is None:
            return torch.zeros_like(self.log_probs)
        return (self.log_probs - self.behaviour_log_probs).masked_fill(~self.batch.completion_mask, 0.0)


#: Tokens (B,) from logits (B, V), those of `rows` of the prompts, at a step.
Choose = Callable[[Tensor, Sequence[int], int], Tensor]


def _by_noise(noise: Tensor, temperature: float) -> Choose:
    """Pure sampling; row i meets noise[i] (max_new_tokens, 1), uniform in [0, 1)."""

    def choose(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        probs = logits.div(temperature).softmax(-1)  # (B, V)
        return _draw(probs, noise[rows, step].to(probs.device))

    return choose


def _draw(probs: Tensor, noise: Tensor) -> Tensor:
    """Tokens (B,) by inverting the distribution function of probs (B, V) at noise (B, 1), uniform in [0, 1).

    In fp64, since in fp32 the sum over a large vocabulary would swallow its rare tokens. One number per row is much
    cheaper than one per row and token, and a token of probability 0 is never drawn.
    """
    cumulative = probs.double().cumsum(-1)
    tokens = torch.searchsorted(cumulative, noise * cumulative[:, -1:], right=True)
    return tokens.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def _write_batch(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    role: Role | None,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    choose: Choose,
) -> list[tuple[int, ...]]:
    writer = decoder(trunk, prompts, role, max_new_tokens)
    completions: list[list[int]] = [[] for _ in prompts]
    ended: set[int] = set()
    for step in range(max_new_tokens):
        tokens = choose(writer.logits().float(), writer.rows, step)
        for row, token in zip(writer.rows, tokens.tolist(), strict=True):
            if row not in ended:
                completions[row].append(token)
                if token in eos_ids:
                    ended.add(row)
        if len(ended) == len(prompts) or step + 1 == max_new_tokens:
            break
        writer.go_on(tokens, [row not in ended for row in writer.rows])
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
    """One completion of each prompt, stop token included; no top-k, no top-p. `alive` is called after each batch.

    A prompt meets the same noise whoever samples, so two policies with one seed are paired. Of several processes each
    writes its share, and all come to know all.
    """
    size = at_once(trunk.device, max(map(len, prompts), default=0) + max_new_tokens)
    order = [i for batch in length_bucketed([len(p) for p in prompts], size) for i in batch]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(prompts), max_new_tokens, 1, dtype=torch.float64, generator=generator)
    places = share(range(len(prompts)))  # in `order`
    completions: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(places), size):
        chosen = places[start : start + size]
        indices = [order[place] for place in chosen]
        batch = _write_batch(
            trunk,
            [prompts[i] for i in indices],
            role=role,
            eos_ids=eos_ids,
            max_new_tokens=max_new_tokens,
            choose=_by_noise(noise[chosen], temperature),
        )
        completions |= dict(zip(indices, batch, strict=True))
        alive()
    known = dict(gathered(list(completions.items())))
    return [known[i] for i in range(len(prompts))]


@torch.no_grad()
def likeliest_completions(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    role: Role | None,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    alive: Callable[[int], None] = lambda _: None,
) -> list[tuple[int, ...]]:
    """One completion of each of a few prompts, the likeliest token at every step; `alive` hears of each."""

    def likeliest(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        alive(step)
        return logits.argmax(-1)

    return _write_batch(trunk, prompts, role=role, eos_ids=eos_ids, max_new_tokens=max_new_tokens, choose=likeliest)


@torch.no_grad()
def observe(
    trunk: Trunk, sampled: Sequence[Sampled], *, eos_ids: frozenset[int], temperature: float, ref: Role | None
) -> Rollout:
    """One microbatch of completions as a rollout; `ref` is the role that KL is measured from, None the base model."""
    samples = [item.sample for item in sampled]
    batch = collate(samples, trunk.pad_id, trunk.device)
    hidden = trunk.lower(batch.input_ids, batch.attention_mask)
    by_head = trunk.head_scores(hidden, batch)
    found = trunk.beside(hidden, batch, "policy", ref, temperature)
    return Rollout(
        batch=batch,
        hidden=hidden,
        log_probs=found.log_probs,
        behaviour_log_probs=_behaviour(sampled, batch, found.log_probs),
        ref_log_probs=found.other_log_probs,
        entropies=found.entropies,
        kl=found.kl,
        values=trunk.values(hidden, batch),
        scores=by_head.mean(-1),
        uncertainty=by_head.std(-1, correction=0),
        finished=torch.tensor([s.completion_ids[-1] in eos_ids for s in samples], device=trunk.device),
    )


def _behaviour(sampled: Sequence[Sampled], batch: Batch, log_probs: Tensor) -> Tensor | None:
    """The behaviour policies' log-probs (B, C); None where all are the trainer's own `log_probs`."""
    if all(item.log_probs is None for item in sampled):
        return None
    rows = [own[mask] for own, mask in zip(log_probs, batch.completion_mask, strict=True)]
    known = [row if item.log_probs is None else row.new_tensor(item.log_probs)
             for item, row in zip(sampled, rows, strict=True)]  # fmt: skip
    return batch.spread(torch.cat(known))


def own_sampler(trunk: Trunk, config: PPOConfig, eos_ids: frozenset[int]) -> Sampler:
    """The trainer samples by itself, which needs nothing else and is the slowest way."""

    def sample(prompts: Sequence[Sequence[int]], *, seed: int, alive: Callable[[], None]) -> list[Sampled]:
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
        return [Sampled(Sample(tuple(p), c)) for p, c in zip(prompts, completions, strict=True)]

    return sample


def observed(
    config: PPOConfig,
    trunk: Trunk,
    sampled: Sequence[Sampled],
    *,
    eos_ids: frozenset[int],
    ref: Role | None = None,
    seed: int = 0,
    iteration: int = 0,
    alive: Callable[[], None] = lambda: None,
) -> list[Rollout]:
    """Completions in the microbatches of their first epoch. `alive` is called after each part of the work.

    Of several processes each observes its share of every microbatch.
    """
    alone = all(item.log_probs is None for item in sampled)
    rollouts = []
    for minibatch in drawn([len(item.sample) for item in sampled], config.minibatch, seed, iteration * config.epochs):
        for start in range(0, len(minibatch), config.microbatch):
            chosen = [sampled[i] for i in share(minibatch[start : start + config.microbatch], start)]
            found = observe(trunk, chosen, eos_ids=eos_ids, temperature=config.temperature, ref=ref)
            own = found.behaviour_log_probs is None and not alone  # beside others', which are given
            rollouts.append(replace(found, behaviour_log_probs=found.log_probs) if own else found)
            alive()
    return rollouts


def of_all(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Those of all processes; the hidden states, by far the largest part, stay where they are."""
    return gathered(rollouts, [replace(rollout, hidden=rollout.hidden.new_empty(0)) for rollout in rollouts])
