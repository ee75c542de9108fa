"""How PPO went from iteration to iteration: what a policy's manifest, and the record of its round, tell."""

from feedback.records import Record

POINTS = 100


class Curves(Record):
    """A number for each of `iterations`, which count from 1; of a long run not all of them.

    None: a release of Ratchet trained it that did not keep this yet.
    """

    iterations: tuple[int, ...]
    score: tuple[float, ...]  # of the reward model, mean
    kl: tuple[float, ...]  # from the reference policy, nats per completion
    entropy: tuple[float, ...]  # nats per token
    length: tuple[float, ...]  # tokens per completion
    clip_fraction: tuple[float, ...]  # share of tokens whose ratio the policy loss clipped
    explained_variance: tuple[float, ...]  # of the returns by the values
    approx_kl: tuple[float, ...] | None = None  # by which the updates moved the policy, nats per token
    value_clip_fraction: tuple[float, ...] | None = None  # share of places whose value the value loss clipped
    finished: tuple[float, ...] | None = None  # share of completions that ended by themselves
    repetition: tuple[float, ...] | None = None  # share of a completion's 4-grams that it has written before
    importance_ratio: tuple[float, ...] | None = None  # policy / whoever sampled, mean over tokens: 1 but for chance
    effective_share: tuple[float, ...] | None = None  # effective sample size of the importance weights / their number


def thinned(count: int, points: int = POINTS) -> list[int]:
    """At most `points` of the first `count` indices, evenly spread, the first and the last among them."""
    if count <= points:
        return list(range(count))
    return [round(i * (count - 1) / (points - 1)) for i in range(points)]
