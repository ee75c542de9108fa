"""`python -m training.finetune sft|ppo`: policies outside of rounds. What `ratchet sft` and `ratchet ppo` start."""

import argparse
import sys
from pathlib import Path

from training.config import SHAPE, RoundConfig
from training.offline import command
from training.offline import policy as offline_policy
from training.offline.command import Here, Lines, configured, resumable, told
from training.offline.demonstrations import Demonstrations, demonstrations_of_file, demonstrations_of_ledger
from training.offline.policy import Practice, policy_in
from training.offline.progress_line import ProgressLine
from training.offline.reward_models import RewardModel
from training.round.torch_stages import prepare


def sft(arguments: argparse.Namespace) -> int:
    """Fine-tune the base model on demonstrations; the same again goes on where it was stopped."""
    here = Here(arguments.base)
    given = {name: getattr(arguments, name) for name in ("epochs", "learning_rate")}
    config = configured("sft", given, here.overrides(arguments), arguments.seed)
    base = here.base() if arguments.file else here.base_of_ledger()
    prepare(config.seed, beside_engine=here.serves())
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        data = demonstrations(arguments, here, base, config, lines)
        with resumable(progress, arguments.out):
            report = offline_policy.sft_on(
                data,
                config=config,
                source=command.source(arguments),
                base=base,
                out=arguments.out,
                merged=arguments.merged,
                processes=here.settings.training_processes,
                progress=progress,
            )
    return told(arguments.out, lines, report)


def demonstrations(
    arguments: argparse.Namespace, here: Here, base: Path, config: RoundConfig, lines: Lines
) -> Demonstrations:
    """Of the file; or of the ledger, as it was when the run was begun."""
    if arguments.file:
        return demonstrations_of_file(
            arguments.file, arguments.format, base=base, on_lines=lines, strict=arguments.strict
        )
    lines.progress.show("reading the ledger")
    watermark = here.watermark(arguments.out)
    return demonstrations_of_ledger(here.settings, here.redis(), base=base, config=config, watermark=watermark)


def ppo(arguments: argparse.Namespace) -> int:
    """Improve a policy against a reward model; the same again goes on where it was stopped."""
    here = Here(arguments.base)
    model = here.model(arguments.reward)
    config = opposed(arguments, here, model)
    policy = policy_in(arguments.policy, None if arguments.base else model.base) if arguments.policy else None
    prepare(config.seed, beside_engine=here.serves())
    with ProgressLine() as progress:
        lines = Lines(arguments.file, progress)
        data = practice(arguments, here, model, config, lines)
        with resumable(progress, arguments.out):
            report = offline_policy.ppo_on(
                data,
                model=model,
                policy=policy,
                config=config,
                source=command.source(arguments),
                out=arguments.out,
                merged=arguments.merged,
                processes=here.settings.training_processes,
                progress=progress,
            )
    return told(arguments.out, lines, report)


def opposed(arguments: argparse.Namespace, here: Here, model: RewardModel) -> RoundConfig:
    """Of the policy; its adapter has the reward model's form, since they stand on one trunk.

    Raises ValueError where the config file wants another: it would be passed over.
    """
    overrides = {**here.overrides(arguments), "reward": model.config.to_dict()}
    _require_shape(overrides.get("ppo"), model)
    given = {name: getattr(arguments, name) for name in ("iterations", "kl_coef", "learning_rate", "max_new_tokens")}
    return configured("ppo", given, overrides, arguments.seed, shape="reward")


def _require_shape(ppo: object, model: RewardModel) -> None:
    asked = ppo if isinstance(ppo, dict) else {}  # which is complained of elsewhere
    others = [name for name in SHAPE if name in asked and asked[name] != getattr(model.config, name)]
    if others:
        wanted, found = (", ".join(f"{name} {of[name]}" for name in others) for of in (asked, vars(model.config)))
        raise ValueError(f"config: ppo has {wanted}, but the reward model {found}, and both stand on one trunk")


def practice(
    arguments: argparse.Namespace, here: Here, model: RewardModel, config: RoundConfig, lines: Lines
) -> Practice:
    """The prompts of the file; or of the ledger, and if the run was begun already those that it was begun with."""
    if arguments.file:
        return offline_policy.prompts_of_file(
            arguments.file, arguments.format, base=model.base, config=config, on_lines=lines, strict=arguments.strict
        )
    if here.base_of_ledger().resolve() != model.base.resolve():
        raise ValueError(f"{model.name} reads tokens of {model.base}, not of the ledger's: give --prompts FILE")
    if (kept := offline_policy.prompts_kept(arguments.out)) is not None:
        offline_policy.require_unerased(kept, here.redis(), arguments.out)
        return kept
    lines.progress.show("reading the ledger")
    watermark = here.watermark(arguments.out)
    return offline_policy.prompts_of_ledger(
        here.settings, here.redis(), base=model.base, config=config, watermark=watermark
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = command.parser("training.finetune", __doc__)
    commands = root.add_subparsers(dest="command", required=True)
    tune, improve = (commands.add_parser(name, help=each.__doc__) for name, each in COMMANDS.items())
    command.reads_file(tune, "--from", "demonstrations")
    command.reads_file(improve, "--prompts", "prompts")
    for each in (tune, improve):
        command.trains(each)
        each.add_argument("--base", type=Path, help="directory of the base model")
        each.add_argument("--merged", action="store_true")
    tune.add_argument("--epochs", type=int)
    improve.add_argument("--reward", required=True, help="a directory, or a version")
    improve.add_argument("--policy", type=Path, help="a directory")
    improve.add_argument("--iterations", type=int)
    improve.add_argument("--kl-coef", type=float)
    improve.add_argument("--max-new-tokens", type=int)
    return root


COMMANDS = {"sft": sft, "ppo": ppo}


def main() -> int:
    return command.run(parser(), COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
