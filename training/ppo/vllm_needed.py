"""Whether PPO can have the vLLM that its config insists on: asked before anything is trained, hence free of torch."""

from importlib.util import find_spec

from training.config import PPOConfig


def needs_vllm(config: PPOConfig) -> bool:
    """Whether nobody else may write the fresh completions, and there are such."""
    return config.sampler == "vllm" and config.rollouts != "live"


def vllm_missing(config: PPOConfig, processes: int = 1) -> str | None:
    """Why there is none, in one line; None where there is, or none is needed. `processes` are those that train."""
    if not needs_vllm(config):
        return None
    if processes > 1:
        return (
            f'ppo.sampler is "vllm", but of {processes} processes that train each samples its own share: '
            'set RATCHET_TRAINING_PROCESSES=1, or ppo.sampler to "auto"'
        )
    if find_spec("vllm") is None:
        return 'ppo.sampler is "vllm", which is not installed: install it, or set ppo.sampler to "auto"'
    return None
