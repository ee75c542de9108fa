"""How the supervised vLLM server is started on this machine."""

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from redis.exceptions import RedisError

from feedback.hardware import Dtype, available_gib
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import BASE, PolicyRegistry, UnknownPolicy
from feedback.settings import Settings
from feedback.store import connect
from serving.machine.children import ChildSpec, Command, NotYet
from serving.machine.probes import answers

ENTRY = "vllm.entrypoints.launchers.api_server.entry"  # the `vllm` script looks for a distribution of that name
GUARD = "serving.engine.guard.RequireKey"
FEW_CORES = 4
CACHE_GIB = 2
# A second engine with that cache takes 4 GiB for a small model; below this it gets half of the cache.
ROOMY_GIB = 6.0
# vLLM warns a lot about the machine, marks every line of a traceback, and calls it an error when a request is wrong:
# those stay in the log, or anybody could fill the operator's terminal.
ABOUT_REQUESTS = r"\[(?:serving|validation|exception|\w+_tool_parser)\.py:\d+\]"
SHOWN = re.compile(rf"\b(ERROR|CRITICAL|FATAL)\b(?!.*(\] (?: |Traceback)|{ABOUT_REQUESTS}))")


def engine_spec(settings: Settings, *, gpu: bool) -> ChildSpec:
    """The vLLM server with the policy that serves, whichever that is when the server starts."""
    return _spec(
        "engine",
        lambda: engine_command(settings, *stable_model(settings), gpu=gpu),
        settings.resolved_engine_url(),
        "Use an engine that runs elsewhere with --engine-url, or less memory with RATCHET_MAX_MODEL_LEN=1024.",
    )


def candidate_spec(settings: Settings, *, gpu: bool) -> ChildSpec:
    """A second vLLM server. It starts with what serves, as no candidate is fit to be started before it is proven: the
    swap that proves one refuses weights that nobody can read, where a server would end of them, again and again."""

    def command() -> Command:
        cache_gib = CACHE_GIB if available_gib() > ROOMY_GIB else CACHE_GIB // 2
        model = stable_model(settings)
        return engine_command(settings, *model, gpu=gpu, port=settings.candidate_port, cache_gib=cache_gib)

    return _spec(
        "candidate",
        command,
        settings.resolved_candidate_url(),
        "Use an engine that runs elsewhere with RATCHET_CANDIDATE_URL.",
    )


def _spec(name: str, command: Callable[[], Command], url: str, hint: str) -> ChildSpec:
    return ChildSpec(
        name=name,
        command=command,
        ready=lambda: answers(f"{url}/health"),
        ready_timeout_s=600.0,
        hint=hint,
        stop_phase=1,
        grace_s=3.0,
        shown=SHOWN,
        unresponsive_s=60.0,
    )


def engine_command(
    settings: Settings, model_path: Path, dtype: Dtype, *, gpu: bool, port: int | None = None,
    cache_gib: int = CACHE_GIB,
) -> Command:  # fmt: skip
    """argv and environment; the key goes through the environment, where other users cannot read it."""
    argv = [sys.executable, "-m", ENTRY, "--model", str(model_path), "--served-model-name", "policy"]
    argv += ["--max-model-len", str(settings.max_model_len), "--dtype", dtype, "--middleware", GUARD]
    # Without a parser vLLM refuses `tools` unless the call is forced.
    argv += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    env = {
        "VLLM_API_KEY": settings.resolved_engine_key(),
        "VLLM_SERVER_DEV_MODE": "1",  # opens pause, resume, collective_rpc and reset_prefix_cache
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if gpu:
        # The old policy and the new one answer at the same time, and a third may still be draining.
        argv += ["--enable-lora", "--max-loras", "4", "--max-cpu-loras", "8"]
        # Rounds train on the same card, and a candidate of whole weights has an engine of its own there.
        argv += ["--gpu-memory-utilization", "0.5" if settings.engine_mode == "adapter" else "0.25"]
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    else:
        argv += ["--enforce-eager"]
        env["VLLM_CPU_KVCACHE_SPACE"] = str(cache_gib)
        more_argv, more_env = few_cores(len(os.sched_getaffinity(0)))
        argv += more_argv
        env |= more_env
    where = ("--host", "127.0.0.1", "--port", str(port or settings.engine_port))
    return Command((*argv, *shlex.split(settings.engine_args), *where), env)


def stable_model(settings: Settings) -> tuple[Path, Dtype]:
    """Directory and dtype of the stable policy, or of the base that adapters are put on.

    Raises NotYet while the registry cannot tell.
    """
    redis = connect(settings.resolved_redis_url())
    try:
        registry = PolicyRegistry(redis, settings.policies_dir)
        version = BASE if settings.engine_mode == "adapter" else registry.stable()
        if version is None:
            raise NotYet("no policy is published")
        manifest = registry.manifest(version)
        return registry.directory(version) / manifest.model_path, manifest.dtype
    except (RedisError, UnknownPolicy, BrokenPolicy, OSError) as error:
        raise NotYet(str(error)) from error
    finally:
        redis.close()


def few_cores(cpus: int) -> tuple[list[str], dict[str, str]]:
    """argv and environment that give vLLM all of a few cores, where it would keep one for itself.

    Its worker runs inside the engine core: apart, the core spins on a processor while it waits for the worker. Nor do
    threads spin while they wait for each other: on a core that another process needs, a second engine or training, each
    would wait out the time slices of the other's (6 tokens a second by two engines together where 130 were possible).
    """
    if cpus > FEW_CORES:
        return [], {}
    argv = ["--distributed-executor-backend", "uni"]
    # vLLM takes `uni` on a CPU only with the first; the second leaves the threads to the third.
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cpus)}
    return argv, {**env, "OMP_WAIT_POLICY": "PASSIVE"}
