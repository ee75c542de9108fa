"""One side of the PPO benchmark in a process of its own: `ppo_sides.py SPEC.json OUT.json`.

Nobody's completions end early: no token is a stop token, on either side. The first iteration is not counted, for all
that happens only once. Peak memory is the most that was ever resident, on a GPU the most that was allocated there.
"""

import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from ppo_floor import PHASES, Variant

from feedback.hardware import local_dtype
from training.config import PPOConfig
from training.model.samples import Sample
from training.model.trunk import Trunk
from training.offline.promptfile import read_prompts
from training.ppo.ppo import train_ppo
from training.ppo.rollout import Sampled, Sampler, observe
from training.round.stages import TextEncoder

PAD = "<|endoftext|>"  # other than the end of a turn, as TRL needs it
RANK, ALPHA = 16, 32
Prompts = Sequence[tuple[int, ...]]
Spec = dict[str, Any]


def prompts_of(spec: Spec) -> Prompts:
    """As many as all iterations need, from a file or at random, and the same on both sides."""
    wanted = spec["rollouts"] * (1 + spec["iterations"])
    if spec["prompts"]:
        encode = TextEncoder(Path(spec["model"])).prompt
        found = read_prompts(Path(spec["prompts"]), "auto", encode, max_tokens=spec["prompt_tokens"]).ids
        return [found[i % len(found)] for i in range(wanted)]
    chance = random.Random(spec["seed"])
    vocabulary = json.loads((Path(spec["model"]) / "config.json").read_text())["vocab_size"]
    return [tuple(chance.randrange(100, vocabulary) for _ in range(spec["prompt_tokens"])) for _ in range(wanted)]


def ours(side: Variant, spec: Spec, prompts: Prompts) -> list[dict[str, float]]:
    """Seconds by phase, of each iteration."""
    config = PPOConfig(
        iterations=1 + spec["iterations"], rollouts_per_iteration=spec["rollouts"], rollouts="live" if side.live else
        "fresh", max_new_tokens=spec["completion_tokens"], epochs=spec["epochs"], minibatch=spec["rollouts"],
        microbatch=spec["microbatch"], learning_rate=1e-5, value_learning_rate=1e-5, lora_rank=RANK, lora_alpha=ALPHA,
        lora_layers=side.upper, collapse_kl=1e9, collapse_entropy=0.0, checkpoint_every=1_000_000,
        **sampling(spec["sampler"]),
    )  # fmt: skip
    trunk = Trunk.load(spec["model"], config, seed=spec["seed"])
    live = _received(trunk, prompts, config) if side.live else ()
    moments: list[float] = []

    def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if metrics or not moments:
            moments.append(time.perf_counter())

    where = {"prompts": prompts, "eos_ids": frozenset(), "base": Path(spec["model"])}
    with tempfile.TemporaryDirectory() as directory, sampler_of(spec["sampler"], trunk, config, **where) as sampler:
        report = train_ppo(
            config, trunk, prompts, eos_ids=frozenset(), checkpoint_dir=Path(directory), live=live, sampler=sampler,
            progress=progress, seed=spec["seed"],
        )  # fmt: skip
    took = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    phases = [{name: each.get(f"seconds/{name}", 0.0) for name in PHASES} for each in report.timings]
    return [{**by_phase, "all": seconds} for by_phase, seconds in zip(phases, took, strict=True)]


def _received(trunk: Trunk, prompts: Prompts, config: PPOConfig) -> list[Sampled]:
    """Completions that the policy as it is could have written, however unlikely, with its own log-probs."""
    chance, vocabulary = random.Random(1), trunk.model.config.vocab_size
    live = []
    for prompt in prompts:
        sample = Sample(prompt, tuple(chance.randrange(100, vocabulary) for _ in range(config.max_new_tokens)))
        rollout = observe(trunk, [Sampled(sample)], eos_ids=frozenset(), temperature=1.0, ref=None)
        live.append(Sampled(sample, tuple(rollout.log_probs[0].tolist())))
    return live


def sampling(name: str) -> dict[str, str]:
    """Who writes, as PPOConfig takes it."""
    return {"sampler": name} if any(field.name == "sampler" for field in fields(PPOConfig)) else {}


def sampler_of(
    name: str, trunk: Trunk, config: PPOConfig, *, prompts: Prompts, eos_ids: frozenset[int], base: Path
) -> AbstractContextManager[Sampler | None]:
    """None stands for the trainer itself."""
    if name == "trainer" or config.rollouts == "live":
        return nullcontext()
    from training.ppo.samplers import chosen_sampler

    return chosen_sampler(config, trunk, prompts, eos_ids=eos_ids, base_directory=base)


def trl(side: Variant, spec: Spec, prompts: Prompts) -> list[dict[str, float]]:
    """The same of TRL's PPOTrainer, from the folder that the spec names; its phases by what it calls."""
    sys.path.insert(0, spec["trl"])
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental import ppo as peer
    from trl.experimental.ppo import ppo_trainer as inside

    pure = getattr(torch, local_dtype()) if spec["pure"] else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], pad_token=PAD, padding_side="left")
    classifier = {"num_labels": 1, "dtype": pure, "pad_token_id": tokenizer.pad_token_id}
    clock, iterations = defaultdict(float), list[dict[str, float]]()

    class EachIteration(TrainerCallback):
        def on_step_end(self, *about: Any, **more: Any) -> None:
            now = time.perf_counter()
            whole, seen = now - clock["begun"], clock["observed"] - clock["begun"] - clock["generate"]
            update = whole - seen - clock["generate"]
            iterations.append({"generate": clock["generate"], "observe": seen, "update": update, "all": whole})
            clock.update(generate=0.0, begun=now)

    generation, whitening = inside.batch_generation, inside.masked_whiten

    def generate(*given: Any, **more: Any) -> Any:
        started = time.perf_counter()
        try:
            return generation(*given, **more)
        finally:
            clock["generate"] += time.perf_counter() - started

    def whiten(*given: Any, **more: Any) -> Any:  # the last thing before its updates
        found = whitening(*given, **more)
        clock["observed"] = time.perf_counter()
        return found

    inside.batch_generation, inside.masked_whiten = generate, whiten
    with tempfile.TemporaryDirectory() as directory:
        arguments = peer.PPOConfig(
            output_dir=directory, per_device_train_batch_size=spec["microbatch"],
            gradient_accumulation_steps=spec["rollouts"] // spec["microbatch"], num_mini_batches=1,
            num_ppo_epochs=spec["epochs"], total_episodes=len(prompts), response_length=spec["completion_tokens"],
            temperature=1.0, kl_coef=0.1, local_rollout_forward_batch_size=spec["rollouts"], learning_rate=1e-5,
            num_sample_generations=0, gradient_checkpointing=side.checkpointing, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, seed=spec["seed"], use_cpu=not torch.cuda.is_available(),
            bf16=not spec["pure"] and local_dtype() == "bfloat16",
        )  # fmt: skip
        policy = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=pure)
        reward, value = (
            AutoModelForSequenceClassification.from_pretrained(spec["model"], **classifier) for _ in range(2)
        )
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = peer.PPOTrainer(
            args=arguments, processing_class=tokenizer, model=policy, ref_model=None, reward_model=reward,
            value_model=value, train_dataset=Dataset.from_dict({"input_ids": list(map(list, prompts))}),
            peft_config=None if side.full else lora, callbacks=[EachIteration()],
        )  # fmt: skip
        clock["begun"] = time.perf_counter()
        trainer.train()
    return iterations


def matmul_rate(device: str, size: int, repeats: int = 10) -> float:
    """Floating-point operations a second of a square product in this machine's own dtype: the best of several."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, local_dtype()))
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return 2 * size**3 / min(took)


def peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    if spec["side"] is None:
        # A product too small would measure how fast a GPU is asked; on a CPU, one of that size would last.
        gpu = torch.cuda.is_available()
        rate = matmul_rate("cuda", 8192) if gpu else matmul_rate("cpu", 2048)
        device = torch.cuda.get_device_name() if gpu else "CPU"
        found: Any = {"rate": rate, "dtype": local_dtype(), "device": device}
    else:
        side, prompts = Variant(**spec["side"]), prompts_of(spec)
        iterations = (trl if side.peer else ours)(side, spec, prompts)
        mean = sum(map(len, prompts)) / len(prompts)
        found = {"iterations": iterations[1:], "peak": peak_bytes(), "prompt": mean, "dtype": local_dtype()}
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
