"""What is compared with whom. Where a peer's padding holds something else than zeros, only real tokens are compared."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from parity_draws import EOS, WIDTH, Case, Draw, Pairs, both
from parity_peers import Package, define, passage, run
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import (
    all_log_probs,
    completion_log_probs,
    entropy,
    importance_weights,
    kl_estimate,
    kl_loss,
    language_model_loss,
    masked_mean,
    masked_whiten,
    ppo_policy_loss,
    value_loss,
    whiten_together,
)
from training.ppo.advantages import (
    adapt_kl_coef,
    apply_missing_eos,
    end_positions,
    generalized_advantages,
    token_rewards,
)

GAMMA, LAM, KL_COEF, CLIP = 0.98, 0.95, 0.05, 0.2


def policy(d: Draw, dual_clip: float | None = None, weights: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    return lambda x: ppo_policy_loss(x, d.old, d.noise, d.mask, CLIP, dual_clip, weights)[0]


def values(d: Draw) -> Callable[[Tensor], Tensor]:
    return lambda x: value_loss(x, d.values, d.noise, d.mask, CLIP)


# TRL: its trainer's loop, passage by passage


def trl(package: Package) -> dict[str, Case]:
    source = package.source("trl/experimental/ppo/ppo_trainer.py")
    known = define(source, {"masked_mean", "masked_var", "masked_whiten", "INVALID_LOGPROB"}, {"torch": torch})
    tools = package.source("trl/trainer/utils.py")
    select = define(tools, {"selective_log_softmax"}, {"torch": torch, "F": F})["selective_log_softmax"]
    rollout = passage(source, "train", "contain_eos_token", "advantages")
    losses = passage(source, "train", "vpredclipped", "loss")

    def rewards_to_advantages(kind: Any, whiten: bool) -> Case:
        def case(d: Draw) -> Pairs:
            args = SimpleNamespace(
                missing_eos_penalty=1.0, kl_estimator=kind, kl_coef=KL_COEF, whiten_rewards=whiten,
                gamma=GAMMA, lam=LAM,
            )  # fmt: skip
            trainer = SimpleNamespace(args=args, processing_class=SimpleNamespace(eos_token_id=EOS))
            lengths = d.mask.sum(-1)
            found = run(
                rollout, **known, self=trainer, args=args, responses=d.tokens, postprocessed_responses=d.tokens,
                sequence_lengths=lengths - 1, scores=d.scores.clone(), logprobs=d.old, ref_logprobs=d.ref,
                values=d.noise,
            )  # fmt: skip
            ends = end_positions(d.mask, d.finished & (lengths < WIDTH))
            places = F.pad(d.mask, (0, 1)) | ends
            scores = apply_missing_eos(d.scores, d.finished, 1.0, "subtract")
            kl = kl_estimate(d.old - d.ref, kind)
            rewards = token_rewards(F.pad(kl, (0, 1)), scores, places, KL_COEF)
            if whiten:
                (rewards,) = whiten_together([rewards], [places], shift_mean=False, correction=1)
            advantages, returns = generalized_advantages(rewards, F.pad(d.noise, (0, 1)), places, GAMMA, LAM)
            advantages = masked_whiten(advantages[:, :WIDTH], d.mask, correction=1)
            return [
                (rewards[:, :WIDTH], found["rewards"]),
                (advantages, found["advantages"]),
                (returns[places], F.pad(found["returns"], (0, 1))[places]),
            ]

        return case

    def update(d: Draw) -> Pairs:
        args = SimpleNamespace(cliprange=CLIP, cliprange_value=CLIP, vf_coef=0.1)

        def theirs(x: Tensor) -> Tensor:
            new, predicted = x.unbind()
            found = run(
                losses, **known, args=args, vpred=predicted, mb_values=d.values, mb_return=d.noise, new_logprobs=new,
                mb_logprobs=d.old, mb_advantage=d.noise, padding_mask=~d.mask, padding_mask_p1=~d.mask,
                micro_batch_inds=slice(None),
            )  # fmt: skip
            return found["loss"]

        return both(lambda x: policy(d)(x[0]) + 0.1 * values(d)(x[1]), theirs, torch.stack([d.new, d.new_values]))

    def whiten(d: Draw) -> Pairs:
        theirs = [known["masked_whiten"](d.noise, d.mask, shift_mean=shift)[d.mask] for shift in (True, False)]
        ours = [masked_whiten(d.noise, d.mask, shift, correction=1)[d.mask] for shift in (True, False)]
        return list(zip(ours, theirs, strict=True))

    return {
        "log-probs": lambda d: [(completion_log_probs(all_log_probs(d.logits), d.tokens), select(d.logits, d.tokens))],
        "whitening, Bessel": whiten,
        "rewards, advantages, returns; k1": rewards_to_advantages("k1", False),
        "rewards, advantages, returns; k3, rewards whitened": rewards_to_advantages("k3", True),
        "policy + value loss, gradient": update,
    }


# verl: core_algos and the rollout correction


def verl(package: Package) -> dict[str, Case]:
    tools_source = package.source("verl/utils/torch_functional.py")
    names = {
        "masked_sum", "masked_mean", "masked_var", "masked_whiten", "entropy_from_logits", "clip_by_value",
        "logprobs_from_logits_v2",
    }  # fmt: skip
    tools = define(tools_source, names, {"torch": torch, "F": F})
    known = {"torch": torch, "np": np, "verl_F": SimpleNamespace(**tools), "AlgoConfig": type("AlgoConfig", (), {})}
    core = define(
        package.source("verl/trainer/ppo/core_algos.py"),
        {
            "AdaptiveKLController", "compute_gae_advantage_return", "agg_loss", "compute_policy_loss_vanilla",
            "compute_entropy_loss", "compute_value_loss", "kl_penalty", "kl_penalty_forward",
        },
        known,
    )  # fmt: skip
    weigh = define(
        package.source("verl/trainer/ppo/rollout_corr_helper.py"),
        {"SAFETY_BOUND", "_parse_rollout_is_threshold", "compute_rollout_correction_weights"},
        {**known, "compute_is_metrics": lambda **_: {}},
    )["compute_rollout_correction_weights"]

    def advantages(d: Draw) -> Pairs:
        """Of several turns: tokens that the policy did not write lie between its own."""
        mask = d.mask.clone()
        mask[0, 2:4] = False
        theirs = core["compute_gae_advantage_return"](d.new_values, d.values, mask.double(), GAMMA, LAM)
        plain, returns = generalized_advantages(d.new_values, d.values, mask, GAMMA, LAM)
        ours = masked_whiten(plain, mask, correction=1)
        return [(ours[mask], theirs[0][mask]), (returns[mask], theirs[1][mask])]

    def losses(d: Draw) -> Pairs:
        weights = importance_weights(d.old, d.sampled, d.mask, 2.0)
        config = SimpleNamespace(
            clip_ratio=CLIP, clip_ratio_low=None, clip_ratio_high=None, global_batch_info={}, get=lambda _, c: c
        )
        theirs = core["compute_policy_loss_vanilla"]
        pairs = both(
            policy(d, 3.0, weights),
            lambda x: theirs(d.old, x, d.noise, d.reals, config=config, rollout_is_weights=weights)[0],
            d.far,
        )
        stats = ppo_policy_loss(d.far, d.old, d.noise, d.mask, CLIP)[1]
        theirs_clipped = theirs(d.old, d.far, d.noise, d.reals, config=config)[1]["actor/pg_clipfrac"]
        return [*pairs, (stats.clip_fraction, theirs_clipped)]

    def corrections(d: Draw) -> Pairs:
        log_ratio = d.old - d.sampled
        kinds: tuple[tuple[Any, float | None, Any], ...] = (
            ("token", None, 2.0), ("token", 0.5, "0.5_2.0"), ("sequence", None, 2.0), ("sequence", 0.5, "0.5_2.0"),
        )  # fmt: skip
        return [
            (importance_weights(d.old, d.sampled, d.mask, 2.0, kind, floor), weigh(log_ratio, d.reals, kind, band)[0])
            for kind, floor, band in kinds
        ]

    def adaptive(d: Draw) -> Pairs:
        pairs = []
        for kl in (0.0, 5.5, 6.3, 12.0):
            controller = core["AdaptiveKLController"](0.2, 6.0, 10_000)
            controller.update(kl, 512)
            pairs.append((adapt_kl_coef(0.2, kl, 6.0, 512, 10_000), controller.value))
        return pairs

    kinds: tuple[Any, ...] = ("k1", "k2", "k3")
    return {
        "log-probs": lambda d: [
            (
                completion_log_probs(all_log_probs(d.logits), d.tokens),
                tools["logprobs_from_logits_v2"](d.logits, d.tokens),
            )
        ],
        "entropy": lambda d: [
            (masked_mean(entropy(all_log_probs(d.logits)), d.mask), core["compute_entropy_loss"](d.logits, d.reals))
        ],
        "KL k1, k2, k3": lambda d: [
            (kl_estimate(d.new - d.ref, k), core["kl_penalty"](d.new, d.ref, k)) for k in kinds
        ],
        "KL loss, gradient (their k1+, k2, k3)": lambda d: [
            pair
            for ours, name in (("k1", "k1+"), ("k2", "k2"), ("k3", "k3"))
            for pair in both(
                lambda x, ours=ours: kl_loss(x, d.ref, d.mask, ours),  # type: ignore[misc]
                lambda x, name=name: core["agg_loss"](core["kl_penalty"](x, d.ref, name), d.reals, "token-mean"),  # type: ignore[misc]
                d.new,
            )
        ],
        "adaptive KL": adaptive,
        "advantages, returns; several turns": advantages,
        "policy loss, gradient; dual clip, weights": losses,
        "value loss, gradient": lambda d: both(
            values(d), lambda x: core["compute_value_loss"](x, d.noise, d.values, d.reals, CLIP)[0], d.new_values
        ),
        "importance weights": corrections,
    }


# OpenRLHF: its loss module, rewards and advantages


def openrlhf(package: Package) -> dict[str, Case]:
    helpers = {"masked_mean", "compute_approx_kl", "compute_reward", "KL_IS_WEIGHT_CLIP"}
    tools = define(package.source("openrlhf/models/utils.py"), helpers, {"torch": torch})
    loss = define(
        package.source("openrlhf/models/loss.py"),
        {"aggregate_loss", "SFTLoss", "PolicyLoss", "ValueLoss"},
        {"torch": torch, "nn": nn, "masked_mean": tools["masked_mean"]},
    )
    maker = package.source("openrlhf/trainer/ppo_utils/experience_maker.py")
    advantage = define(maker, {"get_advantages_and_returns"}, {"torch": torch})["get_advantages_and_returns"]
    whiten = passage(maker, "compute_advantages_and_returns", "all_advantages", "advantages")

    def to_advantages(d: Draw) -> Pairs:
        kl = kl_estimate(d.old - d.ref, "k1")
        theirs_rewards = tools["compute_reward"](d.scores, KL_COEF, kl, d.reals, (-0.5, 0.5))
        rewards = token_rewards(kl, d.scores.clamp(-0.5, 0.5), d.mask, KL_COEF)
        theirs = advantage(None, d.values, theirs_rewards, d.reals, GAMMA, LAM)
        ours = generalized_advantages(rewards, d.values, d.mask, GAMMA, LAM)
        experience = SimpleNamespace(advantages=theirs[0], action_mask=d.reals)
        args = SimpleNamespace(algo=SimpleNamespace(advantage=SimpleNamespace(no_std_norm=False)))
        run(whiten, torch=torch, args=args, experiences=[experience])
        whitened = masked_whiten(ours[0], d.mask)
        return [
            (rewards, theirs_rewards),
            (ours[0], theirs[0] * d.mask),
            (ours[1], theirs[1] * d.mask),
            (whitened[d.mask], experience.advantages[d.mask]),
        ]

    def policies(d: Draw) -> Pairs:
        pairs = []
        for mode, low, floor in (("clip", 0.0, None), ("mask", 0.5, 0.5)):
            theirs = loss["PolicyLoss"](
                dual_clip=3.0, is_correction_level="token", is_correction_mode=mode, is_correction_threshold=[low, 2.0]
            )
            weights = importance_weights(d.old, d.sampled, d.mask, 2.0, floor=floor)
            pairs += both(
                policy(d, 3.0, weights),
                lambda x, theirs=theirs: theirs(x, d.old, d.noise, d.reals, d.sampled)[0],  # type: ignore[misc]
                d.far,
            )
        return pairs

    kinds: tuple[Any, ...] = ("k1", "k2", "k3")
    return {
        "KL k1, k2, k3 (theirs in fp32)": lambda d: [
            (kl_estimate(d.new - d.ref, k), tools["compute_approx_kl"](d.new, d.ref, kl_estimator=k)) for k in kinds
        ],
        "rewards, advantages, returns; scores clipped, whitened (theirs in fp32)": to_advantages,
        "policy loss, gradient; dual clip, TIS, IcePop": policies,
        "value loss, gradient": lambda d: both(
            values(d), lambda x: loss["ValueLoss"](CLIP)(x, d.values, d.noise, d.reals), d.new_values
        ),
        "language model loss, gradient": lambda d: both(
            lambda x: language_model_loss(x, d.mask), lambda x: loss["SFTLoss"]()(x, d.reals), d.new
        ),
    }
