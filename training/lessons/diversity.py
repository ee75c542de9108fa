"""How much each prompt counts when a round practises: what is much alike, and who asks very much, do not dominate.

A prompt's weight is 1 / (Z p), the inverse of how ordinary it is among all prompts (Leinster & Cobbold 2012): m prompts
that say the same count together like one. Of two prompts the likeness is the cosine of their runs of three tokens, each
as long as it is rare, so that what a chat template puts into all of them hardly counts. Then, a rater's
prompts share the square root of how many different ones they are, as small languages are sampled (Lample & Conneau
2019): in proportion one person could fill a round, in equal parts one prompt of a person with no other could.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from training.lessons.answers import Ids

RUN = 3

Features = dict[Ids, float]


def prompt_weights(prompts: Sequence[Ids], raters: Mapping[Ids, str]) -> tuple[float, ...]:
    """A weight per prompt, with mean 1; `raters` says whose each is."""
    features = _features(prompts)
    alone = ordinariness(features)
    of_rater: dict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        of_rater[raters[prompt]].append(index)
    weights = [0.0] * len(prompts)
    for indices in of_rater.values():
        different = math.fsum(1 / each for each in ordinariness([features[i] for i in indices]))
        for i in indices:
            weights[i] = 1 / (alone[i] * math.sqrt(different))
    mean = math.fsum(weights) / len(weights) if weights else 1.0
    return tuple(weight / mean for weight in weights)


def ordinariness(features: Sequence[Features]) -> list[float]:
    """Of each the sum of its cosines with all, itself (1) among them."""
    sizes = [math.hypot(*one.values()) for one in features]
    common: Features = defaultdict(float)  # the sum of all vectors, each at length 1
    for one, size in zip(features, sizes, strict=True):
        for name, value in one.items():
            common[name] += value / size
    return [
        math.fsum(value * common[name] for name, value in one.items()) / size
        for one, size in zip(features, sizes, strict=True)
    ]


def _features(prompts: Sequence[Ids]) -> list[Features]:
    """Per prompt its distinct runs of tokens (a shorter prompt is its own), each with its rarity.

    Rarity is log((1 + N) / n) of what n of N prompts have.
    """
    sets = [{p[i : i + RUN] for i in range(max(1, len(p) - RUN + 1))} for p in prompts]
    having = Counter(name for names in sets for name in names)
    return [{name: math.log((1 + len(prompts)) / having[name]) for name in names} for names in sets]
