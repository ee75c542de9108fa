"""How busy the gateway is, all of its processes together, by what they count for Prometheus."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric

from serving.gateway import Gateway
from serving.metrics import PROBES

Bucket = tuple[float, float]


class Traffic(NamedTuple):
    """Chats at this moment, and what became of requests since the start."""

    in_flight: int
    places: int
    waiting: int
    streams_open: int
    refused: int
    first_token_s: float | None


def traffic(gateway: Gateway) -> Traffic:
    families = {family.name.removeprefix("ratchet_"): family for family in gateway.metrics.counted().collect()}

    def total(name: str) -> int:
        return int(sum(sample.value for sample in families[name].samples)) if name in families else 0

    return Traffic(
        in_flight=total("in_flight"),
        places=gateway.places.limit * gateway.settings.workers,
        waiting=total("waiting"),
        streams_open=total("streams_open"),
        refused=refused(families.get("requests")),
        first_token_s=median(buckets(families.get("ttft_seconds"))),
    )


def refused(requests: Metric | None) -> int:
    """Requests answered 503, without the probes, to which 503 is an answer."""
    samples = [sample for sample in requests.samples if sample.name.endswith("_total")] if requests else []
    labels: Any = [(sample.labels, sample.value) for sample in samples]
    return int(sum(value for each, value in labels if each["status"] == "503" and each["route"] not in PROBES))


def buckets(histogram: Metric | None) -> list[Bucket]:
    """Upper bounds, the last one infinite, and how many were at most that."""
    samples = [sample for sample in histogram.samples if sample.name.endswith("_bucket")] if histogram else []
    return sorted((float(sample.labels["le"]), sample.value) for sample in samples)


def median(cumulated: Iterable[Bucket]) -> float | None:
    """As if what is in a bucket were evenly spread in it, as Prometheus's histogram_quantile has it; beyond the last
    finite bound that bound, and None of nothing."""
    bounds = [(0.0, 0.0), *cumulated]
    half = bounds[-1][1] / 2
    if not half:
        return None
    (low, below), (high, upto) = next(pair for pair in pairwise(bounds) if pair[1][1] >= half)
    return low if high == float("inf") else low + (high - low) * (half - below) / (upto - below)
