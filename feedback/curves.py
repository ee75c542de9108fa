"""How PPO went from iteration to iteration: what a policy's manifest, and the record of its round, tell."""

from feedback.records import Record

POINTS = 100


class Curves(Record):
    """A number for each of `iterations`, which count from 1; of a long run not all of them."""

    iterations: tuple[int, ...]
    score: tuple[float, ...]  # of the reward model, mean
    kl: tuple[float, ...]  # from the reference policy, nats per completion
    entropy: tuple[float, ...]  # nats per token
    length: tuple[float, ...]  # tokens per completion
    clip_fraction: tuple[float, ...]  # share of tokens whose ratio the policy loss clipped
    explained_variance: tuple[float, ...]  # of the returns by the values


def thinned(count: int, points: int = POINTS) -> list[int]:
    """At most `points` of the first `count` indices, evenly spread, the first and the last among them."""
    if count <= points:
        return list(range(count))
    return [round(i * (count - 1) / (points - 1)) for i in range(points)]
