"""Completions from vLLM in the training process. The only file that imports it, and not before an engine starts."""

import os
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feedback.hardware import has_gpu
from training.config import PPOConfig
from training.model.roles import Role
from training.model.samples import Sample, collate
from training.model.trunk import Trunk
from training.ppo.pushed import PushFailed, Reading, require_pushed
from training.ppo.rollout import Sampled

KV_CACHE_BYTES = 2**30
AT_ONCE = 64  # prompts; then it says that it is alive
PROBES = 4  # sequences that each push is proven by
PROBE_TOKENS = 32  # of prompt and of completion each, at most
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, so that tensors reach it as they are
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as the trainer: those it would pin serve people too
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


class VLLMSampler:
    """A `Sampler` on an engine of its own, which gets the policy's weights whenever they have changed.

    The same weights, prompts and seed give the same completions on the same machine, in whichever process: every
    request has a seed of its own, a batch is made up of the same requests, and no key or value outlives a call.
    """

    def __init__(self, trunk: Trunk, config: PPOConfig, eos_ids: frozenset[int], engine: Any) -> None:
        """`engine` is what `started` gives, with the base model in it."""
        self._trunk, self._config, self._eos_ids, self._engine = trunk, config, eos_ids, engine
        self._probe: list[Sample] = []
        self._pushed: dict[str, Tensor] = {}
        self._digest = self._proven = 0  # of the merged weights sent last, and of those that arrived last

    def __call__(self, prompts: Sequence[Sequence[int]], *, seed: int, alive: Callable[[], None]) -> list[Sampled]:
        if not self._probe:
            self._choose_probe(prompts)
        self._push()
        sampled: list[Sampled] = []
        for start in range(0, len(prompts), AT_ONCE):
            sampled += self._sample(prompts[start : start + AT_ONCE], (seed, start), self._config.temperature)
            alive()
        return sampled

    def _choose_probe(self, prompts: Sequence[Sequence[int]]) -> None:
        """What the base model, which the engine was started with, says after the ends of the first prompts."""
        sampled = self._sample([prompt[-PROBE_TOKENS:] for prompt in prompts[:PROBES]], ("probe",), 1.0)
        self._probe = [Sample(s.sample.prompt_ids, s.sample.completion_ids[:PROBE_TOKENS]) for s in sampled]
        self._base = self._last = self._read(None)

    def _push(self) -> None:
        """Give the engine the policy unless it has it; raises PushFailed when it computes with something else."""
        state = self._trunk.state("policy")
        if self._pushed and all(tensor.equal(self._pushed[name]) for name, tensor in state.items()):
            return
        self._load(self._merged())
        self._forget_states()
        new = self._read("policy")
        require_pushed(new, self._base, self._last, changed=bool(self._pushed) and self._digest != self._proven)
        self._pushed, self._last, self._proven = state, new, self._digest

    def _merged(self) -> Iterator[tuple[str, Tensor]]:
        """What the policy has of its own, in the dtype that the trainer computes in; leaves its digest behind.

        Whole layers, since the engine lays some matrices together. All else it has from the base.
        """
        self._digest = 0
        for name, tensor in self._trunk.merged("policy", self._trunk.model.dtype, self._trunk.adapts):
            self._digest = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, self._digest)
            yield name, tensor

    def _load(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})

    def _forget_states(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise PushFailed("the engine keeps keys and values that other weights have computed")

    def _read(self, role: Role | None) -> Reading:
        """The probe's log-probs at temperature 1, by the engine as it is and by the trainer as `role`."""
        return Reading(torch.tensor(self._scores(self._probe)), _own_log_probs(self._trunk, self._probe, role))

    def _scores(self, samples: Sequence[Sample]) -> list[float]:
        """The engine's log-probs of all completion tokens, one sample after another."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        asked = [{"prompt_token_ids": list(s.prompt_ids + s.completion_ids)} for s in samples]
        found = self._engine.generate(asked, params, use_tqdm=False)
        return [
            output.prompt_logprobs[place][token].logprob
            for output, sample in zip(found, samples, strict=True)
            for place, token in enumerate(sample.completion_ids, start=len(sample.prompt_ids))
        ]

    def _sample(
        self, prompts: Sequence[Sequence[int]], seed: tuple[int | str, ...], temperature: float
    ) -> list[Sampled]:
        from vllm import SamplingParams

        self._forget_states()
        params = [
            SamplingParams(
                max_tokens=self._config.max_new_tokens,
                temperature=temperature,
                stop_token_ids=sorted(self._eos_ids),
                ignore_eos=True,  # of the model's own idea of it
                seed=random.Random(repr((*seed, place))).getrandbits(62),
                logprobs=0,
                detokenize=False,
            )
            for place in range(len(prompts))
        ]
        found = self._engine.generate([{"prompt_token_ids": list(p)} for p in prompts], params, use_tqdm=False)
        return [_sampled(prompt, output.outputs[0]) for prompt, output in zip(prompts, found, strict=True)]


def _sampled(prompt: Sequence[int], written: Any) -> Sampled:
    ids = tuple(written.token_ids)
    log_probs = tuple(known[token].logprob for known, token in zip(written.logprobs, ids, strict=True))
    return Sampled(Sample(tuple(prompt), ids), log_probs)


@torch.no_grad()
def _own_log_probs(trunk: Trunk, samples: Sequence[Sample], role: Role | None) -> Tensor:
    batch = collate(samples, trunk.pad_id, trunk.device)
    log_probs, _ = trunk.log_probs(trunk.lower(batch.input_ids, batch.attention_mask), batch, role)
    return log_probs[batch.completion_mask].cpu()


@contextmanager
def started(directory: Path, dtype: torch.dtype, max_tokens: int) -> Iterator[Any]:
    """An engine with the model in `directory`, for sequences of up to `max_tokens`. Its memory is given back."""
    engine = _start(directory, dtype, max_tokens)
    try:
        yield engine
    finally:
        from vllm.distributed import cleanup_dist_env_and_memory

        engine.llm_engine.engine_core.shutdown()
        del engine
        cleanup_dist_env_and_memory()


def _start(directory: Path, dtype: torch.dtype, max_tokens: int) -> Any:
    with _kept():
        from vllm import LLM

        return LLM(
            str(directory),
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=max_tokens + 1,  # a probe is answered with one more
            kv_cache_memory_bytes=KV_CACHE_BYTES,
            gpu_memory_utilization=0.3,  # of which it takes the weights and the cache; the trainer is there as well
            enforce_eager=not has_gpu(),  # compiling takes a minute on a CPU, which is longer than most rounds sample
            logprobs_mode="processed_logprobs",  # at the temperature sampled at
            generation_config="vllm",  # no top-k or top-p that the model's own would ask for
            skip_tokenizer_init=True,
            distributed_executor_backend="uni",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=0,
        )


@contextmanager
def _kept() -> Iterator[None]:
    """What vLLM changes in its process is put back: on a CPU it makes torch.set_num_threads a function of nothing."""
    environment, set_threads, threads = dict(os.environ), torch.set_num_threads, torch.get_num_threads()
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
