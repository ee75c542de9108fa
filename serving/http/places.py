"""How many may be in one place at once; one more is refused at once instead of waiting without hope."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from serving.http.errors import unavailable


class Places:
    """`what` says of a request what it does there; `gauge` shows how many do."""

    def __init__(self, limit: int, what: str, gauge: Gauge | None = None) -> None:
        self.limit, self.what, self.gauge = limit, what, gauge
        self.count = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises ApiError 503 when there is none."""
        self.take()
        try:
            yield
        finally:
            self.leave()

    def take(self) -> None:
        """Until `leave`. Raises ApiError 503 when there is none."""
        if self.count >= self.limit:
            raise unavailable(f"{self.limit} requests {self.what} already; repeat soon", "queue_full")
        self._move(1)

    def leave(self) -> None:
        self._move(-1)

    def _move(self, change: int) -> None:
        self.count += change
        if self.gauge is not None:
            self.gauge.inc(change)
