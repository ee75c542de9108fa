"""How a round trains: frozen dataclasses, one per stage. The defaults are for SmolLM2-135M on two CPU cores.

Importing this costs no torch. As JSON a config travels by `to_dict` and `from_dict`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, TypeAdapter

from feedback import defaults
from feedback.people.keys import SOURCES

Stage = Literal["sft", "reward", "ppo"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SHAPE = ("lora_rank", "lora_alpha", "lora_layers")  # what adapters on one trunk have in common
RankingLikelihood = Literal["pairs", "plackett_luce"]
Ties = Literal["davidson", "rao_kupper", "soft"]
Trains = Literal["adapter", "full"]
# Of Adam; the first, on whole layers, would undo what they know.
REWARD_RATES = {"adapter": defaults.REWARD_RATE, "full": defaults.FULL_REWARD_RATE}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Config:
    """What all configs share: JSON-ready dictionaries out, and strictly checked ones in."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def to_dict(self) -> dict[str, Any]:
        """All fields, nested configs as dictionaries; JSON can hold it."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The config that `data` describes; absent fields keep their defaults.

        ValueError names every field that is unknown, of the wrong type or out of range.
        """
        # Through JSON, because strict validation of Python objects wants instances where we have mappings.
        return TypeAdapter(cls).validate_json(json.dumps(data))


@dataclass(frozen=True)
class AdapterConfig(Config):
    """The LoRA adapter that a stage trains (Hu et al. 2021), and how."""

    lora_rank: int = 16  # inner dimension of the update
    lora_alpha: int = 32  # the update is scaled by alpha / rank
    lora_layers: int | None = 6  # only the top so many layers, so backward stops early; None = all layers
    gradient_checkpointing: bool = False  # run layers again in the backward pass: slower, far less memory
    shard_base: bool = False  # of several processes each holds its share of the base's layers, save when PPO samples

    def __post_init__(self) -> None:
        _require(self.lora_rank > 0 and self.lora_alpha > 0, "lora_rank and lora_alpha must be positive")
        _require(self.lora_layers is None or self.lora_layers > 0, "lora_layers must be positive, or None")


@dataclass(frozen=True)
class SFTConfig(AdapterConfig):
    """Supervised fine-tuning of the policy on demonstrations, loss on completion tokens only."""

    learning_rate: float = defaults.SFT_RATE  # Adam
    epochs: int = defaults.SFT_EPOCHS  # passes over the demonstrations
    batch_size: int = 8  # demonstrations per optimizer step
    replay: float = 1.0  # old demonstrations for each new one, drawn anew in each round
    max_tokens: int = 512  # prompt and completion together; longer prompts lose their oldest tokens
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm
    token_budget: int = 2048  # per forward and backward; bounds memory, does not change the result
    checkpoint_every: int = 5  # optimizer steps

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.learning_rate > 0, "learning_rate must be positive")
        _require(
            min(self.epochs, self.batch_size, self.max_tokens, self.token_budget, self.checkpoint_every) > 0,
            "epochs, batch_size, max_tokens, token_budget, checkpoint_every: at least 1",
        )
        _require(0 <= self.replay < float("inf"), "replay must be finite and not negative")


@dataclass(frozen=True)
class RewardConfig(AdapterConfig):
    """Fitting the reward model to rankings, comparisons and ratings."""

    trains: Trains = "adapter"  # or all weights of the top `lora_layers` layers and the last norm, from the base's on
    learning_rate: float | None = None  # Adam, at its highest; None = REWARD_RATES of what trains
    warmup: float = 0.1  # share of the steps over which the rate rises: Adam's first are long whatever the gradient
    decay: bool = True  # from its highest the rate falls towards 0 with the steps that are left; else it stays
    epochs: int = defaults.REWARD_EPOCHS  # passes over the rankings; more overfit (Ouyang et al. 2022 take one)
    batch_rankings: int = 8  # rankings, not pairs, per optimizer step
    held_out_fraction: float = defaults.HELD_OUT_FRACTION  # share of the prompts that only measures accuracy
    likelihood: RankingLikelihood = "pairs"  # of a ranking: the mean over its pairs, or all its choices of the best
    ties: Ties = "davidson"  # a tie has a learned width (Davidson 1970, Rao & Kupper 1967), or is half a win for each
    margin: float = 0.0  # score units by which the better completion must lead
    center_coef: float = 0.0  # weight of (a + b)^2 of the scores of each pair
    reward_heads: int = 1  # on one trunk, each fitted to a bootstrap sample; the score is their mean
    carry_scale: bool = True  # scores spread as the last reward model's did, so that PPO's kl_coef means the same
    label_smoothing: float = 0.0  # assumed chance that a rater ordered a pair the wrong way round
    max_tokens: int = 512  # prompt and completion together; longer prompts lose their oldest tokens
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm
    token_budget: int = 4096  # per forward and backward, with padding; bounds memory, does not change the result
    checkpoint_every: int = 5  # optimizer steps

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.rate > 0, "learning_rate must be positive")
        _require(0 <= self.warmup < 1, "warmup must lie in [0, 1)")
        counts = (self.epochs, self.batch_rankings, self.max_tokens, self.token_budget, self.checkpoint_every)
        _require(min(counts) > 0, "counts and batch sizes must be at least 1")
        _require(self.reward_heads > 0, "reward_heads must be at least 1")
        _require(0 <= self.held_out_fraction < 1, "held_out_fraction must lie in [0, 1)")
        _require(0 <= self.label_smoothing < 0.5, "label_smoothing must lie in [0, 0.5)")
        _require(min(self.margin, self.center_coef) >= 0, "margin and center_coef must not be negative")
        _require(
            self.likelihood == "pairs" or self.ties != "rao_kupper",
            "ties: rao_kupper is defined for pairs only; plackett_luce takes davidson or soft",
        )

    @property
    def rate(self) -> float:
        """The learning rate at its highest."""
        return REWARD_RATES[self.trains] if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class PPOConfig(AdapterConfig):
    """PPO against the reward model, with a KL penalty towards the reference policy.

    As a loss (`kl_in`) the penalty counts in the advantages' standard deviations, unless they are not whitened."""

    iterations: int = defaults.PPO_ITERATIONS  # turns of: collect rollouts, then update on them
    rollouts_per_iteration: int = 32  # completions per iteration
    sampler: Literal["auto", "vllm", "trainer"] = "auto"  # who writes fresh ones; auto = vllm if worth its start
    rollouts: Literal["fresh", "live", "mix"] = "fresh"  # written now, received by people before, or some of each
    live_share: float = 0.5  # of a mix; what people have not received is written
    max_staleness: int = 1  # a live completion's policy is the parent, or so many versions before it
    max_new_tokens: int = defaults.MAX_NEW_TOKENS  # a completion is cut here, and then counts as unfinished
    temperature: float = 1.0  # of sampling, and of the old, new and reference log-probs alike
    epochs: int = 2  # passes over the rollouts of one iteration
    minibatch: int = 16  # rollouts per optimizer step
    microbatch: int = 8  # of those per forward and backward, in all processes; bounds memory, changes no result
    learning_rate: float = defaults.PPO_RATE  # Adam, policy adapter; falls to 0 over the iterations
    value_learning_rate: float = 1e-3  # Adam, value adapter and head
    kl_coef: float = defaults.KL_COEF  # weight of the KL penalty
    kl_target: float | None = None  # nats per completion that kl_coef steers to; None = kl_coef is fixed
    kl_horizon: int = 10_000  # completions over which a persistent 1% error moves kl_coef by about 1%
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"  # of the penalty, per token
    kl_in: Literal["reward", "loss"] = "reward"  # the penalty lowers each token's reward, or is a loss of its own
    gamma: float = 1.0  # discount per token
    lam: float = 0.95  # GAE: 1 = reward to go, 0 = one-step
    clip_range: float = 0.2  # of the probability ratio
    value_clip: float = 0.2  # of the value around its old value
    value_coef: float = 0.1  # weight of the value loss beside the policy loss
    value_trunk: Literal["own", "policy"] = "own"  # an adapter that starts as the reward model's, or a mere head
    dual_clip: float | None = 3.0  # bound on a bad token's loss, in units of |advantage|; None = none
    entropy_coef: float = 0.0  # weight of an entropy bonus
    importance: Literal["token", "geometric"] = "token"  # how completions of another policy are weighed
    importance_cap: float = 2.0  # bound of that weight (truncated importance sampling)
    ptx_coef: float = 0.0  # weight of the demonstrations' loss per token beside the policy loss per token
    ptx_batch: int = 16  # demonstrations per optimizer step
    ema_decay: float | None = None  # per optimizer step (InstructGPT: .992): the average is saved; None = the last
    max_kl_step: float = 0.05  # nats per token from the rollouts' policy; beyond, the iteration stops
    score_at: Literal["end", "after_end"] = "end"  # the last token's reward, or (TRL) of the position after it
    score_clip: float | None = None  # a score beyond this on either side is cut, before the unfinished pay
    uncertainty_coef: float = 0.0  # standard deviations over the reward heads that a score is lowered by
    missing_eos: Literal["replace", "subtract"] | None = None  # how the unfinished pay; None = as people judged them
    missing_eos_penalty: float = 1.0  # score units: 'replace' makes the score -1, 'subtract' takes 1 off
    whiten_rewards: bool = False  # to variance 1, mean as it was, over the tokens of an iteration
    whiten_advantages: bool = True  # to mean 0 and variance 1 over the rollouts of an iteration
    whitening: Literal["population", "bessel"] = "population"  # which variance: over n (OpenAI) or n - 1 (TRL)
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm
    collapse_kl: float = 100.0  # nats per completion from the reference; beyond, PPO stops and the round is refused
    collapse_entropy: float = 0.1  # share of the first iteration's entropy; below, likewise; 0 = never
    collapse_length: float = 0.1  # share of the first iteration's completion length; below, likewise; 0 = never
    checkpoint_every: int = 1  # iterations

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = (self.iterations, self.max_new_tokens, self.epochs, self.microbatch, self.minibatch)
        _require(min(counts) > 0 and self.checkpoint_every > 0, "counts and batch sizes must be at least 1")
        _require(self.rollouts_per_iteration > 0, "rollouts_per_iteration must be at least 1")
        _require(self.rollouts_per_iteration % self.minibatch == 0, "minibatch must divide rollouts_per_iteration")
        _require(self.minibatch % self.microbatch == 0, "microbatch must divide minibatch")
        _require(self.temperature > 0, "temperature must be positive: greedy completions cannot be weighed")
        _require(min(self.learning_rate, self.value_learning_rate) > 0, "learning rates must be positive")
        _require(self.kl_target is None or self.kl_target > 0, "kl_target must be positive, or None")
        _require(self.kl_coef >= 0 and self.kl_horizon > 0, "kl_coef must not be negative, kl_horizon positive")
        _require(0 < self.gamma <= 1 and 0 <= self.lam <= 1, "gamma must lie in (0, 1] and lam in [0, 1]")
        _require(
            0 < self.clip_range < 1 and self.value_clip > 0,
            "clip_range must lie in (0, 1), value_clip above 0",
        )
        _require(self.dual_clip is None or self.dual_clip > 1, "dual_clip must be above 1, or None")
        _require(0 < self.live_share < 1, "live_share must lie between 0 and 1")
        _require(self.max_staleness >= 0, "max_staleness must not be negative")
        _require(
            self.rollouts == "fresh" or self.temperature == 1,
            "rollouts: what people received is known with its log-probs at temperature 1; ppo.temperature must be 1",
        )
        _require(self.importance_cap >= 1, "importance_cap must be at least 1")
        _require(min(self.entropy_coef, self.ptx_coef) >= 0, "entropy_coef and ptx_coef must not be negative")
        _require(self.ptx_batch > 0, "ptx_batch must be at least 1")
        _require(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay must lie in (0, 1), or None")
        _require(self.score_clip is None or self.score_clip > 0, "score_clip must be positive, or None")
        _require(self.missing_eos_penalty >= 0, "missing_eos_penalty must not be negative")
        _require(self.uncertainty_coef >= 0, "uncertainty_coef must not be negative")
        _require(self.collapse_kl > 0, "collapse_kl must be positive")
        shares = (self.collapse_entropy, self.collapse_length)
        _require(0 <= min(shares) <= max(shares) < 1, "collapse_entropy and collapse_length must lie in [0, 1)")


@dataclass(frozen=True)
class GateConfig(Config):
    """What a candidate must show before anything is published."""

    prompts: int = 32  # held-out prompts on which candidate and stable policy are compared
    demonstrations: int = 64  # at most so many held-out ones measure the language-model loss, here and around SFT
    max_kl: float = 20.0  # nats per completion from the reference policy
    min_score_gain_ci: float = 0.0  # the lower bound of the paired score gain's interval must lie above this
    min_held_out_accuracy: float = 0.55  # of the reward model on rankings it never saw; a coin has 0.5
    max_log_loss_rise: float = 0.0  # nats per pair over the last reward model's, lower bound of the paired interval
    max_length_ratio: float = 2.0  # mean completion length, candidate over stable
    min_length_ratio: float = 0.1  # the same from below: a policy that says nothing is no better
    max_repetition: float = 0.5  # share of a completion's 4-grams that it has written before, mean
    max_repetition_rise: float = 0.1  # of that share, over the stable policy's
    max_lm_loss_rise: float = 0.2  # nats per token of held-out demonstrations over the stable policy's, lower bound
    confidence: float = 0.95  # of all intervals
    bootstrap_samples: int = 2_000  # resamples of the prompts, for the language-model loss

    def __post_init__(self) -> None:
        _require(
            self.prompts > 1 and self.bootstrap_samples > 0,
            "prompts: at least 2, bootstrap_samples: at least 1",
        )
        _require(self.demonstrations >= 0, "demonstrations must not be negative")
        _require(self.max_kl > 0, "max_kl must be positive")
        _require(0 <= self.min_held_out_accuracy <= 1, "min_held_out_accuracy must lie in [0, 1]")
        _require(0 <= self.min_length_ratio < self.max_length_ratio, "length ratios: 0 <= min < max")
        _require(0 < self.confidence < 1, "confidence must lie between 0 and 1")


@dataclass(frozen=True)
class WeightsConfig(Config):
    """What a judgement is worth to the reward model; see training/lessons/weights.py."""

    rater_cap: float = 0.01  # of a source, at most by one rater; twice an equal share is always allowed
    prior_agreement: float = 0.73  # of two raters on one question (Ouyang et al. 2022), until theirs is known
    prior_judgements: float = 10.0  # judgements that this assumption is worth
    recency_half_life_days: float | None = None  # older than the newest by this = half the weight; None = no matter
    source_weights: dict[str, float] = field(default_factory=dict)  # of live, operator, import; absent = 1

    def __post_init__(self) -> None:
        _require(0 < self.rater_cap <= 1, "rater_cap must lie in (0, 1]")
        _require(0.5 < self.prior_agreement < 1, "prior_agreement must lie between 0.5 and 1")
        _require(self.prior_judgements > 0, "prior_judgements must be positive")
        half_life = self.recency_half_life_days
        _require(half_life is None or half_life > 0, "recency_half_life_days must be positive, or None")
        _require(set(self.source_weights) <= set(SOURCES), f"source_weights: the sources are {', '.join(SOURCES)}")
        finite = all(0 <= weight < float("inf") for weight in self.source_weights.values())
        _require(finite, "source_weights must be finite and not negative")


@dataclass(frozen=True)
class RoundConfig(Config):
    """One round: SFT, reward model, PPO, gate, and what it takes to start it."""

    sft: SFTConfig = field(default_factory=SFTConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    min_demonstrations: int = 16  # new demonstrations below which the round leaves SFT out
    seed: int = defaults.SEED  # of everything drawn in the round

    def __post_init__(self) -> None:
        _require(self.min_demonstrations > 0, "min_demonstrations: at least 1")
        shapes = [(c.lora_rank, c.lora_alpha, c.lora_layers) for c in (self.sft, self.reward, self.ppo)]
        _require(len(set(shapes)) == 1, "all stages share one trunk: their lora fields must agree")
        _require(
            self.ppo.uncertainty_coef == 0 or self.reward.reward_heads > 1,
            "ppo.uncertainty_coef: one head never disagrees; reward.reward_heads must be at least 2",
        )


def shaped_by(stage: Stage, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What `RoundConfig.from_dict` takes, where only one stage matters: the others get its lora fields."""
    own = overrides.get(stage, {})
    shape = {name: own[name] for name in SHAPE if name in own}
    shaped: dict[str, Any] = {}
    for each in STAGES:
        kept = {name: value for name, value in {**overrides.get(each, {})}.items() if name not in SHAPE}
        shaped[each] = {**kept, **shape}
    return {**overrides, **shaped}
