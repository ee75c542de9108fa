"""Which completions an iteration of PPO learns from: fresh ones of which prompts, and live ones, which people received.

All of it is a pure function of the seed and the iteration, so a resumed run goes on with what would have come.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from training.config import PPOConfig
from training.lessons.received import Received, live_per_turn
from training.model.samples import Sample
from training.ppo.rollout import Sampled, Sampler


@dataclass(frozen=True)
class Turn:
    """What one iteration learns from, as indices: of prompts to be answered now, and of live completions."""

    fresh: tuple[int, ...]
    live: tuple[int, ...]

    def sampled(
        self,
        prompts: Sequence[Sequence[int]],
        live: Sequence[Sampled],
        sampler: Sampler,
        *,
        seed: int,
        alive: Callable[[], None],
    ) -> list[Sampled]:
        """The completions themselves; the sampler is only asked when there is something to write."""
        written = sampler([prompts[i] for i in self.fresh], seed=seed, alive=alive) if self.fresh else ()
        return [*(live[i] for i in self.live), *written]


def turns(config: PPOConfig, weights: Sequence[float], live: Sequence[float], seed: int) -> Iterator[Turn]:
    """The iterations in order; `weights` are the prompts', `live` those of the live completions.

    Raises TooFewLive, at once.
    """
    size, order = live_per_turn(config, len(live)), in_proportion(weights, seed)
    return (
        Turn(tuple(islice(order, config.rollouts_per_iteration - size)), live_turn(live, size, seed, iteration))
        for iteration in count()
    )


def live_turn(weights: Sequence[float], size: int, seed: int, iteration: int) -> tuple[int, ...]:
    """`size` indices of live completions: in each pass over them none comes twice, and the order is drawn anew.

    In what order says the weight, as `in_proportion` has it: few iterations see no whole pass, and whoever has received
    very much does not fill them. What is left at the end of a pass is too little for an iteration, and waits.
    """
    if size == 0:
        return ()
    a_pass, place = divmod(iteration, len(weights) // size)
    moments = [random.Random(f"{seed}/{a_pass}/{i}").random() / weight for i, weight in enumerate(weights)]
    return tuple(sorted(range(len(weights)), key=moments.__getitem__)[place * size : (place + 1) * size])


def weights_of(
    asked: Iterable[Sequence[int]], prompts: Sequence[Sequence[int]], weights: Sequence[float]
) -> list[float]:
    """How much each of the prompts `asked` counts; without any `weights` all count alike."""
    if not weights:
        return [1.0 for _ in asked]
    known = dict(zip(map(tuple, prompts), weights, strict=True))
    return [known[tuple(prompt)] for prompt in asked]


def in_proportion(weights: Sequence[float], seed: int) -> Iterator[int]:
    """Indices without end, each as often as its positive weight says: once in every period of 1 / weight.

    Its moment within each is drawn (stride scheduling, Waldspurger & Weihl 1995, with jitter). With equal weights that
    is one pass after another, each in its own order.
    """

    def moment(index: int, period: int) -> float:
        return (period + random.Random(f"{seed}/{index}/{period}").random()) / weights[index]

    due = [(moment(index, 0), index, 0) for index in range(len(weights))]
    heapq.heapify(due)
    while due:
        _, index, period = due[0]
        yield index
        heapq.heapreplace(due, (moment(index, period + 1), index, period + 1))


def live_sampled(completions: Sequence[Received]) -> list[Sampled]:
    """The same for PPO's eyes."""
    return [Sampled(Sample(each.prompt_ids, each.completion_ids), each.log_probs) for each in completions]


def learnt_from(
    config: PPOConfig, completions: Sequence[Received], weights: Sequence[float], seed: int
) -> list[Received]:
    """Those that a whole run learns from, by their prompts' weights: perhaps not all have had their turn."""
    size = live_per_turn(config, len(completions))
    used = {i for turn in range(config.iterations) for i in live_turn(weights, size, seed, turn)}
    return [completions[i] for i in sorted(used)]
