"""What the gateway counts, for Prometheus. What needs no counting is read when it is asked for: routes/health.py."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

OTHER = "other"
# Asked every few seconds by machines.
PROBES = ("/health", "/ready", "/metrics")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds. A request may be a whole answer on a slow machine; tokens come within milliseconds, or after a swap.
REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NEXT_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class BatchHistogram(Histogram):
    """A histogram that also takes what was counted elsewhere: an observation for each token would cost too much."""

    def add(self, counts: list[int], total: float) -> None:
        """`counts[i]` observations in bucket i, the last one being +Inf; `total` is their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Pace:
    """When the tokens of one answer came; `tick` is called for each, so it touches nothing that is shared."""

    __slots__ = ("_counts", "_last", "_started", "first_s", "total_s")

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self._counts = [0] * (len(NEXT_TOKEN_S) + 1)
        self.first_s: float | None = None
        self.total_s = 0.0

    def tick(self) -> None:
        """A token is about to be shown."""
        now = perf_counter()
        if self.first_s is None:
            self.first_s = now - self._started
        else:
            gap = now - self._last
            self._counts[bisect_left(NEXT_TOKEN_S, gap)] += 1
            self.total_s += gap
        self._last = now

    @property
    def elapsed_s(self) -> float:
        """Since the request began."""
        return perf_counter() - self._started

    @property
    def gaps(self) -> list[int]:
        """How many tokens came how long after the one before, by the buckets of NEXT_TOKEN_S and +Inf."""
        return self._counts


class Metrics:
    """The series of one gateway. With PROMETHEUS_MULTIPROC_DIR set, those of all processes that share the directory."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._series = cache(self._series_of)

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"ratchet_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, shared: Literal["livesum", "mostrecent"] = "livesum") -> Gauge:
            return Gauge(f"ratchet_{name}", help, registry=registry, multiprocess_mode=shared)

        self.requests = counter("requests", "Finished requests.", "method", "route", "status")
        self.request_s = Histogram(
            "ratchet_request_seconds", "From request to the last byte.", ["route"], registry=registry, buckets=REQUEST_S
        )
        self.ttft_s = Histogram(
            "ratchet_ttft_seconds", "From a chat request to its first token.", registry=registry, buckets=FIRST_TOKEN_S
        )
        self.inter_token_s = BatchHistogram(
            "ratchet_inter_token_seconds", "Between two tokens of a choice, as its client gets them, swaps included.",
            registry=registry, buckets=NEXT_TOKEN_S,
        )  # fmt: skip
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of finished answers.", "policy_version")
        self.completion_tokens = counter("completion_tokens", "Tokens of finished answers.", "policy_version")
        self.in_flight = gauge("in_flight", "Chat requests that wait for the engine or are being answered by it.")
        self.waiting = gauge("waiting", "Requests whose body is being read, or that wait for a swap to end.")
        arms = counter("arm_requests", "Chat requests sent to a policy, by its side of a release.", "arm")
        self._arms = {arm: arms.labels(arm) for arm in ("stable", "candidate")}
        self.moved = counter("requests_moved", "Those that stable got because the candidate was lost.")
        self.streams_open = gauge("streams_open", "Those of them that are streamed.")
        self.streams_broken = counter("streams_broken", "Streams that ended with an error.")
        self.completions_stored = counter("completions_stored", "Answers that the ledger has fsynced.")
        self.completions_lost = counter("completions_lost", "Answers that the ledger could not take.")
        self.swaps = counter("swaps", "Swaps of policies.", "result")
        self.swap_pause_s = gauge("swap_pause_seconds", "How long the last swap stopped the engine.", "mostrecent")
        self.swap_held_s = gauge("swap_held_seconds", "How long the last swap held requests.", "mostrecent")
        self.releases = counter("releases", "Releases that are over.", "end")
        self.release_weight = gauge(
            "release_weight", "The candidate's share of conversations; 0 while nothing is released.", "mostrecent"
        )
        self.release_votes = gauge("release_votes", "Decisive votes that count in the open release.", "mostrecent")
        self.feedback = counter(
            "feedback", "Accepted judgements: created, revised, or the same again.", "type", "status"
        )

    @contextmanager
    def answering(self) -> Iterator[Pace]:
        """Around everything done for one chat request; the pace is its to keep."""
        pace = Pace()
        try:
            with self.in_flight.track_inprogress():
                yield pace
        finally:
            if pace.first_s is not None:
                self.ttft_s.observe(pace.first_s)
                self.inter_token_s.add(pace.gaps, pace.total_s)

    def asked(self, arms: Iterable[str], *, moved: bool) -> None:
        """One chat request, about to be sent to these arms."""
        for arm in arms:
            self._arms[arm].inc()
        if moved:
            self.moved.inc()

    def finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request; `route` is a template, never a path that a client made up."""
        count, took = self._series(method if method in METHODS else OTHER, route, status)
        count.inc()
        took.observe(seconds)

    def _series_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """As few as there are routes, so they are kept: to look both up by their labels costs more than to count."""
        return self.requests.labels(method, route, str(status)), self.request_s.labels(route)

    def tokens(self, version: int, *, prompt: int, completion: int) -> None:
        self.prompt_tokens.labels(str(version)).inc(prompt)
        self.completion_tokens.labels(str(version)).inc(completion)

    def counted(self) -> CollectorRegistry:
        """What was counted by all processes, or by this one where it is alone."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self.registry
        shared: Any = MultiProcessCollector
        counted = CollectorRegistry()
        shared(counted)
        return counted

    def exposition(self, state: Collector) -> bytes:
        """The Prometheus text format: what was counted, and what `state` reads now."""
        return generate_latest(self.counted()) + generate_latest(_alone(state))


def _alone(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
