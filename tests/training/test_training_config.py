import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from training.config import GateConfig, PPOConfig, RewardConfig, RoundConfig, SFTConfig


def test_a_config_survives_json() -> None:
    config = RoundConfig(
        ppo=PPOConfig(kl_target=6.0, lora_layers=None, uncertainty_coef=0.5),
        sft=SFTConfig(lora_layers=None),
        reward=RewardConfig(lora_layers=None, reward_heads=4),
        gate=GateConfig(prompts=8),
    )
    assert RoundConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_fields_keep_their_defaults() -> None:
    assert RoundConfig.from_dict({}) == RoundConfig()
    assert RoundConfig.from_dict({"ppo": {"iterations": 2}}).ppo == PPOConfig(iterations=2)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"min_ranking": 3}, "min_ranking"),
        ({"ppo": {"clip": 0.1}}, "ppo.clip"),
        ({"ppo": {"iterations": "8"}}, "ppo.iterations"),
        ({"ppo": {"kl_estimator": "k4"}}, "ppo.kl_estimator"),
        ({"ppo": {"microbatch": 5}}, "microbatch must divide minibatch"),
        ({"ppo": {"minibatch": 48}}, "minibatch must divide rollouts_per_iteration"),
        ({"ppo": {"temperature": 0.0}}, "temperature must be positive"),
        ({"ppo": {"missing_eos_penalty": -1.0}}, "missing_eos_penalty"),
        ({"ppo": {"kl_in": "both"}}, "ppo.kl_in"),
        ({"ppo": {"ptx_coef": -0.1}}, "ptx_coef"),
        ({"ppo": {"ptx_batch": 0}}, "ptx_batch"),
        ({"ppo": {"ema_decay": 1.0}}, "ema_decay"),
        ({"ppo": {"score_clip": 0.0}}, "score_clip"),
        ({"ppo": {"uncertainty_coef": -0.1}}, "uncertainty_coef"),
        ({"ppo": {"uncertainty_coef": 0.1}}, "reward.reward_heads must be at least 2"),
        ({"reward": {"held_out_fraction": 1.0}}, "held_out_fraction"),
        ({"reward": {"held_out_fraction": -0.1}}, "held_out_fraction"),
        ({"reward": {"margin": -0.1}}, "margin"),
        ({"reward": {"warmup": 1.0}}, r"warmup must lie in \[0, 1\)"),
        ({"reward": {"warmup": -0.1}}, "warmup"),
        ({"reward": {"reward_heads": 0}}, "reward_heads"),
        ({"reward": {"likelihood": "pair"}}, "reward.likelihood"),
        ({"reward": {"likelihood": "plackett_luce", "ties": "rao_kupper"}}, "defined for pairs only"),
        ({"gate": {"min_length_ratio": 3.0}}, "length ratios"),
        ({"gate": {"demonstrations": -1}}, "demonstrations must not be negative"),
        ({"sft": {"replay": -0.5}}, "replay must be finite"),
        ({"sft": {"token_budget": 0}}, "token_budget"),
        ({"ppo": {"lora_rank": 8}}, "lora fields must agree"),
    ],
)
def test_a_wrong_config_names_its_field(data: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RoundConfig.from_dict(data)


def test_configs_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RoundConfig().seed = 1  # type: ignore[misc]


def test_configs_cost_no_torch() -> None:
    code = "import sys, training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
