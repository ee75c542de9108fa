"""What a stage goes on from, and what it leaves to the next: adapters by their roles, and checkpoints."""

import shutil
from pathlib import Path

import torch

from training.checkpoints import atomic_directory, latest_checkpoint
from training.config import RoundConfig
from training.model.roles import Role
from training.model.trunk import Trunk
from training.round.stages import Job, StageFailed
from training.round.version import POLICY, REF, REWARD
from training.workspace import CHECKPOINTS


def load_trunk(job: Job, *roles: Role) -> Trunk:
    """The base model with the adapters that `roles` start from; a role without one is the base itself."""
    dtype = getattr(torch, job.registry.manifest(0).dtype)
    trunk = bare_trunk(job.base_directory, job.config, dtype)
    for role in roles:
        if (saved := adapter_of(job, role)) is not None:
            try:
                trunk.load_adapter(role, saved)
            except ValueError as error:
                raise StageFailed(f"{saved}: {error}; were the lora fields of the config changed?") from error
    return trunk


def bare_trunk(base: Path, config: RoundConfig, base_dtype: torch.dtype | None = None) -> Trunk:
    """The base model with untrained adapters and heads."""
    heads, full = config.reward.reward_heads, config.reward.trains == "full"
    return Trunk.load(base, config.ppo, base_dtype=base_dtype, reward_heads=heads, full_reward=full, seed=config.seed)


def adapter_of(job: Job, role: Role) -> Path | None:
    """Where a role's adapter comes from: this round if it has made one, else the stable version; None = the base."""
    origin = job.data.reward_origin if role == "reward" else None
    parent = job.registry.directory(job.data.parent if origin is None else origin)
    made = {"policy": ("sft", POLICY), "ref": ("sft", POLICY), "reward": ("reward", REWARD)}
    inherited = {"policy": POLICY, "stable": POLICY, "ref": REF, "reward": REWARD}
    if role in made:
        stage, name = made[role]
        outcome = job.workspace.outcome(stage)
        if outcome is not None and (job.workspace.output(stage) / name).exists():
            return job.workspace.output(stage) / name
    directory = parent / inherited[role]
    return directory if directory.exists() else None


def if_adapted(job: Job, role: Role) -> Role | None:
    return role if adapter_of(job, role) is not None else None


def checkpoints(job: Job) -> Path:
    """This token's checkpoint directory, beginning with a copy of the furthest checkpoint of the tokens before it.

    A copy, because their writer may still be alive without knowing that it has lost the round.
    """
    own = job.directory / CHECKPOINTS
    older = [p for p in job.workspace.attempts(job.stage) if int(p.name) < job.token]
    found = [path for directory in older if (path := latest_checkpoint(directory / CHECKPOINTS)) is not None]
    if found and latest_checkpoint(own) is None:
        furthest = max(found, key=lambda path: path.name)
        with atomic_directory(own / furthest.name) as copy:
            shutil.copytree(furthest, copy, dirs_exist_ok=True)
    return own


def save_adapter(job: Job, trunk: Trunk, role: Role, name: str) -> None:
    with atomic_directory(job.directory / name) as directory:
        trunk.save_adapter(role, directory)
