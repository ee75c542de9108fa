"""The likelihood of what people said, given scores: pure functions, tensors in, tensors out; no models.

Letters: J judgements, N completions of all of them, R rankings, K completions of one prompt (padded to the most of any
ranking), P pairs of them, C choices. All probabilities are logarithms, in nats. A score is a log-strength: e^score is
what Bradley, Terry, Plackett and Luce call the worth.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from training.config import RankingLikelihood, Ties
from training.model.samples import Judgement, RankedSamples, RatedSample

# Stands for log 0. Unlike -inf it has a gradient: zero, where -inf - -inf would be NaN.
LOG_ZERO = -1e30
LOG_2 = math.log(2)


class PairLogProbs(NamedTuple):
    """Log-probabilities of the three things that can be said of two completions, of one shape."""

    win: Tensor  # the first is better
    tie: Tensor
    lose: Tensor


def bradley_terry_log_probs(a: Tensor, b: Tensor) -> PairLogProbs:
    """P(a wins) = sigmoid(a - b) (Bradley & Terry 1952). Scores a, b of shapes that broadcast.

    The model knows no ties: one is a soft label, half a win and half a loss, and has no probability of its own.
    """
    win, lose = F.logsigmoid(a - b), F.logsigmoid(b - a)
    return PairLogProbs(win, 0.5 * (win + lose), lose)


def davidson_log_probs(a: Tensor, b: Tensor, log_nu: Tensor | float) -> PairLogProbs:
    """Win, tie and loss weigh e^a, nu * sqrt(e^a e^b) and e^b (Davidson 1970). Scores a, b of shapes that broadcast.

    nu -> 0 is Bradley-Terry; nu = 1 makes all three as likely at equal scores.
    """
    tie = log_nu + 0.5 * (a + b)
    log_total = torch.logaddexp(torch.logaddexp(a, b), tie)
    return PairLogProbs(a - log_total, tie - log_total, b - log_total)


def rao_kupper_log_probs(a: Tensor, b: Tensor, log_excess: Tensor) -> PairLogProbs:
    """P(a wins) = e^a / (e^a + theta e^b), and what two wins leave is the tie (Rao & Kupper 1967).

    Scores a, b of shapes that broadcast; `log_excess` = log(theta - 1), a scalar, so that theta > 1 whatever it is.
    theta -> 1 is Bradley-Terry; theta = 2 makes all three as likely at equal scores.
    """
    log_theta = F.softplus(log_excess)
    win, lose = F.logsigmoid(a - b - log_theta), F.logsigmoid(b - a - log_theta)
    # P(tie) = (theta^2 - 1) P(win) P(lose), without a difference of nearly equal numbers: theta + 1 = 2 + excess.
    log_theta_squared_minus_one = log_excess + F.softplus(log_excess - LOG_2) + LOG_2
    return PairLogProbs(win, win + lose + log_theta_squared_minus_one, lose)


class Labels(nn.Module):
    """What the likelihood needs beside the scores, and learns with them; no part of the reward model.

    `tie_width` is log nu (Davidson) or log(theta - 1) (Rao-Kupper); with soft ties there is none.
    """

    def __init__(self, ties: Ties = "soft", tie_width: float = 0.0, threshold: float = 0.0) -> None:
        super().__init__()
        self.ties = ties
        self.threshold = nn.Parameter(torch.tensor(threshold))  # score of an even chance of a thumb up
        self.tie_width = None if ties == "soft" else nn.Parameter(torch.tensor(tie_width))

    def pair_log_probs(self, a: Tensor, b: Tensor) -> PairLogProbs:
        """By the model of ties. Scores a, b of one shape."""
        if self.tie_width is None:
            return bradley_terry_log_probs(a, b)
        return (davidson_log_probs if self.ties == "davidson" else rao_kupper_log_probs)(a, b, self.tie_width)


def fitted_labels(ties: Ties, tie_width: float | None) -> Labels | None:
    """As a fit left them; None where it learned no width."""
    return None if tie_width is None else Labels(ties, tie_width)


class Rankings(NamedTuple):
    """R rankings, padded on the right. What is real yet not placed is worse than all that is placed."""

    scores: Tensor  # (R, K)
    tiers: Tensor  # (R, K) integers, 0 the best; equal tiers of what is placed are ties
    placed: Tensor  # (R, K), True = the rater gave it a place
    real: Tensor  # (R, K), True = a completion, not padding


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension of what `mask` keeps; 0 where it keeps nothing."""
    return x.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def _pairs(rankings: Rankings) -> tuple[Tensor, Tensor, Tensor]:
    """Indices i < j (P,) of all pairs, and the mask (R, P) of those about which something was said."""
    _, _, placed, real = rankings
    i, j = torch.triu_indices(real.shape[1], real.shape[1], offset=1, device=real.device)
    return i, j, real[:, i] & real[:, j] & (placed[:, i] | placed[:, j])


def pairs_log_likelihood(
    rankings: Rankings, labels: Labels, margin: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over the pairs of each ranking (R,): a prompt counts once, whatever its K (Ouyang et al. 2022, eq. 1).

    `margin` in score units is what the better one must lead by (Touvron et al. 2023, eq. 2); `label_smoothing` is the
    chance that a pair was put in the wrong order.
    """
    scores, tiers, _, _ = rankings
    i, j, said = _pairs(rankings)
    tied, in_order = tiers[:, i] == tiers[:, j], tiers[:, i] <= tiers[:, j]  # (R, P)
    upper = torch.where(in_order, scores[:, i], scores[:, j]) - margin * ~tied
    lower = torch.where(in_order, scores[:, j], scores[:, i])
    win, tie, lose = labels.pair_log_probs(upper, lower)
    ordered = (1 - label_smoothing) * win + label_smoothing * lose
    return _masked_mean(torch.where(tied, tie, ordered), said)


def plackett_luce_log_likelihood(
    rankings: Rankings, log_nu: Tensor | None, margin: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """A ranking as choices of the best group among what remains (R,) (Plackett 1975; Turner et al. 2020).

    The unplaced remain until the end, and none of them is ever chosen: summed over all orders they could have had.
    For K = 2 it is the pair's likelihood.
    """
    scores, tiers, placed, real = rankings
    of_group = placed.unsqueeze(2) & placed.unsqueeze(1) & (tiers.unsqueeze(2) == tiers.unsqueeze(1))  # (R, K, K)
    remaining = real.unsqueeze(1) & (tiers.unsqueeze(2) <= tiers.unsqueeze(1))  # (R, K, K)
    first_of_group = placed & ~of_group.tril(-1).any(-1)  # (R, K): a group is chosen once
    row, k = first_of_group.nonzero(as_tuple=True)  # (C,)
    choices = choice_log_probs(scores[row], of_group[row, k], remaining[row, k], log_nu, margin, label_smoothing)
    return scores.new_zeros(len(scores)).index_add(0, row, choices)


def choice_log_probs(
    scores: Tensor,
    chosen: Tensor,
    remaining: Tensor,
    log_nu: Tensor | None,
    margin: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Log-probabilities (C,) that `chosen`, one or several, come out best of `remaining`. All (C, K), the masks bool.

    Davidson-Luce (Firth, Kosmidis & Turner 2019): a set T weighs nu^(|T| - 1) times the geometric mean of its members'
    strengths, so one nu serves ties of any size. Without `log_nu` only one can be best, and a tie is a soft label,
    spread evenly. A wrong label (`label_smoothing`) is any one of the others.
    """
    others = remaining & ~chosen
    contested = others.any(-1)  # (C,): otherwise there is nobody to lead by a margin, and no wrong label
    scores = scores - margin * (chosen & contested.unsqueeze(-1))
    log_total = _log_total(scores.masked_fill(~remaining, LOG_ZERO), log_nu)
    log_weight = _masked_mean(scores, chosen)
    if log_nu is not None:
        log_weight = log_weight + (chosen.sum(-1) - 1) * log_nu
    right, wrong = log_weight - log_total, _masked_mean(scores, others) - log_total
    return torch.where(contested, (1 - label_smoothing) * right + label_smoothing * wrong, right)


def _log_total(scores: Tensor, log_nu: Tensor | None) -> Tensor:
    """Log of the summed weights of all that can be best (C,): of each set with nu, else of each one. Scores (C, K).

    The sets of n members add up to the elementary symmetric polynomial of degree n in e^(score / n), which is built
    item by item, for all n at once: K^2 sums instead of 2^K sets.
    """
    if log_nu is None:
        return scores.logsumexp(-1)
    count = scores.shape[-1]
    sizes = torch.arange(1, count + 1, device=scores.device)
    scaled = scores.unsqueeze(-2) / sizes.unsqueeze(-1)  # (C, K sizes, K items)
    degrees = scores.new_full((*scaled.shape[:-1], count + 1), LOG_ZERO)  # (C, K sizes, degrees 0 to K)
    degrees[..., 0] = 0.0
    for item in scaled.unbind(-1):  # (C, K sizes)
        grown = torch.logaddexp(degrees[..., 1:], degrees[..., :-1] + item.unsqueeze(-1))
        degrees = torch.cat([degrees[..., :1], grown], dim=-1)
    by_size = degrees.diagonal(1, dim1=-2, dim2=-1)  # (C, K sizes)
    return (by_size + (sizes - 1) * log_nu).logsumexp(-1)


def rating_log_likelihood(scores: Tensor, labels: Tensor, threshold: Tensor | float) -> Tensor:
    """P(up) = sigmoid(score - threshold), and a label between 0 and 1 is partly up, partly down. All (N,) -> (N,)."""
    return labels * F.logsigmoid(scores - threshold) + (1 - labels) * F.logsigmoid(threshold - scores)


def centering_penalty(rankings: Rankings) -> Tensor:
    """Mean of (a + b)^2 over the pairs of each ranking (R,), to pin the free zero (Eisenstein et al. 2023, eq. 2)."""
    i, j, said = _pairs(rankings)
    return _masked_mean((rankings.scores[:, i] + rankings.scores[:, j]).square(), said)


def log_likelihood(
    judgements: Sequence[Judgement],
    scores: Tensor,
    labels: Labels,
    likelihood: RankingLikelihood = "pairs",
    *,
    margin: float = 0.0,
    label_smoothing: float = 0.0,
    center_coef: float = 0.0,
) -> Tensor:
    """Log-likelihood (J,) of each judgement, unweighted, at least fp32.

    `scores` (N,) are those of the judgements' completions, judgement after judgement, in their order there. With
    "pairs" a ranking has the mean over its pairs, with "plackett_luce" the log-probability of the whole.
    `center_coef` times the `centering_penalty` is taken off. ValueError when the scores are not one per completion.
    """
    counts = [len(judgement.samples) for judgement in judgements]
    if len(scores) != sum(counts):
        raise ValueError(f"{len(scores)} scores for {sum(counts)} completions")
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    parts = scores.split(counts)
    ranked = [n for n, judgement in enumerate(judgements) if isinstance(judgement, RankedSamples)]
    rated = [n for n, judgement in enumerate(judgements) if isinstance(judgement, RatedSample)]
    result = scores.new_zeros(len(judgements))
    if ranked:
        rankings = _padded([j for j in judgements if isinstance(j, RankedSamples)], [parts[n] for n in ranked])
        if likelihood == "pairs":
            values = pairs_log_likelihood(rankings, labels, margin, label_smoothing)
        else:
            values = plackett_luce_log_likelihood(rankings, _log_nu(labels), margin, label_smoothing)
        values = values - center_coef * centering_penalty(rankings)
        result = result.index_copy(0, _index(ranked, scores), values)
    if rated:
        shares = scores.new_tensor([j.label for j in judgements if isinstance(j, RatedSample)])
        values = rating_log_likelihood(torch.cat([parts[n] for n in rated]), shares, labels.threshold)
        result = result.index_copy(0, _index(rated, scores), values)
    return result


def weighted_loss(log_likelihoods: Tensor, weights: Tensor, total_weight: float | None = None) -> Tensor:
    """The loss of an optimizer step: -sum(w * log-likelihood) / sum(w). Both (J,) -> scalar.

    `total_weight` is the sum over the whole step when these are the judgements of one microbatch: the losses of all
    microbatches then add up to that of the step, however it is cut. ValueError when it is 0.
    """
    total = float(weights.sum()) if total_weight is None else total_weight
    if total <= 0:
        raise ValueError("the mean over judgements of no weight is undefined")
    return -(weights * log_likelihoods).sum() / total


def _log_nu(labels: Labels) -> Tensor | None:
    if labels.ties == "rao_kupper":
        raise ValueError("Rao-Kupper ties are defined for pairs only")
    return labels.tie_width


def _index(indices: Sequence[int], scores: Tensor) -> Tensor:
    return torch.tensor(indices, device=scores.device)


def _padded(rankings: Sequence[RankedSamples], scores: Sequence[Tensor]) -> Rankings:
    device = scores[0].device
    tiers = [torch.tensor(ranking.tiers, device=device) for ranking in rankings]
    placed = [torch.tensor([tier != ranking.unplaced for tier in ranking.tiers], device=device) for ranking in rankings]
    real = [torch.ones_like(each) for each in placed]
    return Rankings(*(pad_sequence(list(each), batch_first=True) for each in (scores, tiers, placed, real)))
