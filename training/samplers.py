"""Who writes PPO's completions: vLLM where it is worth its start, else the trainer."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from training.config import PPOConfig
from training.models import Trunk
from training.rollout import Sampler, own_sampler
from training.vllm_sampler import VLLMSampler

log = logging.getLogger(__name__)

# Weights times tokens. On two cores the trainer did 1.1e10 a second and vLLM 3.8e10, after 20 s of starting.
WORTH_AN_ENGINE = 3e11


@contextmanager
def chosen_sampler(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    base_directory: Path,
) -> Iterator[Sampler]:
    """The sampler that `config.sampler` asks for; what it holds in memory is gone afterwards.

    "auto" depends on the work in all iterations, not on what is left of it: a resumed run chooses as it did before.
    """
    engine = None
    if config.sampler == "vllm" or (config.sampler == "auto" and _worth_an_engine(config, trunk)):
        engine = _engine(config, trunk, prompts, eos_ids, base_directory)
    if engine is None:
        yield own_sampler(trunk, config, eos_ids)
    else:
        with engine:
            yield engine


def _worth_an_engine(config: PPOConfig, trunk: Trunk) -> bool:
    tokens = config.iterations * config.rollouts_per_iteration * config.max_new_tokens
    if trunk.model.num_parameters() * tokens < WORTH_AN_ENGINE:
        return False
    if find_spec("vllm") is None:
        log.warning("vLLM is not installed: the trainer samples by itself, some three times slower")
        return False
    return not torch.distributed.is_initialized()  # both would want the process group


def _engine(
    config: PPOConfig, trunk: Trunk, prompts: Sequence[Sequence[int]], eos_ids: frozenset[int], base_directory: Path
) -> VLLMSampler | None:
    longest = max(map(len, prompts))
    try:
        return VLLMSampler(trunk, config, eos_ids, base_directory=base_directory, longest_prompt=longest)
    except Exception as error:  # whatever vLLM dislikes about the machine or the model
        if config.sampler == "vllm":
            raise
        log.warning("the trainer samples by itself, since vLLM does not start: %s", error)
        return None
