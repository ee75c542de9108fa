"""Who writes PPO's completions: vLLM where it is worth its start, else the trainer."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from training.config import PPOConfig
from training.model.trunk import Trunk
from training.ppo.rollout import Sampler, own_sampler
from training.ppo.vllm_needed import needs_vllm, vllm_missing
from training.ppo.vllm_sampler import VLLMSampler, started

log = logging.getLogger("training.samplers")

# Weights times tokens. With a busy core of two the trainer did 1.3e10 a second and vLLM 2.4e10, after 12 s of starting
# and with 1.8 s for each push; with AMX, quiet, 3.8e10 and 4.8e10, 7 s and 0.5 s (tests/bench/sampling.py). A second
# engine beside the one that serves also takes 2 GB, so what it saves must be more than seconds.
WORTH_AN_ENGINE = 2e12


@contextmanager
def chosen_sampler(
    config: PPOConfig,
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: frozenset[int],
    base_directory: Path,
    processes: int = 1,
) -> Iterator[Sampler | None]:
    """The sampler that `config.sampler` asks for; what it holds in memory is given back when the block ends.

    None where several processes train: each of them samples its own share, as `train_ppo` does by itself. Raises
    ValueError where vLLM is insisted on and cannot be had.
    """
    if (reason := vllm_missing(config, processes)) is not None:
        raise ValueError(reason)
    wanted = wants_engine(config, trunk.model.num_parameters())
    if processes > 1:
        if wanted:
            log.warning("vLLM would save time, but several processes train: each samples its share by itself")
        yield None
        return
    with ExitStack() as held:
        engine = None
        if wanted:
            max_tokens = max(map(len, prompts), default=1) + config.max_new_tokens
            engine = _engine(held, base_directory, trunk.model.dtype, max_tokens, config.sampler == "vllm")
        if engine is None:
            yield own_sampler(trunk, config, eos_ids)
        else:
            yield VLLMSampler(trunk, config, eos_ids, engine)


def wants_engine(config: PPOConfig, parameters: int) -> bool:
    """Whether to start vLLM for a model of so many parameters.

    "auto" looks at the work of all iterations, not at what is left of it: a resumed run chooses as it did before.
    """
    fresh = {"fresh": 1.0, "mix": 1 - config.live_share, "live": 0.0}[config.rollouts]
    if config.sampler != "auto" or fresh == 0:
        return needs_vllm(config)
    tokens = fresh * config.iterations * config.rollouts_per_iteration * config.max_new_tokens
    if parameters * tokens < WORTH_AN_ENGINE or torch.distributed.is_initialized():  # of which a process has one
        return False
    if find_spec("vllm") is None:
        log.warning("vLLM is not installed: the trainer samples by itself, more slowly")
        return False
    return True


def _engine(held: ExitStack, directory: Path, dtype: torch.dtype, max_tokens: int, required: bool) -> Any:
    try:
        return held.enter_context(started(directory, dtype, max_tokens))
    except Exception as error:  # whatever vLLM dislikes about the machine or the model
        if required:
            raise
        log.warning("the trainer samples by itself, since vLLM does not start: %s", error)
        return None
