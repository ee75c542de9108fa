"""Where the time of an iteration goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class PhaseClock:
    """Adds up the seconds of named phases; what a GPU still has to do at the end of one counts there."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        finally:
            self.seconds[phase] += self._now() - start

    def metrics(self, tokens: float, **own: float) -> dict[str, float]:
        """Seconds by phase, and how many of an iteration's `tokens` went through each of them a second.

        `own` are the tokens of phases that not all of them went through. Where the numerator is the same for all,
        1 / rate adds up over the phases to 1 / rate of the whole.
        """
        seconds = {f"seconds/{phase}": took for phase, took in self.seconds.items()}
        timed = [(phase, took) for phase, took in self.seconds.items() if took > 0]
        return seconds | {f"tokens_per_s/{phase}": own.get(phase, tokens) / took for phase, took in timed}
