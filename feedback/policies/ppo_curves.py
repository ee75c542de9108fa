"""How PPO went from iteration to iteration: what a policy's manifest, the record of its round, and a report tell."""

from collections.abc import Mapping, Sequence

from feedback.records import Record

LINES = "metrics.jsonl"  # in the directory of a run: every iteration, with all its figures
POINTS = 100
KEPT = {
    "score": "objective/score",
    "kl": "objective/kl",
    "entropy": "objective/entropy",
    "length": "completion/length",
    "clip_fraction": "ppo/clipfrac",
    "explained_variance": "ppo/explained_variance",
    "approx_kl": "ppo/approxkl",
    "value_clip_fraction": "ppo/value_clipfrac",
    "finished": "completion/finished",
    "repetition": "completion/repetition",
    "importance_ratio": "importance/ratio",
    "effective_share": "importance/ess",
}  # by its name in `Curves`


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


def curves(history: Sequence[Mapping[str, float]]) -> Curves:
    """A run's iterations as what is kept of them. ValidationError where one lacks what every release has measured."""
    kept = thinned(len(history))
    figures = {
        name: tuple(history[i][metric] for i in kept)
        for name, metric in KEPT.items()
        if all(metric in iteration for iteration in history)
    }
    return Curves(iterations=tuple(i + 1 for i in kept), **figures)


def thinned(count: int, points: int = POINTS) -> list[int]:
    """At most `points` of the first `count` indices, evenly spread, the first and the last among them."""
    if count <= points:
        return list(range(count))
    return [round(i * (count - 1) / (points - 1)) for i in range(points)]
