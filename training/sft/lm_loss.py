"""The language-model loss of demonstrations: in forwards of so many tokens, and as it is measured.

Letters: B rows, C completion tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch

from feedback.statistics import Interval, cluster_bootstrap, share
from training.model.packing import Row, collate_end_to_end, in_order, within_budget
from training.model.roles import Role
from training.model.samples import Batch, Sample, collate
from training.model.scoring import shares_prompts
from training.model.trunk import Trunk


def batches(
    trunk: Trunk, samples: Sequence[Sample], token_budget: int, *, packed: bool
) -> Iterator[tuple[list[int], Batch]]:
    """`samples` in batches of at most `token_budget` tokens, each with the indices of those in it, in their order.

    `packed` ones are end to end in a row, which not every model can read; the others are padded to one length.
    """
    if packed:
        for indices in in_order([len(sample) for sample in samples], token_budget):
            yield indices, collate_end_to_end([samples[i] for i in indices], trunk.device)
        return
    rows = [[Row(sample.prompt_ids, (sample.completion_ids,))] for sample in samples]
    for indices in within_budget(rows, token_budget):
        yield indices, collate([samples[i] for i in indices], trunk.pad_id, trunk.device)


@torch.no_grad()
def negative_log_likelihoods(
    trunk: Trunk,
    samples: Sequence[Sample],
    role: Role | None,
    token_budget: int,
    *,
    temperature: float = 1.0,
    alive: Callable[[], None] = lambda: None,
) -> list[float]:
    """Of each completion given its prompt, in nats. `alive` is called after each batch."""
    found = [0.0] * len(samples)
    packed = bool(samples) and shares_prompts(trunk, max(map(len, samples)))
    for indices, batch in batches(trunk, samples, token_budget, packed=packed):
        log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, role, temperature)
        own = log_probs[batch.completion_mask].split([len(samples[i].completion_ids) for i in indices])
        for i, each in zip(indices, own, strict=True):
            found[i] = -each.sum().item()
        alive()
    return found


def per_token(samples: Sequence[Sample], nats: Sequence[float]) -> float:
    """The loss of all of them: their `nats` over their completion tokens; NaN of none."""
    return share(sum(nats), sum(len(sample.completion_ids) for sample in samples))


def rise(
    samples: Sequence[Sample],
    new: Sequence[float],
    old: Sequence[float],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The loss per token by the nats `new` less that by `old`, paired and drawn by prompt. ValueError without any."""
    sums: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for sample, a, b in zip(samples, new, old, strict=True):
        sums[sample.prompt_ids][0] += a - b
        sums[sample.prompt_ids][1] += len(sample.completion_ids)
    (interval,) = cluster_bootstrap(
        list(sums.values()), [lambda totals: share(*totals)], confidence=confidence, draws=draws, seed=seed
    )
    return interval
